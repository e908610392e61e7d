"""Restormer (Zamir et al., CVPR 2022): a U-Net of transformer blocks whose attention is between channels."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sapnet.errors import UserError
from sapnet.models.inputs import InputRequirements


class ChannelNorm(nn.Module):
    """Layer normalisation over the channels of each pixel, with the parameters in `body` as in the authors' files."""

    def __init__(self, channels: int):
        super().__init__()
        self.body = nn.LayerNorm(channels)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return self.body(x.movedim(1, -1)).movedim(-1, 1)


class ChannelAttention(nn.Module):
    """Attention between the channels of each head, linear in the number of pixels (the paper's MDTA)."""

    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = nn.Conv2d(channels, 3 * channels, 1, bias=False)
        self.qkv_dwconv = nn.Conv2d(3 * channels, 3 * channels, 3, padding=1, groups=3 * channels, bias=False)
        self.project_out = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        q, k, v = (
            part.flatten(2).unflatten(1, (self.heads, -1))  # [b, heads, c / heads, h * w]
            for part in self.qkv_dwconv(self.qkv(x)).chunk(3, dim=1)
        )
        similarity = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT
        attended = (similarity * self.temperature).softmax(dim=-1) @ v
        return self.project_out(attended.reshape(x.shape))


class GatedFeedForward(nn.Module):
    """Depthwise convolutions, half of whose channels gate the other half (the paper's GDFN)."""

    def __init__(self, channels: int, expansion: float):
        super().__init__()
        hidden = int(channels * expansion)
        self.project_in = nn.Conv2d(channels, 2 * hidden, 1, bias=False)
        self.dwconv = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden, bias=False)
        self.project_out = nn.Conv2d(hidden, channels, 1, bias=False)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        gate, value = self.dwconv(self.project_in(x)).chunk(2, dim=1)
        return self.project_out(F.gelu(gate) * value)


class TransformerBlock(nn.Module):
    """Attention and feed-forward, each of the normalised features and added to them."""

    def __init__(self, channels: int, heads: int, expansion: float):
        super().__init__()
        self.norm1, self.attn = ChannelNorm(channels), ChannelAttention(channels, heads)
        self.norm2, self.ffn = ChannelNorm(channels), GatedFeedForward(channels, expansion)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        x = x + self.attn(self.norm1(x))
        return x + self.ffn(self.norm2(x))


class Resize(nn.Module):
    """A 3x3 convolution and a rearrangement of pixels that halve or double the resolution.

    Halving it doubles the number of channels, and doubling it halves that number.
    """

    def __init__(self, channels: int, up: bool):
        super().__init__()
        after, shuffle = (2 * channels, nn.PixelShuffle(2)) if up else (channels // 2, nn.PixelUnshuffle(2))
        self.body = nn.Sequential(nn.Conv2d(channels, after, 3, padding=1, bias=False), shuffle)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c2 h2 w2"]:
        return self.body(x)


class PatchEmbedding(nn.Module):
    """The first convolution."""

    def __init__(self, channels: int):
        super().__init__()
        self.proj = nn.Conv2d(3, channels, 3, padding=1, bias=False)

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c h w"]:
        return self.proj(image)


class Restormer(nn.Module):
    """Restormer in its configuration for motion blur; the modules are named as in the authors' files of weights.

    Args:
        width: Channels at full resolution; doubled at each of the three coarser scales. The last decoder has twice as
            many as the first encoder, because its input is not reduced.
        depths: Blocks of each of the four scales, finest first.
        refinement: Blocks after the last decoder.
        heads: Heads of the attention at each scale, divisors of its channels.
        expansion: Hidden channels of the feed-forward relative to its input.

    Raises:
        UserError: The heads do not divide the channels, or a list has not four entries.
    """

    requirements = InputRequirements(multiple=8, padding="reflect")

    def __init__(
        self,
        width: int = 48,
        depths: Sequence[int] = (4, 6, 6, 8),
        refinement: int = 4,
        heads: Sequence[int] = (1, 2, 4, 8),
        expansion: float = 2.66,
    ):
        super().__init__()
        if len(depths) != 4 or len(heads) != 4 or any(width * 2**i % number for i, number in enumerate(heads)):
            raise UserError(
                f"network.depths={list(depths)}, network.heads={list(heads)}, network.width={width}: Restormer has four"
                " scales, and the heads of each must divide its channels, which double from scale to scale."
            )
        width1, width2, width3, width4 = (width * 2**i for i in range(4))

        def level(channels: int, scale: int, number: int) -> nn.Sequential:
            return nn.Sequential(*(TransformerBlock(channels, heads[scale], expansion) for _ in range(number)))

        self.patch_embed = PatchEmbedding(width1)
        self.encoder_level1, self.down1_2 = level(width1, 0, depths[0]), Resize(width1, up=False)
        self.encoder_level2, self.down2_3 = level(width2, 1, depths[1]), Resize(width2, up=False)
        self.encoder_level3, self.down3_4 = level(width3, 2, depths[2]), Resize(width3, up=False)
        self.latent = level(width4, 3, depths[3])
        self.up4_3, self.reduce_chan_level3 = Resize(width4, up=True), nn.Conv2d(2 * width3, width3, 1, bias=False)
        self.decoder_level3 = level(width3, 2, depths[2])
        self.up3_2, self.reduce_chan_level2 = Resize(width3, up=True), nn.Conv2d(2 * width2, width2, 1, bias=False)
        self.decoder_level2 = level(width2, 1, depths[1])
        self.up2_1 = Resize(width2, up=True)
        self.decoder_level1 = level(2 * width1, 0, depths[0])
        self.refinement = level(2 * width1, 0, refinement)
        self.output = nn.Conv2d(2 * width1, 3, 3, padding=1, bias=False)

    def forward(self, blurred: Float[Tensor, "b 3 h w"]) -> list[Tensor]:
        """Restore images of any size from 1x1 up.

        Args:
            blurred: RGB in [0, 1].

        Returns:
            The restored image, not clamped.
        """
        return self.requirements.run(self.restore, blurred)

    def restore(self, image: Float[Tensor, "b 3 h w"]) -> list[Tensor]:
        """Restore images whose height and width are multiples of 8."""
        encoded1 = self.encoder_level1(self.patch_embed(image))
        encoded2 = self.encoder_level2(self.down1_2(encoded1))
        encoded3 = self.encoder_level3(self.down2_3(encoded2))
        x = self.latent(self.down3_4(encoded3))
        x = self.decoder_level3(self.reduce_chan_level3(torch.cat([self.up4_3(x), encoded3], dim=1)))
        x = self.decoder_level2(self.reduce_chan_level2(torch.cat([self.up3_2(x), encoded2], dim=1)))
        x = self.refinement(self.decoder_level1(torch.cat([self.up2_1(x), encoded1], dim=1)))
        return [self.output(x) + image]
