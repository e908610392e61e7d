"""The pixel-dependent filter (Eq. 17-18) as a `torch.library` operator: checks, autograd and meta kernel.

The registered operators are `sapnet::adaptive_filter` and `sapnet::adaptive_filter_backward`. The forward operator
saves only its inputs, so the sampled taps take no memory between the forward and the backward pass.
"""

from types import ModuleType

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from sapnet.errors import UserError
from sapnet.ops import backend, flops


def adaptive_filter(
    canvas: Float[Tensor, "b h w c"],
    weight: Float[Tensor, "o d k k"],
    kernel: Float[Tensor, "b l k*k"] | None = None,
    offsets: Float[Tensor, "b l k*k 2"] | None = None,
    points: Int64[Tensor, "b l"] | None = None,
) -> Float[Tensor, "b l o"]:
    """Apply the pixel-dependent filter with learned offsets at chosen points or at every position (Eq. 17-18).

    `out[b, l, o] = sum_j kernel[b, l, j] * sum_c weight[o, c, j] * canvas[b][p_l + j + offsets[b, l, j]][c]`, where
    `p_l` is the l-th point, `j` runs over the K x K taps one pixel apart in raster order (dy slow, dx fast), and
    the canvas is interpolated bilinearly. Without kernel and offsets it equals `conv2d(padding=K // 2)` without bias.

    Pixels outside the canvas count as 0. The corners of the interpolation at `q` are `floor(q)` and `floor(q) + 1` also
    for integer q, so the gradient there is the right-hand derivative. The integer and fractional parts of an offset are
    separated before it is added to the point, so no precision is lost on large canvases. NaN propagates.

    Differentiable once with respect to canvas, weight, kernel and offsets. Computed in float32 or float64. Under
    autocast the Triton kernels (`sapnet.ops.gpu`) take canvas and weight in half precision, with positions and sums in
    float32; other implementations compute in float32. On the CPU results are reproducible for the same number of
    threads; on GPUs with `torch.use_deterministic_algorithms(True)`.

    Args:
        canvas: Features, channels last.
        weight: Fixed weight with `d = c`, or depthwise with `d = 1` and `o = c`. K is odd.
        kernel: Pixel-dependent weight V of every tap, shared by all channels; None: ones.
        offsets: (dy, dx) of every tap in canvas pixels; None: zeros.
        points: Raster indices `y * w + x` in any order, fastest in ascending order. -1 marks an unused slot, whose
            output is 0 and which has no gradient. None: every position, `l = h * w`.

    Raises:
        UserError: Shapes, dtypes or devices do not match, or a point is outside the canvas (checked only on the CPU,
            because elsewhere the check would synchronise with the device).
    """
    _check(canvas, weight, kernel, offsets, points)
    device = canvas.device.type
    if _is_autocast(device) and canvas.dtype != torch.float64 and backend.supports_half_precision(device):
        low = torch.get_autocast_dtype(device)
        with torch.autocast(device, enabled=False):
            return _forward(canvas.to(low), weight.to(low), kernel, offsets, points)
    return _forward(canvas, weight, kernel, offsets, points)


def _is_autocast(device: str) -> bool:
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)


@torch.library.custom_op("sapnet::adaptive_filter", mutates_args=())
def _forward(
    canvas: Tensor, weight: Tensor, kernel: Tensor | None, offsets: Tensor | None, points: Tensor | None
) -> Tensor:
    return _implementation(canvas).forward(canvas, weight, kernel, offsets, points)


