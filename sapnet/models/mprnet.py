"""MPRNet (Zamir et al., CVPR 2021) in its configuration for deblurring: quarters, halves, then the whole image."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sapnet.layers.hierarchy import join, split
from sapnet.models.inputs import InputRequirements

#: Features of the three scales of an encoder or decoder, finest first.
Scales = list[Tensor]


class ChannelAttention(nn.Module):
    """Multiply each channel by a weight that follows from the means of all channels."""

    def __init__(self, channels: int):
        super().__init__()
        hidden = channels // 4
        self.conv_du = nn.Sequential(_conv(channels, hidden, 1), nn.ReLU(), _conv(hidden, channels, 1), nn.Sigmoid())

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return x * self.conv_du(x.mean(dim=(2, 3), keepdim=True))


class AttentionBlock(nn.Module):
    """Two 3x3 convolutions and channel attention, whose result is added to the input (the paper's CAB)."""

    def __init__(self, channels: int, activation: nn.PReLU):
        super().__init__()
        self.CA = ChannelAttention(channels)
        self.body = nn.Sequential(_conv(channels, channels), activation, _conv(channels, channels))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return x + self.CA(self.body(x))


class Down(nn.Module):
    """Half the resolution by the means of 2x2 pixels, then a 1x1 convolution."""

    def __init__(self, before: int, after: int):
        super().__init__()
        self.down = nn.Sequential(nn.AvgPool2d(2), _conv(before, after, 1))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c2 h2 w2"]:
        return self.down(x)


class Up(nn.Module):
    """Twice the resolution by bilinear interpolation, then a 1x1 convolution."""

    def __init__(self, before: int, after: int):
        super().__init__()
        self.up = nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear"), _conv(before, after, 1))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c2 h2 w2"]:
        return self.up(x)


class Encoder(nn.Module):
    """Two attention blocks at each of three scales.

    With `fused` the features of the previous stage's encoder and decoder are added at each scale.
    """

    def __init__(self, widths: tuple[int, int, int], activation: nn.PReLU, fused: bool):
        super().__init__()
        width1, width2, width3 = widths
        self.encoder_level1, self.down12 = _blocks(width1, activation, 2), Down(width1, width2)
        self.encoder_level2, self.down23 = _blocks(width2, activation, 2), Down(width2, width3)
        self.encoder_level3 = _blocks(width3, activation, 2)
        if fused:
            self.csff_enc1, self.csff_dec1 = _conv(width1, width1, 1), _conv(width1, width1, 1)
            self.csff_enc2, self.csff_dec2 = _conv(width2, width2, 1), _conv(width2, width2, 1)
            self.csff_enc3, self.csff_dec3 = _conv(width3, width3, 1), _conv(width3, width3, 1)

    def forward(
        self, x: Float[Tensor, "b c h w"], encoded: Scales | None = None, decoded: Scales | None = None
    ) -> Scales:
        """Return the features of each scale, given those of the previous stage if there is one."""
        x1 = self.encoder_level1(x)
        if encoded is not None and decoded is not None:
            x1 = x1 + self.csff_enc1(encoded[0]) + self.csff_dec1(decoded[0])
        x2 = self.encoder_level2(self.down12(x1))
        if encoded is not None and decoded is not None:
            x2 = x2 + self.csff_enc2(encoded[1]) + self.csff_dec2(decoded[1])
        x3 = self.encoder_level3(self.down23(x2))
        if encoded is not None and decoded is not None:
            x3 = x3 + self.csff_enc3(encoded[2]) + self.csff_dec3(decoded[2])
        return [x1, x2, x3]


class Decoder(nn.Module):
    """Two attention blocks at each of three scales, with an attention block on each skip connection."""

    def __init__(self, widths: tuple[int, int, int], activation: nn.PReLU):
        super().__init__()
        width1, width2, width3 = widths
        self.decoder_level3 = _blocks(width3, activation, 2)
        self.up32, self.skip_attn2 = Up(width3, width2), AttentionBlock(width2, activation)
        self.decoder_level2 = _blocks(width2, activation, 2)
        self.up21, self.skip_attn1 = Up(width2, width1), AttentionBlock(width1, activation)
        self.decoder_level1 = _blocks(width1, activation, 2)

    def forward(self, encoded: Scales) -> Scales:
        """Return the features of each scale, given those of the encoder."""
        x3 = self.decoder_level3(encoded[2])
        x2 = self.decoder_level2(self.up32(x3) + self.skip_attn2(encoded[1]))
        x1 = self.decoder_level1(self.up21(x2) + self.skip_attn1(encoded[0]))
        return [x1, x2, x3]


