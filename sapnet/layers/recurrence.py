"""A linear recurrence along one direction of an image."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable


def linear_recurrence(
    x: Float[Tensor, "*shape"], gate: Float[Tensor, "*shape"], dim: int, reverse: bool = False
) -> Float[Tensor, "*shape"]:
    """Return `h[t] = (1 - gate[t]) x[t] + gate[t] h[t - 1]` along a dimension, with `h = 0` before the first step.

    The steps run one after the other, each over all values of the other dimensions at once. The time is linear in the
    number of values. A parallel scan would need fewer steps but more operations, and products of gates lose precision
    where gates are small. The gradient is the recurrence in the opposite direction; only the inputs and the result are
    stored for it, not the steps.

    Args:
        x: Input.
        gate: Share of the previous value, usually in (-1, 1).
        dim: Dimension along which the recurrence runs.
        reverse: Whether it starts at the end.
    """
    x, gate = (tensor.movedim(dim, 0).flip(0) if reverse else tensor.movedim(dim, 0) for tensor in (x, gate))
    result: Tensor = _Recurrence.apply(x.contiguous(), gate.contiguous())  # pyright: ignore[reportAssignmentType]
    return (result.flip(0) if reverse else result).movedim(0, dim)


class _Recurrence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gate: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        result, previous = torch.empty_like(x), torch.zeros_like(x[0])
        for step, output in enumerate(result.unbind()):
            previous = torch.lerp(x[step], previous, gate[step], out=output)
        ctx.save_for_backward(x, gate, result)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, gate, result = ctx.saved_tensors
        # Gradient with respect to h[t], including its effect on all later steps.
        total = grad.clone()
        for step in range(len(x) - 2, -1, -1):
            total[step].addcmul_(gate[step + 1], total[step + 1])
        previous = torch.cat([torch.zeros_like(result[:1]), result[:-1]])
        return total * (1 - gate), total * (previous - x)
