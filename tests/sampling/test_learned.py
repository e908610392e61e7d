import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from sapnet.layers.windows import cover
from sapnet.sampling.learned import LearnedSampler
from sapnet.sampling.samplers import make_sampler
from tests.sampling.contexts import FixedPolicy, make_context


def test_each_window_is_calibrated():
    logits = torch.cat((torch.full((1, 16, 16), 2.0), torch.full((1, 16, 16), -2.0)), dim=2)
    context = make_context((16, 32), grid=(1, 1))
    share = LearnedSampler(FixedPolicy(logits)).score(replace(context, windows=cover(16, 32, (16, 16), 8)))
    torch.testing.assert_close(share, torch.full_like(share, 0.25))


def test_probabilities_sum_to_the_budget_at_every_scale():
    logits = 3 * torch.randn(1, 32, 48, generator=torch.Generator().manual_seed(0))
    for size, budget in (((32, 48), 0.1), ((27, 41), -0.1)):
        context = make_context(size, (32, 48))
        sampling = LearnedSampler(FixedPolicy(logits), budget=budget)(context, "top")
        assert sampling.map.shape == (2, 32, 48)
        for r, p in sampling.probabilities.items():
            area = [min(max(size[0] - top, 0), 16) * size[1] for top in (0, 0, 16, 16)]
            assert torch.allclose(p.sum((1, 2)), (1 + budget) * torch.tensor(area) / r**2, rtol=1e-3)
            assert p.min() >= 0 and p.max() < 1


def test_probabilities_in_and_at_the_padding():
    sampling = LearnedSampler(FixedPolicy(torch.full((1, 16, 16), 1e4)), "indicator")(
        make_context((9, 16), (16, 16), (1, 1))
    )
    for r, rows in ((2, 9), (4, 5), (8, 3)):
        p = sampling.probabilities[r]
        assert (p[:, rows:] == 0).all() and (p[:, :rows] > 0).all()
    # A quarter of the last row of cells of 4x4 pixels is not padding.
    assert torch.allclose(sampling.probabilities[8][:, 2], torch.tensor(0.25), atol=1e-5)


def test_full_candidates_keep_the_count_on_every_pixel():
    context = make_context()
    sampler = LearnedSampler(FixedPolicy(torch.randn(1, 32, 48)), candidates="full")
    sampling = sampler(context, "top")
    for r in (2, 4, 8):
        assert sampling.probabilities[r].shape == (4, 16, 48)
        assert torch.allclose(sampling.probabilities[r].sum((1, 2)), torch.full((4,), 16 * 48 / r**2), rtol=1e-3)
        assert (sampling.points[r] >= 0).sum(1).tolist() == [16 * 48 // r**2] * 4


def test_draws_keep_the_budget():
    context = make_context((128, 128), grid=(1, 1), batch=1)
    logits = 2 * torch.randn(1, 128, 128, generator=torch.Generator().manual_seed(0))
    sampler = LearnedSampler(FixedPolicy(logits))
    rng = torch.Generator().manual_seed(1)
    drawn = {r: [] for r in (2, 4, 8)}
    for _ in range(100):
        sampling = sampler(context, "draw", rng)
        for r in drawn:
            drawn[r].append(sampling.drawn_counts(r).item())
            assert sampling.drawn_counts(r).item() == (sampling.points[r] >= 0).sum().item()
    for r, numbers in drawn.items():
        numbers, p = torch.tensor(numbers).double(), sampling.probabilities[r].double()
        budget, deviation = 128 * 128 / r**2, (p * (1 - p)).sum().sqrt().item()
        assert (numbers - budget).abs().max() < 4 * deviation
        assert abs(numbers.mean().item() / budget - 1) < 0.01


def test_drawn_points_equal_the_actions():
    sampling = make_sampler("learned", 4)(make_context(), "draw")
    for r, actions in sampling.actions.items():
        for row, action in zip(sampling.points[r], actions, strict=True):
            assert row[row >= 0].tolist() == action.flatten().nonzero().flatten().tolist()


def test_surplus_draws_are_dropped_and_counted():
    context = make_context((32, 32), grid=(1, 1), batch=1)
    sampling = LearnedSampler(FixedPolicy(torch.full((1, 32, 32), 1e4)), "indicator")(context, "draw")
    # All 1024 positions are drawn for a budget of 256, with slots for 8 * sqrt(256 * 0.75) more.
    assert sampling.drawn_counts(2).item() == 1024 and sampling.kept_counts(2).item() == 256 + 111
    assert sampling.statistics()["dropped_r2"].item() == 1024 - 367
    assert sampling.statistics()["log_ratio_r2"].item() == pytest.approx(math.log(4))
    assert torch.isfinite(sampling.probabilities[2].log()).all()


def test_each_patch_has_its_own_budget():
    logits = torch.zeros(1, 32, 16)
    logits[:, 16:] = 5  # the lower half is far harder
    sampling = LearnedSampler(FixedPolicy(logits), scales=(1, 2))(make_context((32, 16), grid=(2, 1)), "top")
    assert list(sampling.points) == [2]
    assert (sampling.points[2] >= 0).sum(1).tolist() == [64] * 4


def test_half_precision_logits_keep_the_budget():
    context = make_context()

    def half(context):
        return torch.randn(2, 32, 48).bfloat16()

    module = nn.Module()
    module.forward = half
    p = LearnedSampler(module)(context, "top").probabilities[2]
    assert p.dtype == torch.float32 and torch.allclose(p.sum((1, 2)), torch.full((4,), 192.0), atol=0.01)


def test_extreme_logits_give_finite_gradients():
    for control in ("calibrated", "indicator"):
        logits = torch.where(torch.rand(1, 32, 48, generator=torch.Generator().manual_seed(0)) < 0.5, 1e4, -1e4)
        table = FixedPolicy(logits)
        sampling = LearnedSampler(table, control)(make_context(), "draw")
        for r, p in sampling.probabilities.items():
            assert torch.isfinite(torch.where(sampling.actions[r], p, 1 - p).log()).all()
        taken = [torch.where(sampling.actions[r], p, 1 - p) for r, p in sampling.probabilities.items()]
        sum(q.log().sum() for q in taken).backward()
        assert table.logits.grad.isfinite().all()
