"""The estimators `gate` and `paired` against exact expectations over all actions of a toy stage.

The gradients are those of `PolicyGradientModule.losses` for an `AdaptiveNetwork` with a toy generator.
"""

import functools
from functools import partial

import pytest
import torch
from torch import nn

from sapnet.models.adaptive_network import AdaptiveNetwork
from sapnet.sampling import learned
from sapnet.sampling.context import StageContext
from sapnet.sampling.learned import LearnedSampler
from sapnet.training.losses import StageLoss
from sapnet.training.policy_gradient import PolicySettings
from sapnet.training.policy_gradient_module import PolicyGradientModule
from tests.reference.actions import Table, enumerate_actions, joint_probability

HEIGHT, WIDTH = 2, 3
CELLS = HEIGHT * WIDTH


class Toy(nn.Module):
    """A generator whose first stage is the identity; each point of the second stage reduces the error of all pixels.

    The ground truth is 0, so the image is the error.

    Args:
        help: Effect of a point (row) on the error of a pixel (column).
        linear: Whether the error is a product of one factor per point, and so linear in each gate. Otherwise it is an
            exponential of their sum, and a second point helps less than the first.
    """

    supports_gates = supports_comparison = True
    sampled_stages, scales, feature_channels = (1,), (2,), 0

    def __init__(self, help, linear):
        super().__init__()
        self.linear = linear
        self.help = nn.Parameter(help)

    def forward(self, blurred, choose, gates=None, compare=None):
        state = StageContext(1, (1, 1), tuple(blurred.shape[-2:]), None, blurred, blurred)
        points = choose(state)
        factors = None if gates is None else gates(state, points)
        if compare is not None:
            with torch.no_grad():
                compare(state, partial(self.refine, blurred))
        return [blurred, self.refine(blurred, points, factors)]

    def refine(self, blurred, points, factors=None):
        index = points[2]
        values = torch.ones_like(index, dtype=blurred.dtype) if factors is None else factors[2]
        length = len(self.help)
        slots = torch.where(index < 0, length, index)
        amount = blurred.new_zeros(len(index), length + 1).scatter(1, slots, values)[:, :-1]
        product = (1 - amount[:, :, None] * self.help).prod(dim=1)
        remaining = product if self.linear else (-amount @ self.help).exp()
        return blurred * remaining.view(-1, 1, *blurred.shape[-2:])


def random_help(seed=0, lowest=-0.3):
    """Return random effects of points on pixels; negative effects increase the error."""
    rng = torch.Generator().manual_seed(seed)
    return lowest + (0.8 - lowest) * torch.rand(CELLS, CELLS, generator=rng, dtype=torch.float64)


def images(number):
    rng = torch.Generator().manual_seed(3)
    return (0.2 + 0.6 * torch.rand(1, 3, HEIGHT, WIDTH, generator=rng, dtype=torch.float64)).repeat(number, 1, 1, 1)


def logits(number):
    rng = torch.Generator().manual_seed(4)
    return torch.randn(1, HEIGHT, WIDTH, generator=rng, dtype=torch.float64).repeat(number, 1, 1)


def module(toy, policy, **settings):
    network = AdaptiveNetwork(toy)
    network.samplers["1"].policy = policy
    loss = StageLoss(progressive=False)
    optimizer = partial(torch.optim.Adam, lr=1e-2)
    return PolicyGradientModule(network, loss, optimizer, policy=PolicySettings(**settings)).train()


@functools.cache
def every_action():
    """Return all actions [n, h, w]."""
    state = StageContext(1, (1, 1), (HEIGHT, WIDTH), None, images(1), images(1))
    probe = LearnedSampler(Table(logits(1)), scales=(2,))(state, "top")
    return enumerate_actions(probe)[2]


def probabilities(table):
    state = StageContext(1, (1, 1), (HEIGHT, WIDTH), None, images(1), images(1))
    return joint_probability(LearnedSampler(table, scales=(2,))(state, "top"), {2: every_action()})


def exact_gradient(toy):
    """Return the gradient of the expected restoration loss, which is minus J."""
    actions, table = every_action(), Table(logits(1))
    index = torch.arange(CELLS).expand(len(actions), -1)
    points = torch.where(actions.flatten(1), index, -1)
    errors = toy.refine(images(len(actions)), {2: points}).abs().mean((1, 2, 3)).detach()
    return torch.autograd.grad((probabilities(table) * errors).sum(), table.logits)[0][0]


def estimates(monkeypatch, toy, draws, **settings):
    """Return the gradient of each image from `PolicyGradientModule.losses`, with fixed draws."""
    number, rows = len(draws[0]), iter(draws)
    monkeypatch.setattr(learned, "bernoulli", lambda p, generator: next(rows))
    table = Table(logits(number))
    batch = {"blurred": images(number), "sharp": torch.zeros_like(images(number))}
    # The loss is a mean over the batch, and each image has its own logits.
    total = number * module(toy, table, **settings).losses(batch)[0]
    gradients = torch.autograd.grad(total, table.logits)[0]
    assert next(rows, None) is None, "the estimator uses all draws"
    return gradients


