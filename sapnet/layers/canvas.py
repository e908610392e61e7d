"""Convolutions on canvases: features stored channels-last as `[b, h, w, c]`.

A canvas viewed as `[b, c, h, w]` has PyTorch's `channels_last` memory format, so no copies are needed. Canvases are
channels-last because the features of a pixel are then contiguous, and points are read and written as rows.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


def to_canvas(image: Float[Tensor, "b c h w"]) -> Float[Tensor, "b h w c"]:
    """Convert an image to a contiguous canvas."""
    return image.permute(0, 2, 3, 1).contiguous()


def to_image(canvas: Float[Tensor, "b h w c"]) -> Float[Tensor, "b c h w"]:
    """View a canvas as an image in the channels-last memory format."""
    return canvas.permute(0, 3, 1, 2)


class Conv(nn.Conv2d):
    """Convolution of a canvas with zero padding, where only the stride changes the size."""

    bias: Tensor

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1):
        super().__init__(in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2)

    def forward(self, canvas: Float[Tensor, "b h w c"]) -> Float[Tensor, "b h2 w2 o"]:
        return to_canvas(super().forward(to_image(canvas)))


class MapConv(Conv):
    """Convolution of a canvas to a single map.

    One matrix product computes the taps of all positions, which are then summed. On a CPU this takes a third of the
    time of PyTorch's convolution for a single channel.
    """

    def __init__(self, in_channels: int, kernel_size: int = 3):
        super().__init__(in_channels, 1, kernel_size)

    def forward(self, canvas: Float[Tensor, "b h w c"]) -> Float[Tensor, "b h w 1"]:
        batch, height, width, channels = canvas.shape
        size = self.kernel_size[0]
        # `fold` adds each tap at its offset; the flipped kernel makes this a correlation.
        weight = self.weight.flip(2, 3).reshape(channels, size**2).t()
        taps = weight.expand(batch, -1, -1) @ canvas.flatten(1, 2).transpose(1, 2)
        summed = F.fold(taps, (height, width), size, padding=size // 2)
        return summed.view(batch, height, width, 1) + self.bias


class Up(nn.ConvTranspose2d):
    """Doubles the resolution of a canvas with a 4x4 transposed convolution of stride 2."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(in_channels, out_channels, kernel_size=4, stride=2, padding=1)

    def forward(self, canvas: Float[Tensor, "b h w c"]) -> Float[Tensor, "b h2 w2 o"]:
        return to_canvas(super().forward(to_image(canvas)))


class PlainResBlock(nn.Module):
    """Residual block of two plain convolutions: `x + conv(relu(conv(x)))`."""

    def __init__(self, channels: int):
        super().__init__()
        self.first = Conv(channels, channels)
        self.second = Conv(channels, channels)

    def forward(self, canvas: Float[Tensor, "b h w c"]) -> Float[Tensor, "b h w c"]:
        return canvas + self.second(torch.relu(self.first(canvas)))


def upsample2(canvas: Float[Tensor, "b h w c"]) -> Float[Tensor, "b h2 w2 c"]:
    """Double the resolution by bilinear interpolation."""
    return to_canvas(F.interpolate(to_image(canvas), scale_factor=2, mode="bilinear", align_corners=False))
