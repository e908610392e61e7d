"""Calls of the compiled CPU kernel: the filter, the heads and the attention."""

import ctypes
import functools
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from sapnet.errors import UserError
from sapnet.ops import build

_POINT_OUTSIDE, _NO_MEMORY = 1, 2


@functools.cache
def load() -> ctypes.CDLL:
    """Load the compiled kernel; the first call on a machine compiles it, which takes seconds.

    Raises:
        BuildError: The kernel cannot be compiled or loaded.
    """
    path = build.library()
    try:
        # ctypes releases the GIL during calls.
        kernel = ctypes.CDLL(str(path))
    except OSError as error:
        raise build.BuildError(f"the compiled kernel cannot be loaded ({error}): delete {path}") from error
    for kind in ("float32", "float64"):
        getattr(kernel, f"forward_{kind}").argtypes = [ctypes.c_void_p] * 7
        getattr(kernel, f"backward_{kind}").argtypes = [ctypes.c_void_p] * 11
        for direction, outputs in (("forward", 1), ("backward", 5)):
            types = [*[ctypes.c_void_p] * 4, ctypes.c_double, *[ctypes.c_void_p] * outputs]
            getattr(kernel, f"heads_{direction}_{kind}").argtypes = types
        getattr(kernel, f"attention_forward_{kind}").argtypes = [ctypes.c_void_p] * 4
        getattr(kernel, f"attention_backward_{kind}").argtypes = [ctypes.c_void_p] * 5
    return kernel


def forward(
    canvas: Tensor, weight: Tensor, kernel: Tensor | None, offsets: Tensor | None, points: Tensor | None
) -> Tensor:
    """Compute `sapnet.ops.adaptive_filter`."""
    inputs = _contiguous(canvas, weight, kernel, offsets, points)
    length = canvas.shape[1] * canvas.shape[2] if points is None else points.shape[1]
    out = canvas.new_empty(canvas.shape[0], length, weight.shape[0])
    call = load().forward_float32 if canvas.dtype == torch.float32 else load().forward_float64
    _check_status(call(*map(_address, inputs), _shape(canvas, weight, length), _address(out)), canvas)
    return out


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
    inputs = _contiguous(canvas, weight, kernel, offsets, points)
    grad = grad.contiguous()
    gradients = [
        canvas.new_empty(x.shape) if is_needed and x is not None else None
        for x, is_needed in zip(inputs[:4], needed, strict=True)
    ]
    shape = _shape(canvas, weight, grad.shape[1])
    call = load().backward_float32 if canvas.dtype == torch.float32 else load().backward_float64
    _check_status(call(*map(_address, inputs), shape, _address(grad), *map(_address, gradients)), canvas)
    of_canvas, of_weight, of_kernel, of_offsets = (canvas.new_empty(0) if g is None else g for g in gradients)
    return of_canvas, of_weight, of_kernel, of_offsets


def heads_forward(
    features: Tensor, weight: Tensor, bias: Tensor, kinds: list[int], widths: list[int], scale: float
) -> Tensor:
    """Compute all heads into one flat tensor, one head after another; see `sapnet.ops.heads`."""
    features, weight, bias = (x.contiguous() for x in (features, weight, bias))
    rows = features.numel() // features.shape[-1]
    out = features.new_empty(rows * len(weight))
    call = load().heads_forward_float32 if features.dtype == torch.float32 else load().heads_forward_float64
    shape = _heads_shape(features, weight, kinds, widths)
    _check_status(call(*map(_address, (features, weight, bias)), shape, scale, _address(out)), features)
    return out