def moments(gradients, weights):
    """Return mean and total variance over actions."""
    mean = (weights[:, None, None] * gradients).sum(0)
    return mean, (weights * (gradients - mean).square().sum((1, 2))).sum()


def both_draws():
    number = len(every_action())
    first, second = torch.cartesian_prod(torch.arange(number), torch.arange(number)).T
    return every_action()[first], every_action()[second], first, second


@pytest.mark.parametrize("linear", [True, False])
def test_paired_is_unbiased_and_has_less_variance_than_no_baseline(monkeypatch, linear):
    """The expectation is over all pairs of independent draws."""
    toy, exact = Toy(random_help(), linear), exact_gradient(Toy(random_help(), linear))
    first, second, i, j = both_draws()
    p = probabilities(Table(logits(1))).detach()
    paired = estimates(monkeypatch, toy, [first, second], baseline="paired", credit="global")
    mean, variance = moments(paired, p[i] * p[j])
    assert exact.abs().max() > 1e-3
    assert torch.allclose(mean, exact, rtol=0, atol=1e-12)
    plain = estimates(monkeypatch, toy, [every_action()], baseline="none", credit="global")
    mean, plain_variance = moments(plain, p)
    assert torch.allclose(mean, exact, rtol=0, atol=1e-12)
    assert 0 < variance < 0.5 * plain_variance, f"{float(variance / plain_variance):.2f} of the variance"


def test_paired_subtracts_the_error_of_the_second_draw(monkeypatch):
    """The estimate is `(|OP' - GT| - |OP - GT|) grad log pi`, averaged over pixels (global credit)."""
    toy = Toy(random_help(), False)
    first, second, i, j = both_draws()
    gradients = estimates(monkeypatch, toy, [first, second], baseline="paired", credit="global", alpha=0.7)
    index = torch.arange(CELLS).expand(len(every_action()), -1)
    errors = toy.refine(images(len(index)), {2: torch.where(every_action().flatten(1), index, -1)})
    errors = errors.mean((1, 2, 3)).detach()
    for n in (5, 700, 2300, 4095):
        table = Table(logits(1))
        log_pi = probabilities(table)[i[n]].log()
        reward = 0.7 * (errors[j[n]] - errors[i[n]])
        assert torch.allclose(gradients[n], torch.autograd.grad(-reward * log_pi, table.logits)[0][0], atol=1e-12)


def test_gate_is_unbiased_if_the_loss_is_linear_in_each_gate(monkeypatch):
    """Unlike local credit, the gradients of the gates include the effects on other pixels."""
    toy = Toy(random_help(), True)
    exact = exact_gradient(toy)
    gradients = estimates(monkeypatch, toy, [every_action()], estimator="gate")
    mean, variance = moments(gradients, probabilities(Table(logits(1))).detach())
    assert exact.abs().max() > 1e-3 and variance > 0
    assert torch.allclose(mean, exact, rtol=0, atol=1e-12)


def test_gate_has_the_right_sign_for_a_nonlinear_loss(monkeypatch):
    """If a second point helps less than the first, the estimate is biased.

    For this toy its norm is 0.73 of that of the exact gradient, and the cosine between them is 0.946.
    """
    toy = Toy(random_help(lowest=0.1), False)
    p = probabilities(Table(logits(1))).detach()
    exact = exact_gradient(toy)
    mean, _ = moments(estimates(monkeypatch, toy, [every_action()], estimator="gate"), p)
    length = float(mean.norm() / exact.norm())
    cosine = float((mean * exact).sum() / mean.norm() / exact.norm())
    assert torch.equal(mean.sign(), exact.sign())
    assert (length, cosine) == pytest.approx((0.732, 0.946), abs=2e-3)


@pytest.mark.parametrize("settings", [{"estimator": "gate"}, {"baseline": "paired"}])
def test_the_map_increases_at_helpful_points(settings):
    torch.manual_seed(0)
    size = 8
    helpful = torch.zeros(size, size, dtype=torch.bool)
    helpful[1:5, 2:6] = True  # as many positions as the budget
    toy = Toy((0.6 * helpful.flatten().double()).diag(), True)
    policy = Table(torch.zeros(8, size, size, dtype=torch.float64))
    trained_module = module(toy, policy, **settings)
    optimizer = torch.optim.Adam(policy.parameters(), lr=0.1)
    blurred = torch.full((8, 3, size, size), 0.5, dtype=torch.float64)
    batch = {"blurred": blurred, "sharp": torch.zeros_like(blurred)}
    for _ in range(60):
        optimizer.zero_grad()
        trained_module.losses(batch)[0].backward()
        optimizer.step()
    state = StageContext(1, (1, 1), (size, size), None, blurred, blurred)
    g = trained_module.network.samplers["1"](state, "top").map
    assert g.mean().item() == pytest.approx(0.25, abs=1e-4), "the budget is kept"
    assert g[:, helpful].mean() > 0.8 and g[:, ~helpful].mean() < 0.07
