import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sapnet.sampling.calibration import calibrate
from sapnet.sampling.selection import extent_mask
from tests.reference import sampling as reference


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10**6), st.sampled_from([0.1, 1.0, 30.0, 1e3]), st.floats(0.02, 0.98))
def test_mean_is_met_and_agrees_with_bisection(seed, spread, mean):
    rng = torch.Generator().manual_seed(seed)
    logits = spread * torch.randn(2, 9, 7, generator=rng, dtype=torch.float64) + 100 * torch.rand((), generator=rng)
    p = torch.sigmoid(calibrate(logits, mean))
    assert (p.mean((1, 2)) - mean).abs().max() < 1e-9
    assert torch.allclose(p[1], reference.calibrated(logits[1], mean * 63), atol=1e-7)


@pytest.mark.parametrize("mean", [0.025, 0.225, 0.25, 0.3, 0.75, 1.0])
@pytest.mark.parametrize(
    "logits",
    [
        torch.zeros(1, 32, 32),
        torch.full((1, 32, 32), -1e4),
        torch.where(torch.arange(1024).view(1, 32, 32) % 2 == 0, 1e4, -1e4),
        torch.where(torch.arange(1024).view(1, 32, 32) % 4 == 0, 1e4, -1e4),
        torch.zeros(1, 32, 32).index_fill(2, torch.tensor([3]), 1e4),
        torch.linspace(-1e4, 1e4, 1024).view(1, 32, 32),
    ],
    ids=["zero", "low", "halves", "quarter", "column", "ramp"],
)
def test_flat_and_saturated_logits_keep_the_budget_with_finite_gradients(logits, mean):
    logits = logits.clone().requires_grad_()
    p = torch.sigmoid(calibrate(logits, mean))
    # At 1e4 the spacing of float32 logits is a thousandth.
    assert abs(p.mean().item() - mean) < 3e-4
    (p * torch.linspace(0, 1, p.numel()).view_as(p)).sum().backward()
    assert logits.grad.isfinite().all()


def test_float32_keeps_the_count_of_a_large_image():
    logits = 3 * torch.randn(1, 720, 1280, generator=torch.Generator().manual_seed(0))
    p = torch.sigmoid(calibrate(logits, 0.25))
    assert abs(p.sum(dtype=torch.float64).item() - 230400) < 0.5


def test_implicit_gradient_equals_the_numerical_one():
    rng = torch.Generator().manual_seed(1)
    logits = torch.randn(2, 3, 4, generator=rng, dtype=torch.float64, requires_grad=True)
    valid = extent_mask([(3, 4), (2, 3)], 3, 4)
    assert torch.autograd.gradcheck(lambda z: calibrate(z, 0.3, valid), (logits,))
    assert torch.autograd.gradcheck(lambda z: torch.sigmoid(calibrate(z, 0.3)), (logits,))


def test_sum_has_zero_gradient():
    logits = torch.randn(1, 5, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64, requires_grad=True)
    torch.sigmoid(calibrate(logits, 0.25)).sum().backward()
    assert logits.grad.abs().max() < 1e-12


def test_padding_has_no_influence():
    valid = extent_mask([(2, 3)], 4, 4)
    logits = torch.randn(1, 4, 4, generator=torch.Generator().manual_seed(3)).requires_grad_()
    p = torch.sigmoid(calibrate(logits, 0.25, valid))
    assert abs(p[valid].mean().item() - 0.25) < 1e-6
    other = torch.where(valid, logits.detach(), 1e4)
    assert torch.allclose(torch.sigmoid(calibrate(other, 0.25, valid))[valid], p[valid])


def test_map_without_valid_positions_stays_finite():
    valid = extent_mask([(0, 4), (4, 4)], 4, 4)
    logits = torch.zeros(2, 4, 4, requires_grad=True)
    shifted = calibrate(logits, 0.25, valid)
    shifted.sum().backward()
    assert shifted.isfinite().all() and logits.grad.isfinite().all()
