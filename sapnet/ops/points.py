"""Rows of a canvas read and replaced at points, with gradients that exploit that points are distinct."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.autograd.function import once_differentiable


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


def take(
    canvas: Float[Tensor, "b h w c"], points: Int64[Tensor, "b l"], stride: int
) -> tuple[Float[Tensor, "b l c"], Float[Tensor, "b h2 w2 c"], Float[Tensor, "b h w c"]]:
    """What a block reads of a canvas that it refines at the points: `gather` and `scatter` with one gradient for both.

    Apart, the gradients of the values, the grid and what was not replaced are three canvases, mostly of zeros, that are
    added up. Differentiable once.

    Args:
        canvas: Features; both sides are multiples of the stride.
        points: Distinct within an image; -1 in padded slots.
        stride: From one position of the regular grid to the next.

    Returns:
        The canvas at the points, 0 in padded slots; its regular grid, copied; and the canvas for `put`, and for nothing
        else: the gradient of its rows at the points is not used.

    Raises:
        ValueError: The sides are no multiples of the stride.
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
    """`scatter` into what `take` left of the canvas, at the same points."""
    batch, height, width, channels = rest.shape
    rows = _flat_rows(points, batch, height * width)
    return _Put.apply(rest, values.reshape(-1, channels).to(rest.dtype), rows)


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


class _Take(torch.autograd.Function):
    @staticmethod
    def forward(ctx, canvas, rows, stride):
        ctx.save_for_backward(rows)
        ctx.shape, ctx.stride = canvas.shape, stride
        ctx.set_materialize_grads(False)
        values = _Gather.apply(canvas.reshape(-1, canvas.shape[3]), rows)
        # Contiguous even where there is a single position: an output may not be a view of the canvas.
        grid = canvas[:, ::stride, ::stride].clone(memory_format=torch.contiguous_format)
        return values, grid, canvas.view_as(canvas)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_values, grad_grid, grad_rest):
        (rows,) = ctx.saved_tensors
        known = next(g for g in (grad_values, grad_grid, grad_rest) if g is not None)
        if grad_rest is None:
            grad_rest = known.new_zeros(()).expand(ctx.shape)
        if grad_values is None:
            grad_values = known.new_zeros(()).expand(len(rows), ctx.shape[3])
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
