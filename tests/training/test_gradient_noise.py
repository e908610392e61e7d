"""Signal-to-noise ratio of the policy gradient."""

import pytest
import torch

from sapnet.models.adaptive_network import AdaptiveNetwork
from sapnet.models.srn import SRN
from sapnet.training.gradient_noise import ESTIMATORS, Moments, signal_to_noise
from tests.training.test_policy_gradient_module import adaptive


def test_moments_of_known_vectors():
    """The norm of the mean is corrected for the variance of a few draws."""
    vectors = torch.randn(4000, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.1
    moments = Moments()
    for vector in vectors:
        moments.add(vector)
    assert moments.variance == pytest.approx(vectors.var(0).sum().item())
    assert moments.mean_square == pytest.approx(vectors.square().sum(1).mean().item())
    assert moments.signal == pytest.approx(50 * 0.1**2, rel=0.1)
    few = [Moments() for _ in range(300)]
    for i, vector in enumerate(vectors[:3000]):
        few[i // 10].add(vector - 0.1)
    biased = [(m.total / m.number).square().sum().item() for m in few]
    assert sum(m.signal for m in few) / 300 < 0.1 * sum(biased) / 300


def make(sampler="learned"):
    network = adaptive(sampler).network.eval()
    rng = torch.Generator().manual_seed(0)
    batch = {key: torch.rand(2, 3, 32, 32, generator=rng) for key in ("blurred", "sharp")}
    return network, batch


def test_all_estimators_are_measured_without_side_effects():
    network, batch = make()
    before, state = {k: v.clone() for k, v in network.state_dict().items()}, torch.get_rng_state()
    rows, skipped = signal_to_noise(network, batch, draws=6)
    assert [row["estimator"] for row in rows] == list(ESTIMATORS) and not skipped
    for row in rows:
        assert row["deviation"] > 0 and row["signal_to_noise"] == pytest.approx(row["signal"] / row["deviation"])
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in network.parameters())
    assert not any(module.training for module in network.modules())
    assert signal_to_noise(network, batch, draws=6)[0] == rows, "reproducible"
    assert signal_to_noise(network, batch, draws=6, seed=9)[0] != rows


def test_a_paired_baseline_reduces_the_noise():
    network, batch = make()
    noise = {row["estimator"]: row["deviation"] for row in signal_to_noise(network, batch, draws=12)[0]}
    assert noise["reinforce, paired"] < 0.5 * noise["reinforce, no baseline"]


def test_estimators_that_cannot_be_measured_are_reported():
    network, batch = make("random")
    rows, skipped = signal_to_noise(network, batch)
    assert not rows and "random has no policy" in skipped[0]
    network = AdaptiveNetwork(SRN(channels=(4, 4, 4), sampled=True)).eval()
    rows, skipped = signal_to_noise(network, batch, draws=2)
    assert [row["estimator"] for row in rows] == ["reinforce, no baseline", "reinforce, improvement"]
    assert len(skipped) == 2 and all("does not support it" in message for message in skipped)
