"""Training of the policy: estimators, warm start, settling."""

import copy
import itertools
from dataclasses import replace

import pytest
import torch
from torch.utils.data import DataLoader

from sapnet.errors import UserError
from sapnet.models.adaptive_network import AdaptiveNetwork
from sapnet.models.dmphn import DMPHN
from sapnet.sampling.samplers import make_sampler
from sapnet.training.losses import StageLoss
from sapnet.training.policy_gradient import PolicySettings
from sapnet.training.policy_gradient_module import PolicyGradientModule
from sapnet.training.warm_start import hardest_pixels, imitation_loss
from tests.sampling.contexts import make_context
from tests.training.test_policy_gradient_module import Adam, Pairs, adaptive, copies, fit, moved


@pytest.mark.parametrize("estimator, baseline", [("gate", "improvement"), ("reinforce", "paired")])
def test_estimators_change_only_the_gradient_of_the_policy(estimator, baseline):
    batch = next(iter(DataLoader(Pairs(), 2)))
    gradients = {}
    for name, settings in (
        ("plain", PolicySettings()),
        ("other", PolicySettings(estimator=estimator, baseline=baseline)),
    ):
        module = adaptive(policy=settings).train()
        for sampler in module.network.samplers.values():
            torch.nn.init.normal_(sampler.policy.head.weight, std=0.1)
        choose, draws = module.network.choose_points, itertools.count()

        # The first draw of each stage has the same seed for all estimators.
        def seeded(state, mode, generator=None, choose=choose, draws=draws):
            first = mode is None
            rng = torch.Generator().manual_seed(state.stage if first else 100 + next(draws))
            return choose(state, mode, rng)

        module.network.choose_points = seeded
        total, _ = module.losses(batch)
        total.backward()
        gradients[name] = [
            [p.grad for p in part.parameters()] for part in (module.network.generator, module.network.samplers)
        ]
    torch.testing.assert_close(gradients["other"][0], gradients["plain"][0], rtol=1e-5, atol=1e-8)
    plain, other = gradients["plain"][1], gradients["other"][1]
    assert all(g is not None and g.isfinite().all() for g in other) and other[0].abs().sum() > 0
    assert not torch.allclose(plain[0], other[0])


def test_a_warm_start_reduces_the_imitation_loss():
    module = adaptive(policy=PolicySettings(pretrain=0.5, warm_start="error", rate=10.0), steps=120)
    batch = next(iter(DataLoader(Pairs(), 4)))
    walk = module.network.trace(batch["blurred"], batch["sharp"], "top")
    losses = [imitation_loss(module.network.samplers["1"], walk.contexts[1]).item()]
    fit(module, 6), fit(module, 6), fit(module, 6), fit(module, 6)
    losses.append(imitation_loss(module.network.samplers["1"], walk.contexts[1]).item())
    assert module.imitating and losses[1] < losses[0] - 0.001
    module.generator_steps = 60
    assert not module.imitating and not any("imitation" in name for name in module.losses(batch)[1])


def test_the_hardest_pixels_are_a_share_of_each_patch_without_padding():
    state = make_context((27, 41), (32, 48))
    chosen = hardest_pixels(state, 0.25, window=1)
    error = (state.restored[..., :27, :41] - state.sharp).abs().mean(dim=1)
    assert not chosen[:, 27:].any() and not chosen[..., 41:].any()
    for rows in (slice(0, 16), slice(16, 27)):
        inside, values = chosen[:, rows, :41], error[:, rows]
        assert inside.sum().item() == pytest.approx(0.25 * 16 * 48 * len(error), abs=2)
        for i in range(len(error)):
            assert values[i][inside[i]].min() >= values[i][~inside[i]].max()


def test_a_wide_window_includes_the_neighbourhood_of_an_error():
    state = make_context((32, 48), grid=(1, 1))
    sharp = state.restored.clone()
    sharp[..., 10, 20] += 0.5
    state = replace(state, sharp=sharp)
    assert hardest_pixels(state, 0.25, window=1).sum().item() == len(sharp)
    assert hardest_pixels(state, 0.25, window=7)[:, 7:14, 17:24].all()


def test_pixels_without_error_are_never_the_hardest():
    """If less than a quarter of the pixels moves, the threshold of the quarter is an error of 0."""
    state = make_context((32, 48), grid=(1, 1))
    moving = torch.zeros(32, 48, dtype=torch.bool)
    moving[4:10, 8:20] = True
    state = replace(state, sharp=torch.where(moving, state.sharp, state.restored))
    assert torch.equal(hardest_pixels(state, 0.25, window=1), moving.expand(len(state.sharp), -1, -1))


def test_a_settled_policy_is_fixed_and_the_generator_gets_the_points_of_inference():
    module = adaptive(policy=PolicySettings(settle=0.5), steps=8)
    fit(module, 4)
    assert module.settled
    policy, network, modes = copies(module.network.samplers), copies(module.network.generator), []
    choose = module.network.choose_points
    module.network.choose_points = lambda state, mode, rng: (
        modes.append((module.training, mode)) or choose(state, mode, rng)
    )
    fit(module, 3)
    assert not moved(policy, module.network.samplers) and moved(network, module.network.generator)
    assert {mode for training, mode in modes if training} == {"top"}


def test_a_predicted_error_learns_from_the_first_step():
    module = adaptive("predicted_error")
    before = copies(module.network.samplers)
    fit(module, 2)
    assert len(module.parameter_groups()) == 2 and moved(before, module.network.samplers)


def test_the_second_draw_is_independent_and_has_no_gradient():
    module = adaptive(policy=PolicySettings(baseline="paired")).train()
    batch = next(iter(DataLoader(Pairs(), 2)))
    walk, second = module._walk(batch)
    assert second.keys() == {1, 2}
    for stage, image in second.items():
        assert not image.requires_grad and image.shape == walk.outputs[stage].shape
        assert not torch.equal(image, walk.outputs[stage])


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"estimator": "reparam"}, "policy.estimator=reparam"),
        ({"warm_start": "blur"}, "policy.warm_start=blur"),
        ({"pretrain": 0.7, "settle": 0.4}, "shares that sum to 1"),
        ({"warm_start_window": 4}, "odd number"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        PolicySettings(**settings)


def test_a_network_without_gates_refuses_the_estimator():
    network = AdaptiveNetwork(DMPHN(2, (4, 4, 8), progressive=True, sampled=True))
    for settings, message in (({"estimator": "gate"}, "estimator=gate"), ({"baseline": "paired"}, "baseline=paired")):
        with pytest.raises(UserError, match=message):
            PolicyGradientModule(network, StageLoss(), Adam, policy=PolicySettings(**settings))


def test_the_gate_estimator_refuses_the_indicator_penalty():
    network = copy.deepcopy(adaptive().network)
    network.settings["budget_control"] = "indicator"
    with pytest.raises(UserError, match="calibrated"):
        PolicyGradientModule(network, StageLoss(), Adam, policy=PolicySettings(estimator="gate"))


def test_a_single_stage_samples_from_the_blurred_image():
    from tests.training.test_policy_gradient_module import generator

    network = AdaptiveNetwork(generator(sampled=True, stages=1))
    torch.nn.init.normal_(network.generator.stages[0].head.weight, std=0.05)
    module = PolicyGradientModule(network, StageLoss(), Adam, policy=PolicySettings(estimator="gate"))
    before = copies(module.network.samplers)
    fit(module, 2)
    assert moved(before, module.network.samplers) and make_sampler("learned").policy.reduce is None
