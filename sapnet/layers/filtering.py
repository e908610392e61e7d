"""The pixel-dependent filtering module (Sec. 3.2.4, Eq. 17-18)."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from sapnet.ops import adaptive_filter
from sapnet.ops.heads import Head, apply_heads


class PixelDependentFilter(nn.Module):
    """Convolution whose taps are weighted and shifted at each position (Eq. 17).

    `V` (one value per position and tap) and the offsets (two values) are predicted by 1x1 heads from the features of
    the position, and are shared by all channels. Initially `V = 1` and the offsets are 0, which is a plain convolution.
    Without both heads the module is a plain convolution.

    Args:
        channels: Channels `C`.
        kernel_size: `K`, odd.
        kernel: Whether `V` is predicted.
        offsets: Whether the offsets are predicted.
        max_offset: `Delta_max` in canvas pixels; offsets are `max_offset * tanh(head)`.
        depthwise: Whether to use one `K x K` filter per channel (literal Eq. 18) instead of a `C x C x K x K` weight.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int = 5,
        kernel: bool = True,
        offsets: bool = True,
        max_offset: float = 8.0,
        depthwise: bool = False,
    ):
        super().__init__()
        self.max_offset = max_offset
        inputs = 1 if depthwise else channels
        self.weight = nn.Parameter(torch.empty(channels, inputs, kernel_size, kernel_size))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        taps = kernel_size**2
        self.f_ker = nn.Linear(channels, taps) if kernel else None
        self.f_off = nn.Linear(channels, 2 * taps) if offsets else None
        if self.f_ker is not None:
            nn.init.zeros_(self.f_ker.weight)
            nn.init.ones_(self.f_ker.bias)
        if self.f_off is not None:
            nn.init.zeros_(self.f_off.weight)
            nn.init.zeros_(self.f_off.bias)

    @property
    def heads(self) -> list[Head]:
        """The heads of `V` and of the offsets that are enabled."""
        kernel = [] if self.f_ker is None else [Head(self.f_ker)]
        return kernel if self.f_off is None else [*kernel, Head(self.f_off, "tanh")]

    def predict(
        self, values: Float[Tensor, "b l c"]
    ) -> tuple[Float[Tensor, "b l kk"] | None, Float[Tensor, "b l kk 2"] | None]:
        """Return `V` and the offsets `(dy, dx)` in canvas pixels; None for a disabled head."""
        return self._named(apply_heads(values, self.heads, self.max_offset) if self.heads else [])

    def forward(
        self,
        canvas: Float[Tensor, "b h w c"],
        values: Float[Tensor, "b l c"],
        points: Int64[Tensor, "b l"] | None = None,
        predicted: Sequence[Float[Tensor, "b l _"]] | None = None,
    ) -> Float[Tensor, "b l c"]:
        """Filter the canvas at the points.

        Args:
            canvas: Features from which the taps are read; 0 outside.
            values: Features of the canvas at the points.
            points: Raster indices into the canvas; None: every position.
            predicted: Outputs of `heads`, if they were computed together with other heads.
        """
        kernel, offsets = self.predict(values) if predicted is None else self._named(predicted)
        return adaptive_filter(canvas, self.weight, kernel, offsets, points)

    def _named(self, predicted: Sequence[Tensor]) -> tuple[Tensor | None, Tensor | None]:
        kernel = None if self.f_ker is None else predicted[0]
        return kernel, None if self.f_off is None else predicted[-1].unflatten(-1, (-1, 2))
