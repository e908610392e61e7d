"""One stage of the hierarchy: an encoder-decoder of content-aware blocks, uniform or non-uniform (Fig. 2)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from sapnet.layers.canvas import Conv, PlainResBlock, Up, to_canvas, to_image, upsample2
from sapnet.layers.content_aware import ContentAwareBlock, ContentAwareOptions, regrid
from sapnet.layers.initialisation import preserve_variance
from sapnet.layers.windows import PointWindows, Windows

#: Points, gates and attention windows by scale.
Points = Mapping[int, Int64[Tensor, "b _"]]
Gates = Mapping[int, Float[Tensor, "b _"]]
ScaleWindows = Mapping[int, PointWindows]


@dataclass(frozen=True)
class StageWidths:
    """Sizes of a stage.

    Attributes:
        stem: Channels at full resolution.
        channels: Channels per scale, finest first.
        scales: Scale factors `r`, each twice the previous one.
        encoder_blocks: Content-aware blocks per scale of the encoder.
        decoder_blocks: Content-aware blocks per scale of the decoder.
    """

    stem: int
    channels: tuple[int, ...]
    scales: tuple[int, ...] = (2, 4, 8)
    encoder_blocks: int | tuple[int, ...] = 2
    decoder_blocks: int | tuple[int, ...] = 2

    def __post_init__(self):
        if len(self.channels) != len(self.scales):
            raise ValueError(f"{len(self.channels)} channel widths for {len(self.scales)} scales")
        if self.scales[0] not in (1, 2) or any(b != 2 * a for a, b in pairwise(self.scales)):
            raise ValueError(f"scales must double from 1 or 2, not {self.scales}")

    def blocks(self, per_scale: int | Sequence[int]) -> tuple[int, ...]:
        """Return the number of blocks of each scale, finest first."""
        return (per_scale,) * len(self.scales) if isinstance(per_scale, int) else tuple(per_scale)


class UpMerge(nn.Module):
    """Decoder step of a uniform stage: transposed convolution plus the additive skip."""

    def __init__(self, coarse: int, fine: int, doubles: bool = True):
        super().__init__()
        self.up = Up(coarse, fine) if doubles else Conv(coarse, fine)

    def forward(self, coarse: Float[Tensor, "b h w c"], skip: Float[Tensor, "b h2 w2 d"]) -> Float[Tensor, "b h2 w2 d"]:
        """Bring the coarse features to the skip's resolution and add it."""
        return self.up(coarse) + skip


class PointMerge(nn.Module):
    """Decoder step of a non-uniform stage: both canvases are projected by 1x1 convolutions, then summed.

    The skip connection provides the features of positions that were not sampled (Sec. 3.1). The projection precedes the
    upsampling to avoid a wide full-size tensor.
    """

    def __init__(self, coarse: int, fine: int, doubles: bool = True):
        super().__init__()
        self.doubles = doubles
        self.project_coarse = nn.Linear(coarse, fine)
        self.project_skip = nn.Linear(fine, fine)

    def forward(self, coarse: Float[Tensor, "b h w c"], skip: Float[Tensor, "b h2 w2 d"]) -> Float[Tensor, "b h2 w2 d"]:
        """Bring the coarse features to the skip's resolution and merge."""
        # Interpolation preserves constants, so both biases are added before it, and `addmm` adds the product in place.
        bias = self.project_coarse.bias + self.project_skip.bias
        projected = F.linear(coarse, self.project_coarse.weight, bias)
        upsampled = upsample2(projected) if self.doubles else projected
        weight = self.project_skip.weight.t()
        return torch.addmm(upsampled.flatten(0, 2), skip.flatten(0, 2), weight).view(upsampled.shape)