@torch.library.custom_op("sapnet::adaptive_filter_backward", mutates_args=())
def _backward(
    grad: Tensor,
    canvas: Tensor,
    weight: Tensor,
    kernel: Tensor | None,
    offsets: Tensor | None,
    points: Tensor | None,
    needed: list[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    # Gradients of canvas, weight, kernel and offsets; empty tensors for those that are not needed.
    return _implementation(canvas).backward(grad, canvas, weight, kernel, offsets, points, needed)


def _implementation(canvas: Tensor) -> ModuleType:
    return backend.get_backend(canvas.device.type)


@_forward.register_fake
def _(canvas, weight, kernel, offsets, points):
    b, h, w, _ = canvas.shape
    return canvas.new_empty(b, h * w if points is None else points.shape[1], weight.shape[0])


@_backward.register_fake
def _(grad, canvas, weight, kernel, offsets, points, needed):
    inputs = (canvas, weight, kernel, offsets)
    return tuple(
        x.new_empty(x.shape) if is_needed else canvas.new_empty(0) for x, is_needed in zip(inputs, needed, strict=True)
    )


def _save_inputs(ctx, inputs, output):
    ctx.save_for_backward(*inputs)


def _differentiate(ctx, grad):
    needed = list(ctx.needs_input_grad[:4])
    gradients = _backward(grad, *ctx.saved_tensors, needed)
    return *(g if is_needed else None for g, is_needed in zip(gradients, needed, strict=True)), None


def _raise_second_derivative(ctx, *grads):
    raise UserError("adaptive_filter is differentiable only once: use it without create_graph=True")


_forward.register_autograd(_differentiate, setup_context=_save_inputs)
_backward.register_autograd(_raise_second_derivative)
# Half precision is too coarse for positions; `adaptive_filter` disables autocast where the kernels handle this.
_forward.register_autocast("cpu", torch.float32)
_forward.register_autocast("cuda", torch.float32)
flops.register()


def _check(
    canvas: Tensor, weight: Tensor, kernel: Tensor | None, offsets: Tensor | None, points: Tensor | None
) -> None:
    if canvas.ndim != 4:
        raise UserError(f"canvas must be [b, h, w, c], not {list(canvas.shape)}")
    if weight.ndim != 4 or weight.shape[2] != weight.shape[3] or weight.shape[2] % 2 == 0:
        raise UserError(f"weight must be [o, c, K, K] with K odd, not {list(weight.shape)}")
    b, h, w, c = canvas.shape
    if 0 in (h, w, c):
        raise UserError(f"canvas has no pixels or no channels: {list(canvas.shape)}")
    o, d, size, _ = weight.shape
    if d != c and (d != 1 or o != c):
        raise UserError(f"weight must be [o, {c}, K, K], or [{c}, 1, K, K], for {c} channels, not {list(weight.shape)}")
    if points is not None and (points.ndim != 2 or points.shape[0] != b or points.dtype != torch.int64):
        raise UserError(f"points must be int64 [{b}, l], not {points.dtype} {list(points.shape)}")
    length = h * w if points is None else points.shape[1]
    if kernel is not None and kernel.shape != (b, length, size * size):
        raise UserError(f"kernel must be {[b, length, size * size]}, not {list(kernel.shape)}")
    if offsets is not None and offsets.shape != (b, length, size * size, 2):
        raise UserError(f"offsets must be {[b, length, size * size, 2]}, not {list(offsets.shape)}")
    _check_dtypes_and_devices(canvas, weight=weight, kernel=kernel, offsets=offsets, points=points)


def _check_dtypes_and_devices(canvas: Tensor, **others: Tensor | None) -> None:
    autocast = _is_autocast(canvas.device.type)
    if canvas.dtype not in (torch.float32, torch.float64) and not autocast:
        raise UserError(f"canvas must be float32 or float64, not {canvas.dtype}: convert it, or use autocast")
    for name, tensor in others.items():
        if tensor is None:
            continue
        if tensor.device != canvas.device:
            raise UserError(f"{name} is on {tensor.device}, canvas on {canvas.device}: move one of them")
        if name != "points" and tensor.dtype != canvas.dtype and not autocast:
            raise UserError(f"{name} is {tensor.dtype}, canvas {canvas.dtype}: convert one of them")
