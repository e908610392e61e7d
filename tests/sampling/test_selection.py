import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sapnet.layers.windows import cover
from sapnet.sampling.points import budget_count, canvas_size
from sapnet.sampling.selection import (
    cell_counts,
    extent_mask,
    limit_counts,
    patch_extents,
    points_from_mask,
    pool,
    regular_order,
    select_points,
    select_points_by_cell,
)
from tests.reference import sampling as reference


def test_first_quarter_of_the_regular_order_is_every_second_row_and_column():
    h, w = 12, 20
    grid = torch.arange(h * w).view(h, w)
    assert regular_order(h, w)[: h * w // 4].sort().values.tolist() == grid[::2, ::2].flatten().tolist()
    assert regular_order(h, w)[: h * w // 16].sort().values.tolist() == grid[::4, ::4].flatten().tolist()


def test_half_of_the_regular_order_is_a_chequerboard():
    assert regular_order(2, 2).tolist() == [0, 3, 1, 2]
    half = regular_order(8, 8)[:32]
    assert ((half // 8 + half % 8) % 2 == 0).all()


@settings(deadline=None)
@given(st.integers(1, 20), st.integers(1, 20), st.data())
def test_every_prefix_of_the_regular_order_is_even(h, w, data):
    order = regular_order(h, w)
    assert order.sort().values.tolist() == list(range(h * w))
    k = data.draw(st.integers(0, h * w))
    mask = torch.zeros(h * w).index_fill(0, order[:k], 1).view(h, w)
    for side in (2, 4, 8):
        if min(h, w) >= side:
            blocks = mask.unfold(0, side, side).unfold(1, side, side).sum((-1, -2))
            assert blocks.max() - blocks.min() <= 1


@settings(deadline=None)
@given(st.integers(1, 8), st.integers(1, 8), st.data())
def test_selected_points_are_the_highest_valid_ones(h, w, data):
    rng = torch.Generator().manual_seed(data.draw(st.integers(0, 999)))
    scores = torch.randperm(2 * h * w, generator=rng).view(2, h, w).float() - h * w
    extents = [(data.draw(st.integers(0, h)), data.draw(st.integers(0, w))) for _ in range(2)]
    counts = [data.draw(st.integers(0, a * b)) for a, b in extents]
    points = select_points(scores, counts, extent_mask(extents, h, w))
    assert points.shape == (2, max(counts))
    for row, count, score, (a, b) in zip(points, counts, scores, extents, strict=True):
        outside = torch.ones(h, w, dtype=torch.bool)
        outside[:a, :b] = False
        expected = reference.top_points(score.masked_fill(outside, -1e9), count)
        assert row.tolist() == expected + [-1] * (max(counts) - count)


def test_ties_are_spread_and_the_count_is_exact():
    scores = torch.zeros(1, 8, 8)
    scores[0, 0, :3] = 1
    points = select_points(scores, [16])
    assert len(set(points[0].tolist())) == 16 and {0, 1, 2} <= set(points[0].tolist())
    assert (points[0] >= 32).sum() >= 6, "ties are not spread"


def test_flat_map_gives_the_regular_grid():
    points = select_points(torch.full((1, 6, 8), 0.3), [12])
    assert points[0].tolist() == torch.arange(48).view(6, 8)[::2, ::2].flatten().tolist()


def test_mask_is_converted_to_sorted_points():
    mask = torch.tensor([[0, 1, 1, 0, 1], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]]).bool()
    assert points_from_mask(mask, 3).tolist() == [[1, 2, 4], [-1, -1, -1], [0, 1, 2]]
    assert points_from_mask(mask, 6)[2].tolist() == [0, 1, 2, 3, 4, -1]


def test_limit_drops_only_the_surplus_at_random():
    rng = torch.Generator().manual_seed(0)
    mask = torch.ones(3, 100, dtype=torch.bool)
    mask[1, 7:] = False
    kept = torch.stack([limit_counts(mask, [10, 10, 0], rng) for _ in range(400)])
    assert (kept & ~mask).sum() == 0
    assert (kept[:, 0].sum(-1) == 10).all() and torch.equal(kept[0, 1], mask[1]) and not kept[:, 2].any()
    share = kept[:, 0].float().mean(0)
    assert (share - 0.1).abs().max() < 5 * (0.09 / 400) ** 0.5


def test_padding_is_in_the_last_patches():
    assert patch_extents(32, 32, (2, 2), (20, 9)) == [(16, 9), (16, 0), (4, 9), (4, 0)]
    assert patch_extents(32, 16, (1, 1), (32, 16)) == [(32, 16)]


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_pooling_keeps_the_sum_of_valid_pixels(stride):
    image = torch.rand(2, 8, 8)
    valid = extent_mask([(5, 3), (8, 7)], 8, 8)
    pooled = pool(image, stride, valid)
    assert torch.allclose(pooled.sum((1, 2)) * stride**2, (image * valid).sum((1, 2)))
    assert pooled[0, -(-5 // stride) :].abs().sum() == 0


@settings(deadline=None)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(2, 6), st.integers(2, 6), st.data())
def test_selection_by_tiling_windows_is_the_top_of_each(rows, cols, tall, wide, data):
    windows = cover(rows * tall, cols * wide, (tall, wide), 1)
    if windows is None:
        return
    rng = torch.Generator().manual_seed(data.draw(st.integers(0, 999)))
    scores = torch.rand(2, rows * tall, cols * wide, generator=rng)
    counts = [[data.draw(st.integers(0, tall * wide)) for _ in range(rows * cols)] for _ in range(2)]
    points = select_points_by_cell(scores, counts, windows)
    assert points.shape == (2, max(map(sum, counts)))
    for n in range(2):
        expected = set()
        for count, (y, x) in zip(counts[n], windows.windows(1), strict=True):
            top = reference.top_points(scores[n, y, x], count)
            expected |= {(y.start + p // wide) * cols * wide + x.start + p % wide for p in top}
        assert points[n].tolist() == sorted(expected) + [-1] * (points.shape[1] - len(expected))


@settings(deadline=None)
@given(
    st.integers(1, 90),
    st.integers(1, 90),
    st.sampled_from([16, 32, 64]),
    st.sampled_from([2, 4, 8]),
    st.sampled_from(["canvas", "full"]),
    st.sampled_from([-0.9, -0.1, 0.0, 0.1, 0.2, 2.9, 3.0]),
)
def test_cell_counts_sum_to_the_budget_and_fit(height, width, window, scale, candidates, budget):
    """With padding, the whole image has exactly L points, and no cell has more points than positions."""
    padded, extent = (-(-height // 8) * 8, -(-width // 8) * 8), (height, width)
    windows = cover(*padded, (window, window), 8)
    if windows is None:
        return
    count, density = budget_count(height, width, scale, budget, candidates), (1 + budget) / scale**2
    shares = cell_counts(windows, extent, density, count)
    assert sum(shares) == count and min(shares) >= 0
    for share, box in zip(shares, windows.cells(1), strict=True):
        rows, cols = (max(min(part.stop, size) - part.start, 0) for part, size in zip(box, extent, strict=True))
        assert abs(share - density * rows * cols) <= 1
        places = canvas_size(rows, cols, scale, candidates)
        assert share <= places[0] * places[1]


def test_equal_windows_have_equal_counts():
    windows = cover(128, 256, (64, 64), 8)
    assert cell_counts(windows, (128, 256), 1 / 16, 2048) == (256,) * 8
