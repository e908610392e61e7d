"""Restoration of photos in overlapping tiles, for those that are too large for the memory as a whole.

Neighbouring tiles overlap. In the middle half of the overlap the weight of one falls linearly while that of the other
rises, and what is nearer to the border of a tile than that is not used, because it was restored with the least context.
Tiles start at multiples of the step of the network's coarsest grid, so that its grids lie as they do in the photo.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from sapnet.data.images import to_array
from sapnet.data.photos import Photo
from sapnet.evaluation.photo_memory import MemoryEstimate

#: Pixels that neighbouring tiles share at least.
OVERLAP = 64
#: No smaller tile is chosen: it would show the network less than a training crop.
SMALLEST_TILE = 256
#: Share of the memory at hand that a restoration in tiles may take. The C library keeps up to as much again.
_SHARE = 0.5
#: Bytes for every pixel of the photo, beside the network: the result (12) and up to 8 each as stored before and after;
#: the rest is for decoding and encoding.
_KEPT_BYTES = 36
_STEP = 64
# Weights are multiples of 2^-12, so that products of two, and sums of these, are exact in float32.
_LEVELS = 2**12
_BAND = 256

Slices = tuple[slice, slice]
#: Restores colours `[3, h, w]`; returns them and a picture `[3, h, w]` for each stage that is shown.
Restore = Callable[[Tensor], tuple[Tensor, dict[int, Tensor]]]


@dataclass(frozen=True)
class Side:
    """The tiles along one side of a photo.

    Attributes:
        length: Pixels of the side.
        spans: First pixel of each tile and the one after its last.
        ramp: Pixels over which the weights of two neighbours change.
    """

    length: int
    spans: tuple[tuple[int, int], ...]
    ramp: int

    @property
    def cells(self) -> list[tuple[int, int]]:
        """Each tile's own pixels, between the middles of its overlaps; cells are disjoint and cover the side."""
        cuts = ((following[0] + tile[1]) // 2 for tile, following in pairwise(self.spans))
        return list(pairwise((0, *cuts, self.length)))

    def weights(self, tile: int) -> Float[Tensor, "n"]:
        """Return the weight of each pixel of a tile; those of all tiles sum to exactly one at every pixel."""
        positions = torch.arange(*self.spans[tile]) + 0.5
        first, last = self.cells[tile]
        rising = self._rise(positions, first) if tile > 0 else torch.ones(len(positions))
        return rising - self._rise(positions, last) if tile < len(self.spans) - 1 else rising

    def _rise(self, positions: Float[Tensor, "n"], middle: int) -> Float[Tensor, "n"]:
        share = ((positions - middle) / self.ramp + 0.5).clamp(0, 1)
        return (share * _LEVELS).round() / _LEVELS


@dataclass(frozen=True)
class Tile:
    """One tile of a photo.

    Attributes:
        box: Its rows and columns in the photo.
        cell: The rows and columns of the photo that are its own; the cells of all tiles are disjoint.
        weight: Its weight in the result.
    """

    box: Slices
    cell: Slices
    weight: Float[Tensor, "h w"]

    @property
    def cell_in_tile(self) -> Slices:
        """The cell, counted from the upper left corner of the tile."""
        top, left = self.box[0].start, self.box[1].start
        rows, columns = self.cell
        return slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left)


@dataclass(frozen=True)
class TilePlan:
    """The tiles of a photo.

    Attributes:
        rows: Tiles along the height.
        columns: Tiles along the width.
    """

    rows: Side
    columns: Side

    @property
    def number(self) -> int:
        """Number of tiles."""
        return len(self.rows.spans) * len(self.columns.spans)

    @property
    def tile_size(self) -> tuple[int, int]:
        """Height and width of the largest tile."""
        height, width = (max(stop - start for start, stop in side.spans) for side in (self.rows, self.columns))
        return height, width

    def tiles(self) -> Iterator[Tile]:
        """Iterate over the tiles, row by row."""
        for i, (rows, own_rows) in enumerate(zip(self.rows.spans, self.rows.cells, strict=True)):
            for k, (columns, own_columns) in enumerate(zip(self.columns.spans, self.columns.cells, strict=True)):
                weight = self.rows.weights(i)[:, None] * self.columns.weights(k)
                yield Tile((slice(*rows), slice(*columns)), (slice(*own_rows), slice(*own_columns)), weight)


def plan_tiles(
    height: int, width: int, tile: int | tuple[int, int] | None, overlap: int = OVERLAP, step: int = _STEP
) -> TilePlan:
    """Cover a photo with the smallest number of tiles, evenly spread.

    Args:
        height: Rows of the photo.
        width: Columns of the photo.
        tile: Side of a tile, or its height and width; multiples of `step`. None: one tile, the whole photo.
        overlap: Pixels that neighbours share at least; more where the tiles do not fill the side exactly.
        step: Tiles start at multiples of it.

    Raises:
        ValueError: A tile is shorter than the overlap and a step.
    """
    tall, wide = (height, width) if tile is None else (tile, tile) if isinstance(tile, int) else tile
    return TilePlan(_side(height, tall, overlap, step), _side(width, wide, overlap, step))


