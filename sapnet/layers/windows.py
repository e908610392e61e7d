"""Windows that limit global operations on large images at inference to the size of the training crops.

Global pooling has different statistics on a whole image than on the crops of training. Pooling in windows of the crop
size restores the statistics of training (test-time local aggregation, Chu et al., ECCV 2022).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

Box = tuple[slice, slice]


@dataclass(frozen=True)
class Windows:
    """Equal windows that cover a patch, overlapping if they do not tile it, and the partition of the patch into cells.

    A position belongs to the cell of the window with the nearest centre, so each cell is inside its window. Sizes are
    in pixels of the patch. Positions are multiples of the step of the coarsest grid, so all grids of the patch are cut
    at the same positions.

    Attributes:
        size: Height and width of the patch.
        window: Height and width of every window.
        starts: First rows of the windows, and first columns.
        edges: Row boundaries of the cells from 0 to the height, and column boundaries.
    """

    size: tuple[int, int]
    window: tuple[int, int]
    starts: tuple[tuple[int, ...], tuple[int, ...]]
    edges: tuple[tuple[int, ...], tuple[int, ...]]

    @property
    def number(self) -> int:
        """Number of windows and of cells."""
        return len(self.starts[0]) * len(self.starts[1])

    def windows(self, step: int) -> Iterator[Box]:
        """Iterate over the slices of each window in raster order, on a grid with one position every `step` pixels."""
        (tall, wide), (rows, cols) = self.window, self.starts
        return (_box(y, y + tall, x, x + wide, step) for y in rows for x in cols)

    def cells(self, step: int) -> Iterator[Box]:
        """Iterate over the slices of each window's cell, like `windows`; the cells are disjoint and cover the patch."""
        rows, cols = (list(pairwise(edges)) for edges in self.edges)
        return (_box(*y, *x, step) for y in rows for x in cols)

    def to_cells(self, maps: Shaped[Tensor, "p h w"]) -> Shaped[Tensor, "p2 h2 w2"]:
        """Split maps of the patch into cells, padded with 0 at the bottom and right to the size of the largest cell.

        Cell `i` in raster order of map `n` of `p` has the index `i * p + n`.
        """
        boxes = list(self.cells(self.size[0] // maps.shape[1]))
        tall, wide = (max(box[d].stop - box[d].start for box in boxes) for d in (0, 1))
        parts = maps.new_zeros(len(boxes), len(maps), tall, wide)
        for i, (rows, cols) in enumerate(boxes):
            parts[i, :, : rows.stop - rows.start, : cols.stop - cols.start] = maps[:, rows, cols]
        return parts.flatten(0, 1)

    def from_cells(self, parts: Shaped[Tensor, "p2 h2 w2"], step: int) -> Shaped[Tensor, "p h w"]:
        """Join the cells of `to_cells`, on a grid with one position every `step` pixels."""
        parts = parts.unflatten(0, (self.number, -1))
        maps = parts.new_empty(parts.shape[1], self.size[0] // step, self.size[1] // step)
        for i, (rows, cols) in enumerate(self.cells(step)):
            maps[:, rows, cols] = parts[i, :, : rows.stop - rows.start, : cols.stop - cols.start]
        return maps


def cover(height: int, width: int, window: tuple[int, int], align: int) -> Windows | None:
    """Cover a patch with the smallest number of evenly spread windows; windows that tile it do not overlap.

    Args:
        height: Rows of the patch, a multiple of `align`.
        width: Columns of the patch, a multiple of `align`.
        window: Height and width of a window, multiples of `align`; limited to those of the patch.
        align: All positions of windows and cells are multiples of this number of pixels.

    Returns:
        The windows, or None if a single window covers the patch.
    """
    if height <= window[0] and width <= window[1]:
        return None
    window = min(window[0], height), min(window[1], width)
    starts = _starts(height, window[0], align), _starts(width, window[1], align)
    edges = _edges(starts[0], window[0], height, align), _edges(starts[1], window[1], width, align)
    return Windows((height, width), window, starts, edges)


class PointWindows:
    """The windows of a patch on one of its canvases, with the points of the canvas grouped by cell.

    Args:
        windows: Windows of the patch.
        shape: Batch size, height and width of the canvas.
        points: Raster indices into the canvas; None: every position.
        device: Device of the canvas.
    """

    def __init__(
        self,
        windows: Windows,
        shape: tuple[int, int, int],
        points: Int64[Tensor, "b l"] | None,
        device: torch.device | str = "cpu",
    ):
        batch, height, width = shape
        self.windows = windows
        cell = torch.empty(height, width, dtype=torch.int64, device=device)
        for i, box in enumerate(windows.cells(windows.size[0] // height)):
            cell[box] = i
        cell = cell.flatten()
        if points is None:
            owner = cell.expand(batch, -1)
        else:
            # Unused slots are assigned to an extra cell after the last one.
            owner = torch.where(points < 0, windows.number, cell[points.clamp(min=0)])
        self._group_rows, self._ungroup_rows = _order(owner, windows.number)

    def cut(self, grid: Float[Tensor, "b h w c"]) -> Float[Tensor, "n hw c"]:
        """Copy the windows of a grid of the patch as tokens; window `i` of image `j` of `b` is at `i * b + j`."""
        boxes = self.windows.windows(self.windows.size[0] // grid.shape[1])
        return torch.cat([grid[:, rows, cols] for rows, cols in boxes]).flatten(1, 2)

    def group(self, values: Float[Tensor, "b l c"]) -> Float[Tensor, "n m c"]:
        """Group values at the points by cell, in the order of `cut`; surplus slots hold arbitrary values."""
        rows = values.flatten(0, 1).index_select(0, self._group_rows.flatten())
        return rows.view(*self._group_rows.shape, values.shape[2])

    def ungroup(self, grouped: Float[Tensor, "n m c"]) -> Float[Tensor, "b l c"]:
        """Invert `group`; unused slots hold arbitrary values."""
        rows = grouped.flatten(0, 1).index_select(0, self._ungroup_rows.flatten())
        return rows.view(*self._ungroup_rows.shape, grouped.shape[2])


def tokens(grid: Float[Tensor, "b h w c"], windows: PointWindows | None) -> Float[Tensor, "n hw c"]:
    """Flatten the positions of a grid to tokens, separately for each window if there are windows."""
    return grid.flatten(1, 2) if windows is None else windows.cut(grid)


def _box(top: int, bottom: int, left: int, right: int, step: int) -> Box:
    return slice(top // step, bottom // step), slice(left // step, right // step)


def _starts(length: int, window: int, align: int) -> tuple[int, ...]:
    last = -(-length // window) - 1
    return tuple(i * (length - window) // max(last, 1) // align * align for i in range(last + 1))


def _edges(starts: tuple[int, ...], window: int, length: int, align: int) -> tuple[int, ...]:
    # Halfway between the centres of neighbours.
    return 0, *((a + b + window) // 2 // align * align for a, b in pairwise(starts)), length


def _order(owner: Int64[Tensor, "b l"], number: int) -> tuple[Int64[Tensor, "n m"], Int64[Tensor, "b l"]]:
    # The row of the values for each slot of the groups, and the slot of the groups for each value.
    batch, length = owner.shape
    owner, order = owner.sort(dim=1, stable=True)
    counts = owner.new_zeros(batch, number + 1).scatter_add_(1, owner, torch.ones_like(owner))
    most = max(int(counts[:, :number].max()), 1) if length else 0
    rank = torch.arange(length, device=owner.device) - (counts.cumsum(dim=1) - counts).gather(1, owner)
    image = torch.arange(batch, device=owner.device)[:, None]
    slot = torch.where(owner < number, (owner * batch + image) * most + rank, number * batch * most)
    group_rows = owner.new_zeros(number * batch * most + 1)
    group_rows[slot.flatten()] = (image * length + order).flatten()
    ungroup_rows = torch.empty_like(order).scatter_(1, order, slot.where(owner < number, 0))
    return group_rows[:-1].view(number * batch, most), ungroup_rows
