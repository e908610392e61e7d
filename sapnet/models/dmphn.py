"""The deep multi-patch hierarchical network, DMPHN (Zhang et al., CVPR 2019), plain, stacked and adaptively sampled."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import cast

from jaxtyping import Float, Int64
from torch import Tensor, nn

from sapnet.errors import UserError
from sapnet.layers.canvas import Conv, Up, to_canvas, to_image
from sapnet.layers.content_aware import regrid
from sapnet.layers.hierarchy import join, split
from sapnet.layers.padding import crop_to, pad_to_multiple
from sapnet.sampling.context import StageContext
from sapnet.sampling.plugin import ChoosePoints, PointResBlock, regroup_points

#: Patches (rows, columns) of each level, bottom first; a network of `n` levels uses the last `n`.
GRIDS = ((4, 2), (2, 2), (2, 1), (1, 1))
Grid = tuple[int, int]
Points = dict[int, Int64[Tensor, "_ _"]]


class Encoder(nn.Module):
    """A convolution, then two residual blocks at each scale, with a convolution of stride 2 between scales.

    With `sampled` the canvases have twice the resolution, and the first of these strides is 1.
    """

    def __init__(self, channels: Sequence[int], sampled: bool):
        super().__init__()
        self.stem = Conv(3, channels[0])
        self.down = nn.ModuleList(
            Conv(before, width, stride=1 if sampled and i == 0 else 2)
            for i, (before, width) in enumerate(pairwise(channels))
        )
        self.blocks = _pairs_of_blocks(channels)

    def forward(self, patches: Float[Tensor, "p h w 3"], points: Points) -> Float[Tensor, "p h2 w2 c"]:
        """Encode patches; scales without points are refined everywhere."""
        x = patches
        for i, blocks in enumerate(self.blocks):
            x = self.down[i - 1](x) if i else self.stem(x)
            for block in cast(nn.ModuleList, blocks):
                x = block(x, points.get(2**i))
        return x


class Decoder(nn.Module):
    """Two residual blocks at each scale, with transposed convolutions between scales and no skip connections.

    With `sampled` the last two scales have the same resolution, and a 3x3 convolution replaces the last transposed one.
    """

    def __init__(self, channels: Sequence[int], sampled: bool):
        super().__init__()
        self.blocks = _pairs_of_blocks(channels)
        self.up = nn.ModuleList(
            Conv(width, before) if sampled and i == 0 else Up(width, before)
            for i, (before, width) in enumerate(pairwise(channels))
        )
        self.head = Conv(channels[0], 3)

    def forward(
        self, x: Float[Tensor, "p h2 w2 c"], points: Points
    ) -> tuple[Float[Tensor, "p h w 3"], Float[Tensor, "p h w c0"]]:
        """Return the image and the features before the last convolution."""
        for i in reversed(range(len(self.blocks))):
            for block in cast(nn.ModuleList, self.blocks[i]):
                x = block(x, points.get(2**i))
            if i:
                x = self.up[i - 1](x)
        return self.head(x), x


class Level(nn.Module):
    """One level of the hierarchy: encodes each patch separately and decodes the larger patches of the next level."""

    def __init__(self, channels: Sequence[int], grid: Grid, joined: Grid, sampled: bool):
        super().__init__()
        self.encoder, self.decoder = Encoder(channels, sampled), Decoder(channels, sampled)
        self.grid, self.joined = grid, joined

    def encode(self, image: Float[Tensor, "b 3 h w"], points: Points) -> Float[Tensor, "b h2 w2 c"]:
        """Encode the level's patches of an image and join their features."""
        return join(self.encoder(split(to_canvas(image), *self.grid, height_dim=1), points), *self.grid, height_dim=1)

    def decode(
        self, features: Float[Tensor, "b h2 w2 c"], points: Points
    ) -> tuple[Float[Tensor, "b 3 h w"], Float[Tensor, "b h w c0"]]:
        """Decode joined features; return the image and the last features."""
        decoded = self.decoder(split(features, *self.joined, height_dim=1), points)
        image, last = (join(x, *self.joined, height_dim=1) for x in decoded)
        return to_image(image), last

    def joined_points(self, points: Points, height: int, width: int) -> Points:
        """Convert points on the encoder's patches to points on the decoder's, in an image of the given size."""
        sizes = {r: (height // self.grid[0] // (r // 2), width // self.grid[1] // (r // 2)) for r in points}
        return {r: regroup_points(p, *sizes[r], self.grid, self.joined) for r, p in points.items()}


class DMPHN(nn.Module):
    """DMPHN with levels over 8, 4, 2 and 1 patches.

    The bottom level encodes the blurred patches. Every other level encodes its patches plus the residual decoded by the
    level below, and adds that level's features to its own. In the published network all levels decode a residual except
    the top, which decodes the image and is the only level with supervision.

    With `progressive` the residual of every level, including the top, is added to the blurred image, and each result is
    an output. With `sampled` all levels except the bottom are non-uniform: their features at half and quarter
    resolution are stored on canvases of twice that resolution, and the residual blocks refine chosen points. The
    weights are the same except for the last change of resolution, see `Decoder`.

    Args:
        levels: 3 for DMPHN(1-2-4), 4 for DMPHN(1-2-4-8).
        channels: Channels at full, half, quarter resolution, and so on.
        progressive: Whether every level restores an image.
        sampled: Whether the levels above the bottom are non-uniform.

    Raises:
        UserError: `sampled` without `progressive`, or an invalid number of levels.
    """

    def __init__(
        self,
        levels: int = 4,
        channels: Sequence[int] = (32, 64, 128),
        progressive: bool = False,
        sampled: bool = False,
    ):
        super().__init__()
        if sampled and not progressive:
            raise UserError("network.sampled needs network.progressive=true: points are chosen from restored images.")
        if not 1 <= levels <= len(GRIDS):
            raise UserError(f"network.levels={levels}: DMPHN has 1 to {len(GRIDS)} levels.")
        grids = (*GRIDS[-levels:], (1, 1))
        self.levels = nn.ModuleList(
            Level(channels, grid, joined, sampled and k > 0) for k, (grid, joined) in enumerate(pairwise(grids))
        )
        self.progressive = progressive
        self.sampled_stages = tuple(range(1, levels)) if sampled else ()
        self.scales, self.feature_channels = tuple(2**i for i in range(1, len(channels))), channels[0]
        #: Image sizes are padded to a multiple of this.
        self.multiple = grids[0][0] * self.scales[-1]
        self.apply(_initialise)
        if progressive:
            # The initial output of every level is the blurred image.
            for level in self.typed_levels:
                nn.init.zeros_(level.decoder.head.weight)

    @property
    def typed_levels(self) -> list[Level]:
        """The levels, bottom first."""
        return cast("list[Level]", list(self.levels))

    def forward(self, blurred: Float[Tensor, "b 3 h w"], choose_points: ChoosePoints | None = None) -> list[Tensor]:
        """Restore images of any size from 1x1 up.

        Args:
            blurred: RGB in [0, 1].
            choose_points: Returns the points of each non-uniform level.

        Returns:
            The restored image of every level, or only of the top without `progressive`; not clamped.

        Raises:
            ValueError: The network has non-uniform levels and `choose_points` is missing.
        """
        if choose_points is None and self.sampled_stages:
            raise ValueError("a network with non-uniform levels needs `choose_points`")
        height, width = blurred.shape[-2:]
        padded = pad_to_multiple(blurred, self.multiple)
        if self.progressive:
            images = self._restore_progressively(padded, (height, width), choose_points)
        else:
            images = [self.restore(padded - 0.5)[0] + 0.5]
        return [crop_to(image, height, width) for image in images]

    def restore(
        self,
        image: Float[Tensor, "b 3 h w"],
        previous: Sequence[Tensor] | None = None,
        added: Float[Tensor, "b 3 h w"] | None = None,
    ) -> tuple[Float[Tensor, "b 3 h w"], list[Tensor]]:
        """Run all levels from the bottom to the top as in the published network, on padded images minus 0.5.

        Args:
            image: Image to restore.
            previous: Features of each level of the previous stack, which are added to those of this one.
            added: Image that is added to the output of the level below the top.

        Returns:
            The restored image and the features of each level.
        """
        residual, features = None, []
        for k, level in enumerate(self.typed_levels):
            encoded = level.encode(image if residual is None else image + residual, {})
            if features:
                encoded = encoded + features[-1]
            if previous is not None:
                encoded = encoded + previous[k]
            residual, _ = level.decode(encoded, {})
            if added is not None and k == len(self.levels) - 2:
                residual = residual + added
            features.append(encoded)
        return cast(Tensor, residual), features

    def _restore_progressively(
        self, padded: Tensor, size: tuple[int, int], choose_points: ChoosePoints | None
    ) -> list[Tensor]:
        restored, features, last, images = padded, None, None, []
        for k, level in enumerate(self.typed_levels):
            points: Points = {}
            if k in self.sampled_stages and choose_points is not None:
                points = dict(choose_points(StageContext(k, level.grid, size, last, restored, padded)))
            encoded = level.encode(restored - 0.5, points)
            if features is not None:
                encoded = encoded + regrid(features, *encoded.shape[1:3])
            features = encoded
            residual, last = level.decode(encoded, level.joined_points(points, *padded.shape[-2:]))
            restored = padded + residual
            images.append(restored)
        return images


class StackedDMPHN(nn.Module):
    """Several DMPHN in a row, each restoring the image of the previous one: Stack(4)-DMPHN.

    Every level also adds the features of the same level of the previous stack. As in the authors' code, from the second
    stack on, the image of the first stack (not of the previous one) is added to the output of the level below the top.
    The image of every stack is an output, and the authors supervise all of them.

    Args:
        stacks: Number of stacks.
        levels: Levels of each stack, see `DMPHN`.
        channels: Channels of each stack, see `DMPHN`.
    """

    def __init__(self, stacks: int = 4, levels: int = 3, channels: Sequence[int] = (32, 64, 128)):
        super().__init__()
        self.stacks = nn.ModuleList(DMPHN(levels, channels) for _ in range(stacks))

    @property
    def typed_stacks(self) -> list[DMPHN]:
        """The stacks in order."""
        return cast("list[DMPHN]", list(self.stacks))

    def forward(self, blurred: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b 3 h w"]]:
        """Restore images of any size from 1x1 up.

        Args:
            blurred: RGB in [0, 1].

        Returns:
            The restored image of every stack, not clamped.
        """
        height, width = blurred.shape[-2:]
        stacks = self.typed_stacks
        image, features, first = pad_to_multiple(blurred, stacks[0].multiple) - 0.5, None, None
        images = []
        for stack in stacks:
            image, features = stack.restore(image, features, first)
            first = image if first is None else first
            images.append(crop_to(image + 0.5, height, width))
        return images


def _pairs_of_blocks(channels: Sequence[int]) -> nn.ModuleList:
    return nn.ModuleList(nn.ModuleList(PointResBlock(width) for _ in range(2)) for width in channels)


def _initialise(module: nn.Module) -> None:
    # The authors' initialisation.
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, std=math.sqrt(0.5 / (math.prod(module.kernel_size) * module.out_channels)))
        if module.bias is not None:
            nn.init.zeros_(module.bias)
