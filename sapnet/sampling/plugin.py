"""The adaptive sampling step for any network: choose points of a feature map, refine them, write them back.

`PointResBlock` is a residual block of plain convolutions that also works at points. `AdaptiveRefinement` is the
complete step for a network with `[b, c, h, w]` features; `docs/plugin.md` adds it to a U-Net.
"""

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from sapnet.layers.canvas import Conv, to_canvas, to_image
from sapnet.layers.hierarchy import join, split
from sapnet.ops import adaptive_filter
from sapnet.ops.points import gather, scatter
from sapnet.sampling.context import StageContext
from sapnet.sampling.selection import points_from_mask

ChoosePoints = Callable[[StageContext], Mapping[int, Int64[Tensor, "_ _"]]]
"""Returns the points of a stage by scale; `AdaptiveNetwork` passes one to its generator."""

Module = Callable[[Tensor, Tensor], Tensor]
"""Computes new features `[b, l, c]` at points `[b, l]` of a canvas `[b, h, w, c]`."""


def refine_at_points(
    canvas: Float[Tensor, "b h w c"], points: Int64[Tensor, "b l"], module: Module
) -> Float[Tensor, "b h w c"]:
    """Replace the features at the points by the output of a module; all others keep their value (Eq. 1-3).

    Args:
        canvas: Features, channels last.
        points: Distinct raster indices `y * w + x`; unused slots hold -1.
        module: Called with canvas and points. Its output in unused slots is ignored.
    """
    return scatter(canvas, module(canvas, points), points)


class PointConv(Conv):
    """Convolution of a canvas that can also be evaluated only at points, with the same weights."""

    def at(self, canvas: Float[Tensor, "b h w c"], points: Int64[Tensor, "b l"]) -> Float[Tensor, "b l o"]:
        """Convolve at points of the canvas; taps are one canvas pixel apart and read 0 outside."""
        return adaptive_filter(canvas, self.weight, points=points) + self.bias


class PointResBlock(nn.Module):
    """Residual block `x + conv(relu(conv(x)))`, on a whole canvas or at points of it.

    At points, the second convolution reads the output of the first one at the points and 0 elsewhere, as in submanifold
    sparse convolution (Graham et al. 2018). The cost of the block is proportional to the number of points, and with
    every position sampled it equals the dense block.

    Args:
        channels: Number of channels.
        kernel_size: Kernel size of both convolutions, odd.
    """

    def __init__(self, channels: int, kernel_size: int = 3):
        super().__init__()
        self.first = PointConv(channels, channels, kernel_size)
        self.second = PointConv(channels, channels, kernel_size)

    def forward(
        self, canvas: Float[Tensor, "b h w c"], points: Int64[Tensor, "b l"] | None = None
    ) -> Float[Tensor, "b h w c"]:
        """Refine the canvas at the points; None: everywhere."""
        if points is None:
            return canvas + self.second(torch.relu(self.first(canvas)))
        return refine_at_points(canvas, points, self._values)

    def _values(self, canvas: Tensor, points: Tensor) -> Tensor:
        hidden = scatter(torch.zeros_like(canvas), torch.relu(self.first.at(canvas, points)), points)
        return gather(canvas, points) + self.second.at(hidden, points)


class AdaptiveRefinement(nn.Module):
    """The sampling step of a non-uniform stage, for use between two layers of any network.

    The features are the canvas of scale `r`, with a resolution `r / 2` times lower than the image's. The blocks refine
    the points of that scale one after another.

    Args:
        blocks: Modules that map a canvas `[b, h, w, c]` and points to the refined canvas, such as `PointResBlock`,
            `ContentAwareBlock`, or a module that uses `refine_at_points`.
        scale: `r`: 2, 4 or 8.
        stage: Index of the stage in the network's list of outputs, from 1. The stage refines output `stage - 1`.
    """

    def __init__(self, *blocks: nn.Module, scale: int = 2, stage: int = 1):
        super().__init__()
        self.blocks, self.scale, self.stage = nn.ModuleList(blocks), scale, stage

    def forward(
        self,
        features: Float[Tensor, "b c h w"],
        restored: Float[Tensor, "b 3 H W"],
        blurred: Float[Tensor, "b 3 H W"],
        choose_points: ChoosePoints,
    ) -> Float[Tensor, "b c h w"]:
        """Refine features at chosen points.

        Args:
            features: Features to refine, also an input of the learned sampler.
            restored: The image restored by the previous stage, RGB in [0, 1].
            blurred: The blurred image.
            choose_points: Chooses the points.

        Raises:
            ValueError: The features do not have the resolution of the scale's canvas.
        """
        size, factor = blurred.shape[-2:], self.scale // 2
        if tuple(features.shape[-2:]) != (size[0] // factor, size[1] // factor):
            raise ValueError(
                f"scale {self.scale} of an image of {size[0]}x{size[1]} has a canvas of"
                f" {size[0] // factor}x{size[1] // factor}, not {features.shape[-2]}x{features.shape[-1]}"
            )
        canvas = to_canvas(features)
        points = choose_points(StageContext(self.stage, (1, 1), (size[0], size[1]), canvas, restored, blurred))[
            self.scale
        ]
        for block in self.blocks:
            canvas = block(canvas, points)
        return to_image(canvas)


def regroup_points(
    points: Int64[Tensor, "p l"], height: int, width: int, fine: tuple[int, int], coarse: tuple[int, int]
) -> Int64[Tensor, "q m"]:
    """Convert points of the patches of a grid to points of the larger patches of a coarser grid.

    Args:
        points: Raster indices into each patch's canvas, with patches stacked as by `split`.
        height: Rows of each patch's canvas.
        width: Columns of each patch's canvas.
        fine: Rows and columns of patches in the image.
        coarse: Rows and columns of the larger patches; each divides that of `fine`.
    """
    if fine == coarse:
        return points
    size, factor = height * width, fine[0] * fine[1] // (coarse[0] * coarse[1])
    # Unused slots are written to an extra last position, which is dropped.
    mask = torch.zeros(len(points), size + 1, dtype=torch.bool, device=points.device)
    mask = mask.scatter(1, torch.where(points < 0, size, points), True)[:, :-1]
    mask = split(join(mask.reshape(-1, 1, height, width), *fine), *coarse)
    return points_from_mask(mask.flatten(1), factor * points.shape[1])
