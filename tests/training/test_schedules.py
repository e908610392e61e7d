"""A schedule that is entered at a step has the rates of one that was stepped there."""

from functools import partial

import pytest
import torch
from torch.optim.lr_scheduler import MultiStepLR

from sapnet.training.schedules import advance_to, halving, one_cycle

SCHEDULES = {
    "one_cycle": partial(one_cycle, steps=[9]),
    "two phases": partial(one_cycle, steps=[3, 6]),
    "halving": partial(halving, steps=[9], every=2),
    "without a closed form": partial(MultiStepLR, milestones=[2, 5], gamma=0.3),
}


def made(name):
    optimizer = torch.optim.Adam([{"params": [torch.zeros(1)], "lr": rate} for rate in (1.0, 0.3)])
    return optimizer, SCHEDULES[name](optimizer)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("step", [0, 1, 4, 9, 11])
def test_entered_or_stepped_is_the_same(name, step):
    (optimizer, stepped), (other, entered) = made(name), made(name)
    for _ in range(step):
        optimizer.step()
        stepped.step()
    advance_to(entered, step)
    for _ in range(3):
        assert entered.state_dict() == stepped.state_dict()
        assert [g["lr"] for g in other.param_groups] == [g["lr"] for g in optimizer.param_groups]
        for each in (optimizer, stepped, other, entered):
            each.step()


def test_the_rate_is_halved():
    optimizer, schedule = made("halving")
    rates = []
    for _ in range(5):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == [1, 1, 0.5, 0.5, 0.25]
