"""Reading and writing a canvas at points, with gradients that rely on distinct points."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.autograd.function import once_differentiable


def gather(canvas: Float[Tensor, "b h w c"], points: Int64[Tensor, "b l"]) -> Float[Tensor, "b l c"]:
    """Read the canvas at the points (Eq. 2); unused slots read 0.

    Differentiable any number of times. Points of an image must be distinct, because gradients are not accumulated.
    """
    batch, height, width, channels = canvas.shape
    rows = _flat_rows(points, batch, height * width)
    return _Gather.apply(canvas.reshape(-1, channels), rows).view(batch, -1, channels)


def scatter(
    canvas: Float[Tensor, "b h w c"], values: Float[Tensor, "b l c"], points: Int64[Tensor, "b l"]
) -> Float[Tensor, "b h w c"]:
    """Return a copy of the canvas with values written at the points (Eq. 3); unused slots are ignored.

    Differentiable any number of times in canvas and values. Points of an image must be distinct. Values are converted
    to the dtype of the canvas.
    """
    batch, height, width, channels = canvas.shape
    rows = _flat_rows(points, batch, height * width)
    values = values.reshape(-1, channels).to(canvas.dtype)
    return _Scatter.apply(canvas.reshape(-1, channels), values, rows).view(canvas.shape)


def take(
    canvas: Float[Tensor, "b h w c"], points: Int64[Tensor, "b l"], stride: int
) -> tuple[Float[Tensor, "b l c"], Float[Tensor, "b h2 w2 c"], Float[Tensor, "b h w c"]]:
    """Read the inputs of a block from a canvas that it refines at points; `put` writes the results back.

    With `gather`, slicing and `scatter`, the gradients of the values, the grid and the remaining positions would be
    three mostly empty canvases that are added. `take` and `put` compute a single one. Differentiable once.

    Args:
        canvas: Features; height and width are multiples of the stride.
        points: Points that are distinct within an image; -1 in unused slots.
        stride: Stride of the regular grid.

    Returns:
        The canvas at the points, 0 in unused slots; a copy of its regular grid; and the canvas for use in `put` only,
        because the gradient of its rows at the points is ignored.

    Raises:
        ValueError: Height or width is not a multiple of the stride.
    """
    _, height, width, channels = canvas.shape
    if height % stride or width % stride:
        raise ValueError(f"a canvas of {height}x{width} has no regular grid of every {stride}th position")
    rows = _flat_rows(points, len(points), height * width)
    values, grid, rest = _Take.apply(canvas, rows, stride)
    return values.view(*points.shape, channels), grid, rest


def put(
    rest: Float[Tensor, "b h w c"], values: Float[Tensor, "b l c"], points: Int64[Tensor, "b l"]
) -> Float[Tensor, "b h w c"]:
    """Write values into the canvas that `take` returned, at the same points."""
    batch, height, width, channels = rest.shape
    rows = _flat_rows(points, batch, height * width)
    return _Put.apply(rest, values.reshape(-1, channels).to(rest.dtype), rows)


@torch.no_grad()
def overwrite(
    canvas: Float[Tensor, "b h w c"], values: Float[Tensor, "b l c"], points: Int64[Tensor, "b l"]
) -> Float[Tensor, "b h w c"]:
    """Write values at the points in place and return the canvas: `scatter` without a copy and without gradients.

    Args:
        canvas: A contiguous canvas.
        values: Values to write, converted to the dtype of the canvas.
        points: Points that are distinct within an image; unused slots are ignored.
    """
    batch, height, width, channels = canvas.shape
    rows = _flat_rows(points, batch, height * width)
    values = values.reshape(-1, channels).to(canvas.dtype)
    used = rows < batch * height * width
    # Meta tensors have no data to test.
    if not (canvas.is_meta or used.all()):
        rows, values = rows[used], values[used]
    canvas.view(-1, channels).index_copy_(0, rows, values)
    return canvas


def _flat_rows(points: Tensor, batch: int, size: int) -> Tensor:
    # Raster indices over the whole batch; unused slots refer to an extra row after the last one.
    first = torch.arange(batch, device=points.device).mul_(size)[:, None]
    return torch.where(points < 0, batch * size, points + first).flatten()


class _Gather(torch.autograd.Function):
    # index_select with a gradient that is copied into zeros; the built-in one accumulates with atomics or a sort.
    @staticmethod
    def forward(ctx, canvas, rows):
        ctx.save_for_backward(rows)
        ctx.shape = canvas.shape
        extra_row = len(canvas)
        if extra_row == 0:
            return canvas.new_zeros(len(rows), canvas.shape[1])
        values, padded = canvas.index_select(0, rows.clamp(max=extra_row - 1)), rows == extra_row
        # On other devices the test would take longer than the masked fill.
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
            zeros = grad.new_zeros(()).expand(len(rows), grad.shape[1])
            grad_canvas = _Scatter.apply(grad, zeros, rows)
        if ctx.needs_input_grad[1]:
            grad_values = _Gather.apply(grad, rows)
        return grad_canvas, grad_values, None


class _Take(torch.autograd.Function):
    @staticmethod
    def forward(ctx, canvas, rows, stride):
        ctx.save_for_backward(rows)
        ctx.shape, ctx.stride = canvas.shape, stride
        ctx.set_materialize_grads(False)
        values = _Gather.apply(canvas.reshape(-1, canvas.shape[3]), rows)
        # A copy even of a single position, because an output must not be a view of the canvas.
        grid = canvas[:, ::stride, ::stride].clone(memory_format=torch.contiguous_format)
        return values, grid, canvas.view_as(canvas)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_values, grad_grid, grad_rest):
        (rows,) = ctx.saved_tensors
        defined = next(g for g in (grad_values, grad_grid, grad_rest) if g is not None)
        if grad_rest is None:
            grad_rest = defined.new_zeros(()).expand(ctx.shape)
        if grad_values is None:
            grad_values = defined.new_zeros(()).expand(len(rows), ctx.shape[3])
        grad = _Scatter.apply(grad_rest.reshape(-1, ctx.shape[3]), grad_values, rows).view(ctx.shape)
        if grad_grid is not None:
            grad[:, :: ctx.stride, :: ctx.stride] += grad_grid
        return grad, None, None


class _Put(torch.autograd.Function):
    @staticmethod
    def forward(ctx, rest, values, rows):
        ctx.save_for_backward(rows)
        return _Scatter.apply(rest.reshape(-1, rest.shape[3]), values, rows).view(rest.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        (rows,) = ctx.saved_tensors
        # `_Take` replaces the rows at the points.
        return grad, _Gather.apply(grad.reshape(-1, grad.shape[3]), rows), None
