"""Selection of points from score maps, and masks of padding."""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from sapnet.layers.windows import Windows

#: Selects `counts[i]` valid positions of each map.
Select = Callable[[Float[Tensor, "b h w"], Sequence[int], Bool[Tensor, "b h w"] | None], Bool[Tensor, "b h w"]]


@lru_cache(maxsize=32)
def regular_order(height: int, width: int, device: torch.device | str = "cpu") -> Int64[Tensor, "n"]:
    """Return the raster indices of a `height x width` grid in an order whose every prefix is evenly spread.

    This is the order of a Bayer dither matrix: the first quarter of a grid of even size is `[::2, ::2]`, the first
    sixteenth `[::4, ::4]`, and so on. For any prefix, the numbers of points in two aligned squares of side `2^k` inside
    the grid differ by at most one. The result is cached and must not be modified in place.
    """
    bits = max(height - 1, width - 1, 1).bit_length()
    y = torch.arange(height)[:, None]
    x = torch.arange(width)[None]
    rank = torch.zeros(height, width, dtype=torch.int64)
    for bit in range(bits):
        y_bit, x_bit = y >> bit & 1, x >> bit & 1
        # (0, 0), (1, 1), (0, 1), (1, 0): the second of the four is the one farthest from the first.
        digit = 3 * y_bit + 2 * x_bit - 4 * y_bit * x_bit
        rank += digit << 2 * (bits - 1 - bit)
    return rank.flatten().argsort().to(device)


def points_from_mask(mask: Bool[Tensor, "b n"], length: int) -> Int64[Tensor, "b l"]:
    """Return the sorted positions at which the mask is set in `length` slots; unused slots hold -1.

    Only the first `length` positions are kept. Does not synchronise with the device.
    """
    batch, size = mask.shape
    slot = mask.cumsum(dim=1) - 1
    slot = torch.where(mask, slot, length).clamp_(max=length)
    points = torch.full((batch, length + 1), -1, dtype=torch.int64, device=mask.device)
    return points.scatter_(1, slot, torch.arange(size, device=mask.device).expand(batch, -1))[:, :length]


def top_mask(
    scores: Float[Tensor, "b h w"], counts: Sequence[int], valid: Bool[Tensor, "b h w"] | None = None
) -> Bool[Tensor, "b h w"]:
    """Return a mask of the `counts[i]` highest scores of each map.

    Equal scores are selected in the regular order, so a flat map gives evenly spread points. Positions that are not
    `valid` are never selected; each map must have at least `counts[i]` valid ones.
    """
    _, height, width = scores.shape
    largest = max(counts, default=0)
    if largest == 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    flat = scores.flatten(1)
    if valid is not None:
        flat = flat.masked_fill(~valid.flatten(1), -torch.inf)
    target = torch.tensor(counts, device=scores.device)[:, None]
    if min(counts) == largest:
        # Twice as fast as `topk`.
        threshold = flat.kthvalue(flat.shape[1] - largest + 1, dim=1, keepdim=True).values
    else:
        threshold = flat.topk(largest, dim=1).values.gather(1, (target - 1).clamp(min=0))
    above = (flat > threshold) & (target > 0)
    order = regular_order(height, width, scores.device)
    ties = (flat == threshold).index_select(1, order)
    ties &= ties.cumsum(dim=1) <= target - above.sum(dim=1, keepdim=True)
    return (above | torch.empty_like(ties).index_copy_(1, order, ties)).view_as(scores)


def select_points(
    scores: Float[Tensor, "b h w"],
    counts: Sequence[int],
    valid: Bool[Tensor, "b h w"] | None = None,
    select: Select = top_mask,
) -> Int64[Tensor, "b l"]:
    """Select `counts[i]` points of each map, sorted in raster order; `l = max(counts)`, shorter rows end in -1.

    Args:
        scores: Score maps, one for each row of points.
        counts: Number of points of each map.
        valid: Positions that may be selected, at least `counts[i]` in each map; None: all.
        select: Selection function: `top_mask`, or `dither_mask` if the scores are probabilities.
    """
    return points_from_mask(select(scores, counts, valid).flatten(1), max(counts, default=0))


