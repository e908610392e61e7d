"""Uformer-B for deblurring (Wang et al., CVPR 2022), with the parameter names of the authors' weights."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int8
from torch import Tensor, nn

from sapnet.errors import UserError
from sapnet.models.inputs import InputRequirements

#: Side of an attention window in positions.
WINDOW = 8
#: Positions that attention and feed-forward layers process at a time, which limits their memory on large images.
CHUNK = 2**17
Features = Float[Tensor, "b h w c"]


class WindowAttention(nn.Module):
    """Multi-head self-attention in windows, with a learned bias for every relative position."""

    relative_position_index: Tensor

    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.heads, self.scale = heads, (channels // heads) ** -0.5
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * WINDOW - 1) ** 2, heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        position = torch.arange(WINDOW**2)
        rows, columns = ((axis[:, None] - axis + WINDOW - 1) for axis in (position // WINDOW, position % WINDOW))
        self.register_buffer("relative_position_index", rows * (2 * WINDOW - 1) + columns)
        self.qkv = nn.ModuleDict({"to_q": nn.Linear(channels, channels), "to_kv": nn.Linear(channels, 2 * channels)})
        self.proj = nn.Linear(channels, channels)

    def forward(self, x: Float[Tensor, "n p c"], region: Int8[Tensor, "n p"] | None) -> Float[Tensor, "n p c"]:
        """Attend within every window.

        Args:
            x: Windows.
            region: Number of the region that each position belongs to; positions of different regions do not attend to
                each other. None: one region.
        """
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.qkv["to_q"](x), *self.qkv["to_kv"](x).chunk(2, dim=-1))
        )
        bias = self.relative_position_bias_table[self.relative_position_index.flatten()]
        scores = (query * self.scale) @ key.mT + bias.view(WINDOW**2, WINDOW**2, -1).permute(2, 0, 1)
        if region is not None:
            separate = region[:, None, :, None] != region[:, None, None, :]
            # The authors subtract 100 instead of excluding the other regions.
            scores = scores - 100 * separate.to(scores.dtype)
        return self.proj((scores.softmax(dim=-1) @ value).transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """Locally-enhanced feed-forward layer: a depth-wise 3x3 convolution between two linear layers."""

    def __init__(self, channels: int, expansion: int):
        super().__init__()
        hidden = expansion * channels
        self.linear1 = nn.Sequential(nn.Linear(channels, hidden))
        self.dwconv = nn.Sequential(nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden))
        self.linear2 = nn.Sequential(nn.Linear(hidden, channels))

    def forward(self, x: Features) -> Features:
        """Process the features in strips of rows; each strip has the neighbouring rows that its convolution reads."""
        height, strip = x.shape[1], max(1, CHUNK // (x.shape[0] * x.shape[2]))
        if strip >= height:
            return self._strip(x)
        outputs = []
        for top in range(0, height, strip):
            first, last = max(top - 1, 0), min(top + strip + 1, height)
            outputs.append(self._strip(x[:, first:last])[:, top - first :][:, :strip])
        return torch.cat(outputs, dim=1)

    def _strip(self, x: Tensor) -> Tensor:
        hidden = self.dwconv(F.gelu(self.linear1(x)).permute(0, 3, 1, 2))
        return self.linear2(F.gelu(hidden).permute(0, 2, 3, 1))


class Block(nn.Module):
    """Window attention and feed-forward layer, each after a normalisation and added to its input.

    Args:
        channels: Width.
        heads: Attention heads.
        shift: Positions by which the windows are shifted down and to the right.
        expansion: Hidden width of the feed-forward layer relative to `channels`.
        drop_path: Probability in training that a sample skips a layer.
        modulated: Whether a learned value per position of the window is added before the attention (decoder).
    """

    def __init__(self, channels: int, heads: int, shift: int, expansion: int, drop_path: float, modulated: bool):
        super().__init__()
        self.modulator = nn.Embedding(WINDOW**2, channels) if modulated else None
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.attn, self.mlp = WindowAttention(channels, heads), FeedForward(channels, expansion)
        self.shift, self.drop_path = shift, drop_path

    def forward(self, x: Features) -> Features:
        """Height and width are multiples of the window."""
        x = x + self._drop(self._attention(self.norm1(x)))
        return x + self._drop(self.mlp(self.norm2(x)))

    def _attention(self, x: Tensor) -> Tensor:
        batch, height, width, _ = x.shape
        regions: Tensor | None = None
        if self.shift:
            x = x.roll((-self.shift, -self.shift), (1, 2))
            regions = _windows(_shifted_regions(height, width, self.shift, x.device)).repeat(batch, 1)
        windows, attended = _windows(x), []
        for start in range(0, len(windows), CHUNK // WINDOW**2):
            part = slice(start, start + CHUNK // WINDOW**2)
            chunk = windows[part] if self.modulator is None else windows[part] + self.modulator.weight
            attended.append(self.attn(chunk, None if regions is None else regions[part]))
        x = _joined(torch.cat(attended), height, width)
        return x.roll((self.shift, self.shift), (1, 2)) if self.shift else x

    def _drop(self, x: Tensor) -> Tensor:
        if not self.training or self.drop_path == 0:
            return x
        kept = torch.rand(len(x), 1, 1, 1, device=x.device) >= self.drop_path
        return x * kept / (1 - self.drop_path)


class Layer(nn.Module):
    """Blocks of one resolution; every second one shifts its windows."""

    def __init__(
        self,
        channels: int,
        heads: int,
        shift: int,
        expansion: int,
        drop_rates: Sequence[float],
        modulated: bool = False,
    ):
        super().__init__()
        self.blocks = nn.ModuleList(
            Block(channels, heads, shift if i % 2 else 0, expansion, rate, modulated)
            for i, rate in enumerate(drop_rates)
        )

    def forward(self, x: Features) -> Features:
        for block in self.blocks:
            x = block(x)
        return x


class FeatureConv(nn.Module):
    """A convolution on features with the channels last, under the authors' name."""

    def __init__(self, name: str, *layers: nn.Module):
        super().__init__()
        self.name = name
        self.add_module(name, nn.Sequential(*layers))

    def forward(self, x: Features) -> Float[Tensor, "b h2 w2 c2"]:
        return self.get_submodule(self.name)(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class Uformer(nn.Module):
    """U-shaped transformer with attention in windows of 8x8 positions, in the authors' configuration for deblurring.

    The output is added to the blurred image. Images are padded with zeros to a centred square whose side is a multiple
    of 128, as in the authors' test. A rectangle would cost less but changes the values near the border.

    The authors' code stops shifting the windows of the bottleneck if the network is *built* for images of 128x128, as
    their test scripts do; it is trained at 256x256 with shifted windows. The weights are the same, the images are not.

    Args:
        width: Channels at full resolution, and of every attention head; doubled by every downsampling.
        depths: Blocks of every encoder layer, and of the bottleneck; the decoder mirrors the encoder.
        expansion: Hidden width of feed-forward layers relative to their input.
        bottleneck_shift: Shift of every second block of the bottleneck: 0 as in the authors' test, 4 as in their
            training.
        drop_path: Probability in training that a sample skips a layer of the deepest encoder block; it decreases to 0
            towards the input and the output.

    Raises:
        UserError: `bottleneck_shift` is neither 0 nor 4.
    """

    def __init__(
        self,
        width: int = 32,
        depths: Sequence[int] = (1, 2, 8, 8, 2),
        expansion: int = 4,
        bottleneck_shift: int = 0,
        drop_path: float = 0.1,
    ):
        super().__init__()
        if bottleneck_shift not in (0, WINDOW // 2):
            raise UserError(f"network.bottleneck_shift={bottleneck_shift}: use 0 or {WINDOW // 2}.")
        *encoder, bottom = depths
        self.levels = len(encoder)
        self.requirements = InputRequirements(WINDOW * 2**self.levels, "zeros", centred=True, square=True)
        widths = [width * 2**i for i in range(len(depths))]
        rates = [drop_path * i / max(1, sum(encoder) - 1) for i in range(sum(encoder))]
        self.input_proj = FeatureConv("proj", nn.Conv2d(3, width, 3, padding=1), nn.LeakyReLU(0.01))
        for i, depth in enumerate(encoder):
            level_rates = rates[sum(encoder[:i]) :][:depth]
            self.add_module(f"encoderlayer_{i}", Layer(widths[i], 2**i, WINDOW // 2, expansion, level_rates))
            down = nn.Conv2d(widths[i], widths[i + 1], 4, stride=2, padding=1)
            # The spelling is that of the authors' weights.
            self.add_module(f"dowsample_{i}", FeatureConv("conv", down))
            j, above = self.levels - 1 - i, widths[i + 1] * (1 if i == self.levels - 1 else 2)
            up = nn.ConvTranspose2d(above, widths[i], 2, stride=2)
            self.add_module(f"upsample_{j}", FeatureConv("deconv", up))
            decoder = Layer(2 * widths[i], 2 ** (i + 1), WINDOW // 2, expansion, level_rates[::-1], modulated=True)
            self.add_module(f"decoderlayer_{j}", decoder)
        self.conv = Layer(widths[-1], 2**self.levels, bottleneck_shift, expansion, [drop_path] * bottom)
        self.output_proj = FeatureConv("proj", nn.Conv2d(2 * width, 3, 3, padding=1))
        self.apply(_initialise)

    def forward(self, blurred: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b 3 h w"]]:
        """Restore images of any size from 1x1 up.

        Args:
            blurred: RGB in [0, 1].

        Returns:
            The restored image, not clamped.
        """
        return self.requirements.run(self.restore, blurred)

    def restore(self, blurred: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b 3 h w"]]:
        """Restore images that meet the requirements."""
        x, skips = self.input_proj(blurred.permute(0, 2, 3, 1)), []
        for i in range(self.levels):
            x = self.get_submodule(f"encoderlayer_{i}")(x)
            skips.append(x)
            x = self.get_submodule(f"dowsample_{i}")(x)
        x = self.conv(x)
        for i in range(self.levels):
            x = torch.cat([self.get_submodule(f"upsample_{i}")(x), skips.pop()], dim=-1)
            x = self.get_submodule(f"decoderlayer_{i}")(x)
        return [blurred + self.output_proj(x).permute(0, 3, 1, 2)]


def _windows(x: Tensor) -> Tensor:
    # [b, h, w, ...] to [b * windows, positions, ...].
    rows = x.unflatten(2, (-1, WINDOW)).unflatten(1, (-1, WINDOW))
    return rows.transpose(2, 3).flatten(3, 4).flatten(0, 2)


def _joined(windows: Tensor, height: int, width: int) -> Tensor:
    rows = windows.unflatten(1, (WINDOW, WINDOW)).unflatten(0, (-1, height // WINDOW, width // WINDOW))
    return rows.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def _shifted_regions(height: int, width: int, shift: int, device: torch.device) -> Tensor:
    # After the windows are shifted, those at the bottom and right contain positions of two opposite borders.
    def regions(size: int) -> Tensor:
        position = torch.arange(size, device=device)
        return (position >= size - WINDOW).to(torch.int8) + (position >= size - shift).to(torch.int8)

    return (3 * regions(height)[:, None] + regions(width))[None]


def _initialise(module: nn.Module) -> None:
    # The authors' initialisation.
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
