"""MSCNN (Nah et al., CVPR 2017), with the parameter names of the authors' PyTorch weights."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sapnet.models.inputs import InputRequirements

#: Number of resolutions.
SCALES = 3
#: Standard deviation in pixels of the smoothing before an image is halved, and radius of the filter.
SIGMA, RADIUS = 2 / 3, 3


class ResBlock(nn.Module):
    """Two 5x5 convolutions, added to their input."""

    def __init__(self, channels: int):
        super().__init__()
        first, second = (nn.Conv2d(channels, channels, 5, padding=2) for _ in range(2))
        self.body = nn.Sequential(first, nn.ReLU(), second)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return x + self.body(x)


class ScaleNetwork(nn.Module):
    """Network of one scale: residual blocks between two convolutions."""

    def __init__(self, inputs: int, channels: int, blocks: int):
        super().__init__()
        first, last = nn.Conv2d(inputs, channels, 5, padding=2), nn.Conv2d(channels, 3, 5, padding=2)
        self.body = nn.Sequential(first, *(ResBlock(channels) for _ in range(blocks)), last)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 h w"]:
        return self.body(x)


class UpConv(nn.Module):
    """A convolution and a pixel shuffle that double the size of an image."""

    def __init__(self):
        super().__init__()
        self.uppath = nn.Sequential(nn.Conv2d(3, 12, 5, padding=2), nn.PixelShuffle(2))

    def forward(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h2 w2"]:
        return self.uppath(x)


class MSCNN(nn.Module):
    """Restores an image at 1/4, 1/2 and full size, each with a network of its own.

    Every scale predicts the image itself from the blurred image at its size and the enlarged restoration of the coarser
    scale. The images of all scales are outputs, so that a loss on all outputs supervises every scale.

    Args:
        width: Channels of the features.
        blocks: Residual blocks of each scale.
        smoothed: Whether the blurred image is smoothed before it is halved, as in the authors' code.
    """

    #: The authors pad only in their demo; their test images have this multiple.
    requirements = InputRequirements(2 ** (SCALES - 1), white=255)

    def __init__(self, width: int = 64, blocks: int = 19, smoothed: bool = True):
        super().__init__()
        # Finest first. The coarsest scale has no restoration to enlarge, and the names count from 1.
        inputs = [6] * (SCALES - 1) + [3]
        self.body_models = nn.ModuleList(ScaleNetwork(number, width, blocks) for number in inputs)
        self.conv_end_models = nn.ModuleDict({str(i): UpConv() for i in range(1, SCALES)})
        self.smoothed = smoothed

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
        """Restore images in [0, 255] that meet the requirements; each output has the size of its scale."""
        mean, images = (self.requirements.black + self.requirements.white) / 2, [blurred]
        while len(images) < SCALES:
            images.append(F.avg_pool2d(_smoothed(images[-1]) if self.smoothed else images[-1], 2))
        outputs: list[Tensor] = []
        for i, network in reversed(list(enumerate(self.body_models))):
            x = images[i] - mean
            if outputs:
                x = torch.cat([x, self.conv_end_models[str(i + 1)](outputs[-1])], dim=1)
            outputs.append(network(x))
        return [output + mean for output in outputs]


def _smoothed(image: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    # Gaussian filter; the image continues as its mirror image, with the border pixel repeated.
    weights = [math.exp(-(offset**2) / (2 * SIGMA**2)) for offset in range(-RADIUS, RADIUS + 1)]
    for dim in (2, 3):
        size = image.shape[dim]
        positions = torch.arange(-RADIUS, size + RADIUS, device=image.device) % (2 * size)
        padded = image.index_select(dim, torch.minimum(positions, 2 * size - 1 - positions))
        taps = (weight / sum(weights) * padded.narrow(dim, i, size) for i, weight in enumerate(weights))
        image = torch.stack(list(taps)).sum(dim=0)
    return image
