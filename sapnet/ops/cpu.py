"""The filter on CPUs, by the compiled kernel."""

import ctypes
import functools

import torch
from torch import Tensor

from sapnet.errors import UserError
from sapnet.ops import build

_POINT_OUTSIDE, _NO_MEMORY = 1, 2


@functools.cache
def load() -> ctypes.CDLL:
    """The compiled kernel; the first call of a machine compiles it, which takes seconds.

    Raises:
        BuildError: It cannot be compiled or loaded.
    """
    path = build.library()
    try:
        # ctypes lets go of Python's lock while a function runs.
        kernel = ctypes.CDLL(str(path))
    except OSError as error:
        raise build.BuildError(f"the compiled kernel cannot be loaded ({error}): delete {path}") from error
    for kind in ("float32", "float64"):
        getattr(kernel, f"forward_{kind}").argtypes = [ctypes.c_void_p] * 7
        getattr(kernel, f"backward_{kind}").argtypes = [ctypes.c_void_p] * 11
    return kernel


def forward(
    canvas: Tensor, weight: Tensor, kernel: Tensor | None, offsets: Tensor | None, points: Tensor | None
) -> Tensor:
    """See `sapnet.ops.adaptive_filter`."""
    inputs = _contiguous(canvas, weight, kernel, offsets, points)
    length = canvas.shape[1] * canvas.shape[2] if points is None else points.shape[1]
    out = canvas.new_empty(canvas.shape[0], length, weight.shape[0])
    call = load().forward_float32 if canvas.dtype == torch.float32 else load().forward_float64
    _succeed(call(*map(_address, inputs), _shape(canvas, weight, length), _address(out)), canvas)
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
    """Gradients of canvas, weight, kernel and offsets; an empty tensor for one that is not needed."""
    inputs = _contiguous(canvas, weight, kernel, offsets, points)
    (grad,) = _contiguous(grad)
    gradients = [canvas.new_empty(x.shape) if wanted else None for x, wanted in zip(inputs, needed)]
    shape = _shape(canvas, weight, grad.shape[1])
    call = load().backward_float32 if canvas.dtype == torch.float32 else load().backward_float64
    _succeed(call(*map(_address, inputs), shape, _address(grad), *map(_address, gradients)), canvas)
    return tuple(canvas.new_empty(0) if g is None else g for g in gradients)


def _contiguous(*tensors: Tensor | None) -> list[Tensor | None]:
    return [t if t is None else t.contiguous() for t in tensors]


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _shape(canvas: Tensor, weight: Tensor, length: int) -> ctypes.Array:
    depthwise = weight.shape[1] == 1 and canvas.shape[3] > 1
    numbers = (*canvas.shape, length, weight.shape[0], weight.shape[3], depthwise, torch.get_num_threads())
    return (ctypes.c_int64 * 9)(*numbers)


def _succeed(status: int, canvas: Tensor) -> None:
    if status == _POINT_OUTSIDE:
        h, w = canvas.shape[1:3]
        raise UserError(f"points must lie in [-1, {h * w - 1}] on a canvas of {h} x {w}")
    if status == _NO_MEMORY:
        raise MemoryError("adaptive_filter found no memory for its buffers")
