"""The filter on GPUs: Triton kernels for gathering and scattering, library matrix products for the fixed weight.

Points are processed in chunks whose taps (points x taps x channels) are written to a buffer, so most of the arithmetic
is one matrix product per chunk. Features may be float32, float64, bfloat16 or float16. V and the offsets may have
another type; positions and sums are float32 or better.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import triton.language as tl
from torch import Tensor

from sapnet.ops import reference
from sapnet.ops.chunks import chunk_elements
from sapnet.ops.triton_kernels import gather_kernel, reduce_kernel, scatter_kernel

BLOCK_TAPS = 32
"""Taps per program."""
MAX_BLOCK_CHANNELS = 128
"""Largest number of channels per program; a power of 2."""
_TRITON_TYPES = {torch.float32: tl.float32, torch.float64: tl.float64}


class _Inputs(NamedTuple):
    canvas: Tensor
    weight: Tensor
    kernel: Tensor | None
    offsets: Tensor | None
    points: Tensor | None

    @classmethod
    def contiguous(cls, canvas: Tensor, weight: Tensor, *optional: Tensor | None) -> "_Inputs":
        kernel, offsets, points = (None if tensor is None else tensor.contiguous() for tensor in optional)
        return cls(canvas.contiguous(), weight.contiguous(), kernel, offsets, points)

    @property
    def length(self) -> int:
        return reference.length_of(self.canvas, self.points)

    @property
    def taps(self) -> int:
        return self.weight.shape[-1] ** 2

    @property
    def accumulator(self) -> torch.dtype:
        return torch.float64 if self.canvas.dtype == torch.float64 else torch.float32

    def chunks(self) -> Iterator[slice]:
        rows = self.canvas.shape[0] * self.length
        step = max(1, chunk_elements(self.canvas) // (self.taps * self.canvas.shape[-1]))
        return (slice(start, min(start + step, rows)) for start in range(0, rows, step))

    def launch(self, kernel: Any, split_channels: bool, rows: slice, *pointers: Tensor | None, **needed: bool) -> None:
        """Launch a kernel on the taps of a chunk. None is passed as the canvas, which the kernel does not read then."""
        _, h, w, c = self.canvas.shape
        block = min(MAX_BLOCK_CHANNELS, 1 << (c - 1).bit_length())
        count = (rows.stop - rows.start) * self.taps
        grid = (-(-count // BLOCK_TAPS), -(-c // block) if split_channels else 1)
        kernel[grid](
            *(self.canvas if pointer is None else pointer for pointer in pointers),
            *(h, w, c, self.length, rows.start, count),
            SIZE=self.weight.shape[-1],
            ALL_POINTS=self.points is None,
            HAS_KERNEL=self.kernel is not None,
            HAS_OFFSETS=self.offsets is not None,
            **needed,
            ACC=_TRITON_TYPES[self.accumulator],
            BLOCK_T=BLOCK_TAPS,
            BLOCK_C=block,
        )

    def gather(self, rows: slice) -> Tensor:
        values = self.canvas.new_empty(rows.stop - rows.start, self.taps, self.canvas.shape[-1])
        self.launch(gather_kernel, True, rows, self.canvas, self.kernel, self.offsets, self.points, values)
        return values


def forward(
    canvas: Tensor, weight: Tensor, kernel: Tensor | None, offsets: Tensor | None, points: Tensor | None
) -> Tensor:
    """Compute `sapnet.ops.adaptive_filter`."""
    inputs = _Inputs.contiguous(canvas, weight, kernel, offsets, points)
    matrix = reference.as_matrix(weight, canvas.shape[-1]).contiguous()
    out = canvas.new_empty(canvas.shape[0] * inputs.length, weight.shape[0])
    for rows in inputs.chunks():
        values = inputs.gather(rows)
        if matrix.ndim == 2:
            torch.sum(values * matrix, 1, out=out[rows])
        else:
            torch.mm(values.flatten(1), matrix.flatten(0, 1), out=out[rows])
    return out.view(canvas.shape[0], inputs.length, len(weight))


def backward(
    grad: Tensor,
    canvas: Tensor,
    weight: Tensor,
    kernel: Tensor | None,
    offsets: Tensor | None,
    points: Tensor | None,
    needed: list[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compute the gradients of canvas, weight, kernel and offsets; empty tensors for those that are not needed.

    The gradient of the canvas is summed by atomic additions, whose order is not fixed. It is computed by
    `sapnet.ops.reference` with `torch.use_deterministic_algorithms(True)`.
    """
    inputs = _Inputs.contiguous(canvas, weight, kernel, offsets, points)
    exact, matrix = inputs.accumulator, reference.as_matrix(weight, canvas.shape[-1]).contiguous()
    grad = grad.contiguous().flatten(0, 1)
    deterministic = needed[0] and torch.are_deterministic_algorithms_enabled()
    to_canvas = torch.zeros_like(inputs.canvas, dtype=exact) if needed[0] else canvas.new_empty(0)
    to_matrix = torch.zeros_like(matrix, dtype=exact)
    to_kernel, to_offsets = (
        canvas.new_empty(0) if x is None or not is_needed else torch.empty_like(x)
        for x, is_needed in zip(inputs[2:4], needed[2:], strict=True)
    )
    scatters, reduces = needed[0] and not deterministic, needed[2] or needed[3]
    for rows in inputs.chunks():
        g = grad[rows]
        if needed[1]:
            to_matrix += _weight_gradient(inputs.gather(rows), g, matrix)
        if not (scatters or reduces):
            continue
        back = _transposed(g, matrix)
        if scatters:
            inputs.launch(scatter_kernel, True, rows, back, inputs.kernel, inputs.offsets, inputs.points, to_canvas)
        if reduces:
            flags = {"KERNEL_NEEDED": needed[2], "OFFSETS_NEEDED": needed[3]}
            pointers = (inputs.canvas, inputs.kernel, inputs.offsets, inputs.points, to_kernel, to_offsets)
            inputs.launch(reduce_kernel, False, rows, back, *pointers, **flags)
    if deterministic:
        to_canvas = _deterministic_canvas_gradient(grad.view(len(canvas), -1, len(weight)), inputs)
    to_weight = reference.from_matrix(to_matrix, weight).to(weight.dtype) if needed[1] else canvas.new_empty(0)
    return to_canvas.to(canvas.dtype), to_weight, to_kernel, to_offsets


def _weight_gradient(values: Tensor, g: Tensor, matrix: Tensor) -> Tensor:
    if matrix.ndim == 2:
        return (values * g[:, None]).sum(0)
    return (values.flatten(1).T @ g).view(matrix.shape)


def _transposed(g: Tensor, matrix: Tensor) -> Tensor:
    # Gradient of the value of each tap, before the multiplication by V.
    if matrix.ndim == 2:
        return g[:, None] * matrix
    return g @ matrix.flatten(0, 1).T


def _deterministic_canvas_gradient(grad: Tensor, inputs: _Inputs) -> Tensor:
    exact = (grad, *inputs[:4])
    exact = [x.to(inputs.accumulator) if x is not None else None for x in exact]
    return reference.backward(*exact, inputs.points, [True, False, False, False])[0]
