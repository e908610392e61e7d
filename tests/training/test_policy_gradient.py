"""The policy gradient against exact gradients, by enumerating all actions of a small map or by many draws."""

import dataclasses

import pytest
import torch
from torch import nn

from sapnet.errors import UserError
from sapnet.sampling.context import StageContext
from sapnet.sampling.learned import LearnedSampler
from sapnet.sampling.policy import Policy
from sapnet.sampling.samplers import make_sampler
from sapnet.training.policy_gradient import policy_loss
from tests.reference.actions import Table, enumerate_actions, joint_probability

CONTROLS = ("calibrated", "indicator")
BASELINES = (0.0, 0.7)  # constants, since the baseline does not depend on the actions
BETA = 0.5


def blank(batch, height, width, size=None, grid=(1, 1)):
    image = torch.zeros(batch, 3, height, width, dtype=torch.float64)
    return StageContext(1, grid, size or (height, width), None, image, image)


def logits(height, width, batch=1, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(1, height, width, generator=rng, dtype=torch.float64).repeat(batch, 1, 1)


def interacting_reward(actions, height, width, seed=1):
    """Return rewards that depend on all actions of all scales and on pairs of them."""
    rng = torch.Generator().manual_seed(seed)
    a = torch.cat([x.flatten(1) for x in actions.values()], dim=1).double()
    n = a.shape[1]
    linear, pairs = (torch.randn(n, m, generator=rng, dtype=torch.float64) for m in (height * width, n))
    return (a @ linear + ((a @ pairs) * a).sum(1, keepdim=True)).view(-1, height, width)


def separable_reward(actions, height, width, seed=2):
    """Return rewards that depend only on the actions at the same pixel, at all scales."""
    rng = torch.Generator().manual_seed(seed)
    reward = torch.zeros(())
    for a in actions.values():
        stride = height // a.shape[1]
        a = a.double().repeat_interleave(stride, 1).repeat_interleave(stride, 2)
        reward = reward + a * torch.randn(height, width, generator=rng, dtype=torch.float64)
    return reward


def objective(sampling, actions, reward, control):
    """Return J for every action: the mean reward minus the penalty of each scale (Eq. 5, without the baseline)."""
    value = reward.mean((1, 2))
    if control == "indicator":
        for r, a in actions.items():
            value = value - BETA * (a.flatten(1).sum(1) > sampling.counts[r][0]).double()
    return value


def exact_gradient(height, width, scales, control, reward_of, offset):
    table = Table(logits(height, width))
    sampling = LearnedSampler(table, control, scales=scales)(blank(1, height, width), "top")
    actions = enumerate_actions(sampling)
    value = objective(sampling, actions, reward_of(actions, height, width) + offset, control)
    p = joint_probability(sampling, actions)
    assert torch.allclose(p.sum(), torch.ones((), dtype=torch.float64))
    return torch.autograd.grad((p * value).sum(), table.logits)[0]


def expected_estimate(height, width, scales, control, reward_of, offset, credit):
    """Return the expectation of the single-draw estimate over all actions."""
    probe = LearnedSampler(Table(logits(height, width)), control, scales=scales)(blank(1, height, width), "top")
    actions = enumerate_actions(probe)
    number = len(next(iter(actions.values())))
    table = Table(logits(height, width, number))
    sampling = LearnedSampler(table, control, scales=scales)(blank(number, height, width), "top")
    sampling = dataclasses.replace(sampling, actions=actions)
    reward = reward_of(actions, height, width) + offset
    # The loss is the mean over the batch, and every image has logits of its own.
    loss = number * policy_loss(sampling, reward, credit, control, BETA)
    estimates = -torch.autograd.grad(loss, table.logits)[0]
    p = joint_probability(probe, actions).detach()
    return (p[:, None, None] * estimates).sum(0, keepdim=True)


@pytest.mark.parametrize("offset", BASELINES)
@pytest.mark.parametrize("control", CONTROLS)
@pytest.mark.parametrize(("size", "scales"), [((2, 3), (2,)), ((2, 4), (2, 4))])
def test_global_credit_is_unbiased(size, scales, control, offset):
    exact = exact_gradient(*size, scales, control, interacting_reward, offset)
    estimate = expected_estimate(*size, scales, control, interacting_reward, offset, "global")
    assert exact.abs().max() > 1e-3
    assert torch.allclose(estimate, exact, atol=1e-12)


@pytest.mark.parametrize("offset", BASELINES)
@pytest.mark.parametrize(("size", "scales"), [((2, 3), (2,)), ((2, 4), (2, 4))])
def test_local_credit_is_unbiased_for_separable_rewards(size, scales, offset):
    exact = exact_gradient(*size, scales, "calibrated", separable_reward, offset)
    assert exact.abs().max() > 1e-3
    estimate = expected_estimate(*size, scales, "calibrated", separable_reward, offset, "local")
    assert torch.allclose(estimate, exact, atol=1e-12)


def test_local_credit_is_biased_for_interacting_rewards():
    exact = exact_gradient(2, 3, (2,), "calibrated", interacting_reward, 0.0)
    estimate = expected_estimate(2, 3, (2,), "calibrated", interacting_reward, 0.0, "local")
    assert not torch.allclose(estimate, exact, atol=1e-2)


@pytest.mark.parametrize("control", CONTROLS)
def test_a_constant_reward_does_not_change_the_expectation(control):
    for credit in ("local", "global"):
        plain, shifted = (
            expected_estimate(2, 3, (2,), control, interacting_reward, offset, credit) for offset in BASELINES
        )
        assert torch.allclose(plain, shifted, atol=1e-12)


@pytest.mark.parametrize("offset", BASELINES)
@pytest.mark.parametrize(
    ("credit", "control", "reward_of"),
    [
        ("global", "calibrated", interacting_reward),
        ("global", "indicator", interacting_reward),
        # Not with the penalty, which depends on all actions.
        ("local", "calibrated", separable_reward),
    ],
)
def test_the_mean_of_many_draws_is_the_exact_gradient(credit, control, reward_of, offset):
    number = 8000
    exact = exact_gradient(2, 4, (2, 4), control, reward_of, offset)
    table = Table(logits(2, 4, number))
    rng = torch.Generator().manual_seed(5)
    sampling = LearnedSampler(table, control, scales=(2, 4))(blank(number, 2, 4), "draw", rng)
    reward = reward_of(sampling.actions, 2, 4) + offset
    loss = number * policy_loss(sampling, reward, credit, control, BETA)
    draws = -torch.autograd.grad(loss, table.logits)[0]
    z = (draws.mean(0) - exact[0]) / (draws.std(0) / number**0.5)
    assert z.abs().max() < 4
    assert z.abs().max() > 0.05, "the draws differ"


def test_the_mean_excludes_padding():
    # Two patches of 4x4, with 4x3 and 2x3 valid pixels. The objective is the mean over patches of the mean over pixels.
    values = logits(8, 4)
    state = blank(1, 8, 4, size=(6, 3), grid=(2, 1))
    sampling = LearnedSampler(Table(values), scales=(2,))(state, "draw", torch.Generator().manual_seed(0))
    rng = torch.Generator().manual_seed(1)
    reward = torch.randn(1, 6, 3, generator=rng, dtype=torch.float64)
    p, a = sampling.probabilities[2], sampling.actions[2]
    expected = 0
    for patch, rows in ((0, 4), (1, 2)):
        part = reward[0, 4 * patch : 4 * patch + rows]
        log_p = torch.where(a[patch], p[patch], 1 - p[patch]).log()[:rows, :3]
        expected = expected - (part * log_p).mean() / 2
    assert torch.allclose(policy_loss(sampling, reward), expected)
    padded = torch.full((1, 8, 4), 1e3, dtype=torch.float64)
    padded[:, :6, :3] = reward
    assert torch.allclose(policy_loss(sampling, padded), expected)


def test_the_policy_learns_where_points_are_rewarded():
    # Only bright squares, with more pixels than the budget, are rewarded.
    torch.manual_seed(0)
    bright = (torch.rand(8, 1, 2, 2) < 0.3).float()
    bright[..., 0, 0], bright[..., 1, 1] = 1, 0
    bright = bright.repeat_interleave(8, 2).repeat_interleave(8, 3)
    blurred = (0.5 + 0.2 * bright).expand(-1, 3, -1, -1)
    state = StageContext(1, (1, 1), (16, 16), None, torch.full((8, 3, 16, 16), 0.5), blurred)
    sampler = LearnedSampler(Policy(0), scales=(2,))
    optimizer = torch.optim.Adam(sampler.parameters(), lr=1e-2)
    rng = torch.Generator().manual_seed(0)

    def share_of_bright_points():
        return bright.flatten(1).gather(1, sampler.eval()(state).points[2]).mean().item()

    assert share_of_bright_points() < 0.5
    for _ in range(80):
        sampling = sampler.train()(state, rng=rng)
        reward = 0.1 * bright[:, 0] * sampling.actions[2]
        optimizer.zero_grad()
        policy_loss(sampling, reward).backward()
        optimizer.step()
    assert share_of_bright_points() > 0.95
    assert (sampling.drawn_counts(2) - 64).abs().max() < 4 * (256 * 0.25 * 0.75) ** 0.5


def test_the_indicator_penalty_reduces_the_number_of_points():
    # The penalty is the only reward. One logit for all positions starts at 20 of 64 points; the budget is 16.
    logit = nn.Parameter(torch.logit(torch.tensor(20 / 64)))
    policy = nn.Module()
    policy.forward = lambda state: logit.expand(64, 8, 8)
    sampler = LearnedSampler(policy, "indicator", scales=(2,))
    optimizer = torch.optim.Adam([logit], lr=2e-2)
    rng = torch.Generator().manual_seed(0)
    state = StageContext(1, (1, 1), (8, 8), None, torch.zeros(64, 3, 8, 8), torch.zeros(64, 3, 8, 8))
    for _ in range(30):
        sampling = sampler(state, "draw", rng)
        optimizer.zero_grad()
        policy_loss(sampling, torch.zeros(64, 8, 8), "global", "indicator").backward()
        optimizer.step()
    assert 64 * torch.sigmoid(logit) < 16


def test_saturated_probabilities_give_a_finite_loss_and_gradient():
    for control in CONTROLS:
        table = Table(torch.tensor([[[1e4, -1e4, 0.0, 1e4], [-1e4, 3.0, -1e4, 1e4]]]))
        sampling = LearnedSampler(table, control, scales=(2, 4))(blank(1, 2, 4), "draw")
        every = {r: torch.ones_like(a) for r, a in sampling.actions.items()}
        none = {r: torch.zeros_like(a) for r, a in sampling.actions.items()}
        for actions in (sampling.actions, every, none):
            drawn = dataclasses.replace(sampling, actions=actions)
            loss = policy_loss(drawn, torch.ones(1, 2, 4), "global", control)
            (gradient,) = torch.autograd.grad(loss, table.logits, retain_graph=True)
            assert loss.isfinite() and gradient.isfinite().all()


def test_the_reward_gets_no_gradient():
    reward = torch.ones(1, 16, 16, requires_grad=True)
    state = StageContext(1, (1, 1), (16, 16), None, torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 16, 16))
    policy_loss(LearnedSampler(Policy(0))(state, "draw"), reward).backward()
    assert reward.grad is None


def test_invalid_arguments_raise_errors():
    state = StageContext(1, (1, 1), (16, 16), None, torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 16, 16))
    sampling, reward = LearnedSampler(Policy(0))(state, "draw"), torch.zeros(1, 16, 16)
    with pytest.raises(UserError, match="credit"):
        policy_loss(sampling, reward, "both")
    with pytest.raises(UserError, match="budget_control"):
        policy_loss(sampling, reward, budget_control="none")
    with pytest.raises(ValueError, match="learned"):
        policy_loss(make_sampler("oracle")(dataclasses.replace(state, sharp=state.blurred)), reward)
