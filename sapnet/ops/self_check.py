"""Comparison of an implementation of the filter with plain PyTorch in float64, on a case that takes milliseconds."""

from collections.abc import Sequence
from types import ModuleType

import torch
from torch import Tensor

from sapnet.ops import reference

#: Largest accepted relative difference. Matrix products may run in TF32, which has 10 bits.
TOLERANCE = 1e-2


@torch.no_grad()
def difference(implementation: ModuleType, device: str) -> str | None:
    """Describe how an implementation fails on a device; None if its output and all gradients are right.

    Args:
        implementation: Module with `forward` and `backward`.
        device: Type of the device.
    """
    rng = torch.Generator().manual_seed(0)
    shapes = ((2, 9, 8, 24), (16, 24, 3, 3), (2, 41, 9), (2, 41, 9, 2))
    canvas, weight, kernel, offsets = (torch.randn(shape, generator=rng) for shape in shapes)
    points = torch.stack([torch.randperm(72, generator=rng)[:41].sort().values for _ in range(2)])
    points[1, 40] = -1
    grad = torch.randn(2, 41, 16, generator=rng)
    inputs = (canvas, weight, kernel, offsets, points, grad)
    expected = _results(reference, [x.double() if x.is_floating_point() else x for x in inputs])
    try:
        results = [x.cpu().double() for x in _results(implementation, [x.to(device) for x in inputs])]
    except Exception as error:  # Triton has many error classes, for compilers, drivers and devices
        return " ".join(f"{type(error).__name__}: {error}".split())
    names = ("output", "gradient of canvas", "gradient of weight", "gradient of kernel", "gradient of offsets")
    for name, result, right in zip(names, results, expected, strict=True):
        error = ((result - right).norm() / right.norm()).item()
        if not error <= TOLERANCE:
            return f"the {name} differs from plain PyTorch by {error:.1e} of its norm"
    return None


def _results(implementation: ModuleType, inputs: Sequence[Tensor]) -> list[Tensor]:
    *arguments, grad = inputs
    return [implementation.forward(*arguments), *implementation.backward(grad, *arguments, [True] * 4)]