def heads_backward(
    grads: Sequence[Tensor | None],
    features: Tensor,
    weight: Tensor,
    bias: Tensor,
    out: Tensor,
    kinds: list[int],
    widths: list[int],
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the gradients of features, weight and bias; None in `grads` stands for zeros."""
    features, weight, bias, out = (x.contiguous() for x in (features, weight, bias, out))
    grads = _contiguous(*grads)
    gradients = torch.empty_like(features), torch.empty_like(weight), torch.empty_like(bias)
    call = load().heads_backward_float32 if features.dtype == torch.float32 else load().heads_backward_float64
    shape = _heads_shape(features, weight, kinds, widths)
    inputs = map(_address, (features, weight, bias))
    _check_status(call(*inputs, shape, scale, _address(out), _addresses(grads), *map(_address, gradients)), features)
    return gradients


def attention_forward(inputs: Sequence[Tensor | None]) -> tuple[Tensor, Tensor]:
    """Compute the fused result and the tensor saved for the backward pass; see `sapnet.ops.attention`.

    Args:
        inputs: Grid, local branch and fusion mask, followed by the fields of each `Branch`; all contiguous.
    """
    grid, local = cast(Sequence[Tensor], inputs[:2])
    b, h, w, c, m, _, count, _ = shape = _attention_shape(inputs)
    state = grid.new_empty(count * b * (h * w * (m + 1) + m * (c + 1) + 2 * c))
    out = torch.empty_like(local)
    kernel = load()
    call = kernel.attention_forward_float32 if grid.dtype == torch.float32 else kernel.attention_forward_float64
    _check_status(call(_addresses(inputs), shape, _address(state), _address(out)), grid)
    return out, state


def attention_backward(
    grad: Tensor, inputs: Sequence[Tensor | None], state: Tensor, needed: Sequence[bool]
) -> list[Tensor | None]:
    """Compute the gradients of the inputs; None for those that are not needed."""
    grid, grad = cast(Tensor, inputs[0]), grad.contiguous()
    gradients = [
        torch.empty_like(x) if is_needed and x is not None else None
        for x, is_needed in zip(inputs, needed, strict=True)
    ]
    kernel = load()
    call = kernel.attention_backward_float32 if grid.dtype == torch.float32 else kernel.attention_backward_float64
    shape = _attention_shape(inputs)
    _check_status(call(_addresses(inputs), shape, _address(state), _address(grad), _addresses(gradients)), grid)
    return gradients


def _attention_shape(inputs: Sequence[Tensor | None]) -> ctypes.Array:
    grid, p = cast(Tensor, inputs[0]), cast(Tensor, inputs[4])
    values = (*grid.shape, p.shape[2], p.shape[1], (len(inputs) - 3) // 8, torch.get_num_threads())
    return (ctypes.c_int64 * 8)(*values)


def _addresses(tensors: Sequence[Tensor | None]) -> ctypes.Array:
    return (ctypes.c_void_p * len(tensors))(*map(_address, tensors))


def _heads_shape(features: Tensor, weight: Tensor, kinds: list[int], widths: list[int]) -> ctypes.Array:
    rows = features.numel() // features.shape[-1]
    values = (rows, features.shape[-1], len(weight), len(kinds), torch.get_num_threads(), *kinds, *widths)
    return (ctypes.c_int64 * len(values))(*values)


def _contiguous(*tensors: Tensor | None) -> list[Tensor | None]:
    return [t if t is None else t.contiguous() for t in tensors]


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _shape(canvas: Tensor, weight: Tensor, length: int) -> ctypes.Array:
    depthwise = weight.shape[1] == 1 and canvas.shape[3] > 1
    values = (*canvas.shape, length, weight.shape[0], weight.shape[3], depthwise, torch.get_num_threads())
    return (ctypes.c_int64 * 9)(*values)


def _check_status(status: int, canvas: Tensor) -> None:
    if status == _POINT_OUTSIDE:
        h, w = canvas.shape[1:3]
        raise UserError(f"points must be in [-1, {h * w - 1}] on a canvas of {h} x {w}")
    if status == _NO_MEMORY:
        raise MemoryError("adaptive_filter cannot allocate its buffers")
