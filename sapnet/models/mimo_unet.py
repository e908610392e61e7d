"""MIMO-UNet and MIMO-UNet+ (Cho et al., ICCV 2021): one U-Net that reads and restores three scales of an image."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sapnet.models.inputs import InputRequirements


class ConvLayer(nn.Module):
    """A convolution with bias and zero padding, and ReLU unless `activated` is false."""

    def __init__(self, before: int, after: int, size: int, stride: int = 1, activated: bool = True):
        super().__init__()
        layers = [nn.Conv2d(before, after, size, stride, size // 2), *([nn.ReLU()] if activated else [])]
        self.main = nn.Sequential(*layers)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c2 h2 w2"]:
        return self.main(x)


class UpLayer(nn.Module):
    """A transposed convolution that doubles the resolution, and ReLU."""

    def __init__(self, before: int, after: int):
        super().__init__()
        self.main = nn.Sequential(nn.ConvTranspose2d(before, after, 4, 2, 1), nn.ReLU())

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c2 h2 w2"]:
        return self.main(x)


class ResBlock(nn.Module):
    """Two 3x3 convolutions whose result is added to their input."""

    def __init__(self, channels: int):
        super().__init__()
        self.main = nn.Sequential(ConvLayer(channels, channels, 3), ConvLayer(channels, channels, 3, activated=False))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return x + self.main(x)


class Blocks(nn.Module):
    """Residual blocks in a row: the encoder or decoder of one scale."""

    def __init__(self, channels: int, number: int):
        super().__init__()
        self.layers = nn.Sequential(*(ResBlock(channels) for _ in range(number)))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return self.layers(x)


class ShallowFeatures(nn.Module):
    """Features of a coarse input image (the paper's shallow convolutional module, SCM)."""

    def __init__(self, channels: int):
        super().__init__()
        half = channels // 2
        self.main = nn.Sequential(
            ConvLayer(3, channels // 4, 3),
            ConvLayer(channels // 4, half, 1),
            ConvLayer(half, half, 3),
            ConvLayer(half, channels - 3, 1),
        )
        self.conv = ConvLayer(channels, channels, 1, activated=False)

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c h w"]:
        return self.conv(torch.cat([image, self.main(image)], dim=1))


class FeatureAttention(nn.Module):
    """Emphasise the features of the finer scale by those of the image at this scale (feature attention module, FAM)."""

    def __init__(self, channels: int):
        super().__init__()
        self.merge = ConvLayer(channels, channels, 3, activated=False)

    def forward(self, x: Float[Tensor, "b c h w"], image: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return x + self.merge(x * image)


class FeatureFusion(nn.Module):
    """Merge the encoder's features of all scales for one decoder (asymmetric feature fusion, AFF)."""

    def __init__(self, before: int, after: int):
        super().__init__()
        self.conv = nn.Sequential(ConvLayer(before, after, 1), ConvLayer(after, after, 3, activated=False))

    def forward(self, *scales: Float[Tensor, "b _ h w"]) -> Float[Tensor, "b c h w"]:
        return self.conv(torch.cat(scales, dim=1))


class MIMOUNet(nn.Module):
    """MIMO-UNet: 8 residual blocks per encoder and decoder; MIMO-UNet+: 20, and dropout in training.

    The modules are named as in the authors' files of weights.

    Args:
        blocks: Residual blocks of each encoder and decoder.
        width: Channels at full resolution; twice and four times as many at half and quarter resolution.
        dropout: Probability that a channel of the merged features is 0 in training.
    """

    #: The authors restore GoPro images, whose sizes are multiples of 4, and do not state a padding.
    requirements = InputRequirements(multiple=4, padding="reflect")

    def __init__(self, blocks: int = 8, width: int = 32, dropout: float = 0.0):
        super().__init__()
        widths = (width, 2 * width, 4 * width)
        fine, middle, coarse = widths
        self.Encoder = nn.ModuleList(Blocks(channels, blocks) for channels in widths)
        self.Decoder = nn.ModuleList(Blocks(channels, blocks) for channels in reversed(widths))
        self.feat_extract = nn.ModuleList(
            [
                ConvLayer(3, fine, 3),
                ConvLayer(fine, middle, 3, stride=2),
                ConvLayer(middle, coarse, 3, stride=2),
                UpLayer(coarse, middle),
                UpLayer(middle, fine),
                ConvLayer(fine, 3, 3, activated=False),
            ]
        )
        self.Convs = nn.ModuleList([ConvLayer(2 * channels, channels, 1) for channels in (middle, fine)])
        self.ConvsOut = nn.ModuleList([ConvLayer(channels, 3, 3, activated=False) for channels in (coarse, middle)])
        self.AFFs = nn.ModuleList([FeatureFusion(sum(widths), channels) for channels in (fine, middle)])
        self.FAM1, self.SCM1 = FeatureAttention(coarse), ShallowFeatures(coarse)
        self.FAM2, self.SCM2 = FeatureAttention(middle), ShallowFeatures(middle)
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, blurred: Float[Tensor, "b 3 h w"]) -> list[Tensor]:
        """Restore images of any size from 1x1 up.

        Args:
            blurred: RGB in [0, 1].

        Returns:
            The restored images of the scales 1/4, 1/2 and 1, not clamped. In training mode the first two have the size
            of their scale, and otherwise that of the image.
        """
        return self.requirements.run(self.restore, blurred, keep_scales=self.training)

    def restore(self, image: Float[Tensor, "b 3 h w"]) -> list[Tensor]:
        """Restore images whose height and width are multiples of 4, each scale at its own size."""
        half, quarter = image[..., ::2, ::2], image[..., ::4, ::4]
        fine = self.Encoder[0](self.feat_extract[0](image))
        middle = self.Encoder[1](self.FAM2(self.feat_extract[1](fine), self.SCM2(half)))
        coarse = self.Encoder[2](self.FAM1(self.feat_extract[2](middle), self.SCM1(quarter)))
        skips = [
            self.dropout(self.AFFs[0](fine, _enlarged(middle, 2), _enlarged(coarse, 4))),
            self.dropout(self.AFFs[1](fine[..., ::2, ::2], middle, _enlarged(coarse, 2))),
        ]

        x = self.Decoder[0](coarse)
        images = [self.ConvsOut[0](x) + quarter]
        x = self.Decoder[1](self.Convs[0](torch.cat([self.feat_extract[3](x), skips[1]], dim=1)))
        images.append(self.ConvsOut[1](x) + half)
        x = self.Decoder[2](self.Convs[1](torch.cat([self.feat_extract[4](x), skips[0]], dim=1)))
        return [*images, self.feat_extract[5](x) + image]


def _enlarged(x: Float[Tensor, "b c h w"], factor: int) -> Float[Tensor, "b c h2 w2"]:
    return F.interpolate(x, scale_factor=factor, mode="nearest")
