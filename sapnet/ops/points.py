"""Rows of a canvas read and replaced at points, with gradients that exploit that points are distinct."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor


def gather(canvas: Float[Tensor, "b h w c"], points: Int64[Tensor, "b l"]) -> Float[Tensor, "b l c"]:
    """Read the canvas at the points (Eq. 2); rows of padded slots are 0.

    Differentiable any number of times. Points of one image must be distinct: the gradient is written, not added.
    """
    batch, height, width, channels = canvas.shape
    rows = _flat_rows(points, batch, height * width)
    return _Gather.apply(canvas.reshape(-1, channels), rows).view(batch, -1, channels)


def scatter(
    canvas: Float[Tensor, "b h w c"], values: Float[Tensor, "b l c"], points: Int64[Tensor, "b l"]
) -> Float[Tensor, "b h w c"]:
    """Copy of the canvas whose rows at the points are the given values (Eq. 3); padded slots write nowhere.

    Differentiable any number of times in canvas and values. Points of one image must be distinct. Values are converted
    to the canvas's type.
    """
    batch, height, width, channels = canvas.shape
    rows = _flat_rows(points, batch, height * width)
    values = values.reshape(-1, channels).to(canvas.dtype)
    return _Scatter.apply(canvas.reshape(-1, channels), values, rows).view(canvas.shape)


@torch.no_grad()
def overwrite(
    canvas: Float[Tensor, "b h w c"], values: Float[Tensor, "b l c"], points: Int64[Tensor, "b l"]
) -> Float[Tensor, "b h w c"]:
    """Write the values into the canvas itself, which is returned: `scatter` without its copy, and without gradients.

    Args:
        canvas: Contiguous.
        values: Rows to write, converted to the canvas's type.
        points: Distinct within an image; padded slots write nowhere.
    """
    batch, height, width, channels = canvas.shape
    rows = _flat_rows(points, batch, height * width)
    values = values.reshape(-1, channels).to(canvas.dtype)
    used = rows < batch * height * width
    # A canvas without data has none to look at.
    if not (canvas.is_meta or used.all()):
        rows, values = rows[used], values[used]
    canvas.view(-1, channels).index_copy_(0, rows, values)
    return canvas


def _flat_rows(points: Tensor, batch: int, size: int) -> Tensor:
    # Raster index over the whole batch; padded slots name the dump row, one past the end.
    first = torch.arange(batch, device=points.device).mul_(size)[:, None]
    return torch.where(points < 0, batch * size, points + first).flatten()


class _Gather(torch.autograd.Function):
    # index_select whose gradient is a copy into zeros: autograd's own adds with atomics or a sort.
    @staticmethod
    def forward(ctx, canvas, rows):
        ctx.save_for_backward(rows)
        ctx.shape = canvas.shape
        dump = len(canvas)
        if dump == 0:
            return canvas.new_zeros(len(rows), canvas.shape[1])
        values, padded = canvas.index_select(0, rows.clamp(max=dump - 1)), rows == dump
        # Elsewhere than on the CPU, to look would take longer than to fill.
        if rows.device.type != "cpu" or padded.any():
            values.masked_fill_(padded[:, None], 0)
        return values

    @staticmethod
    def backward(ctx, grad):
        (rows,) = ctx.saved_tensors
        return _Scatter.apply(grad.new_zeros(()).expand(ctx.shape), grad, rows), None


class _Scatter(torch.autograd.Function):
    @staticmethod
    def forward(ctx, canvas, values, rows):
        ctx.save_for_backward(rows)
        size, channels = canvas.shape
        out = canvas.new_empty(size + 1, channels)
        out[:size] = canvas
        return out.index_copy_(0, rows, values)[:size]

    @staticmethod
    def backward(ctx, grad):
        (rows,) = ctx.saved_tensors
        grad_canvas = grad_values = None
        if ctx.needs_input_grad[0]:
            nothing = grad.new_zeros(()).expand(len(rows), grad.shape[1])
            grad_canvas = _Scatter.apply(grad, nothing, rows)
        if ctx.needs_input_grad[1]:
            grad_values = _Gather.apply(grad, rows)
        return grad_canvas, grad_values, None
