"""Learning-rate schedules."""

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


def create(name):
    optimizer = torch.optim.Adam([{"params": [torch.zeros(1)], "lr": rate} for rate in (1.0, 0.3)])
    return optimizer, SCHEDULES[name](optimizer)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("step", [0, 1, 4, 9, 11])
def test_advancing_equals_stepping(name, step):
    (optimizer, stepped), (other, advanced) = create(name), create(name)
    for _ in range(step):
        optimizer.step()
        stepped.step()
    advance_to(advanced, step)
    for _ in range(3):
        assert advanced.state_dict() == stepped.state_dict()
        assert [g["lr"] for g in other.param_groups] == [g["lr"] for g in optimizer.param_groups]
        for each in (optimizer, stepped, other, advanced):
            each.step()


def test_halving_halves_the_rate():
    optimizer, schedule = create("halving")
    rates = []
    for _ in range(5):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == [1, 1, 0.5, 0.5, 0.25]
