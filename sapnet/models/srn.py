"""The scale-recurrent network, SRN (Tao et al., CVPR 2018), plain and adaptively sampled."""

from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from sapnet.layers.canvas import Conv, Up, to_canvas, to_image
from sapnet.layers.padding import crop_to, pad_to_multiple
from sapnet.ops.points import gather, scatter
from sapnet.sampling.context import StageContext
from sapnet.sampling.plugin import ChoosePoints, PointConv, PointResBlock

#: Downsampling factor of each scale's image, coarsest first.
FACTORS = (4, 2, 1)
Points = dict[int, Int64[Tensor, "_ _"]]
#: Hidden state and cell state.
Memory = tuple[Float[Tensor, "b _ _ _"], Float[Tensor, "b _ _ _"]]


class ConvLSTM(nn.Module):
    """Convolutional LSTM cell, 3x3, with 1 added to the forget gate as in the authors' library.

    With points, the hidden and cell state of all other positions keep their value from the coarser scale.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.gates = PointConv(2 * channels, 4 * channels)

    def forward(
        self, x: Float[Tensor, "b h w c"], memory: Memory, points: Int64[Tensor, "b l"] | None = None
    ) -> Memory:
        """Return the new hidden and cell state; the hidden state is the cell's output."""
        hidden, cell = memory
        both = torch.cat([x, hidden], dim=-1)
        if points is None:
            return _lstm(self.gates(both), cell)
        new_hidden, new_cell = _lstm(self.gates.at(both, points), gather(cell, points))
        return scatter(hidden, new_hidden, points), scatter(cell, new_cell, points)


class EncoderDecoder(nn.Module):
    """Network shared by all scales: encoder, optional LSTM at the bottom, decoder with additive skip connections.

    It works on the regular grid, or on canvases of twice the resolution whose residual blocks refine points. With
    points, the first convolution of stride 2 has stride 1, and a separate 3x3 convolution replaces the last transposed
    one, because the last two scales have the same resolution.

    Args:
        channels: Channels at full, half and quarter resolution.
        lstm: Whether there is an LSTM.
        sampled: Whether points are used.
    """

    def __init__(self, channels: Sequence[int], lstm: bool, sampled: bool):
        super().__init__()
        self.stem = Conv(6, channels[0], 5)
        self.down = nn.ModuleList(Conv(before, width, 5, stride=2) for before, width in pairwise(channels))
        self.encoder = _triples_of_blocks(channels)
        self.lstm = ConvLSTM(channels[-1]) if lstm else None
        self.decoder = _triples_of_blocks(channels)
        self.up = nn.ModuleList(Up(width, before) for before, width in pairwise(channels))
        self.level = Conv(channels[1], channels[0]) if sampled else None
        self.head = Conv(channels[0], 3, 5)

    def forward(
        self, x: Float[Tensor, "b h w 6"], memory: Memory | None = None, points: Points | None = None
    ) -> tuple[Float[Tensor, "b h w 3"], Float[Tensor, "b h w c"], Memory | None]:
        """Restore an image of one scale.

        Args:
            x: The blurred image and the previous scale's restoration.
            memory: LSTM state of the previous scale; None at the coarsest scale.
            points: Points by index in `channels` (1: half, 2: quarter resolution); None: the regular grid.

        Returns:
            The restored image, the last features and the LSTM state.
        """
        sampled, points, skips = points is not None, points or {}, []
        for i, blocks in enumerate(self.encoder):
            x = torch.relu(self._down(i, x, sampled))
            for block in cast(nn.ModuleList, blocks):
                x = block(x, points.get(i))
            skips.append(x)
        if self.lstm is not None:
            state: Memory = self.lstm(x, _resized(memory, x), points.get(len(skips) - 1))
            memory, x = state, state[0]
        for i in reversed(range(len(self.decoder))):
            if i < len(skips) - 1:
                up = cast(Conv, self.level) if sampled and i == 0 else self.up[i]
                x = torch.relu(up(x)) + skips[i]
            for block in cast(nn.ModuleList, self.decoder[i]):
                x = block(x, points.get(i))
        return self.head(x), x, memory

    def _down(self, i: int, x: Tensor, sampled: bool) -> Tensor:
        if i == 0:
            return self.stem(x)
        conv = cast(Conv, self.down[i - 1])
        if not sampled or i > 1:
            return conv(x)
        return to_canvas(F.conv2d(to_image(x), conv.weight, conv.bias, padding=conv.padding))


