import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sapnet.layers.windows import PointWindows, cover

SIZES = st.integers(1, 20)
ALIGN = st.sampled_from([1, 2, 4])


def covered(height, width, tall, wide, align=1):
    return cover(height * align, width * align, (tall * align, wide * align), align)


@settings(deadline=None)
@given(SIZES, SIZES, SIZES, SIZES, ALIGN)
def test_windows_cover_the_patch_and_contain_their_cells(height, width, tall, wide, align):
    windows = covered(height, width, tall, wide, align)
    if windows is None:
        assert height <= tall and width <= wide
        return
    owners = torch.zeros(height, width, dtype=torch.int64)
    for window, cell in zip(windows.windows(align), windows.cells(align), strict=True):
        for size, whole, w, c in zip((tall, wide), (height, width), window, cell, strict=True):
            assert w.stop - w.start == min(size, whole), "wrong window size"
            assert 0 <= w.start <= c.start < c.stop <= w.stop <= whole
        owners[cell] += 1
    assert (owners == 1).all(), "cells overlap or leave gaps"


@settings(deadline=None)
@given(st.integers(1, 4), st.integers(1, 4), SIZES, SIZES)
def test_windows_that_tile_do_not_overlap(rows, cols, tall, wide):
    windows = cover(rows * tall, cols * wide, (tall, wide), 1)
    if rows * cols > 1:
        assert windows.number == rows * cols
        assert list(windows.windows(1)) == list(windows.cells(1))


@settings(deadline=None)
@given(SIZES, SIZES, st.integers(1, 9), st.integers(1, 9), st.integers(1, 3))
def test_from_cells_inverts_to_cells(height, width, tall, wide, batch):
    windows = covered(height, width, tall, wide)
    if windows is not None:
        maps = torch.rand(batch, height, width) + 1
        parts = windows.to_cells(maps)
        assert parts.sum(dtype=torch.float64) == pytest.approx(maps.sum(dtype=torch.float64).item()), (
            "values outside the cells"
        )
        assert torch.equal(windows.from_cells(parts, 1), maps)


@settings(deadline=None)
@given(st.integers(2, 12), st.integers(2, 12), st.integers(1, 6), st.integers(1, 6), st.data())
def test_points_are_grouped_by_cell_and_ungrouped(height, width, tall, wide, data):
    """Mixed points would use the information of another window or image."""
    windows = covered(height, width, tall, wide)
    if windows is None:
        return
    rng = torch.Generator().manual_seed(data.draw(st.integers(0, 999)))
    batch, length = 2, data.draw(st.integers(1, height * width))
    points = torch.stack([torch.randperm(height * width, generator=rng)[:length].sort().values for _ in range(batch)])
    points[1, length - length // 3 :] = -1
    local = PointWindows(windows, (batch, height, width), points)
    values = torch.arange(batch * length, dtype=torch.float32).view(batch, length, 1)
    grouped = local.group(values)
    used = points >= 0
    assert torch.equal(local.ungroup(grouped)[used], values[used])
    for i, (rows, cols) in enumerate(windows.cells(1)):
        for n in range(batch):
            y, x = points[n] // width, points[n] % width
            inside = used[n] & (y >= rows.start) & (y < rows.stop) & (x >= cols.start) & (x < cols.stop)
            members = values[n, inside, 0].tolist()
            assert grouped[i * batch + n, : len(members), 0].tolist() == members
    every = PointWindows(windows, (batch, height, width), None)
    canvas = torch.rand(batch, height * width, 3, generator=rng)
    assert torch.equal(every.ungroup(every.group(canvas)), canvas)
