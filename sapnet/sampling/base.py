"""Base class of all samplers.

A sampler assigns a score to every pixel of the joined image. The score map is split into the patches of the stage and
average-pooled to the canvas of each scale. Points are selected from the pooled map in one of four modes:

- `"top"`: the `L` highest scores of each patch, or of each window if the context has windows. Used at inference, and by
  the control samplers in training too.
- `"dither"`: `L` points of each patch (or window), spread with a density proportional to the map. Used by the learned
  sampler at inference.
- `"draw"`: one independent Bernoulli draw for each position with the map as its probability. Used by the learned
  sampler in training.
- `"pretrain"`: Bernoulli draws with the same probability everywhere, for every sampler. Used while the restoration
  network is trained alone.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from sapnet.errors import UserError
from sapnet.layers.hierarchy import split
from sapnet.layers.windows import Windows
from sapnet.sampling.context import StageContext
from sapnet.sampling.points import budget_count, canvas_size, canvas_stride
from sapnet.sampling.sampled_points import SampledPoints
from sapnet.sampling.selection import (
    Select,
    cell_counts,
    extent_mask,
    limit_counts,
    patch_extents,
    points_from_mask,
    pool,
    select_points,
    select_points_by_cell,
    top_mask,
)

#: Distance of every probability from 0 and 1, which keeps its logarithm and the gradient of the logarithm finite.
MARGIN = 1e-6


@dataclass(frozen=True)
class PatchLayout:
    """Sizes of a stage's patches and of their parts without padding.

    Attributes:
        height: Rows of every patch in image pixels.
        width: Columns of every patch in image pixels.
        extents: Rows and columns of each patch that are not padding.
        valid: Mask of the pixels that are not padding; None: all.
        windows: Windows that each receive their share of the points. None: one budget for the whole patch.
    """

    height: int
    width: int
    extents: list[tuple[int, int]]
    valid: Bool[Tensor, "p h w"] | None
    windows: Windows | None = None


class Sampler(nn.Module, ABC):
    """A sampler that selects the highest scores of each patch; subclasses define the score.

    Args:
        budget: Number of points relative to a uniform grid of the same scale, such as -0.1 for 10% fewer.
        scales: Scales `r` for which points are chosen. `r = 1` is ignored, because its canvas is the grid itself.
        candidates: `"canvas"`: one position for every `r/2` pixels; `"full"`: every pixel at every scale.

    Raises:
        UserError: The budget, a scale or the candidates are invalid.
    """

    #: Whether the scores are probabilities that sum to the budget.
    has_probabilities = False

    def __init__(self, budget: float = 0.0, scales: Sequence[int] = (2, 4, 8), candidates: str = "canvas"):
        super().__init__()
        self.candidates = candidates
        self.strides = {scale: canvas_stride(scale, candidates) for scale in scales if scale > 1}
        self.use_budget(budget)

    def use_budget(self, budget: float) -> None:
        """Change the budget.

        Raises:
            UserError: The budget is invalid.
        """
        # Validates the budget.
        budget_count(1, 1, 2, budget)
        self.budget = float(budget)

    @property
    def share(self) -> float:
        """Mean of the full-resolution probability map for which `L` points are expected at every scale."""
        return min((1 + self.budget) / 4, 1.0)

    def forward(
        self, context: StageContext, mode: str | None = None, rng: torch.Generator | None = None
    ) -> SampledPoints:
        """Choose the points of a stage.

        Args:
            context: Inputs for the stage.
            mode: `"top"`, `"dither"`, `"draw"` or `"pretrain"`, as described in the module's docstring. Default:
                `"draw"` in training mode and `"top"` otherwise.
            rng: Random generator of the draws; None: PyTorch's global one.

        Raises:
            UserError: The padded image cannot be divided into patches with whole canvas cells, the context lacks an
                input that the sampler needs, or `"dither"` is used with a sampler without probabilities.
        """
        mode = mode or ("draw" if self.training else "top")
        if mode not in ("top", "dither", "draw", "pretrain"):
            raise UserError(f"mode={mode!r} is unknown: use 'top', 'dither', 'draw' or 'pretrain'.")
        if mode == "dither" and not self.has_probabilities:
            raise UserError("dither needs the probabilities of the learned sampler: use inference=top with a control.")
        patches = self._patches(context)
        choose = self._pretrain if mode == "pretrain" else self._choose
        return choose(context, patches, mode, rng)

    @abstractmethod
    def score(self, context: StageContext) -> Float[Tensor, "b h w"]:
        """Compute the score of every pixel of the joined image: any finite number, higher scores are sampled first."""

    def counts(self, patches: PatchLayout, scale: int) -> tuple[int, ...]:
        """Return the budget `L` of each patch."""
        return tuple(budget_count(*extent, scale, self.budget, self.candidates) for extent in patches.extents)

    def _choose(
        self, context: StageContext, patches: PatchLayout, mode: str, rng: torch.Generator | None
    ) -> SampledPoints:
        with torch.no_grad():
            score = self.score(context)
            parts = split(score[:, None], *context.grid)[:, 0]
            points = {}
            for scale, stride in self.strides.items():
                points[scale] = self._select(pool(parts, stride, patches.valid), patches, scale)
        return self._sampled(context, patches, points, score)

    def _pretrain(
        self, context: StageContext, patches: PatchLayout, mode: str, rng: torch.Generator | None
    ) -> SampledPoints:
        with torch.no_grad():
            share = torch.full_like(context.blurred[:, 0], self.share)
            probabilities = self._probabilities(split(share[:, None], *context.grid)[:, 0], patches)
            points = {}
            for scale, p in probabilities.items():
                points[scale] = self._points_from_actions(bernoulli(p, rng), patches, scale, rng)
        return self._sampled(context, patches, points, share)

    def _sampled(
        self,
        context: StageContext,
        patches: PatchLayout,
        points: dict[int, Int64[Tensor, "p _"]],
        score: Float[Tensor, "b h w"],
        **learned,
    ) -> SampledPoints:
        counts = {scale: self.counts(patches, scale) for scale in self.strides}
        return SampledPoints(points, counts, self.strides, score.detach(), context.grid, patches.valid, **learned)

    def _patches(self, context: StageContext) -> PatchLayout:
        batch, _, height, width = context.blurred.shape
        rows, cols = context.grid
        cell = max(self.strides.values(), default=1)
        if height % (rows * cell) or width % (cols * cell):
            raise UserError(
                f"an image of {height}x{width} pixels cannot be divided into {rows}x{cols} patches with whole canvas"
                f" cells: pad its height to a multiple of {rows * cell} and its width to a multiple of {cols * cell}."
            )
        extents = [e for e in patch_extents(height, width, context.grid, context.size) for _ in range(batch)]
        height, width, valid = height // rows, width // cols, None
        if any(extent != (height, width) for extent in extents):
            valid = extent_mask(extents, height, width, context.blurred.device)
        return PatchLayout(height, width, extents, valid, context.windows)

    def _select(
        self, scores: Float[Tensor, "p h2 w2"], patches: PatchLayout, scale: int, select: Select = top_mask
    ) -> Int64[Tensor, "p l"]:
        valid = None
        if patches.valid is not None:
            # Positions with at least one pixel that is not padding.
            sizes = [canvas_size(*extent, scale, self.candidates) for extent in patches.extents]
            valid = extent_mask(sizes, scores.shape[1], scores.shape[2], scores.device)
        counts = self.counts(patches, scale)
        if patches.windows is None:
            return select_points(scores, counts, valid, select)
        density = (1 + self.budget) / scale**2
        shares = [
            cell_counts(patches.windows, e, density, count) for e, count in zip(patches.extents, counts, strict=True)
        ]
        return select_points_by_cell(scores, shares, patches.windows, valid, select)

    def _probabilities(self, share: Float[Tensor, "p h w"], patches: PatchLayout) -> dict[int, Float[Tensor, "p _ _"]]:
        # Exactly 0 in the padding, elsewhere mapped linearly into [MARGIN, 1 - MARGIN]; a clamp would cut the gradient.
        probabilities = {}
        for scale, stride in self.strides.items():
            p = pool(share, stride, patches.valid) * (2 * stride / scale) ** 2
            p = MARGIN + (1 - 2 * MARGIN) * p
            if patches.valid is not None:
                p = p * (pool(patches.valid.to(p.dtype), stride) > 0)
            probabilities[scale] = p
        return probabilities

    def _points_from_actions(
        self, actions: Bool[Tensor, "p h2 w2"], patches: PatchLayout, scale: int, rng: torch.Generator | None
    ) -> Int64[Tensor, "p l"]:
        # At most the budget plus eight standard deviations of a flat map, the widest distribution with this budget.
        limits = []
        for extent, count in zip(patches.extents, self.counts(patches, scale), strict=True):
            cells = math.prod(canvas_size(*extent, scale, self.candidates))
            deviation = math.sqrt(count * (1 - count / cells)) if cells else 0
            limits.append(min(cells, count + math.ceil(8 * deviation)))
        mask = limit_counts(actions.flatten(1), limits, rng)
        points = points_from_mask(mask, max(limits))
        # Unused slots are cut off only on the CPU, because elsewhere the count would need a synchronisation.
        return points[:, : int(mask.sum(dim=1).max())].contiguous() if mask.device.type == "cpu" else points


def bernoulli(p: Float[Tensor, "*shape"], rng: torch.Generator | None = None) -> Bool[Tensor, "*shape"]:
    """Draw independently at each position with probability `p`, on the device of the random generator."""
    device = rng.device if rng is not None else p.device
    return torch.rand(p.shape, dtype=p.dtype, device=device, generator=rng).to(p.device) < p
