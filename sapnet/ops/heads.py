"""Linear heads on the same features, each with its activation: one matrix product for all of them on the CPU."""

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
    """A linear layer and what follows it; `tanh` is multiplied by the scale, `softmax` runs over the last dimension."""

    linear: nn.Linear
    activation: Activation = "none"


def apply_heads(
    features: Float[Tensor, "b l c"], heads: Iterable[Head], scale: float = 1.0
) -> list[Float[Tensor, "b l _"]]:
    """Apply each head to the features.

    In float32 and float64 on the CPU the heads are computed together by the compiled kernel; elsewhere, under autocast
    and while operations are counted, one by one.

    Args:
        features: What all heads read.
        heads: At least one, each with a bias.
        scale: Factor of `tanh`, above 0.

    Returns:
        The results in the order of the heads.
    """
    heads = list(heads)
    if not backend.fuses(features):
        return [activate(head.linear(features), head.activation, scale) for head in heads]
    weight = torch.cat([head.linear.weight for head in heads])
    bias = torch.cat([head.linear.bias for head in heads])
    kinds, widths = [_KINDS[head.activation] for head in heads], [head.linear.out_features for head in heads]
    return list(_Heads.apply(features, weight, bias, kinds, widths, scale))


def activate(logits: Tensor, activation: Activation, scale: float = 1.0) -> Tensor:
    """Apply a head's activation."""
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
        # Differentiated again: from the inputs, by torch.
        names: dict[int, Activation] = {number: name for name, number in _KINDS.items()}
        logits = F.linear(features, weight, bias).split(widths, -1)
        outputs = [activate(part, names[kind], scale) for part, kind in zip(logits, kinds, strict=True)]
        wanted = [(output, grad) for output, grad in zip(outputs, grads, strict=True) if grad is not None]
        inputs = [x for x, needed in zip((features, weight, bias), ctx.needs_input_grad[:3], strict=True) if needed]
        outputs, grads = zip(*wanted, strict=True)
        found = iter(torch.autograd.grad(outputs, inputs, grads, create_graph=True))
        return *(next(found) if needed else None for needed in ctx.needs_input_grad[:3]), None, None, None
