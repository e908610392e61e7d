"""Calibration of logits to a given mean probability, which keeps the budget in expectation without a penalty."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import once_differentiable

_STEPS = 64
#: Steps between checks for convergence on devices other than the CPU, where a check synchronises.
_CHECK_EVERY = 8


def calibrate(
    logits: Float[Tensor, "b h w"], mean: float, valid: Bool[Tensor, "b h w"] | None = None
) -> Float[Tensor, "b h w"]:
    """Shift the logits `z` of each map by a constant `c` for which `mean(sigmoid(z + c)) = mean` at valid positions.

    Differentiable: `dc/dz_j = -p_j (1 - p_j) / sum p (1 - p)`. `mean` is clamped to [1e-6, 1 - 1e-6]. A map without
    valid positions is shifted by an arbitrary finite number.
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
        # If every probability is 0 or 1, the shift does not depend on the logits.
        total = slope.sum(dim=1, keepdim=True).clamp(min=torch.finfo(slope.dtype).tiny)
        return -grad[:, None] * slope / total, None, None


def _solve(logits: Tensor, mask: Tensor, mean: float) -> Tensor:
    # Newton's method inside a shrinking bracket; bisection where a step leaves the bracket or is not halved.
    centre = torch.logit(torch.tensor(mean, dtype=torch.float64)).item()
    low = centre - logits.masked_fill(~mask, -torch.inf).amax(dim=1)
    high = centre - logits.masked_fill(~mask, torch.inf).amin(dim=1)
    empty = ~mask.any(dim=1)
    low, high = low.masked_fill(empty, 0), high.masked_fill(empty, 0)
    count = mask.sum(dim=1, dtype=torch.float64)
    shift, last = torch.zeros_like(low).clamp(low, high), high - low
    done = empty
    check_every = 1 if logits.device.type == "cpu" else _CHECK_EVERY
    for step in range(1, _STEPS + 1):
        p = torch.sigmoid(logits + shift[:, None]).mul_(mask)
        # Double precision, because sums of a million terms are common.
        excess = p.sum(dim=1, dtype=torch.float64) - count * mean
        slope = torch.addcmul(p, p, p, value=-1).sum(dim=1, dtype=torch.float64)
        high = torch.where(excess > 0, shift, high)
        low = torch.where(excess > 0, low, shift)
        newton = (shift - excess / slope).to(shift.dtype)
        accepted = (newton >= low) & (newton <= high) & ((newton - shift).abs() <= last.abs() / 2)
        following = torch.where(accepted, newton, low + (high - low) / 2)
        done = done | (excess.abs() <= count * mean * torch.finfo(shift.dtype).eps) | (following == shift)
        # Tensors without data (device meta) take the usual number of steps.
        if step % check_every == 0 and (logits.is_meta or bool(done.all())):
            break
        shift, last = torch.where(done, shift, following), following - shift
    return shift