class SRN(nn.Module):
    """Restores an image at 1/4, 1/2 and full size with shared weights.

    Every scale predicts the image itself, without a global residual, from the blurred image at its size and the
    previous restoration, which is upsampled bilinearly and detached. At the coarsest scale the blurred image takes the
    place of the previous restoration.

    The image of each scale is an output, upsampled bilinearly to the input's size, so a loss on all outputs supervises
    every scale. The authors compare each scale at its own size instead. The weights have PyTorch's default
    initialisation: with the authors' Xavier initialisation the first outputs exceed [0, 1] by an order of magnitude,
    too far for short runs.

    With `sampled` the coarsest scale is uniform. The other scales store the features at half and quarter of their
    image's resolution on canvases of twice that resolution, where the residual blocks and the LSTM refine chosen
    points.

    Args:
        channels: Channels at full, half and quarter resolution of a scale's image.
        lstm: Whether a ConvLSTM at the bottom passes its state from scale to scale.
        sampled: Whether the scales above the coarsest are non-uniform.
    """

    def __init__(self, channels: Sequence[int] = (32, 64, 128), lstm: bool = True, sampled: bool = False):
        super().__init__()
        self.network = EncoderDecoder(channels, lstm, sampled)
        self.feature_channels, self.depth = channels[0], len(channels)
        self.sampled_stages = (1, 2) if sampled else ()
        #: Scales of each non-uniform stage, in pixels of the whole image.
        self.scales = {k: tuple(FACTORS[k] * 2**i for i in range(1, self.depth)) for k in self.sampled_stages}
        #: Image sizes are padded to a multiple of this.
        self.multiple = FACTORS[0] * 2 ** (self.depth - 1)

    def forward(
        self, blurred: Float[Tensor, "b 3 h w"], choose_points: ChoosePoints | None = None
    ) -> list[Float[Tensor, "b 3 h w"]]:
        """Restore images of any size from 1x1 up.

        Args:
            blurred: RGB in [0, 1].
            choose_points: Returns the points of each non-uniform scale.

        Returns:
            The restorations of all scales, coarsest first, each at the input's size; not clamped.

        Raises:
            ValueError: The network has non-uniform scales and `choose_points` is missing.
        """
        if choose_points is None and self.sampled_stages:
            raise ValueError("a network with non-uniform scales needs `choose_points`")
        height, width = blurred.shape[-2:]
        padded = pad_to_multiple(blurred, self.multiple)
        restored, last, memory, outputs = padded, None, None, []
        for k, factor in enumerate(FACTORS):
            points = None
            if k in self.sampled_stages and choose_points is not None:
                stage_points = choose_points(StageContext(k, (1, 1), (height, width), last, outputs[-1], padded))
                points = {i: stage_points[factor * 2**i] for i in range(1, self.depth)}
            size = (padded.shape[-2] // factor, padded.shape[-1] // factor)
            pair = [_resize(padded, size), _resize(restored.detach(), size)]
            image, last, memory = self.network(to_canvas(torch.cat(pair, dim=1)), memory, points)
            restored = to_image(image)
            outputs.append(_resize(restored, (padded.shape[-2], padded.shape[-1])))
        return [crop_to(output, height, width) for output in outputs]


def _lstm(
    gates: Float[Tensor, "*shape _"], cell: Float[Tensor, "*shape c"]
) -> tuple[Float[Tensor, "*shape c"], Float[Tensor, "*shape c"]]:
    new, candidate, forget, output = gates.chunk(4, dim=-1)
    cell = torch.sigmoid(forget + 1) * cell + torch.sigmoid(new) * torch.tanh(candidate)
    return torch.sigmoid(output) * torch.tanh(cell), cell


def _resized(memory: Memory | None, like: Tensor) -> Memory:
    if memory is None:
        return torch.zeros_like(like), torch.zeros_like(like)
    hidden, cell = (to_canvas(_resize(to_image(x), (like.shape[1], like.shape[2]))) for x in memory)
    return hidden, cell


def _resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(image.shape[-2:]) == size:
        return image
    return F.interpolate(image, size=size, mode="bilinear", align_corners=False)


def _triples_of_blocks(channels: Sequence[int]) -> nn.ModuleList:
    return nn.ModuleList(nn.ModuleList(PointResBlock(width, 5) for _ in range(3)) for width in channels)
