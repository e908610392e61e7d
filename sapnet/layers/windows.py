"""Windows of the training size over larger images: what global operations see of them at inference.

A network trained on crops has only ever pooled over a crop. Over a whole image the same pooling sees other statistics;
windows of the crop's size give it those that it knows (test-time local aggregation, Chu et al., ECCV 2022).
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
    """Equal windows that cover a patch, overlapping where they do not tile it, and the cells they divide it into.

    A position belongs to the cell of the window whose centre is nearest: so each cell lies inside its window. All sizes
    are pixels of the patch, and all places multiples of the coarsest grid's step, so that every grid of the patch is
    cut at the same places.

    Attributes:
        size: Height and width of the patch.
        window: Height and width of every window.
        starts: First rows of the windows, and first columns.
        edges: Rows at which cells begin and, last, the height; and the same of columns.
    """

    size: tuple[int, int]
    window: tuple[int, int]
    starts: tuple[tuple[int, ...], tuple[int, ...]]
    edges: tuple[tuple[int, ...], tuple[int, ...]]

    @property
    def number(self) -> int:
        """How many windows there are, and cells."""
        return len(self.starts[0]) * len(self.starts[1])

    def windows(self, step: int) -> Iterator[Box]:
        """Each window's place in raster order, on a grid with one position every `step` pixels."""
        (tall, wide), (rows, cols) = self.window, self.starts
        return (_box(y, y + tall, x, x + wide, step) for y in rows for x in cols)

    def cells(self, step: int) -> Iterator[Box]:
        """Each window's cell, likewise; together they hold every position once."""
        rows, cols = (list(pairwise(edges)) for edges in self.edges)
        return (_box(*y, *x, step) for y in rows for x in cols)

    def to_cells(self, maps: Shaped[Tensor, "p h w"]) -> Shaped[Tensor, "p2 h2 w2"]:
        """Cut maps of the patch into cells, each at the corner of a map of its own; what is beyond a cell is 0.

        The cell at raster place `i` of map `n` of `p` stands at `i * p + n`.
        """
        boxes = list(self.cells(self.size[0] // maps.shape[1]))
        tall, wide = (max(box[d].stop - box[d].start for box in boxes) for d in (0, 1))
        parts = maps.new_zeros(len(boxes), len(maps), tall, wide)
        for i, (rows, cols) in enumerate(boxes):
            parts[i, :, : rows.stop - rows.start, : cols.stop - cols.start] = maps[:, rows, cols]
        return parts.flatten(0, 1)

    def from_cells(self, parts: Shaped[Tensor, "p2 h2 w2"], step: int) -> Shaped[Tensor, "p h w"]:
        """Put the cells of `to_cells` together again: its inverse, on a grid with that step."""
        parts = parts.unflatten(0, (self.number, -1))
        maps = parts.new_empty(parts.shape[1], self.size[0] // step, self.size[1] // step)
        for i, (rows, cols) in enumerate(self.cells(step)):
            maps[:, rows, cols] = parts[i, :, : rows.stop - rows.start, : cols.stop - cols.start]
        return maps


def cover(height: int, width: int, window: tuple[int, int], align: int) -> Windows | None:
    """As few windows as cover a patch, evenly spread; None if one is enough, for then nothing is to be done.

    Windows that tile the patch do not overlap.

    Args:
        height: Rows of the patch, a multiple of `align`.
        width: Its columns, likewise.
        window: Height and width of a window, likewise; where the patch is smaller, its own.
        align: Pixels that the places of windows and cells are multiples of.
    """
    if height <= window[0] and width <= window[1]:
        return None
    window = min(window[0], height), min(window[1], width)
    starts = _starts(height, window[0], align), _starts(width, window[1], align)
    edges = _edges(starts[0], window[0], height, align), _edges(starts[1], window[1], width, align)
    return Windows((height, width), window, starts, edges)


class PointWindows:
    """The windows of a patch seen from one canvas of it: its points, each in the cell of its window.

    Args:
        windows: Of the patch.
        shape: Batch, height and width of the canvas.
        points: Raster indices into the canvas; None: every position.
        device: Of the canvas.
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
            # Unused slots belong to a cell behind the last.
            owner = torch.where(points < 0, windows.number, cell[points.clamp(min=0)])
        self._take, self._back = _order(owner, windows.number)

    def cut(self, grid: Float[Tensor, "b h w c"]) -> Float[Tensor, "n hw c"]:
        """Windows of a grid of the patch, copied, as tokens; window `i` of image `j` of `b` stands at `i * b + j`."""
        boxes = self.windows.windows(self.windows.size[0] // grid.shape[1])
        return torch.cat([grid[:, rows, cols] for rows, cols in boxes]).flatten(1, 2)

    def group(self, values: Float[Tensor, "b l c"]) -> Float[Tensor, "n m c"]:
        """Values at the points, cell by cell in the order of `cut`; cells with fewer points end in any values."""
        rows = values.flatten(0, 1).index_select(0, self._take.flatten())
        return rows.view(*self._take.shape, values.shape[2])

    def ungroup(self, grouped: Float[Tensor, "n m c"]) -> Float[Tensor, "b l c"]:
        """Inverse of `group`; unused slots get any values."""
        rows = grouped.flatten(0, 1).index_select(0, self._back.flatten())
        return rows.view(*self._back.shape, grouped.shape[2])


def tokens(grid: Float[Tensor, "b h w c"], windows: PointWindows | None) -> Float[Tensor, "n hw c"]:
    """The positions of a grid as tokens, of each window alone where there are windows."""
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
    # Which row of the values each slot of the groups takes, and which slot each value is found in again.
    batch, length = owner.shape
    owner, order = owner.sort(dim=1, stable=True)
    counts = owner.new_zeros(batch, number + 1).scatter_add_(1, owner, torch.ones_like(owner))
    most = max(int(counts[:, :number].max()), 1) if length else 0
    rank = torch.arange(length, device=owner.device) - (counts.cumsum(dim=1) - counts).gather(1, owner)
    image = torch.arange(batch, device=owner.device)[:, None]
    slot = torch.where(owner < number, (owner * batch + image) * most + rank, number * batch * most)
    take = owner.new_zeros(number * batch * most + 1)
    take[slot.flatten()] = (image * length + order).flatten()
    back = torch.empty_like(order).scatter_(1, order, slot.where(owner < number, 0))
    return take[:-1].view(number * batch, most), back
