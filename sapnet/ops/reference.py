"""Reference implementation of the filter in plain PyTorch, also used where no compiled kernel is available.

Points are processed in chunks, so the taps of all points are never stored at once.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from sapnet.errors import UserError
from sapnet.ops.chunks import chunk_elements

FAR = 1e9
"""Limit of the offsets: beyond any canvas, and small enough for int64 positions."""


class Taps(NamedTuple):
    """Pixels and interpolation weights of the taps of a chunk of points."""

    rows: slice
    """Range of the chunk among the `b * l` points."""
    valid: Bool[Tensor, " n"]
    """False for unused slots."""
    index: Int64[Tensor, "n k corners"]
    """Row of the flattened canvas; the row after the last one stands for pixels outside."""
    share: Float[Tensor, "n k corners"]
    """Bilinear weight of each corner: (0, 0), (0, 1), (1, 0), (1, 1) in (y, x)."""
    fraction: Float[Tensor, "n k 2"]
    """Fractional part of the position, (y, x)."""


def forward(
    canvas: Tensor, weight: Tensor, kernel: Tensor | None, offsets: Tensor | None, points: Tensor | None
) -> Tensor:
    """Compute `sapnet.ops.adaptive_filter`."""
    b, _, _, c = canvas.shape
    matrix = as_matrix(weight, c)
    pixels = _with_outside(canvas)
    length = length_of(canvas, points)
    out = canvas.new_zeros(b * length, weight.shape[0])
    for taps in _chunks(canvas, weight, offsets, points):
        values = _sample(pixels, taps)
        if kernel is not None:
            values = values * kernel.flatten(0, 1)[taps.rows, :, None]
        mixed = (
            torch.einsum("nkc,kc->nc", values, matrix) if matrix.ndim == 2 else values.flatten(1) @ matrix.flatten(0, 1)
        )
        out[taps.rows] = torch.where(taps.valid[:, None], mixed, 0)
    return out.view(b, length, len(weight))


def backward(
    grad: Tensor,
    canvas: Tensor,
    weight: Tensor,
    kernel: Tensor | None,
    offsets: Tensor | None,
    points: Tensor | None,
    needed: list[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compute the gradients of canvas, weight, kernel and offsets; empty tensors for those that are not needed."""
    b, _, _, c = canvas.shape
    length = length_of(canvas, points)
    matrix, pixels, grad = as_matrix(weight, c), _with_outside(canvas), grad.flatten(0, 1)
    to_pixels, to_matrix = torch.zeros_like(pixels), torch.zeros_like(matrix)
    to_kernel = canvas.new_zeros(b * length, len(matrix))
    to_offsets = canvas.new_zeros(b * length, len(matrix), 2)
    for taps in _chunks(canvas, weight, offsets, points):
        # Unused slots receive and contribute no gradient.
        g = torch.where(taps.valid[:, None], grad[taps.rows], 0)
        v = _or_ones(kernel, b * length, len(matrix), like=canvas)[taps.rows]
        v = torch.where(taps.valid[:, None], v, 0)
        if needed[1]:
            values = _sample(pixels, taps) * v[:, :, None]
            to_matrix += torch.einsum("nkc,nc->kc" if matrix.ndim == 2 else "nkc,no->kco", values, g)
        if not (needed[0] or needed[2] or needed[3]):
            continue
        # Gradient of the sampled value of each tap, before the multiplication by V.
        back = torch.einsum("nc,kc->nkc" if matrix.ndim == 2 else "no,kco->nkc", g, matrix)
        if needed[0]:
            for corner in range(taps.index.shape[-1]):
                amount = back * (v * taps.share[..., corner])[:, :, None]
                to_pixels.index_add_(0, taps.index[..., corner].flatten(), amount.flatten(0, 1))
        if needed[2]:
            to_kernel[taps.rows] = (back * _sample(pixels, taps)).sum(-1)
        if needed[3]:
            to_offsets[taps.rows] = v[..., None] * _slopes(pixels, back, taps)
    gradients = (
        to_pixels[:-1].view(canvas.shape),
        from_matrix(to_matrix, weight),
        to_kernel.view(b, length, len(matrix)),
        to_offsets.view(b, length, len(matrix), 2),
    )
    of_canvas, of_weight, of_kernel, of_offsets = (
        g if is_needed else canvas.new_empty(0) for g, is_needed in zip(gradients, needed, strict=True)
    )
    return of_canvas, of_weight, of_kernel, of_offsets


