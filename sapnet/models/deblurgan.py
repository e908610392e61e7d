"""The generator of DeblurGAN (Kupyn et al., CVPR 2018), with the parameter names of the authors' weights."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sapnet.layers.image_statistics import ImageInstanceNorm
from sapnet.models.inputs import InputRequirements


class ResBlock(nn.Module):
    """Two normalised 3x3 convolutions with dropout between them, added to their input."""

    def __init__(self, channels: int, dropout: float):
        super().__init__()
        self.conv_block = nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3),
            ImageInstanceNorm(channels),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3),
            ImageInstanceNorm(channels),
        )

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return x + self.conv_block(x)


class DeblurGAN(nn.Module):
    """Residual generator at a quarter of the resolution, whose output is added to the image and clamped.

    This is the version of the paper, with two convolutions a block; the authors' repository has one since 2019. Only
    the generator is here: the authors train it with an adversarial and a perceptual loss, `sapnet train` with the
    pixelwise loss of `loss`. The normalisation uses the statistics of the image, as in the authors' test. That test
    also leaves dropout on, which makes their results random; here dropout is on in training alone.

    Args:
        width: Channels at full resolution, doubled by each of the two downsamplings.
        blocks: Number of residual blocks.
        dropout: Probability of dropout in a block.
    """

    #: Features of at least 2x2 pixels, which have statistics and can be mirrored.
    requirements = InputRequirements(4, minimum=8, black=-1)

    def __init__(self, width: int = 64, blocks: int = 9, dropout: float = 0.5):
        super().__init__()
        layers = [nn.ReflectionPad2d(3), *_normalised(nn.Conv2d(3, width, 7))]
        for before in (width, 2 * width):
            layers += _normalised(nn.Conv2d(before, 2 * before, 3, stride=2, padding=1))
        layers += [ResBlock(4 * width, dropout) for _ in range(blocks)]
        for before in (4 * width, 2 * width):
            up = nn.ConvTranspose2d(before, before // 2, 3, stride=2, padding=1, output_padding=1)
            layers += _normalised(up)
        self.model = nn.Sequential(*layers, nn.ReflectionPad2d(3), nn.Conv2d(width, 3, 7), nn.Tanh())
        self.apply(_initialise)

    def forward(self, blurred: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b 3 h w"]]:
        """Restore images of any size from 1x1 up.

        Args:
            blurred: RGB in [0, 1].

        Returns:
            The restored image in [0, 1].
        """
        return self.requirements.run(self.restore, blurred)

    def restore(self, blurred: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b 3 h w"]]:
        """Restore images in [-1, 1] that meet the requirements."""
        return [torch.clamp(blurred + self.model(blurred), -1, 1)]


def _normalised(conv: nn.Conv2d | nn.ConvTranspose2d) -> list[nn.Module]:
    return [conv, ImageInstanceNorm(conv.out_channels), nn.ReLU()]


def _initialise(module: nn.Module) -> None:
    # The authors' initialisation.
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
