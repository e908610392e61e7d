"""Exactly `L` points whose density follows a probability map: what a draw looks like in the mean, without the chance.

Systematic sampling (Madow 1949) along a Hilbert curve: probabilities are summed along the curve, and a point is taken
wherever the sum passes a half, one and a half, and so on. Any stretch of the curve, and so any aligned square of side
`2^k`, holds the number of points that its probabilities sum to, give or take less than one.
"""

from collections.abc import Sequence
from functools import lru_cache

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

#: The highest inclusion probability. Below 1 by more than the rounding of sums over a million positions, so that no
#: position takes two points.
_CAP = 1 - 1e-9


def dither_mask(
    probabilities: Float[Tensor, "b h w"], counts: Sequence[int], valid: Bool[Tensor, "b h w"] | None = None
) -> Bool[Tensor, "b h w"]:
    """Where `counts[i]` points of map `i` lie, spread with a density in proportion to the map; no chance is involved.

    Where proportional densities exceed 1, those positions are taken and the rest shares what is left.

    Args:
        probabilities: Not negative; each map is scaled to sum to its count.
        counts: Points of each map.
        valid: Positions that may be taken; each map must have `counts[i]` of them.
    """
    flat = probabilities.flatten(1)
    allowed = torch.ones_like(flat, dtype=torch.bool) if valid is None else valid.flatten(1)
    # A probability of 0 must not lose the count where too few others are left.
    flat = flat.clamp(min=torch.finfo(flat.dtype).tiny) * allowed
    wanted = torch.tensor(counts, device=flat.device)[:, None]
    order = hilbert_order(*probabilities.shape[1:], flat.device)
    passed = _inclusion(flat, wanted).index_select(1, order).cumsum(dim=1)
    # Rounding must not shift the last sum from the count.
    number = (passed * (wanted / passed[:, -1:].clamp(min=0.5)) + 0.5).floor()
    taken = number.diff(dim=1, prepend=torch.zeros_like(number[:, :1])) > 0
    mask = torch.empty_like(taken).index_copy_(1, order, taken)
    return torch.where(allowed.sum(dim=1, keepdim=True) <= wanted, allowed, mask).view_as(probabilities)


def _inclusion(p: Float[Tensor, "b n"], wanted: Int64[Tensor, "b 1"]) -> Float64[Tensor, "b n"]:
    # min(c p, cap) with the c for which it sums to what is wanted: the k largest are capped, for the smallest k that
    # leaves none of the others above the cap.
    largest = p.sort(dim=1, descending=True).values.double()
    rest = largest.flip(1).cumsum(dim=1).flip(1)
    scales = (wanted - _CAP * torch.arange(p.shape[1], dtype=torch.float64, device=p.device)) / rest
    capped = (scales * largest > _CAP).cumprod(dim=1).sum(dim=1, keepdim=True)
    scale = scales.gather(1, capped.clamp(max=p.shape[1] - 1))
    return (p * scale.clamp(min=0)).clamp(max=_CAP)


@lru_cache(maxsize=32)
def hilbert_order(height: int, width: int, device: torch.device | str = "cpu") -> Int64[Tensor, "n"]:
    """Raster indices of a `height x width` grid along the Hilbert curve of the smallest square `2^k` that holds it.

    Every aligned square of side `2^j` inside the grid is one stretch of the list. Shared between calls: not to be
    changed in place.
    """
    bits = max(height - 1, width - 1, 1).bit_length()
    y, x = torch.arange(height)[:, None].expand(height, width), torch.arange(width).expand(height, width)
    rank = torch.zeros(height, width, dtype=torch.int64)
    for bit in reversed(range(bits)):
        below, beside = y >> bit & 1, x >> bit & 1
        rank += ((3 * beside) ^ below) << 2 * bit
        # Turn the quarter so that its own curve begins and ends at its neighbours'.
        last = (1 << bits) - 1
        turned = beside * (1 - below)
        y, x = torch.where(turned == 1, last - y, y), torch.where(turned == 1, last - x, x)
        y, x = torch.where(below == 0, x, y), torch.where(below == 0, y, x)
    return rank.flatten().argsort().to(device)
