"""The patch-hierarchical network: image -> pad -> stage 1 -> (points -> stage k) x 2 -> crop."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

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
from sapnet.sampling.points import canvas_stride
from sapnet.sampling.state import State

#: Patches (rows, columns) of each stage, by the number of stages; the paper's is three.
HIERARCHIES = {
    1: ((1, 1),),
    2: ((2, 1), (1, 1)),
    3: ((2, 2), (2, 1), (1, 1)),
    4: ((4, 2), (2, 2), (2, 1), (1, 1)),
}


class SAPNet(nn.Module):
    """The generator: stages over 4, 2 and 1 patches, each ending in a restored image (Sec. 3, Fig. 2).

    Every stage reads the blurred patch and what the previous stage made of it, and adds a residual to one of the two.
    Patches are stacked on the batch axis. Stages share no weights, and nothing is detached between them.

    Args:
        stem: Channels at full resolution.
        channels: Channels per scale, finest first.
        scales: The ``r`` of each scale.
        encoder_blocks: Content-aware blocks per scale of the encoder; one number or one per scale.
        decoder_blocks: The same for the decoder.
        stages: 1 to 4.
        sampled: Whether all stages but the first are non-uniform (*PAS*); one that is alone samples too.
        options: Switches of the content-aware blocks.
        candidates: Where a non-uniform stage's points may lie at scale ``r``: ``canvas``, the next higher resolution's
            grid, or ``full``, every pixel, at a far higher cost.
        residual: What a stage adds its residual to: ``previous``, ``OP_{k-1}``, so that what it does not refine keeps
            what the stage before made of it; or ``blurred``, the blurred patch.

    Raises:
        UserError: Unknown candidates or residual.
    """

    #: Gates on the points' updates and other points of a stage, see `forward`.
    takes_gates = compares = True

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
        candidates: Literal["canvas", "full"] = "canvas",
        residual: Literal["previous", "blurred"] = "previous",
    ):
        super().__init__()
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
        #: Sizes are padded to a multiple of this.
        self.multiple = widths.scales[-1] * rows
        #: See :meth:`use_window`.
        self.window: int | None = None

    def use_window(self, window: int | None) -> None:
        """Let global operations see windows of an image at inference from now on, none larger than the training crop.

        Those are the pooling of attention, the mean behind ``M_C``, and the choice of the best points. Each stage has
        the windows that its patches had in training: a patch of a crop of ``window x window`` pixels. Training and
        images no larger than a window are not touched.

        Args:
            window: Side of the crop in pixels of the whole image; None: global operations see everything.

        Raises:
            UserError: The network has no global operation, or its patches of such a crop have no whole grids.
        """
        if window is None:
            self.window = None
            return
        if not self.sampled_stages and not any(isinstance(m, ClusterAttention | FullAttention) for m in self.modules()):
            raise UserError(f"window={window}: this network has neither attention nor sampling to limit; leave it out.")
        if window < 1 or window % self.multiple:
            raise UserError(f"window={window}: this network needs a multiple of {self.multiple} pixels.")
        self.window = window

    def forward(
        self,
        blurred: Float[Tensor, "b 3 h w"],
        choose: Callable[[State], Points] | None = None,
        gates: Callable[[State, Points], Gates] | None = None,
        compare: Callable[[State, Callable[[Points], Tensor]], None] | None = None,
        stages: tuple[int, int] | None = None,
    ) -> list[Float[Tensor, "b 3 h w"]]:
        """Restore images of any size from 1x1 up.

        Args:
            blurred: RGB in [0, 1].
            choose: Chooses the points of each non-uniform stage from what the stage before has made.
            gates: Factors of each point's update, by scale; what is left out is 1.
            compare: Called at each non-uniform stage with its state and a function that restores the stage's image,
                without gradients, from other points in place of the chosen ones.
            stages: First stage that gets gradients, and the one after the last that runs, from 0; None: all.

        Returns:
            ``OP_1`` ... ``OP_K``, not clamped; the last is the result.

        Raises:
            ValueError: If the network has non-uniform stages and nobody chooses their points.
        """
        height, width = blurred.shape[-2:]
        padded = pad_to_multiple(blurred, self.multiple)
        restored, features, last = padded, None, None
        outputs, graded = [], torch.is_grad_enabled()
        first, end = stages or (0, len(self.stages))
        for k, (stage, (rows, cols)) in enumerate(zip(self.stages[:end], self.hierarchy[:end], strict=True)):
            windows = self._windows(padded, rows, cols)
            previous = None if features is None else [split(f, rows, cols, height_dim=1) for f in features]
            patches = split(padded, rows, cols), split(restored, rows, cols)
            base = patches[1 if self.residual == "previous" else 0]
            run = partial(stage, *patches, previous)
            points, factors = None, None
            if stage.sampled:
                if choose is None:
                    raise ValueError("a network with non-uniform stages needs `choose` to pick their points")
                state = State(k, (rows, cols), (height, width), last, restored, padded, windows=windows)
                points = choose(state)
                factors = None if gates is None else gates(state, points)
                if compare is not None:
                    compare(state, partial(_restore, run, base, (rows, cols), (height, width), windows))
            with torch.set_grad_enabled(graded and k >= first):
                residual, features, last = run(points, windows, factors)
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
) -> Float[Tensor, "b 3 h w"]:
    residual, _, _ = run(points, windows)
    return crop_to(join(base + residual, *grid), *size)