def kept_bytes(height: int, width: int, device: torch.device) -> int:
    """Return the bytes that a photo takes on the device of the network while its tiles are restored."""
    return _KEPT_BYTES * height * width if device.type == "cpu" else 0


def plan_for_memory(
    height: int,
    width: int,
    estimate: MemoryEstimate,
    available: int,
    kept: int = 0,
    smallest: int = SMALLEST_TILE,
    overlap: int = OVERLAP,
    step: int = _STEP,
) -> TilePlan | None:
    """Choose the tiles of a photo from the memory: the fewest that fit, and of these the smallest.

    Args:
        height: Rows of the photo.
        width: Columns of the photo.
        estimate: Memory of a forward pass.
        available: Bytes at hand, of which half may be taken.
        kept: Bytes that the photo takes beside the pass.
        smallest: Side of the smallest tile.
        overlap: Pixels that neighbours share at least.
        step: Tiles start at multiples of it, and their sides are multiples of it.

    Returns:
        The tiles, or None if not even the smallest tile fits.
    """
    smallest = _round_up(max(smallest, overlap + step), step)
    sides = range(smallest, _round_up(max(height, width, smallest), step) + 1, step)
    budget = available * _SHARE - kept
    fitting = [side for side in sides if estimate.bytes_for(min(side, height), min(side, width)) <= budget]
    if not fitting:
        return None
    # Larger tiles would share more than the overlap, which costs time.
    tall, wide = (
        next(side for side in fitting if len(_side(n, side, overlap, step).spans) == _fewest(n, fitting, overlap, step))
        for n in (height, width)
    )
    return plan_tiles(height, width, (tall, wide), overlap, step)


def tile_step(network: nn.Module) -> int:
    """Return the pixels of which the sides and positions of a network's tiles are multiples."""
    return math.lcm(_STEP, int(getattr(getattr(network, "generator", network), "multiple", 1)))


def blend(plan: TilePlan, restore_tile: Callable[[Tile], Float[Tensor, "3 _ _"]]) -> Float[Tensor, "3 h w"]:
    """Restore the tiles one by one and return the weighted sum.

    Args:
        plan: The tiles.
        restore_tile: Returns the restored colours of a tile, on the CPU.
    """
    if plan.number == 1:
        return restore_tile(next(plan.tiles()))
    result = torch.zeros(3, plan.rows.length, plan.columns.length)
    for tile in plan.tiles():
        result[:, *tile.box] += restore_tile(tile) * tile.weight
    return result


def restore_photo(
    photo: Photo, plan: TilePlan, restore: Restore, report: Callable[[int], None]
) -> tuple[Photo, dict[int, UInt8[np.ndarray, "h w 3"]]]:
    """Restore a photo tile by tile, with the memory of a tile, the result and the photo.

    Args:
        photo: The photo.
        plan: Its tiles.
        restore: Restores the colours of a tile.
        report: Called after each tile with the number of tiles that are done.

    Returns:
        The restored photo, and the pictures of the stages, in which each pixel comes from the tile that owns it.
    """
    pictures: dict[int, UInt8[np.ndarray, "h w 3"]] = {}
    done = 0

    def restore_tile(tile: Tile) -> Tensor:
        nonlocal done
        restored, shown = restore(replace(photo, levels=photo.levels[tile.box]).colours())
        for stage, picture in shown.items():
            whole = pictures.setdefault(stage, np.empty((*photo.levels.shape[:2], 3), np.uint8))
            whole[tile.cell] = to_array(picture)[tile.cell_in_tile]
        done += 1
        report(done)
        return restored

    colours = blend(plan, restore_tile)
    levels = np.empty_like(photo.levels)
    for top in range(0, len(levels), _BAND):
        band = slice(top, top + _BAND)
        levels[band] = replace(photo, levels=photo.levels[band]).with_colours(colours[:, band]).levels
    return replace(photo, levels=levels), pictures


def _side(length: int, tile: int, overlap: int, step: int) -> Side:
    ramp = max(overlap // 2, 1)
    if tile >= length:
        return Side(length, ((0, length),), ramp)
    stride = (tile - overlap) // step
    if stride < 1:
        raise ValueError(f"tiles of {tile} pixels with an overlap of {overlap}: needs at least {overlap + step}.")
    last = -(-(length - tile) // step)
    gaps = -(-last // stride)
    starts = [i * last // gaps * step for i in range(gaps + 1)]
    return Side(length, tuple((start, min(start + tile, length)) for start in starts), ramp)


def _fewest(length: int, sides: list[int], overlap: int, step: int) -> int:
    return len(_side(length, sides[-1], overlap, step).spans)


def _round_up(number: int, step: int) -> int:
    return -(-number // step) * step
