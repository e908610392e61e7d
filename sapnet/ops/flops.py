"""FLOP formulas of the filter for `torch.utils.flop_counter`, where a multiply-add counts as two FLOPs.

Multiply-adds per point and tap of the forward pass, with c input and o output channels:

- sampling: `4 c` with offsets (four corners), plus `c` with a pixel-dependent kernel;
- mixing with the fixed weight: `c o`; depthwise `c`.

Multiply-adds of the backward pass, for the gradients that are needed:

- any of canvas, kernel and offsets: `c o` (depthwise `c`) for the transpose of the fixed weight;
- canvas: the cost of sampling, for its transpose;
- kernel or offsets: `4 c` with offsets (one dot product per corner, shared by both), otherwise `c`;
- weight: the cost of sampling, plus `c o` (depthwise `c`).

Padded points and taps outside the canvas are counted like all others. Without kernel and offsets the forward count
equals that of the corresponding convolution. Operations per tap that do not depend on c are not counted.
"""

import torch
from torch.utils.flop_counter import register_flop_formula


def forward(canvas, weight, kernel, offsets, points, **kwargs) -> int:
    """Count the FLOPs of `sapnet::adaptive_filter` from the shapes of its arguments."""
    positions, mixing, sampling = _parts(canvas, weight, kernel, offsets, points)
    return 2 * positions * (sampling + mixing)


def backward(grad, canvas, weight, kernel, offsets, points, needed, **kwargs) -> int:
    """Count the FLOPs of `sapnet::adaptive_filter_backward` from the shapes of its arguments."""
    positions, mixing, sampling = _parts(canvas, weight, kernel, offsets, points)
    to_canvas, to_weight, to_kernel, to_offsets = needed
    adds = mixing * (to_canvas or to_kernel or to_offsets)
    adds += sampling * to_canvas
    adds += (sampling + mixing) * to_weight
    adds += canvas[3] * (1 if offsets is None else 4) * (to_kernel or to_offsets)
    return 2 * positions * adds


def register() -> None:
    """Register the formulas of both operators."""
    register_flop_formula(torch.ops.sapnet.adaptive_filter)(forward)
    register_flop_formula(torch.ops.sapnet.adaptive_filter_backward)(backward)


def _parts(canvas, weight, kernel, offsets, points) -> tuple[int, int, int]:
    b, h, w, c = canvas
    length = h * w if points is None else points[1]
    # For depthwise weights `weight[1]` is 1.
    mixing = weight[0] * weight[1]
    sampling = c * ((0 if offsets is None else 4) + (kernel is not None))
    return b * length * weight[2] * weight[3], mixing, sampling
