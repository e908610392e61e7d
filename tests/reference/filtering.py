"""Literal implementation of Eq. 17-18 and their derivatives in float64, independent of the package."""

import math

import numpy as np


def _corners(canvas, point, tap, size, offset):
    # Yields (y, x, bilinear weight, its derivatives by y and x) of the four pixels around p + j_k + offset.
    h, w, _ = canvas.shape
    row = point // w + tap // size - size // 2 + offset[0]
    column = point % w + tap % size - size // 2 + offset[1]
    y, x = math.floor(row), math.floor(column)
    fy, fx = row - y, column - x
    for cy in (0, 1):
        for cx in (0, 1):
            if 0 <= y + cy < h and 0 <= x + cx < w:
                wy, wx = (fy if cy else 1 - fy), (fx if cx else 1 - fx)
                yield y + cy, x + cx, wy * wx, (1 if cy else -1) * wx, (1 if cx else -1) * wy


def _weight(weight, o, c, tap):
    # A depthwise weight is a full weight with zeros off the diagonal.
    size = weight.shape[-1]
    if weight.shape[1] == 1:
        return weight[o, 0, tap // size, tap % size] if o == c else 0.0
    return weight[o, c, tap // size, tap % size]


def adaptive_filter(canvas, weight, kernel, offsets, points):
    """Compute the output `[b, l, o]` of the filter from float64 arrays (points: integers)."""
    size, (b, length), outputs = weight.shape[-1], points.shape, weight.shape[0]
    out = np.zeros((b, length, outputs))
    for n in range(b):
        for i in range(length):
            if points[n, i] < 0:
                continue
            for k in range(size * size):
                read = np.zeros(canvas.shape[-1])
                for y, x, share, _, _ in _corners(canvas[n], points[n, i], k, size, offsets[n, i, k]):
                    read += share * canvas[n, y, x]
                for o in range(outputs):
                    for c in range(canvas.shape[-1]):
                        out[n, i, o] += kernel[n, i, k] * _weight(weight, o, c, k) * read[c]
    return out


def gradients(grad, canvas, weight, kernel, offsets, points):
    """Compute the derivatives of `sum(grad * output)` by canvas, weight, kernel and offsets, term by term."""
    size, (b, length), channels = weight.shape[-1], points.shape, canvas.shape[-1]
    d_canvas, d_weight, d_kernel, d_offsets = (np.zeros_like(x) for x in (canvas, weight, kernel, offsets))
    for n in range(b):
        for i in range(length):
            if points[n, i] < 0:
                continue
            for k in range(size * size):
                v = kernel[n, i, k]
                for y, x, share, slope_y, slope_x in _corners(canvas[n], points[n, i], k, size, offsets[n, i, k]):
                    for o in range(weight.shape[0]):
                        for c in range(channels):
                            g, w, value = grad[n, i, o], _weight(weight, o, c, k), canvas[n, y, x, c]
                            d_canvas[n, y, x, c] += g * v * w * share
                            d_kernel[n, i, k] += g * w * share * value
                            d_offsets[n, i, k, 0] += g * v * w * slope_y * value
                            d_offsets[n, i, k, 1] += g * v * w * slope_x * value
                            if weight.shape[1] > 1 or channels == 1:
                                d_weight[o, c, k // size, k % size] += g * v * share * value
                            elif o == c:
                                d_weight[o, 0, k // size, k % size] += g * v * share * value
    return d_canvas, d_weight, d_kernel, d_offsets
