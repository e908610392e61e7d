from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from sapnet.errors import UserError
from sapnet.layers.windows import cover
from sapnet.sampling.context import StageContext
from sapnet.sampling.learned import LearnedSampler
from sapnet.sampling.samplers import make_sampler
from sapnet.sampling.selection import regular_order
from tests.sampling.contexts import FixedPolicy, check_points, make_context

NAMES = ("learned", "uniform", "random", "gradient", "oracle", "extent", "predicted_error")
BUDGETS = (0.0, -0.1, 0.1, 0.2)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mode", ["top", "dither", "draw", "pretrain"])
@settings(deadline=None, max_examples=8)
@given(
    st.sampled_from(BUDGETS),
    st.integers(1, 48),
    st.integers(1, 48),
    st.sampled_from([(1, 1), (2, 1), (2, 2)]),
    st.integers(1, 2),
)
def test_points_are_valid_for_any_size(mode, name, budget, height, width, grid, batch):
    padded = -(-height // 16) * 16, -(-width // 16) * 16
    context = make_context((height, width), padded, grid, batch)
    sampler = make_sampler(name, 4, budget)
    if mode == "dither" and name != "learned":
        with pytest.raises(UserError, match="top"):
            sampler(context, mode)
        return
    sampling = sampler(context, mode)
    exact = mode in ("top", "dither") or (mode == "draw" and name != "learned")
    check_points(sampling, context, budget, exact)


@pytest.mark.parametrize(("name", "mode"), [*((name, "top") for name in NAMES), ("learned", "dither")])
@settings(deadline=None, max_examples=8)
@given(
    st.sampled_from((*BUDGETS, -0.9, 3.0)),
    st.integers(1, 70),
    st.integers(1, 70),
    st.sampled_from([(1, 1), (2, 1), (2, 2)]),
    st.sampled_from([16, 32, 48]),
)
def test_windows_keep_the_budget_and_the_valid_positions(name, mode, budget, height, width, grid, window):
    padded = -(-height // 16) * 16, -(-width // 16) * 16
    context = make_context((height, width), padded, grid)
    parts = [(size // n, window // n) for size, n in zip(padded, grid, strict=True)]
    windows = cover(parts[0][0], parts[1][0], (parts[0][1], parts[1][1]), 8)
    sampling = make_sampler(name, 4, budget)(replace(context, windows=windows), mode)
    check_points(sampling, context, budget, exact=True)


@pytest.mark.parametrize("name", ["learned", "uniform", "gradient"])
def test_windows_that_tile_equal_separate_images(name):
    """Includes the calibration, which could move probability between windows."""
    torch.manual_seed(0)
    logits = 3 * torch.randn(1, 32, 64)
    context = make_context((32, 64), grid=(1, 1))

    def sampler(logits):
        return LearnedSampler(FixedPolicy(logits)) if name == "learned" else make_sampler(name)

    whole = sampler(logits)(replace(context, windows=cover(32, 64, (32, 32), 8)), "top")
    for x in (0, 32):
        parts = {key: getattr(context, key)[..., x : x + 32] for key in ("restored", "blurred", "sharp", "extent")}
        alone = sampler(logits[..., x : x + 32])(replace(context, size=(32, 32), **parts), "top")
        for scale in (2, 4, 8):
            chosen, expected = whole.mask(scale)[..., x : x + 32], alone.mask(scale)
            # The gradient at a border depends on the neighbouring window.
            assert torch.equal(chosen, expected) or (name == "gradient" and (chosen != expected).float().mean() < 0.1)
            assert torch.equal(chosen.sum((1, 2)), expected.sum((1, 2)))


def test_uniform_points_are_every_second_row_and_column_at_budget_0():
    sampling = make_sampler("uniform")(make_context())
    for scale, (h, w) in {2: (16, 48), 4: (8, 24), 8: (4, 12)}.items():
        expected = torch.arange(h * w).view(h, w)[::2, ::2].flatten()
        assert torch.equal(sampling.points[scale], expected.expand(4, -1))


def test_uniform_points_do_not_change_with_padding_that_cuts_cells():
    context = make_context((30, 46), (32, 48), (1, 1))
    points = make_sampler("uniform")(context).points[8]
    # 22 points on 8x12 canvas positions: almost every second row and column.
    grid = torch.arange(96).view(8, 12)[::2, ::2].flatten().tolist()
    assert set(points[0].tolist()) <= set(grid)


def test_an_untrained_policy_ranks_like_the_uniform_sampler():
    context = make_context()
    learned, uniform = (make_sampler(name, 4)(context, "top").points for name in ("learned", "uniform"))
    assert all(torch.equal(learned[r], uniform[r]) for r in (2, 4, 8))


def test_random_points_at_inference_depend_only_on_size_and_seed():
    sampler = make_sampler("random", seed=3).eval()
    big, small = make_context(batch=3), make_context(batch=1, seed=9)
    first, again, alone = sampler(big), sampler(big), sampler(small)
    for r in (2, 4, 8):
        assert torch.equal(first.points[r], again.points[r])
        assert torch.equal(first.points[r][0], first.points[r][2])
        assert torch.equal(first.points[r][[0, 3]], alone.points[r]), "points depend on the batch size"
        assert not torch.equal(first.points[r][0], first.points[r][3]), "the two halves have the same points"
    assert not torch.equal(make_sampler("random", seed=4).eval()(big).points[2], first.points[2])


def test_random_points_in_training_come_from_the_generator():
    sampler, context = make_sampler("random").train(), make_context()
    draws = [sampler(context, rng=torch.Generator().manual_seed(s)).points[2] for s in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])


def test_random_positions_are_equally_likely():
    sampler = make_sampler("random", scales=(8,)).train()
    context = make_context((16, 16), grid=(1, 1), batch=1)
    hits = torch.zeros(16)
    for s in range(800):
        hits[sampler(context, rng=torch.Generator().manual_seed(s)).points[8][0]] += 1
    assert (hits / 800 - 0.25).abs().max() < 4.5 * (0.25 * 0.75 / 800) ** 0.5


def test_oracle_selects_errors_and_gradient_selects_edges():
    plain = torch.full((1, 3, 32, 32), 0.5)
    wrong, edge = plain.clone(), plain.clone()
    wrong[..., 4:12, 16:24] += 0.2
    edge[..., :, 24:] = 0.9
    oracle = make_sampler("oracle")(StageContext(1, (1, 1), (32, 32), None, wrong, plain, plain)).points
    for r, stride in ((2, 1), (4, 2)):
        w = 32 // stride
        inside = torch.zeros(w, w, dtype=torch.bool)
        inside[4 // stride : 12 // stride, 16 // stride : 24 // stride] = True
        assert set(inside.flatten().nonzero().flatten().tolist()) <= set(oracle[r][0].tolist())
    gradient = make_sampler("gradient")(StageContext(1, (1, 1), (32, 32), None, edge, plain)).points[2][0].tolist()
    assert {y * 32 + x for y in range(32) for x in (23, 24)} <= set(gradient)


def test_oracle_score_is_the_true_error_without_padding():
    context = make_context((30, 41), (32, 48))
    score = make_sampler("oracle").score(context)
    assert torch.allclose(score[:, :30, :41], (context.restored[..., :30, :41] - context.sharp).abs().mean(1))
    assert score[:, 30:].abs().sum() == 0 and score[..., 41:].abs().sum() == 0


def test_gradient_score_of_a_ramp_is_its_slope():
    ramp = (torch.arange(16) * 0.01).expand(1, 3, 16, 16)
    score = make_sampler("gradient").score(StageContext(1, (1, 1), (16, 16), None, ramp, ramp))
    assert torch.allclose(score[:, 1:-1, 1:-1], torch.full((1, 14, 14), 0.01), atol=1e-6)


def test_oracle_without_ground_truth_is_refused():
    context = make_context()
    with pytest.raises(UserError, match="sharp"):
        make_sampler("oracle")(StageContext(1, (1, 1), (32, 48), None, context.restored, context.blurred))


def test_extent_without_true_blur_is_refused():
    with pytest.raises(UserError, match="data=synthetic"):
        make_sampler("extent")(replace(make_context(), extent=None))


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 40), st.integers(1, 40), st.floats(0, 1), st.integers(0, 2**31))
def test_extent_selects_the_most_blurred_pixels_then_the_regular_order(height, width, share, seed):
    """If the blur covers less than the budget, the remaining points are spread evenly over the background."""
    padded = -(-height // 16) * 16, -(-width // 16) * 16
    rng = torch.Generator().manual_seed(seed)
    extent = torch.rand(1, 1, height, width, generator=rng) + 0.1
    extent = extent * (torch.rand(extent.shape, generator=rng) < share)
    context = replace(make_context((height, width), padded, (1, 1), 1), extent=extent)
    points = make_sampler("extent", scales=(2,))(context, "top").points[2][0]
    scores = F.pad(extent, (0, padded[1] - width, 0, padded[0] - height)).flatten()
    allowed = {y * padded[1] + x for y in range(height) for x in range(width)}
    order = [i for i in regular_order(*padded).tolist() if i in allowed]
    expected = sorted(order, key=lambda i: -scores[i].item())[: len(points)]  # a stable sort
    assert points.tolist() == sorted(expected)


def test_unknown_names_are_refused():
    with pytest.raises(UserError, match="sampler"):
        make_sampler("best")
    with pytest.raises(UserError, match="mode"):
        make_sampler("uniform")(make_context(), "bottom")
    with pytest.raises(UserError, match="budget_control"):
        make_sampler("learned", budget_control="none")
    with pytest.raises(UserError, match="pad"):
        make_sampler("uniform")(make_context((30, 48)))


def test_points_of_images_are_independent():
    context = make_context(seed=1)
    both = make_sampler("oracle")(context).points[2]
    second = StageContext(1, (2, 1), (32, 48), None, context.restored[1:], context.blurred[1:], context.sharp[1:])
    assert torch.equal(both[[1, 3]], make_sampler("oracle")(second).points[2])


def test_pretraining_draws_are_flat_for_every_sampler():
    context = make_context((128, 128), grid=(1, 1), batch=1)
    seeded = [torch.Generator().manual_seed(0) for _ in NAMES]
    drawn = [make_sampler(name, 4, 0.2)(context, "pretrain", rng) for name, rng in zip(NAMES, seeded, strict=True)]
    assert all(torch.equal(d.points[2], drawn[0].points[2]) for d in drawn)
    assert abs(drawn[0].drawn_counts(2).item() - 0.3 * 16384) < 5 * (0.3 * 0.7 * 16384) ** 0.5
    # Both halves of the image have the same number of points.
    rows = drawn[0].points[2][0] // 128
    assert abs((rows < 64).sum() - (rows >= 64).sum()) < 5 * (0.3 * 0.7 * 16384) ** 0.5


@pytest.mark.parametrize("name", NAMES)
def test_budget_can_be_changed(name):
    context, sampler = make_context(), make_sampler(name, 4)
    sampler.use_budget(0.2)
    check_points(sampler(context, "top"), context, 0.2, exact=True)
    assert sampler(context, "pretrain").map.mean().item() == pytest.approx(0.3)
    if name == "learned":
        assert sampler(context, "draw").map.mean().item() == pytest.approx(0.3, abs=1e-5)
    with pytest.raises(UserError, match="budget"):
        sampler.use_budget(-1.0)


def test_training_draws_and_evaluation_ranks():
    context = make_context()
    sampler = make_sampler("learned", 4)
    assert sampler.train()(context).actions and not sampler.eval()(context).actions


def test_mask_shows_the_points():
    """The mask equals the points of every patch."""
    context = make_context(size=(16, 16))
    sampling = make_sampler("random", seed=3)(context, "top")
    for scale, points in sampling.points.items():
        mask = sampling.mask(scale)
        assert mask.shape == context.blurred[:, 0].shape
        stride, rows = sampling.strides[scale], 16 // context.grid[0] // sampling.strides[scale]
        cols = 16 // context.grid[1] // stride
        for p, row in enumerate(points.tolist()):
            place, image = divmod(p, 2)
            top, left = place // context.grid[1] * rows, place % context.grid[1] * cols
            inside = mask[image, top * stride : (top + rows) * stride, left * stride : (left + cols) * stride]
            assert sorted(i for i in row if i >= 0) == inside[::stride, ::stride].flatten().nonzero().flatten().tolist()
