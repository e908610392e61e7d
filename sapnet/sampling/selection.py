"""From maps to points: the regular order, the top of a map, a drawn mask, and what of an image is padding."""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from sapnet.layers.windows import Windows

#: Chooses `counts[i]` valid positions of each map.
Select = Callable[[Float[Tensor, "b h w"], Sequence[int], Bool[Tensor, "b h w"] | None], Bool[Tensor, "b h w"]]


@lru_cache(maxsize=32)
def regular_order(height: int, width: int, device: torch.device | str = "cpu") -> Int64[Tensor, "n"]:
    """Raster indices of a `height x width` grid, ordered so that every beginning of the list is spread evenly.

    The first quarter of a grid of even size is `[::2, ::2]`, the first sixteenth `[::4, ::4]`, and so on: the order of
    a Bayer dither matrix. Of each beginning of the list, any two aligned squares of side `2^k` inside the grid hold
    numbers that differ by one at most. Shared between calls: not to be changed in place.
    """
    bits = max(height - 1, width - 1, 1).bit_length()
    y = torch.arange(height)[:, None]
    x = torch.arange(width)[None]
    rank = torch.zeros(height, width, dtype=torch.int64)
    for bit in range(bits):
        below, beside = y >> bit & 1, x >> bit & 1
        # (0, 0), (1, 1), (0, 1), (1, 0): the second of four is the one farthest from the first.
        digit = 3 * below + 2 * beside - 4 * below * beside
        rank += digit << 2 * (bits - 1 - bit)
    return rank.flatten().argsort().to(device)


def points_from_mask(mask: Bool[Tensor, "b n"], length: int) -> Int64[Tensor, "b l"]:
    """Positions at which the mask is set, sorted, in `length` slots; unused slots hold -1.

    Positions beyond the first `length` are left out. Needs no word from the device, since the length is known.
    """
    batch, size = mask.shape
    slot = mask.cumsum(dim=1) - 1
    slot = torch.where(mask, slot, length).clamp_(max=length)
    points = torch.full((batch, length + 1), -1, dtype=torch.int64, device=mask.device)
    return points.scatter_(1, slot, torch.arange(size, device=mask.device).expand(batch, -1))[:, :length]


def top_mask(
    scores: Float[Tensor, "b h w"], counts: Sequence[int], valid: Bool[Tensor, "b h w"] | None = None
) -> Bool[Tensor, "b h w"]:
    """Where the `counts[i]` highest positions of each map are.

    Equal scores are taken in the regular order, so that a flat map gives evenly spread points. Positions that are not
    `valid` are never taken; each map must have `counts[i]` valid ones.
    """
    _, height, width = scores.shape
    longest = max(counts, default=0)
    if longest == 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    flat = scores.flatten(1)
    if valid is not None:
        flat = flat.masked_fill(~valid.flatten(1), -torch.inf)
    wanted = torch.tensor(counts, device=scores.device)[:, None]
    if min(counts) == longest:
        # Half the time of sorting the top.
        threshold = flat.kthvalue(flat.shape[1] - longest + 1, dim=1, keepdim=True).values
    else:
        threshold = flat.topk(longest, dim=1).values.gather(1, (wanted - 1).clamp(min=0))
    above = (flat > threshold) & (wanted > 0)
    order = regular_order(height, width, scores.device)
    ties = (flat == threshold).index_select(1, order)
    ties &= ties.cumsum(dim=1) <= wanted - above.sum(dim=1, keepdim=True)
    return (above | torch.empty_like(ties).index_copy_(1, order, ties)).view_as(scores)


def choose_points(
    scores: Float[Tensor, "b h w"],
    counts: Sequence[int],
    valid: Bool[Tensor, "b h w"] | None = None,
    select: Select = top_mask,
) -> Int64[Tensor, "b l"]:
    """`counts[i]` points of each map, sorted in raster order; `l = max(counts)`, shorter rows end in -1.

    Args:
        scores: One map for each row of points.
        counts: Points of each map.
        valid: Positions that may be taken; each map must have as many as points.
        select: Makes the choice: `top_mask`, or `dither_mask` where the scores are probabilities.
    """
    return points_from_mask(select(scores, counts, valid).flatten(1), max(counts, default=0))


