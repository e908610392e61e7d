"""Triton kernels of the pixel-dependent filter: gather the taps, reduce and scatter their gradients.

A program handles a block of taps; tap `t` of a chunk belongs to point `t // K^2` and has the position `t % K^2` in the
window. Positions are computed in float32 (float64 for float64 offsets) and sums are accumulated in `ACC`, whatever the
type of the features. Pixels outside the canvas count as 0, and so do the taps of unused slots (point -1).

`no_type_check` keeps the run-time type checks of the tests out of functions that Triton compiles.
"""

from typing import no_type_check

import triton
import triton.language as tl

FAR = tl.constexpr(1e9)
"""Limit of the offsets, as in `sapnet.ops.reference`."""


@no_type_check
@triton.jit
def _positions(
    tap,
    taps,
    points,
    offsets,
    h,
    w,
    length,
    start,
    SIZE: tl.constexpr,
    ALL_POINTS: tl.constexpr,
    HAS_OFFSETS: tl.constexpr,
):
    """Return the row of the point, whether its slot is used, the image, the upper left corner and the fraction."""
    row = start + tap // (SIZE * SIZE)
    k = tap % (SIZE * SIZE)
    image = row // length
    if ALL_POINTS:  # noqa: SIM108 (compiled statically)
        point = row % length
    else:
        point = tl.load(points + row, mask=taps, other=-1)
    used = taps & (point >= 0)
    y = (point // w + k // SIZE - SIZE // 2).to(tl.int32)
    x = (point % w + k % SIZE - SIZE // 2).to(tl.int32)
    if HAS_OFFSETS:
        place = offsets + (row * (SIZE * SIZE) + k) * 2
        dy, fy = _split(tl.load(place, mask=used, other=0.0))
        dx, fx = _split(tl.load(place + 1, mask=used, other=0.0))
        y += dy
        x += dx
    else:
        fy = tl.zeros_like(y).to(tl.float32)
        fx = fy
    return row, k, used, image, y, x, fy, fx


@no_type_check
@triton.jit
def _split(offset):
    """Split an offset into its integer part and its fraction; NaN becomes a far position with the fraction NaN."""
    if offset.dtype != tl.float64:
        offset = offset.to(tl.float32)
    limited = tl.where(offset > FAR, FAR, tl.where(offset < -FAR, -FAR, offset))
    whole = tl.floor(limited)
    return tl.where(whole == whole, whole, FAR).to(tl.int32), limited - whole


@no_type_check
@triton.jit
def _corner(canvas, image, y, x, used, channel, in_channels, h, w, c, ACC: tl.constexpr):
    """Load a pixel of every tap of the block; pixels outside are 0."""
    inside = used & (y >= 0) & (y < h) & (x >= 0) & (x < w)
    pixel = (image.to(tl.int64) * h + y) * w + x
    mask = inside[:, None] & in_channels[None, :]
    return tl.load(canvas + pixel[:, None] * c + channel[None, :], mask=mask, other=0.0).to(ACC)


@no_type_check
@triton.jit
def gather_kernel(
    canvas, kernel, offsets, points, out, h, w, c, length, start, count,
    SIZE: tl.constexpr, ALL_POINTS: tl.constexpr, HAS_KERNEL: tl.constexpr, HAS_OFFSETS: tl.constexpr,
    ACC: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Write the interpolated value of every tap, multiplied by V, to `out` [count, c]."""
    tap = tl.program_id(0).to(tl.int64) * BLOCK_T + tl.arange(0, BLOCK_T)
    channel = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    taps, in_channels = tap < count, channel < c
    row, k, used, image, y, x, fy, fx = _positions(
        tap, taps, points, offsets, h, w, length, start, SIZE, ALL_POINTS, HAS_OFFSETS
    )
    value = _corner(canvas, image, y, x, used, channel, in_channels, h, w, c, ACC)
    if HAS_OFFSETS:
        fy, fx = fy.to(ACC)[:, None], fx.to(ACC)[:, None]
        right = _corner(canvas, image, y, x + 1, used, channel, in_channels, h, w, c, ACC)
        below = _corner(canvas, image, y + 1, x, used, channel, in_channels, h, w, c, ACC)
        across = _corner(canvas, image, y + 1, x + 1, used, channel, in_channels, h, w, c, ACC)
        value = (1 - fy) * ((1 - fx) * value + fx * right) + fy * ((1 - fx) * below + fx * across)
    if HAS_KERNEL:
        value *= tl.load(kernel + row * (SIZE * SIZE) + k, mask=used, other=0.0).to(ACC)[:, None]
    value = tl.where(used[:, None], value, 0.0)
    tl.store(out + tap[:, None] * c + channel[None, :], value, mask=taps[:, None] & in_channels[None, :])


@no_type_check
@triton.jit
def reduce_kernel(
    back, canvas, kernel, offsets, points, to_kernel, to_offsets, h, w, c, length, start, count,
    SIZE: tl.constexpr, ALL_POINTS: tl.constexpr, HAS_KERNEL: tl.constexpr, HAS_OFFSETS: tl.constexpr,
    KERNEL_NEEDED: tl.constexpr, OFFSETS_NEEDED: tl.constexpr,
    ACC: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Write the gradients of V and of the offsets from `back` [count, c], the gradient of every tap's value."""
    tap = tl.program_id(0).to(tl.int64) * BLOCK_T + tl.arange(0, BLOCK_T)
    taps = tap < count
    row, k, used, image, y, x, fy, fx = _positions(
        tap, taps, points, offsets, h, w, length, start, SIZE, ALL_POINTS, HAS_OFFSETS
    )
    at_corner = tl.zeros((BLOCK_T,), dtype=ACC)
    at_right, at_below, at_across = at_corner, at_corner, at_corner
    for first in range(0, c, BLOCK_C):
        channel = first + tl.arange(0, BLOCK_C)
        in_channels = channel < c
        mask = taps[:, None] & in_channels[None, :]
        g = tl.load(back + tap[:, None] * c + channel[None, :], mask=mask, other=0.0).to(ACC)
        at_corner += tl.sum(g * _corner(canvas, image, y, x, used, channel, in_channels, h, w, c, ACC), 1)
        if HAS_OFFSETS:
            at_right += tl.sum(g * _corner(canvas, image, y, x + 1, used, channel, in_channels, h, w, c, ACC), 1)
            at_below += tl.sum(g * _corner(canvas, image, y + 1, x, used, channel, in_channels, h, w, c, ACC), 1)
            at_across += tl.sum(g * _corner(canvas, image, y + 1, x + 1, used, channel, in_channels, h, w, c, ACC), 1)
    fy, fx = fy.to(ACC), fx.to(ACC)
    place = row * (SIZE * SIZE) + k
    if KERNEL_NEEDED:
        value = at_corner
        if HAS_OFFSETS:
            value = (1 - fy) * ((1 - fx) * at_corner + fx * at_right) + fy * ((1 - fx) * at_below + fx * at_across)
        tl.store(to_kernel + place, tl.where(used, value, 0.0), mask=taps)
    if OFFSETS_NEEDED:
        slope_y = (1 - fx) * (at_below - at_corner) + fx * (at_across - at_right)
        slope_x = (1 - fy) * (at_right - at_corner) + fy * (at_across - at_below)
        if HAS_KERNEL:
            v = tl.load(kernel + place, mask=used, other=0.0).to(ACC)
            slope_y *= v
            slope_x *= v
        tl.store(to_offsets + place * 2, tl.where(used, slope_y, 0.0), mask=taps)
        tl.store(to_offsets + place * 2 + 1, tl.where(used, slope_x, 0.0), mask=taps)


@no_type_check
@triton.jit
def _add(to_canvas, amount, image, y, x, used, channel, in_channels, h, w, c):
    inside = used & (y >= 0) & (y < h) & (x >= 0) & (x < w)
    pixel = (image.to(tl.int64) * h + y) * w + x
    mask = inside[:, None] & in_channels[None, :]
    tl.atomic_add(to_canvas + pixel[:, None] * c + channel[None, :], amount, mask=mask, sem="relaxed")


@no_type_check
@triton.jit
def scatter_kernel(
    back, kernel, offsets, points, to_canvas, h, w, c, length, start, count,
    SIZE: tl.constexpr, ALL_POINTS: tl.constexpr, HAS_KERNEL: tl.constexpr, HAS_OFFSETS: tl.constexpr,
    ACC: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Add the gradient of every tap's value to its pixels in `to_canvas`, in an order that is not fixed."""
    tap = tl.program_id(0).to(tl.int64) * BLOCK_T + tl.arange(0, BLOCK_T)
    channel = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    taps, in_channels = tap < count, channel < c
    row, k, used, image, y, x, fy, fx = _positions(
        tap, taps, points, offsets, h, w, length, start, SIZE, ALL_POINTS, HAS_OFFSETS
    )
    mask = taps[:, None] & in_channels[None, :]
    g = tl.load(back + tap[:, None] * c + channel[None, :], mask=mask, other=0.0).to(ACC)
    if HAS_KERNEL:
        g *= tl.load(kernel + row * (SIZE * SIZE) + k, mask=used, other=0.0).to(ACC)[:, None]
    if HAS_OFFSETS:
        fy, fx = fy.to(ACC)[:, None], fx.to(ACC)[:, None]
        _add(to_canvas, g * ((1 - fy) * (1 - fx)), image, y, x, used, channel, in_channels, h, w, c)
        _add(to_canvas, g * ((1 - fy) * fx), image, y, x + 1, used, channel, in_channels, h, w, c)
        _add(to_canvas, g * (fy * (1 - fx)), image, y + 1, x, used, channel, in_channels, h, w, c)
        _add(to_canvas, g * (fy * fx), image, y + 1, x + 1, used, channel, in_channels, h, w, c)
    else:
        _add(to_canvas, g, image, y, x, used, channel, in_channels, h, w, c)