class Stage(nn.Module):
    """The encoder-decoder of one stage, which returns a residual image.

    A uniform stage has the features of scale `r` on the grid `H/r x W/r` and refines all positions. A non-uniform stage
    has them on a canvas of twice that resolution and refines the points chosen on it. All layers are the same except
    for the changes of resolution.

    Departure from the paper: the paper describes a choice among all `H x W` pixels at every `r`. Candidates on the grid
    of the next higher resolution keep the published cost. With `candidates="full"` every canvas of a non-uniform stage
    has the resolution of the patch.

    Args:
        widths: Channels, scales and numbers of blocks.
        options: Options of the content-aware blocks.
        sampled: Whether the stage is non-uniform.
        first: Whether this is the first stage, which has no features for cross-level attention.
        candidates: `canvas`, the grid of the next higher resolution, or `full`, every pixel at every scale.
    """

    def __init__(
        self,
        widths: StageWidths,
        options: ContentAwareOptions,
        sampled: bool,
        first: bool,
        candidates: str = "canvas",
    ):
        super().__init__()
        self.scales, self.sampled, self.candidates = widths.scales, sampled, candidates
        channels, count = widths.channels, len(widths.channels)
        self.adds_previous = not first and not options.cross_level_attention
        cross_level = not first and options.cross_level_attention

        self.stem = nn.Sequential(Conv(6, widths.stem), PlainResBlock(widths.stem))
        self.down = nn.ModuleList()
        self.encoder = nn.ModuleList()
        self.decoder = nn.ModuleList()
        for i, (before, width) in enumerate(pairwise((widths.stem, *channels))):
            lowest = i == count - 1
            self.down.append(Conv(before, width, stride=self._step(i)))
            encoder_blocks, decoder_blocks = (
                widths.blocks(n)[i] for n in (widths.encoder_blocks, widths.decoder_blocks)
            )
            block = partial(ContentAwareBlock, width, options, lowest=lowest, grid_stride=self._grid_stride(i))
            self.encoder.append(nn.ModuleList(block(cross_level and j == 0) for j in range(encoder_blocks)))
            self.decoder.append(nn.ModuleList(block(options.cross_attention) for _ in range(decoder_blocks)))
        merge = PointMerge if sampled else UpMerge
        self.merge = nn.ModuleList(
            merge(width, finer, doubles=self._step(i) == 2)
            for i, (finer, width) in enumerate(pairwise((widths.stem, *channels)))
        )
        self.tail = nn.Sequential(PlainResBlock(widths.stem), PlainResBlock(widths.stem))
        self.head = Conv(widths.stem, 3)
        # The initial residual is zero.
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        # For each stage separately, so its initial weights do not depend on later stages.
        preserve_variance(self)

    def canvas_factor(self, scale: int) -> int:
        """Return the ratio of the sizes of the patch and of the canvas of a scale."""
        if not self.sampled:
            return scale
        return 1 if self.candidates == "full" else max(1, scale // 2)

    def forward(
        self,
        blurred: Float[Tensor, "b 3 h w"],
        restored: Float[Tensor, "b 3 h w"],
        previous: Sequence[Float[Tensor, "b _ _ _"]] | None = None,
        points: Points | None = None,
        windows: Windows | None = None,
        gates: Gates | None = None,
    ) -> tuple[Float[Tensor, "b 3 h w"], list[Float[Tensor, "b _ _ _"]], Float[Tensor, "b h w s"]]:
        """Predict the residual of the patches.

        Args:
            blurred: Blurred patches.
            restored: The previous stage's restoration of the patches; the blurred patches at the first stage.
            previous: Decoder features of the previous stage, finest scale first, cut into this stage's patches.
            points: Raster indices into the canvas of each scale; only for a non-uniform stage.
            windows: Windows of the patches that attention is limited to; None: global attention.
            gates: Gates of the points' updates by scale, applied in all blocks of the scale.

        Returns:
            The residual, this stage's decoder features (finest scale first), and its last features at full
            resolution, which are an input of the policy.
        """
        # Scaled to [-1, 1]: with a common offset in every feature training is much slower at first.
        full = self.stem(to_canvas(2 * torch.cat([blurred, restored], dim=1) - 1))
        scale_windows = {} if windows is None else self._scale_windows(windows, full, points)
        gates = gates or {}
        encoded = self._encode(full, previous, points, scale_windows, gates)
        decoded = self._decode(encoded, points, scale_windows, gates)
        last = self.tail(self.merge[0](decoded[0], full))
        return to_image(self.head(last)), decoded, last

    def _scale_windows(self, windows: Windows, full: Tensor, points: Points | None) -> ScaleWindows:
        batch, height, width, _ = full.shape
        sizes = {scale: self.canvas_factor(scale) for scale in self.scales}
        return {
            scale: PointWindows(
                windows, (batch, height // size, width // size), self._points(points, scale), full.device
            )
            for scale, size in sizes.items()
        }

    def _encode(
        self, x: Tensor, previous: Sequence[Tensor] | None, points: Points | None, windows: ScaleWindows, gates: Gates
    ) -> list[Tensor]:
        encoded = []
        for i, (scale, down, blocks) in enumerate(zip(self.scales, self.down, self.encoder, strict=True)):
            x = down(x)
            source = None if previous is None else previous[i]
            if self.adds_previous and source is not None:
                # A plain sum doubles the variance at every stage, and training became unstable.
                x = (x + regrid(source, x.shape[1], x.shape[2])) * 0.5**0.5
            for j, block in enumerate(cast(nn.ModuleList, blocks)):
                inputs = self._points(points, scale), source if j == 0 else None, windows.get(scale)
                x = block(x, *inputs, in_place=not torch.is_grad_enabled(), gate=gates.get(scale))
            encoded.append(x)
        return encoded

    def _decode(
        self, encoded: Sequence[Tensor], points: Points | None, windows: ScaleWindows, gates: Gates
    ) -> list[Tensor]:
        decoded: list[Tensor] = []
        for i, scale in reversed(list(enumerate(self.scales))):
            x = self.merge[i + 1](decoded[0], encoded[i]) if decoded else encoded[i]
            scale_points, source = self._points(points, scale), encoded[i]
            blocks = cast(nn.ModuleList, self.decoder[i])
            if blocks:
                # Converted once for all blocks.
                source = cast(ContentAwareBlock, blocks[0]).source_grid(source, x, scale_points is not None)
            for block in blocks:
                # The encoder's features must not be overwritten, because later blocks read them.
                in_place = not torch.is_grad_enabled() and x is not encoded[i]
                x = block(x, scale_points, source, windows.get(scale), in_place, gates.get(scale))
            decoded.insert(0, x)
        return decoded

    def _points(self, points: Points | None, scale: int) -> Tensor | None:
        # At r = 1 the canvas is the grid, so there are no points.
        return cast(Points, points).get(scale) if self.sampled else None

    def _grid_stride(self, i: int) -> int:
        return self.scales[i] // self.canvas_factor(self.scales[i])

    def _step(self, i: int) -> int:
        before = 1 if i == 0 else self.canvas_factor(self.scales[i - 1])
        return self.canvas_factor(self.scales[i]) // before
