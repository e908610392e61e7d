"""The estimators `gate` and `paired` as training computes them, against expectations over every action of a toy stage.

The whole path runs: `AdaptiveModule.losses` walks an `AdaptiveNetwork` whose generator is a toy with one sampled stage.
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
from sapnet.training.adaptive import AdaptiveModule
from sapnet.training.losses import StageLoss
from sapnet.training.policy_gradient import PolicySettings
from tests.reference.actions import Table, enumerate_actions, joint_probability

HEIGHT, WIDTH = 2, 3
CELLS = HEIGHT * WIDTH


class Toy(nn.Module):
    """A first stage that does nothing and a second one whose points each take error away from all pixels.

    The truth is 0, so the image is the error. `linear`: the error is a product of one factor per point, so it is
    linear in each gate; else it is an exponential of their sum, and a second point helps less than the first.

    Args:
        help: What a point (row) does to the error of a pixel (column).
        linear: As above.
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
        left = product if self.linear else (-amount @ self.help).exp()
        return blurred * left.view(-1, 1, *blurred.shape[-2:])


def tangled(seed=0, lowest=-0.3):
    """Points that help or hurt every pixel, each in its own measure."""
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
    return AdaptiveModule(network, loss, optimizer, policy=PolicySettings(**settings)).train()


@functools.cache
def every_action():
    """All actions [n, h, w], and a function of a table's logits that gives their probabilities."""
    state = StageContext(1, (1, 1), (HEIGHT, WIDTH), None, images(1), images(1))
    probe = LearnedSampler(Table(logits(1)), scales=(2,))(state, "top")
    return enumerate_actions(probe)[2]


def probabilities(table):
    state = StageContext(1, (1, 1), (HEIGHT, WIDTH), None, images(1), images(1))
    return joint_probability(LearnedSampler(table, scales=(2,))(state, "top"), {2: every_action()})


def exact_gradient(toy):
    """Gradient of the expected restoration loss, which is minus J; every action is weighed by its probability."""
    actions, table = every_action(), Table(logits(1))
    index = torch.arange(CELLS).expand(len(actions), -1)
    points = torch.where(actions.flatten(1), index, -1)
    errors = toy.refine(images(len(actions)), {2: points}).abs().mean((1, 2, 3)).detach()
    return torch.autograd.grad((probabilities(table) * errors).sum(), table.logits)[0][0]


def estimates(monkeypatch, toy, draws, **settings):
    """Each image's gradient from `AdaptiveModule.losses`, where the draws are the given ones in turn."""
    number, rows = len(draws[0]), iter(draws)
    monkeypatch.setattr(learned, "bernoulli", lambda p, generator: next(rows))
    table = Table(logits(number))
    batch = {"blurred": images(number), "sharp": torch.zeros_like(images(number))}
    # The loss is a mean over the batch, and every image has logits of its own.
    total = number * module(toy, table, **settings).losses(batch)[0]
    found = torch.autograd.grad(total, table.logits)[0]
    assert next(rows, None) is None, "as many draws as the estimator makes"
    return found


def moments(gradients, weights):
    """Mean and total variance over actions."""
    mean = (weights[:, None, None] * gradients).sum(0)
    return mean, (weights * (gradients - mean).square().sum((1, 2))).sum()


def both_draws():
    number = len(every_action())
    first, second = torch.cartesian_prod(torch.arange(number), torch.arange(number)).T
    return every_action()[first], every_action()[second], first, second


@pytest.mark.parametrize("linear", [True, False])
def test_paired_is_exactly_unbiased_and_less_noisy_than_no_baseline(monkeypatch, linear):
    """Over all pairs of draws; a second draw that shared the first one's randomness would be biased."""
    toy, exact = Toy(tangled(), linear), exact_gradient(Toy(tangled(), linear))
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
    """Literally, pair by pair: `(|OP' - GT| - |OP - GT|) grad log pi`, with the mean over pixels (global credit)."""
    toy = Toy(tangled(), False)
    first, second, i, j = both_draws()
    found = estimates(monkeypatch, toy, [first, second], baseline="paired", credit="global", alpha=0.7)
    index = torch.arange(CELLS).expand(len(every_action()), -1)
    errors = toy.refine(images(len(index)), {2: torch.where(every_action().flatten(1), index, -1)})
    errors = errors.mean((1, 2, 3)).detach()
    for n in (5, 700, 2300, 4095):
        table = Table(logits(1))
        log_pi = probabilities(table)[i[n]].log()
        reward = 0.7 * (errors[j[n]] - errors[i[n]])
        assert torch.allclose(found[n], torch.autograd.grad(-reward * log_pi, table.logits)[0][0], atol=1e-12)


def test_gate_is_exactly_unbiased_where_the_loss_is_linear_in_each_gate(monkeypatch):
    """Points help and hurt one another's pixels; what local credit leaves out is in the gates' gradients."""
    toy = Toy(tangled(), True)
    exact = exact_gradient(toy)
    found = estimates(monkeypatch, toy, [every_action()], estimator="gate")
    mean, variance = moments(found, probabilities(Table(logits(1))).detach())
    assert exact.abs().max() > 1e-3 and variance > 0
    assert torch.allclose(mean, exact, rtol=0, atol=1e-12)


def test_gate_is_biased_elsewhere_but_not_in_sign(monkeypatch):
    """Where a second point helps less than the first, the gate's gradient is less than what the point is worth.

    Measured on this toy: 0.73 of the exact gradient's length, cosine 0.946 to it, every component's sign right.
    """
    toy = Toy(tangled(lowest=0.1), False)
    p = probabilities(Table(logits(1))).detach()
    exact = exact_gradient(toy)
    mean, _ = moments(estimates(monkeypatch, toy, [every_action()], estimator="gate"), p)
    length = float(mean.norm() / exact.norm())
    cosine = float((mean * exact).sum() / mean.norm() / exact.norm())
    assert torch.equal(mean.sign(), exact.sign())
    assert (length, cosine) == pytest.approx((0.732, 0.946), abs=2e-3)


@pytest.mark.parametrize("settings", [{"estimator": "gate"}, {"baseline": "paired"}])
def test_the_map_moves_to_where_points_help(settings):
    """From a flat map; a sign error would move it away, and no gradient would leave it where it is."""
    torch.manual_seed(0)
    size = 8
    helped = torch.zeros(size, size, dtype=torch.bool)
    helped[1:5, 2:6] = True  # as many positions as the budget buys
    toy = Toy((0.6 * helped.flatten().double()).diag(), True)
    policy = Table(torch.zeros(8, size, size, dtype=torch.float64))
    trained = module(toy, policy, **settings)
    optimizer = torch.optim.Adam(policy.parameters(), lr=0.1)
    blurred = torch.full((8, 3, size, size), 0.5, dtype=torch.float64)
    batch = {"blurred": blurred, "sharp": torch.zeros_like(blurred)}
    for _ in range(60):
        optimizer.zero_grad()
        trained.losses(batch)[0].backward()
        optimizer.step()
    state = StageContext(1, (1, 1), (size, size), None, blurred, blurred)
    g = trained.network.samplers["1"](state, "top").map
    assert g.mean().item() == pytest.approx(0.25, abs=1e-4), "the budget is kept"
    assert g[:, helped].mean() > 0.8 and g[:, ~helped].mean() < 0.07
