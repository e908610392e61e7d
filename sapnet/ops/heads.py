"""Linear heads with activations on shared features, computed with one matrix product on the CPU."""

from collections.abc import Iterable
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sapnet.ops import backend, cpu

Activation = Literal["none", "tanh", "sigmoid", "softmax"]
_KINDS: dict[Activation, int] = {"none": 0, "tanh": 1, "sigmoid": 2, "softmax": 3}


class Head(NamedTuple):
    """A linear layer and its activation; `tanh` is multiplied by a scale, `softmax` is over the last dimension."""

    linear: nn.Linear
    activation: Activation = "none"


def apply_heads(
    features: Float[Tensor, "*batch c"], heads: Iterable[Head], scale: float = 1.0
) -> list[Float[Tensor, "*batch _"]]:
    """Apply each head to the features.

    The compiled kernel computes all heads together if `backend.can_fuse` accepts the features; otherwise they are
    computed one by one.

    Args:
        features: Input of all heads.
        heads: At least one head, each with a bias.
        scale: Positive factor of `tanh`.

    Returns:
        The outputs in the order of the heads.
    """
    heads = list(heads)
    if not backend.can_fuse(features):
        return [activate(head.linear(features), head.activation, scale) for head in heads]
    weight = torch.cat([head.linear.weight for head in heads])
    bias = torch.cat([head.linear.bias for head in heads])
    kinds, widths = [_KINDS[head.activation] for head in heads], [head.linear.out_features for head in heads]
    return list(_Heads.apply(features, weight, bias, kinds, widths, scale))


def activate(logits: Tensor, activation: Activation, scale: float = 1.0) -> Tensor:
    """Apply the activation of a head."""
    match activation:
        case "tanh":
            return scale * torch.tanh(logits)
        case "sigmoid":
            return torch.sigmoid(logits)
        case "softmax":
            return logits.softmax(-1)
    return logits


class _Heads(torch.autograd.Function):
    @staticmethod
    def forward(ctx, features, weight, bias, kinds, widths, scale):
        flat = cpu.heads_forward(features, weight, bias, kinds, widths, scale)
        ctx.save_for_backward(features, weight, bias, flat)
        ctx.set_materialize_grads(False)
        ctx.settings = kinds, widths, scale
        rows = features.numel() // features.shape[-1]
        parts = flat.split([rows * width for width in widths])
        return tuple(part.view(*features.shape[:-1], width) for part, width in zip(parts, widths, strict=True))

    @staticmethod
    def backward(ctx, *grads):
        features, weight, bias, flat = ctx.saved_tensors
        kinds, widths, scale = ctx.settings
        if not torch.is_grad_enabled():
            return *cpu.heads_backward(grads, features, weight, bias, flat, kinds, widths, scale), None, None, None
        # For second derivatives the heads are recomputed with differentiable operators.
        names: dict[int, Activation] = {number: name for name, number in _KINDS.items()}
        logits = F.linear(features, weight, bias).split(widths, -1)
        outputs = [activate(part, names[kind], scale) for part, kind in zip(logits, kinds, strict=True)]
        defined = [(output, grad) for output, grad in zip(outputs, grads, strict=True) if grad is not None]
        inputs = [x for x, needed in zip((features, weight, bias), ctx.needs_input_grad[:3], strict=True) if needed]
        outputs, grads = zip(*defined, strict=True)
        gradients = iter(torch.autograd.grad(outputs, inputs, grads, create_graph=True))
        return *(next(gradients) if needed else None for needed in ctx.needs_input_grad[:3]), None, None, None
