"""Values and gradients of gates, compared with derivatives of probabilities and with finite differences."""

import pytest
import torch

from sapnet.models.adaptive_network import AdaptiveNetwork
from sapnet.models.sapnet import SAPNet
from sapnet.sampling.gates import policy_gates, unit_gates
from sapnet.sampling.learned import LearnedSampler
from tests.reference.actions import Table
from tests.sampling.contexts import make_context


def test_policy_gates_have_the_relative_gradient_of_the_probability():
    rng = torch.Generator().manual_seed(0)
    policy = Table(torch.randn(2, 4, 8, generator=rng, dtype=torch.float64))
    sampler = LearnedSampler(policy, scales=(2, 4))
    sampling = sampler(make_context((4, 8), grid=(1, 1)), "draw", rng)
    for scale, gates in policy_gates(sampling).items():
        points, p = sampling.points[scale], sampling.probabilities[scale]
        assert (gates == 1).all(), "gates change the forward pass"
        weights = torch.randn(points.shape, generator=rng, dtype=torch.float64)
        gradient = torch.autograd.grad((weights * gates).sum(), policy.logits, retain_graph=True)[0]
        expected = torch.zeros_like(gradient)
        for i, row in enumerate(points.tolist()):
            for slot, j in enumerate(row):
                if j >= 0:
                    probability = p[i].flatten()[j]
                    derivative = torch.autograd.grad(probability, policy.logits, retain_graph=True)[0]
                    expected += weights[i, slot] / probability.detach() * derivative
        assert expected.abs().max() > 1e-3
        assert torch.allclose(gradient, expected, rtol=0, atol=1e-12)
        unused = (gates * (points < 0)).sum()
        assert not torch.autograd.grad(unused, policy.logits, retain_graph=True)[0].any()
    assert any((points < 0).any() for points in sampling.points.values()), "the test needs an unused slot"


def test_policy_gates_need_drawn_points():
    sampler = LearnedSampler(Table(torch.zeros(2, 4, 8)), scales=(2, 4))
    with pytest.raises(ValueError, match="drawn by a learned sampler"):
        policy_gates(sampler(make_context((4, 8), grid=(1, 1)), "top"))


@pytest.fixture(scope="module")
def network():
    """A small network with random weights, without zeros and without offsets at integer positions."""
    torch.manual_seed(0)
    generator = SAPNet(4, (4, 4, 6), encoder_blocks=2, decoder_blocks=1, sampled=True).double()
    with torch.no_grad():
        for p in generator.parameters():
            p.copy_(torch.randn_like(p) * (0.4 / max(p[0].numel(), 1) ** 0.5 if p.ndim > 1 else 0.1))
    return AdaptiveNetwork(generator, "uniform").eval()


def test_gradients_of_unit_gates_equal_finite_differences(network):
    """The gradient of a gate includes all blocks of its scale and the later stages.

    The points are uniform, so they do not change with the image.
    """
    rng = torch.Generator().manual_seed(1)
    blurred, sharp = torch.rand(2, 1, 3, 32, 32, generator=rng, dtype=torch.float64)
    walk = network.trace(blurred, gates="unit")
    (walk.outputs[-1] - sharp).square().mean().backward()
    plain = network.trace(blurred).outputs[-1]
    assert torch.equal(walk.outputs[-1], plain), "gates of 1 change the result"

    def loss(stage, scale, patch, slot, value):
        def gates(context, points):
            stage_gates = unit_gates(points, torch.float64)
            if context.stage == stage:
                stage_gates[scale].data[patch, slot] = value
            return stage_gates

        points = {k: sampling.points for k, sampling in walk.sampled_points.items()}
        with torch.no_grad():
            outputs = network.generator(blurred, lambda context: points[context.stage], gates=gates)
            return (outputs[-1] - sharp).square().mean().item()

    step = 1e-5
    for stage, gates in walk.gates.items():
        for scale, gate in gates.items():
            largest = gate.grad.abs().max().item()
            assert largest > 1e-9, "the gradients are zero"
            for flat in (int(gate.grad.abs().argmax()), 0, gate.numel() // 2):
                patch, slot = divmod(flat, gate.shape[1])
                values = [loss(stage, scale, patch, slot, 1 + side) for side in (step, -step)]
                slope = (values[0] - values[1]) / (2 * step)
                assert gate.grad[patch, slot].item() == pytest.approx(slope, rel=1e-5, abs=1e-4 * largest)


def test_gates_of_zero_equal_the_network_without_points(network):
    """With all gates at 0 nothing is refined."""
    blurred = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def choose(context):
        return network.choose_points(context).points

    def choose_none(context):
        patches = context.grid[0] * context.grid[1] * len(context.blurred)
        return {r: torch.empty(patches, 0, dtype=torch.int64) for r in (2, 4, 8)}

    with torch.no_grad():
        zero = network.generator(blurred, choose, lambda context, points: {r: 0.0 * (p > 0) for r, p in points.items()})
        empty = network.generator(blurred, choose_none)
        full = network.generator(blurred, choose)
    assert torch.allclose(zero[-1], empty[-1], rtol=0, atol=1e-12)
    assert not torch.allclose(full[-1], empty[-1], atol=1e-4)
