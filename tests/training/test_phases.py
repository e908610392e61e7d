import functools

import pytest
import torch
from torch.utils.data import DataLoader

from sapnet.errors import UserError
from sapnet.models.adaptive_network import AdaptiveNetwork
from sapnet.models.srn import SRN
from sapnet.training.losses import StageLoss
from sapnet.training.phases import Phase, make_phases
from sapnet.training.policy_gradient import PolicySettings
from sapnet.training.policy_gradient_module import PolicyGradientModule
from sapnet.training.restoration_module import RestorationModule
from sapnet.training.schedules import one_cycle
from tests.training.test_policy_gradient_module import Adam, Pairs, copies, fit, generator, moved


def test_phases_are_consecutive():
    assert make_phases(10, ()) == (Phase(0, 10),)
    assert make_phases(10, (0, 0.4, 0.8), 3) == (Phase(0, 4, (0, 1)), Phase(4, 8, (1, 2)), Phase(8, 10, (2, 3)))


@pytest.mark.parametrize("shares", [(0.1, 0.5), (0, 0.5, 0.5), (0, 1.0), (0, 0.3, 0.2)])
def test_impossible_shares_are_refused(shares):
    with pytest.raises(UserError, match="stagewise="):
        make_phases(10, shares)


def test_networks_without_matching_stages_are_refused():
    with pytest.raises(UserError, match="3 stages"):
        RestorationModule(generator(), StageLoss(), Adam, stagewise=(0, 0.5))
    with pytest.raises(UserError, match="SRN"):
        RestorationModule(SRN(channels=(4, 4, 8)), StageLoss(), Adam, stagewise=(0, 0.5))


@pytest.mark.parametrize(
    ("sampled", "policy"),
    [(False, {}), (True, {}), (True, {"estimator": "gate"}), (True, {"baseline": "paired", "warm_start": "error"})],
)
def test_only_the_stage_of_the_phase_learns(sampled, policy):
    torch.manual_seed(0)
    network = generator(stages=3, sampled=sampled)
    for stage in network.stages:
        torch.nn.init.normal_(stage.head.weight, std=0.05)
    create = functools.partial(RestorationModule, network)
    if sampled:
        create = functools.partial(PolicyGradientModule, AdaptiveNetwork(network), policy=PolicySettings(**policy))
    module = create(StageLoss(), Adam, steps=6, stagewise=(0, 1 / 3, 2 / 3))
    for phase in range(3):
        stages, policies = [copies(stage) for stage in network.stages], []
        if sampled:
            policies = {int(k): copies(sampler) for k, sampler in module.network.samplers.items()}
        fit(module, 2)
        assert [moved(before, stage) for before, stage in zip(stages, network.stages, strict=True)] == [
            k == phase for k in range(3)
        ]
        if sampled:
            learning = {k: moved(before, module.network.samplers[str(k)]) for k, before in policies.items()}
            assert learning == {k: k == phase for k in (1, 2)}


def test_the_first_stage_does_not_depend_on_the_later_ones():
    """Two samplers of stage 2 give bitwise equal weights of stage 1."""
    weights = []
    for sampler in ("random", "uniform"):
        torch.manual_seed(0)
        network = AdaptiveNetwork(generator(stages=2, sampled=True), sampler)
        module = PolicyGradientModule(network, StageLoss(), Adam, steps=4, stagewise=(0, 0.5))

        def seed(batch, batch_idx, module=module):
            torch.manual_seed(module.generator_steps)

        module.on_train_batch_start = seed
        fit(module, 4)
        weights.append(copies(network.generator.stages[0]))
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))


def test_every_phase_has_its_own_cycle():
    optimizer = torch.optim.Adam([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule, rates = one_cycle(optimizer, [50, 100], warm_up=0.2), []
    for _ in range(150):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[0] == rates[50] == pytest.approx(1 / 25) and rates[10] == rates[70] == 1
    assert rates[49] < 0.01 and rates[149] < 0.01


def test_the_pretraining_is_a_share_of_the_phase():
    network = AdaptiveNetwork(generator(stages=2, sampled=True))
    torch.nn.init.normal_(network.generator.stages[1].head.weight, std=0.05)
    settings = PolicySettings(pretrain=0.5)
    module = PolicyGradientModule(network, StageLoss(), Adam, steps=8, stagewise=(0, 0.5), policy=settings)
    assert module.optimizer_steps(0) == [4, 4] and module.optimizer_steps(1) == [2]
    policy = copies(network.samplers)
    fit(module, 6)
    assert not moved(policy, network.samplers)
    fit(module, 1)
    assert moved(policy, network.samplers)


def test_the_loss_of_a_phase_is_that_of_its_stage():
    torch.manual_seed(0)
    module = RestorationModule(generator(stages=2), StageLoss(), Adam, steps=4, stagewise=(0, 0.5))
    batch = next(iter(DataLoader(Pairs(), 2)))
    module.generator_steps = 3
    total, logs = module.losses(batch)
    assert total.item() == pytest.approx(logs["train/loss_2"].item()) and len(logs) == 3
