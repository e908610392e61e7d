"""Feature pyramid over the encoder of a classifier."""

from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sapnet.layers.image_statistics import ImageInstanceNorm

#: Left, right, top and bottom.
Margins = tuple[int, int, int, int]


class FeaturePyramid(nn.Module):
    """Features at 1/2 to 1/32 of the resolution; coarse features are enlarged and added to finer ones.

    A subclass registers the encoder's five parts as `enc0` to `enc4`, each of which halves the resolution.

    Args:
        encoded: Channels of each part of the encoder.
        width: Channels of the pyramid; half as many at 1/2 of the resolution.
        margins: Mirrored pixels that complete the features of each part, for encoders without padding.
    """

    def __init__(self, encoded: Sequence[int], width: int, margins: Sequence[Margins] = ((0, 0, 0, 0),) * 5):
        super().__init__()
        self.width, self.margins = width, margins
        for i, before in enumerate(encoded):
            lateral = nn.Conv2d(before, width if i else width // 2, 1, bias=False)
            self.add_module(f"lateral{i}", lateral)
        self.td1, self.td2, self.td3 = (convolved_and_normalised(width, width) for _ in range(3))

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b _ _ _"]]:
        """Return the features of each resolution, finest first."""
        x, sides = image, []
        for i, margins in enumerate(self.margins):
            x = self.get_submodule(f"enc{i}")(x)
            side = self.get_submodule(f"lateral{i}")(x)
            sides.append(F.pad(side, margins, mode="reflect") if any(margins) else side)
        maps = [sides[4]]
        for side, merge in zip(sides[3:0:-1], (self.td1, self.td2, self.td3), strict=True):
            maps.append(merge(side + enlarged(maps[-1], 2)))
        return [sides[0], *reversed(maps)]


def convolved_and_normalised(before: int, after: int) -> nn.Sequential:
    """Return a 3x3 convolution, normalised by the statistics of the image, and ReLU."""
    return nn.Sequential(nn.Conv2d(before, after, 3, padding=1), ImageInstanceNorm(after), nn.ReLU())


def enlarged(x: Float[Tensor, "b c h w"], factor: int) -> Float[Tensor, "b c h2 w2"]:
    """Repeat every pixel in both directions."""
    return F.interpolate(x, scale_factor=factor, mode="nearest")
