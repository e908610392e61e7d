"""Logits shifted so that their probabilities sum to a given number: the budget kept in the mean, without a penalty."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import once_differentiable

_STEPS = 64


def calibrate(
    logits: Float[Tensor, "b h w"], mean: float, valid: Bool[Tensor, "b h w"] | None = None
) -> Float[Tensor, "b h w"]:
    """The logits plus one number `c` per map, with `mean(sigmoid(z + c)) = mean` over the map's valid positions.

    Differentiable: `c` moves with the logits, `dc/dz_j = -p_j (1 - p_j) / sum p (1 - p)`. `mean` is kept within 1e-6 of
    0 and of 1. A map without valid positions is shifted by some finite number.
    """
    mean = min(max(mean, 1e-6), 1 - 1e-6)
    flat = logits.flatten(1)
    mask = torch.ones_like(flat, dtype=torch.bool) if valid is None else valid.flatten(1)
    return logits + _Shift.apply(flat, mask, mean)[:, None, None]


class _Shift(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits, mask, mean):
        shift = _solve(logits, mask, mean)
        ctx.save_for_backward(logits, mask, shift)
        return shift

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        logits, mask, shift = ctx.saved_tensors
        p = torch.sigmoid(logits + shift[:, None])
        slope = p * (1 - p) * mask
        # Every probability is 0 or 1: no logit moves the sum, nor the shift.
        total = slope.sum(dim=1, keepdim=True).clamp(min=torch.finfo(slope.dtype).tiny)
        return -grad[:, None] * slope / total, None, None


def _solve(logits: Tensor, mask: Tensor, mean: float) -> Tensor:
    # Newton's method inside a bracket that shrinks at every step; halve it where Newton leaves it or its steps do not.
    centre = torch.logit(torch.tensor(mean, dtype=torch.float64)).item()
    low = centre - logits.masked_fill(~mask, -torch.inf).amax(dim=1)
    high = centre - logits.masked_fill(~mask, torch.inf).amin(dim=1)
    empty = ~mask.any(dim=1)
    low, high = low.masked_fill(empty, 0), high.masked_fill(empty, 0)
    number = mask.sum(dim=1, dtype=torch.float64)
    shift, last = torch.zeros_like(low).clamp(low, high), high - low
    done = empty
    for _ in range(_STEPS):
        p = torch.sigmoid(logits + shift[:, None]).mul_(mask)
        # Summed in double precision: a million terms are common.
        excess = p.sum(dim=1, dtype=torch.float64) - number * mean
        slope = torch.addcmul(p, p, p, value=-1).sum(dim=1, dtype=torch.float64)
        high = torch.where(excess > 0, shift, high)
        low = torch.where(excess > 0, low, shift)
        newton = (shift - excess / slope).to(shift.dtype)
        good = (newton >= low) & (newton <= high) & ((newton - shift).abs() <= last.abs() / 2)
        following = torch.where(good, newton, low + (high - low) / 2)
        done = done | (excess.abs() <= number * mean * torch.finfo(shift.dtype).eps) | (following == shift)
        # Asking a GPU whether all is done costs more than the steps that are left.
        if logits.device.type == "cpu" and bool(done.all()):
            break
        shift, last = torch.where(done, shift, following), following - shift
    return shift
