"""The patch-hierarchical network: pad, stage 1, (choose points, stage k) x 2, crop."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sapnet.errors import UserError
from sapnet.layers.attention import ClusterAttention, FullAttention
from sapnet.layers.content_aware import ContentAwareOptions
from sapnet.layers.hierarchy import join, split
from sapnet.layers.padding import crop_to, pad_to_multiple
from sapnet.layers.windows import Windows, cover
from sapnet.models.sapnet.stage import Gates, Points, Stage, StageWidths
from sapnet.sampling.context import StageContext
from sapnet.sampling.plugin import ChoosePoints
from sapnet.sampling.points import canvas_stride

#: Patches (rows, columns) of each stage, by the number of stages; the paper uses three.
HIERARCHIES = {
    1: ((1, 1),),
    2: ((2, 1), (1, 1)),
    3: ((2, 2), (2, 1), (1, 1)),
    4: ((4, 2), (2, 2), (2, 1), (1, 1)),
}


class SAPNet(nn.Module):
    """The generator: stages over 4, 2 and 1 patches, each with a restored image (Sec. 3, Fig. 2).

    Every stage reads the blurred patch and the previous stage's restoration of it, and adds a residual to one of the
    two. Patches are stacked on the batch axis. Stages share no weights, and nothing is detached between them.

    Args:
        stem: Channels at full resolution.
        channels: Channels per scale, finest first.
        scales: Scale factors `r`.
        encoder_blocks: Content-aware blocks per scale of the encoder: one number or one per scale.
        decoder_blocks: Content-aware blocks per scale of the decoder.
        stages: Number of stages, 1 to 4.
        sampled: Whether all stages but the first are non-uniform (*PAS*). A single stage is non-uniform too.
        options: Options of the content-aware blocks.
        candidates: Candidate positions of a non-uniform stage's points at scale `r`: `canvas`, the grid of the next
            higher resolution, or `full`, every pixel, at a much higher cost.
        residual: What a stage adds its residual to: `previous`, `OP_{k-1}`, which keeps the previous restoration where
            the stage does not refine it; or `blurred`, the blurred patch.

    Raises:
        UserError: The candidates or the residual are unknown.
    """

    #: `forward` takes the keywords `gates` and `compare`.
    supports_gates = supports_comparison = True

    def __init__(
        self,
        stem: int,
        channels: Sequence[int],
        scales: Sequence[int] = (2, 4, 8),
        encoder_blocks: int | Sequence[int] = 2,
        decoder_blocks: int | Sequence[int] = 2,
        stages: int = 3,
        sampled: bool = False,
        options: ContentAwareOptions | None = None,
        candidates: str = "canvas",
        residual: str = "previous",
    ):
        super().__init__()
        # Validates the candidates.
        canvas_stride(2, candidates)
        if residual not in ("previous", "blurred"):
            raise UserError(f"network.residual={residual}: use previous (OP_{{k-1}}) or blurred.")
        self.candidates, self.residual = candidates, residual
        self.hierarchy = HIERARCHIES[stages]
        blocks = [n if isinstance(n, int) else tuple(n) for n in (encoder_blocks, decoder_blocks)]
        widths = StageWidths(stem, tuple(channels), tuple(scales), *blocks)
        options = options or ContentAwareOptions()
        self.stages = nn.ModuleList(
            Stage(widths, options, sampled and (k > 0 or stages == 1), first=k == 0, candidates=candidates)
            for k in range(stages)
        )
        self.sampled_stages = tuple(k for k, stage in enumerate(self.stages) if stage.sampled)
        self.scales, self.feature_channels = widths.scales, 0 if stages == 1 else stem
        rows = max(rows for rows, _ in self.hierarchy)
        #: Image sizes are padded to a multiple of this.
        self.multiple = widths.scales[-1] * rows
        #: Side of the window set by `use_window`.
        self.window: int | None = None

    def use_window(self, window: int | None) -> None:
        """Limit global operations at inference to windows of the size of the training crop.

        Global operations are the pooling of attention, the mean in `M_C`, and the selection of the best points. The
        windows of a stage have the size of its patches of a crop of `window x window` pixels. Training, and images no
        larger than a window, are not affected.

        Args:
            window: Side of the crop in pixels of the whole image; None: no limit.

        Raises:
            UserError: The network has no global operation, or the window is not a multiple of `multiple`.
        """
        if window is None:
            self.window = None
            return
        if not self.sampled_stages and not any(isinstance(m, ClusterAttention | FullAttention) for m in self.modules()):
            raise UserError(f"window={window}: this network has no attention or sampling to limit; remove it.")
        if window < 1 or window % self.multiple:
            raise UserError(f"window={window}: this network needs a multiple of {self.multiple} pixels.")
        self.window = window

    def forward(
        self,
        blurred: Float[Tensor, "b 3 h w"],
        choose_points: ChoosePoints | None = None,
        gates: Callable[[StageContext, Points], Gates] | None = None,
        compare: Callable[[StageContext, Callable[[Points], Tensor]], None] | None = None,
        stages: tuple[int, int] | None = None,
    ) -> list[Float[Tensor, "b 3 h w"]]:
        """Restore images of any size from 1x1 up.

        Args:
            blurred: RGB in [0, 1].
            choose_points: Returns the points of each non-uniform stage.
            gates: Returns the gates of the points' updates by scale; missing gates are 1.
            compare: Called at each non-uniform stage with its context and a function that restores the image of the
                stage from other points, without gradients.
            stages: First stage with gradients and end of the range of stages to run, from 0; None: all stages.

        Returns:
            `OP_1` ... `OP_K`, not clamped; the last one is the result.

        Raises:
            ValueError: The network has non-uniform stages and `choose_points` is missing.
        """
        height, width = blurred.shape[-2:]
        padded = pad_to_multiple(blurred, self.multiple)
        restored, features, last = padded, None, None
        outputs, grad_enabled = [], torch.is_grad_enabled()
        first, end = stages or (0, len(self.stages))
        for k, (stage, (rows, cols)) in enumerate(zip(self.stages[:end], self.hierarchy[:end], strict=True)):
            windows = self._windows(padded, rows, cols)
            previous = None if features is None else [split(f, rows, cols, height_dim=1) for f in features]
            patches = split(padded, rows, cols), split(restored, rows, cols)
            base = patches[1 if self.residual == "previous" else 0]
            run = partial(stage, *patches, previous)
            points, stage_gates = None, None
            if stage.sampled:
                if choose_points is None:
                    raise ValueError("a network with non-uniform stages needs `choose_points`")
                context = StageContext(k, (rows, cols), (height, width), last, restored, padded, windows=windows)
                points = choose_points(context)
                stage_gates = None if gates is None else gates(context, points)
                if compare is not None:
                    compare(context, partial(_restore, run, base, (rows, cols), (height, width), windows))
            with torch.set_grad_enabled(grad_enabled and k >= first):
                residual, features, last = run(points, windows, stage_gates)
            restored, last = join(base + residual, rows, cols), join(last, rows, cols, height_dim=1)
            features = [join(f, rows, cols, height_dim=1) for f in features]
            outputs.append(crop_to(restored, height, width))
        return outputs

    def _windows(self, padded: Tensor, rows: int, cols: int) -> Windows | None:
        if self.training or self.window is None:
            return None
        height, width = padded.shape[-2:]
        return cover(height // rows, width // cols, (self.window // rows, self.window // cols), self.scales[-1])


@torch.no_grad()
def _restore(
    run: Callable[..., tuple],
    base: Tensor,
    grid: tuple[int, int],
    size: tuple[int, int],
    windows: Windows | None,
    points: Points,
) -> Float[Tensor, "images 3 h w"]:
    residual, _, _ = run(points, windows)
    return crop_to(join(base + residual, *grid), *size)
