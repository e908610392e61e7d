"""Convolutions on canvases, features stored channels-last as ``[b, h, w, c]``.

A canvas seen as ``[b, c, h, w]`` is PyTorch's ``channels_last`` memory format, so nothing is copied here.
Channels-last, because a pixel's features then stand together: points are gathered and written by rows.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


def to_canvas(image: Float[Tensor, "b c h w"]) -> Float[Tensor, "b h w c"]:
    """Turn an image into a contiguous canvas."""
    return image.permute(0, 2, 3, 1).contiguous()


def to_image(canvas: Float[Tensor, "b h w c"]) -> Float[Tensor, "b c h w"]:
    """View a canvas as an image in the channels-last memory format."""
    return canvas.permute(0, 3, 1, 2)


class Conv(nn.Conv2d):
    """Convolution of a canvas, zero-padded so that only the stride changes the size."""

    bias: Tensor

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1):
        super().__init__(in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2)

    def forward(self, canvas: Float[Tensor, "b h w c"]) -> Float[Tensor, "b h2 w2 o"]:
        """Convolve."""
        return to_canvas(super().forward(to_image(canvas)))


class MapConv(Conv):
    """Convolution of a canvas to a single map.

    The taps of all positions come from one matrix product, and are then summed where they belong: a third of the time
    that PyTorch's convolution takes for a single channel on a CPU.
    """

    def __init__(self, in_channels: int, kernel_size: int = 3):
        super().__init__(in_channels, 1, kernel_size)

    def forward(self, canvas: Float[Tensor, "b h w c"]) -> Float[Tensor, "b h w 1"]:
        """Convolve."""
        batch, height, width, channels = canvas.shape
        size = self.kernel_size[0]
        # `fold` adds a tap to where it points; flipped, to where it is wanted.
        weight = self.weight.flip(2, 3).reshape(channels, size**2).t()
        taps = weight.expand(batch, -1, -1) @ canvas.flatten(1, 2).transpose(1, 2)
        summed = F.fold(taps, (height, width), size, padding=size // 2)
        return summed.view(batch, height, width, 1) + self.bias


class Up(nn.ConvTranspose2d):
    """Doubling of a canvas' resolution by a 4x4 transposed convolution of stride 2."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(in_channels, out_channels, kernel_size=4, stride=2, padding=1)

    def forward(self, canvas: Float[Tensor, "b h w c"]) -> Float[Tensor, "b h2 w2 o"]:
        """Upsample."""
        return to_canvas(super().forward(to_image(canvas)))


class PlainResBlock(nn.Module):
    """Residual block of two plain convolutions: ``x + conv(relu(conv(x)))``."""

    def __init__(self, channels: int):
        super().__init__()
        self.first = Conv(channels, channels)
        self.second = Conv(channels, channels)

    def forward(self, canvas: Float[Tensor, "b h w c"]) -> Float[Tensor, "b h w c"]:
        """Refine the whole canvas."""
        return canvas + self.second(torch.relu(self.first(canvas)))


def upsample2(canvas: Float[Tensor, "b h w c"]) -> Float[Tensor, "b h2 w2 c"]:
    """Double the resolution by bilinear interpolation."""
    return to_canvas(F.interpolate(to_image(canvas), scale_factor=2, mode="bilinear", align_corners=False))