def choose_points_by_cell(
    scores: Float[Tensor, "p h w"],
    counts: Sequence[Sequence[int]],
    windows: Windows,
    valid: Bool[Tensor, "p h w"] | None = None,
    select: Select = top_mask,
) -> Int64[Tensor, "p l"]:
    """As `choose_points`, but the choice is made in each cell of a patch alone.

    Args:
        scores: Of each patch's canvas.
        counts: Points of each cell of each patch, `counts[patch][cell]`.
        windows: Whose cells these are.
        valid: Positions that may be taken; each cell must have as many as points.
        select: Makes the choice in each cell.
    """
    step = windows.size[0] // scores.shape[1]
    parts = windows.to_cells(torch.ones_like(scores, dtype=torch.bool) if valid is None else valid)
    mask = select(windows.to_cells(scores), [count for cell in zip(*counts, strict=True) for count in cell], parts)
    return points_from_mask(windows.from_cells(mask, step).flatten(1), max(map(sum, counts), default=0))


def cell_counts(windows: Windows, extent: tuple[int, int], density: float, count: int) -> tuple[int, ...]:
    """Points of each cell of a patch: a share in proportion to its pixels, rounded so that the sum is `count`.

    No share is more than one point from its exact value, nor above it where that is a whole number.

    Args:
        windows: Whose cells these are.
        extent: Rows and columns of the patch that are no padding.
        density: Points per pixel.
        count: Those of the whole patch, the product of density and pixels rounded.
    """
    total, pixels, before, shares = extent[0] * extent[1], 0, 0, []
    for box in windows.cells(1):
        rows, columns = (max(min(part.stop, size) - part.start, 0) for part, size in zip(box, extent, strict=True))
        pixels += rows * columns
        until = count if pixels == total else min(math.floor(density * pixels + 0.5), count)
        shares.append(until - before)
        before = until
    return tuple(shares)


def limit(
    mask: Bool[Tensor, "b n"], most: Sequence[int], generator: torch.Generator | None = None
) -> Bool[Tensor, "b n"]:
    """The mask with at most `most[i]` positions set: where more are, as many as are too many are dropped at random."""
    device = generator.device if generator is not None else mask.device
    order = torch.randperm(mask.shape[1], generator=generator, device=device).to(mask.device)
    shuffled = mask.index_select(1, order)
    shuffled &= shuffled.cumsum(dim=1) <= torch.tensor(most, device=mask.device)[:, None]
    return torch.empty_like(mask).index_copy_(1, order, shuffled)


def patch_extents(height: int, width: int, grid: tuple[int, int], extent: tuple[int, int]) -> list[tuple[int, int]]:
    """Rows and columns of each patch that are no padding, patch after patch in raster order.

    The image of `height x width` pixels is cut into `grid` = (rows, columns) equal patches; only its first `extent` =
    (rows, columns) are real, the rest was added below and at the right.
    """
    rows, columns = height // grid[0], width // grid[1]
    return [
        (min(max(extent[0] - i * rows, 0), rows), min(max(extent[1] - j * columns, 0), columns))
        for i in range(grid[0])
        for j in range(grid[1])
    ]


def extent_mask(extents: Sequence[tuple[int, int]], height: int, width: int, device=None) -> Bool[Tensor, "b h w"]:
    """True in the first (rows, columns) of each map of `height x width`."""
    sizes = torch.tensor(extents, device=device)
    below = torch.arange(height, device=device)[:, None] < sizes[:, 0, None, None]
    beside = torch.arange(width, device=device) < sizes[:, 1, None, None]
    return below & beside


def pool(
    image: Float[Tensor, "b h w"], stride: int, valid: Bool[Tensor, "b h w"] | None = None
) -> Float[Tensor, "b h2 w2"]:
    """Average over cells of `stride x stride` pixels; pixels that are not valid count as 0, so that sums are kept."""
    if valid is not None:
        image = image * valid
    return image if stride == 1 else F.avg_pool2d(image[:, None], stride)[:, 0]
