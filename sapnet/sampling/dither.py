"""Deterministic selection of exactly `L` points with a density that follows a probability map.

This is systematic sampling (Madow 1949) along a Hilbert curve: probabilities are summed along the curve, and a point is
placed wherever the sum passes 0.5, 1.5, and so on. In any segment of the curve, and therefore in any aligned square of
side `2^k`, the number of points differs from the sum of the probabilities by less than one.
"""

from collections.abc import Sequence
from functools import lru_cache

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

#: Largest inclusion probability. The distance from 1 exceeds the rounding error of sums over a million positions, so no
#: position receives two points.
_CAP = 1 - 1e-9


def dither_mask(
    probabilities: Float[Tensor, "b h w"], counts: Sequence[int], valid: Bool[Tensor, "b h w"] | None = None
) -> Bool[Tensor, "b h w"]:
    """Return a mask of `counts[i]` points of map `i`, spread deterministically with a density proportional to the map.

    Positions whose proportional density exceeds 1 are all selected, and the remaining points are spread over the rest.

    Args:
        probabilities: Maps without negative values; each is scaled to sum to its count.
        counts: Number of points of each map.
        valid: Positions that may be selected, at least `counts[i]` in each map; None: all.
    """
    flat = probabilities.flatten(1)
    allowed = torch.ones_like(flat, dtype=torch.bool) if valid is None else valid.flatten(1)
    # Positions with probability 0 are still selected if there are too few others.
    flat = flat.clamp(min=torch.finfo(flat.dtype).tiny) * allowed
    target = torch.tensor(counts, device=flat.device)[:, None]
    order = hilbert_order(*probabilities.shape[1:], flat.device)
    cumulative = _inclusion(flat, target).index_select(1, order).cumsum(dim=1)
    # Scaled so that rounding does not change the last sum.
    number = (cumulative * (target / cumulative[:, -1:].clamp(min=0.5)) + 0.5).floor()
    selected = number.diff(dim=1, prepend=torch.zeros_like(number[:, :1])) > 0
    mask = torch.empty_like(selected).index_copy_(1, order, selected)
    return torch.where(allowed.sum(dim=1, keepdim=True) <= target, allowed, mask).view_as(probabilities)


def _inclusion(p: Float[Tensor, "b n"], target: Int64[Tensor, "b 1"]) -> Float64[Tensor, "b n"]:
    # min(c p, cap) with the c for which the sum is `target`. The k largest values are capped, for the smallest k that
    # leaves no other value above the cap.
    largest = p.sort(dim=1, descending=True).values.double()
    rest = largest.flip(1).cumsum(dim=1).flip(1)
    scales = (target - _CAP * torch.arange(p.shape[1], dtype=torch.float64, device=p.device)) / rest
    capped = (scales * largest > _CAP).cumprod(dim=1).sum(dim=1, keepdim=True)
    scale = scales.gather(1, capped.clamp(max=p.shape[1] - 1))
    return (p * scale.clamp(min=0)).clamp(max=_CAP)


@lru_cache(maxsize=32)
def hilbert_order(height: int, width: int, device: torch.device | str = "cpu") -> Int64[Tensor, "n"]:
    """Return the raster indices of a `height x width` grid along the Hilbert curve of the enclosing `2^k` square.

    Every aligned square of side `2^j` inside the grid is one contiguous part of the result. The result is cached and
    must not be modified in place.
    """
    bits = max(height - 1, width - 1, 1).bit_length()
    y, x = torch.arange(height)[:, None].expand(height, width), torch.arange(width).expand(height, width)
    rank = torch.zeros(height, width, dtype=torch.int64)
    for bit in reversed(range(bits)):
        y_bit, x_bit = y >> bit & 1, x >> bit & 1
        rank += ((3 * x_bit) ^ y_bit) << 2 * bit
        # Rotate the quadrant so that its curve connects to those of its neighbours.
        last = (1 << bits) - 1
        turned = x_bit * (1 - y_bit)
        y, x = torch.where(turned == 1, last - y, y), torch.where(turned == 1, last - x, x)
        y, x = torch.where(y_bit == 0, x, y), torch.where(y_bit == 0, y, x)
    return rank.flatten().argsort().to(device)