def select_points_by_cell(
    scores: Float[Tensor, "p h w"],
    counts: Sequence[Sequence[int]],
    windows: Windows,
    valid: Bool[Tensor, "p h w"] | None = None,
    select: Select = top_mask,
) -> Int64[Tensor, "p l"]:
    """Select points like `select_points`, but separately in each cell of a patch.

    Args:
        scores: Scores on the canvas of each patch.
        counts: Number of points of each cell of each patch, `counts[patch][cell]`.
        windows: Windows that define the cells.
        valid: Positions that may be selected, at least as many as points in each cell; None: all.
        select: Selection function applied to each cell.
    """
    step = windows.size[0] // scores.shape[1]
    valid_cells = windows.to_cells(torch.ones_like(scores, dtype=torch.bool) if valid is None else valid)
    cell_order = [count for cell in zip(*counts, strict=True) for count in cell]
    mask = select(windows.to_cells(scores), cell_order, valid_cells)
    return points_from_mask(windows.from_cells(mask, step).flatten(1), max(map(sum, counts), default=0))


def cell_counts(windows: Windows, extent: tuple[int, int], density: float, count: int) -> tuple[int, ...]:
    """Divide the points of a patch among its cells in proportion to their pixels, rounded so that the sum is `count`.

    Each share differs from its exact value by at most one point, and does not exceed an exact value that is an integer.

    Args:
        windows: Windows that define the cells.
        extent: Rows and columns of the patch that are not padding.
        density: Points per pixel.
        count: Number of points of the patch: density times pixels, rounded.
    """
    total, pixels, assigned, shares = extent[0] * extent[1], 0, 0, []
    for box in windows.cells(1):
        rows, columns = (max(min(part.stop, size) - part.start, 0) for part, size in zip(box, extent, strict=True))
        pixels += rows * columns
        target = count if pixels == total else min(math.floor(density * pixels + 0.5), count)
        shares.append(target - assigned)
        assigned = target
    return tuple(shares)


def limit_counts(
    mask: Bool[Tensor, "b n"], limits: Sequence[int], rng: torch.Generator | None = None
) -> Bool[Tensor, "b n"]:
    """Limit each mask to `limits[i]` set positions by dropping surplus positions at random."""
    device = rng.device if rng is not None else mask.device
    order = torch.randperm(mask.shape[1], generator=rng, device=device).to(mask.device)
    shuffled = mask.index_select(1, order)
    shuffled &= shuffled.cumsum(dim=1) <= torch.tensor(limits, device=mask.device)[:, None]
    return torch.empty_like(mask).index_copy_(1, order, shuffled)


def patch_extents(height: int, width: int, grid: tuple[int, int], extent: tuple[int, int]) -> list[tuple[int, int]]:
    """Return the rows and columns of each patch that are not padding, in raster order of the patches.

    Args:
        height: Rows of the padded image.
        width: Columns of the padded image.
        grid: Rows and columns of equal patches.
        extent: Rows and columns of the image that are not padding; the padding is at the bottom and the right.
    """
    rows, columns = height // grid[0], width // grid[1]
    return [
        (min(max(extent[0] - i * rows, 0), rows), min(max(extent[1] - j * columns, 0), columns))
        for i in range(grid[0])
        for j in range(grid[1])
    ]


def extent_mask(extents: Sequence[tuple[int, int]], height: int, width: int, device=None) -> Bool[Tensor, "b h w"]:
    """Return masks of size `height x width`, true in the first (rows, columns) of each."""
    sizes = torch.tensor(extents, device=device)
    in_rows = torch.arange(height, device=device)[:, None] < sizes[:, 0, None, None]
    in_columns = torch.arange(width, device=device) < sizes[:, 1, None, None]
    return in_rows & in_columns


def pool(
    image: Float[Tensor, "b h w"], stride: int, valid: Bool[Tensor, "b h w"] | None = None
) -> Float[Tensor, "b h2 w2"]:
    """Average over cells of `stride x stride` pixels; invalid pixels count as 0, which preserves sums."""
    if valid is not None:
        image = image * valid
    return image if stride == 1 else F.avg_pool2d(image[:, None], stride)[:, 0]