def _sample(pixels: Tensor, taps: Taps) -> Float[Tensor, "n k c"]:
    values = pixels[taps.index[..., 0]] * taps.share[..., 0, None]
    for corner in range(1, taps.index.shape[-1]):
        values = values + pixels[taps.index[..., corner]] * taps.share[..., corner, None]
    return values


def _slopes(pixels: Tensor, back: Tensor, taps: Taps) -> Float[Tensor, "n k 2"]:
    # Derivative of <back, sampled value> by the position: differences of corners, interpolated in the other direction.
    c00, c01, c10, c11 = ((back * pixels[taps.index[..., i]]).sum(-1) for i in range(4))
    y, x = taps.fraction.unbind(-1)
    return torch.stack([(1 - x) * (c10 - c00) + x * (c11 - c01), (1 - y) * (c01 - c00) + y * (c11 - c10)], dim=-1)


def _chunks(canvas: Tensor, weight: Tensor, offsets: Tensor | None, points: Tensor | None) -> Iterator[Taps]:
    b, h, w, c = canvas.shape
    size, length = weight.shape[-1], length_of(canvas, points)
    if points is None:
        points = torch.arange(h * w, device=canvas.device).expand(b, -1)
    if canvas.device.type == "cpu" and ((points < -1) | (points >= h * w)).any():
        raise UserError(f"points must be in [-1, {h * w - 1}] on a canvas of {h} x {w}")
    image = torch.arange(b, device=canvas.device)[:, None].expand(b, length).reshape(-1)
    points = points.reshape(-1)
    reach = torch.arange(size, device=canvas.device) - size // 2
    grid = torch.stack(torch.meshgrid(reach, reach, indexing="ij"), dim=-1).view(-1, 2)
    step = max(1, chunk_elements(canvas) // max(1, size * size * c))
    for start in range(0, b * length, step):
        rows = slice(start, start + step)
        p, valid = points[rows], points[rows] >= 0
        whole = torch.stack([p // w, p % w], dim=-1)[:, None] + grid
        if offsets is None:
            share, fraction = canvas.new_ones(len(p), size * size, 1), canvas.new_zeros(len(p), size * size, 2)
            corners = whole[:, :, None]
        else:
            shift = offsets.flatten(0, 1)[rows].clamp(-FAR, FAR)
            floor = shift.floor()
            fraction = shift - floor
            y, x = fraction.unbind(-1)
            share = torch.stack([(1 - y) * (1 - x), (1 - y) * x, y * (1 - x), y * x], dim=-1)
            whole = whole + floor.nan_to_num(FAR).long()
            corners = whole[:, :, None] + whole.new_tensor([[0, 0], [0, 1], [1, 0], [1, 1]])
        y, x = corners.unbind(-1)
        inside = (y >= 0) & (y < h) & (x >= 0) & (x < w) & valid[:, None, None]
        index = torch.where(inside, (image[rows, None, None] * h + y) * w + x, b * h * w)
        yield Taps(rows, valid, index, share, fraction)


def length_of(canvas: Tensor, points: Tensor | None) -> int:
    """Return the number of points of an image; without points, all pixels."""
    return canvas.shape[1] * canvas.shape[2] if points is None else points.shape[1]


def _with_outside(canvas: Tensor) -> Float[Tensor, "rows c"]:
    # A row of zeros at the end stands for all pixels outside.
    pixels = canvas.reshape(-1, canvas.shape[-1])
    return torch.cat([pixels, pixels.new_zeros(1, pixels.shape[1])])


def _or_ones(kernel: Tensor | None, rows: int, taps: int, like: Tensor) -> Tensor:
    return like.new_ones(1, 1).expand(rows, taps) if kernel is None else kernel.reshape(rows, taps)


def as_matrix(weight: Tensor, channels: int) -> Tensor:
    """Return the fixed weight as [k, c, o], or as [k, c] if it is depthwise."""
    if _is_depthwise(weight, channels):
        return weight.flatten(1).T
    return weight.flatten(2).permute(2, 1, 0)


def from_matrix(matrix: Tensor, weight: Tensor) -> Tensor:
    """Return a matrix of `as_matrix` in the shape of the weight."""
    back = matrix.T if matrix.ndim == 2 else matrix.permute(2, 1, 0)
    return back.reshape(weight.shape).contiguous()


def _is_depthwise(weight: Tensor, channels: int) -> bool:
    return weight.shape[1] == 1 and channels > 1
