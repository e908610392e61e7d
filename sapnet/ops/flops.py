"""What the filter costs, for `torch.utils.flop_counter`: a multiplication is one multiply-add, two FLOPs.

Per point and tap, with c channels in and o out, forward costs these multiply-adds:

- reading: `4 c` with offsets (four corners), and `c` more with a pixel-dependent kernel;
- mixing by the fixed weight: `c o`; depthwise `c`.

Backward, for those gradients that are needed:

- any of canvas, kernel and offsets: `c o` (depthwise `c`), the fixed weight's transpose;
- canvas: as much as reading, whose transpose it is;
- kernel or offsets: `4 c` with offsets (a dot product a corner, shared by the two), else `c`;
- weight: reading once more, and `c o` (depthwise `c`).

Padded points count like others, taps outside the canvas too. Without kernel and offsets forward costs exactly what the
counter reports for the convolution it equals. The few operations per tap that do not grow with c are left out.
"""

import torch
from torch.utils.flop_counter import register_flop_formula


def forward(canvas, weight, kernel, offsets, points, **kwargs) -> int:
    """FLOPs of `sapnet::adaptive_filter`, from the shapes of its arguments."""
    positions, mixing, reading = _parts(canvas, weight, kernel, offsets, points)
    return 2 * positions * (reading + mixing)


def backward(grad, canvas, weight, kernel, offsets, points, needed, **kwargs) -> int:
    """FLOPs of `sapnet::adaptive_filter_backward`, from the shapes of its arguments."""
    positions, mixing, reading = _parts(canvas, weight, kernel, offsets, points)
    to_canvas, to_weight, to_kernel, to_offsets = needed
    adds = mixing * (to_canvas or to_kernel or to_offsets)
    adds += reading * to_canvas
    adds += (reading + mixing) * to_weight
    adds += canvas[3] * (1 if offsets is None else 4) * (to_kernel or to_offsets)
    return 2 * positions * adds


def register() -> None:
    """Make the counter know both operators."""
    register_flop_formula(torch.ops.sapnet.adaptive_filter)(forward)
    register_flop_formula(torch.ops.sapnet.adaptive_filter_backward)(backward)


def _parts(canvas, weight, kernel, offsets, points) -> tuple[int, int, int]:
    b, h, w, c = canvas
    length = h * w if points is None else points[1]
    # One input channel a filter is depthwise; with one channel at all it is the same number.
    mixing = weight[0] * weight[1]
    reading = c * ((0 if offsets is None else 4) + (kernel is not None))
    return b * length * weight[2] * weight[3], mixing, reading
