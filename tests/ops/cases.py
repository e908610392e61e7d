"""Inputs for the tests of the operators."""

from typing import NamedTuple

import torch
from torch import Tensor

BACKENDS = ("reference", "cpu")
KINDS = ("random", "outside", "integer", "edge", "zero")


class Case(NamedTuple):
    """Arguments of `adaptive_filter`, in its order."""

    canvas: Tensor
    weight: Tensor
    kernel: Tensor | None
    offsets: Tensor | None
    points: Tensor | None

    def double(self) -> "Case":
        return Case(*(t.double() if t is not None and t.is_floating_point() else t for t in self))

    def leaves(self) -> "Case":
        return Case(*(t.clone().requires_grad_() if t is not None and t.is_floating_point() else t for t in self))


def draw_offsets(kind: str, b: int, length: int, taps: int, h: int, w: int, rng: torch.Generator) -> Tensor:
    """Draw offsets: in and near the canvas, far outside, integers, close to the borders, or zero."""
    normal = torch.randn(b, length, taps, 2, generator=rng)
    if kind == "random":
        return 3 * normal
    if kind == "outside":
        return 1e4 * normal
    if kind == "integer":
        return torch.randint(-3, 4, normal.shape, generator=rng).float()
    if kind == "edge":
        return torch.where(normal > 0, 1.0, -1.0) * torch.tensor([h, w]) + 0.25 * normal
    return torch.zeros_like(normal)


def draw(
    b=2, h=5, w=6, c=3, o=4, size=3, depthwise=False, kernel=True, offsets="random", points="some", seed=0
) -> Case:
    """Draw a float32 case; points: "all" (None), "some" (ascending) or "shuffled", with an unused slot."""
    g = torch.Generator().manual_seed(seed)
    index, length = None, h * w
    if points != "all":
        length = max(2, h * w // 2)
        index = torch.stack([torch.randperm(h * w, generator=g) for _ in range(b)])[:, : length - 1]
        index = index.sort().values if points == "some" else index
        index = torch.cat([index, torch.full((b, length - index.shape[1]), -1)], dim=1)
    return Case(
        torch.randn(b, h, w, c, generator=g),
        torch.randn(c, 1, size, size, generator=g) if depthwise else torch.randn(o, c, size, size, generator=g),
        torch.randn(b, length, size * size, generator=g) if kernel else None,
        draw_offsets(offsets, b, length, size * size, h, w, g) if offsets else None,
        index,
    )


def distance(a: Tensor, b: Tensor) -> float:
    """||a - b|| / ||b||, in float64."""
    a, b = a.double(), b.double()
    return ((a - b).norm() / b.norm().clamp(min=1e-30)).item()