class SupervisedAttention(nn.Module):
    """Restore an image from features, and weight the features by what was restored (the paper's SAM)."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1, self.conv2, self.conv3 = _conv(channels, channels, 1), _conv(channels, 3, 1), _conv(3, channels, 1)

    def forward(
        self, x: Float[Tensor, "b c h w"], blurred: Float[Tensor, "b 3 h w"]
    ) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b 3 h w"]]:
        """Return the features for the next stage and the restored image."""
        image = self.conv2(x) + blurred
        return self.conv1(x) * torch.sigmoid(self.conv3(image)) + x, image


class ResidualGroup(nn.Module):
    """Attention blocks and a 3x3 convolution at full resolution, whose result is added to the input (ORB)."""

    def __init__(self, channels: int, activation: nn.PReLU, blocks: int):
        super().__init__()
        self.body = nn.Sequential(*_blocks(channels, activation, blocks), _conv(channels, channels))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return x + self.body(x)


class FullResolutionNetwork(nn.Module):
    """Three groups of blocks at full resolution, each followed by a scale of stage 2's features (ORSNet)."""

    def __init__(self, widths: tuple[int, int, int], channels: int, activation: nn.PReLU, blocks: int):
        super().__init__()
        width1, width2, width3 = widths
        self.orb1, self.orb2, self.orb3 = (ResidualGroup(channels, activation, blocks) for _ in range(3))
        self.up_enc1, self.up_dec1 = Up(width2, width1), Up(width2, width1)
        self.up_enc2 = nn.Sequential(Up(width3, width2), Up(width2, width1))
        self.up_dec2 = nn.Sequential(Up(width3, width2), Up(width2, width1))
        self.conv_enc1, self.conv_enc2, self.conv_enc3 = (_conv(width1, channels, 1) for _ in range(3))
        self.conv_dec1, self.conv_dec2, self.conv_dec3 = (_conv(width1, channels, 1) for _ in range(3))

    def forward(self, x: Float[Tensor, "b c h w"], encoded: Scales, decoded: Scales) -> Float[Tensor, "b c h w"]:
        """Return the features of the image, given those of stage 2."""
        x = self.orb1(x) + self.conv_enc1(encoded[0]) + self.conv_dec1(decoded[0])
        x = self.orb2(x) + self.conv_enc2(self.up_enc1(encoded[1])) + self.conv_dec2(self.up_dec1(decoded[1]))
        return self.orb3(x) + self.conv_enc3(self.up_enc2(encoded[2])) + self.conv_dec3(self.up_dec2(decoded[2]))


class MPRNet(nn.Module):
    """MPRNet in its configuration for deblurring; the modules are named as in the authors' file of weights.

    All activations share one parameter.

    Args:
        width: Channels at full resolution in the first two stages.
        width_step: Channels added at each of the two coarser scales.
        last_width: Channels of the last stage.
        blocks: Attention blocks of each of the last stage's three groups.
    """

    requirements = InputRequirements(multiple=8, padding="reflect")

    def __init__(self, width: int = 96, width_step: int = 48, last_width: int = 128, blocks: int = 8):
        super().__init__()
        widths, activation = (width, width + width_step, width + 2 * width_step), nn.PReLU()
        self.shallow_feat1, self.shallow_feat2, self.shallow_feat3 = (
            nn.Sequential(_conv(3, width), AttentionBlock(width, activation)) for _ in range(3)
        )
        self.stage1_encoder = Encoder(widths, activation, fused=False)
        self.stage1_decoder = Decoder(widths, activation)
        self.stage2_encoder = Encoder(widths, activation, fused=True)
        self.stage2_decoder = Decoder(widths, activation)
        self.stage3_orsnet = FullResolutionNetwork(widths, last_width, activation, blocks)
        self.sam12, self.sam23 = SupervisedAttention(width), SupervisedAttention(width)
        self.concat12, self.concat23 = _conv(2 * width, width), _conv(2 * width, last_width)
        self.tail = _conv(last_width, 3)

    def forward(self, blurred: Float[Tensor, "b 3 h w"]) -> list[Tensor]:
        """Restore images of any size from 1x1 up.

        Args:
            blurred: RGB in [0, 1].

        Returns:
            The restored images of the stages, not clamped.
        """
        return self.requirements.run(self.restore, blurred)

    def restore(self, image: Float[Tensor, "b 3 h w"]) -> list[Tensor]:
        """Restore images whose height and width are multiples of 8; patches are stacked on the batch axis."""
        halves = split(image, 2, 1)
        encoded = [join(x, 1, 2) for x in self.stage1_encoder(self.shallow_feat1(split(halves, 1, 2)))]
        decoded = self.stage1_decoder(encoded)
        features, image1 = self.sam12(decoded[0], halves)

        x = self.concat12(torch.cat([self.shallow_feat2(halves), features], dim=1))
        encoded = [join(x, 2, 1) for x in self.stage2_encoder(x, encoded, decoded)]
        decoded = self.stage2_decoder(encoded)
        features, image2 = self.sam23(decoded[0], image)

        x = self.concat23(torch.cat([self.shallow_feat3(image), features], dim=1))
        return [join(image1, 2, 1), image2, self.tail(self.stage3_orsnet(x, encoded, decoded)) + image]


def _conv(before: int, after: int, size: int = 3) -> nn.Conv2d:
    return nn.Conv2d(before, after, size, padding=size // 2, bias=False)


def _blocks(channels: int, activation: nn.PReLU, number: int) -> nn.Sequential:
    return nn.Sequential(*(AttentionBlock(channels, activation) for _ in range(number)))
