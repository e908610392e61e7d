"""Deblurring with parameter selective sharing, DPN (Gao et al., CVPR 2019), with the authors' layer names."""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sapnet.models.inputs import InputRequirements

#: Reduction of each scale, coarsest first.
FACTORS = (4, 2, 1)
#: Residual functions of a block.
FUNCTIONS = 4


class Residual(nn.Module):
    """Two 3x3 convolutions with ReLU between them."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return self.conv2(self.conv1(x).relu())


class NestedBlock(nn.Module):
    """Residual functions, each of the input plus the results of all functions before it (nested skip connections)."""

    def __init__(self, channels: int):
        super().__init__()
        for i in range(1, FUNCTIONS + 1):
            self.add_module(f"d{i}", Residual(channels))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        for i in range(1, FUNCTIONS + 1):
            x = x + self.get_submodule(f"d{i}")(x)
        return x


class DPN(nn.Module):
    """Restores each colour plane at 1/4, 1/2 and full size.

    The blocks are shared by all scales and used twice at each; the layers that change the resolution are those of a
    scale. Every scale adds its output to the blurred plane, and also reads the restoration of the coarser scale, which
    is enlarged and detached. The images of all scales are outputs, so that a loss on all outputs supervises every
    scale.

    The authors' program turns portrait images before it restores them, and makes images smaller that exceed its input;
    both are left out.

    Args:
        channels: Channels at each resolution of a scale, finest first.
    """

    requirements = InputRequirements(16)

    def __init__(self, channels: Sequence[int] = (32, 64, 128)):
        super().__init__()
        self.depth = len(channels)
        for level, width in enumerate(channels, start=1):
            self.add_module(f"enc{level}_2", NestedBlock(width))
            self.add_module(f"dec{level}_2", NestedBlock(width))
        for scale in range(len(FACTORS)):
            self.add_module(f"enc1_1_{scale}", nn.Conv2d(2, channels[0], 3, padding=1))
            for level, (above, width) in enumerate(pairwise(channels), start=2):
                self.add_module(f"enc{level}_1_{scale}", nn.Conv2d(above, width, 3, stride=2))
                up = nn.ConvTranspose2d(width, above, 4, stride=2, padding=1)
                self.add_module(f"dec{level - 1}_3_{scale}", up)
            self.add_module(f"dec1_0_{scale}", nn.Conv2d(channels[0], 1, 3, padding=1))

    def forward(self, blurred: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b 3 _ _"]]:
        """Restore images of any size from 1x1 up.

        Args:
            blurred: RGB in [0, 1].

        Returns:
            The restorations of all scales, coarsest first, not clamped. In training mode the first two have the size of
            their scale, and otherwise that of the image.
        """
        return self.requirements.run(self.restore, blurred, keep_scales=self.training)

    def restore(self, blurred: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b 3 _ _"]]:
        """Restore images that meet the requirements, each scale at its own size."""
        planes, outputs = blurred.flatten(0, 1)[:, None], []
        for scale, factor in enumerate(FACTORS):
            plane = planes[..., ::factor, ::factor]
            previous = _doubled(outputs[-1].detach()) if outputs else plane
            outputs.append(plane + self._restore_scale(scale, torch.cat([plane, previous], dim=1)))
        return [output[:, 0].unflatten(0, blurred.shape[:2]) for output in outputs]

    def _restore_scale(self, scale: int, x: Float[Tensor, "b 2 h w"]) -> Float[Tensor, "b 1 h w"]:
        skips = []
        for level in range(1, self.depth + 1):
            # The authors' library pads even sizes at the right and bottom alone.
            x = x if level == 1 else F.pad(x, (0, 1, 0, 1))
            x = self._twice("enc", level, self.get_submodule(f"enc{level}_1_{scale}")(x).relu())
            skips.append(x)
        for level in range(self.depth, 0, -1):
            if level < self.depth:
                x = self.get_submodule(f"dec{level}_3_{scale}")(x).relu() + skips[level - 1]
            x = self._twice("dec", level, x)
        return self.get_submodule(f"dec1_0_{scale}")(x)

    def _twice(self, part: str, level: int, x: Tensor) -> Tensor:
        block = self.get_submodule(f"{part}{level}_2")
        return block(block(x))


def _doubled(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h2 w2"]:
    # Bilinear as in TensorFlow 1: the given values at even positions, their means between them, the last one repeated.
    for dim in (2, 3):
        size = x.shape[dim]
        following = torch.cat([x.narrow(dim, 1, size - 1), x.narrow(dim, size - 1, 1)], dim)
        x = torch.stack([x, (x + following) / 2], dim + 1).flatten(dim, dim + 1)
    return x
