"""The one interface of all samplers, and what they share: patches, canvases, budgets, draws.

A sampler scores every pixel of the joined image; the score is cut into the stage's patches, average-pooled to the
canvas of each scale, and points are taken from that map:

- `"top"`: the `L` highest of each patch (inference; the controls in training too), of each window its share where the
  state has windows;
- `"dither"`: `L` of each patch (or window) again, but spread with a density in proportion to the map (the learned
  sampler at inference);
- `"draw"`: one independent Bernoulli action per position with the map as its probability (the learned sampler in
  training);
- `"pretrain"`: Bernoulli of the budget's share at every position, whatever the sampler, while the restoration network
  is trained alone.
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
from sapnet.sampling.points import budget_count, canvas_size, canvas_stride
from sapnet.sampling.result import Sampling
from sapnet.sampling.selection import (
    Select,
    cell_counts,
    choose_points,
    choose_points_by_cell,
    extent_mask,
    limit,
    patch_extents,
    points_from_mask,
    pool,
    top_mask,
)
from sapnet.sampling.state import State

#: No probability is nearer to 0 or 1 than this: its logarithm and the gradient of that stay finite.
MARGIN = 1e-6


@dataclass(frozen=True)
class Patches:
    """Size of a stage's patches, and how much of each is no padding.

    Attributes:
        height: Rows of every patch, in image pixels.
        width: Columns of every patch.
        extents: Rows and columns of each patch that are no padding.
        valid: The same as a mask `[p, h, w]`; None: all.
        windows: Those that get a share of the points each; None: a patch shares them freely.
    """

    height: int
    width: int
    extents: list[tuple[int, int]]
    valid: Bool[Tensor, "p h w"] | None
    windows: Windows | None = None


class Sampler(nn.Module, ABC):
    """A control sampler: a subclass says how a pixel scores, the highest scores of each patch are taken.

    Args:
        budget: Points relative to a uniform grid of the same scale, -0.1 for ten percent fewer.
        scales: The scales `r` to choose points for; there is nothing to choose at `r = 1`, which is left out.
        candidates: `"canvas"`: one position per `r/2` pixels; `"full"`: every pixel at every scale.

    Raises:
        UserError: If the budget, a scale or the candidates are impossible.
    """

    #: Whether the scores are probabilities that sum to the budget.
    has_probabilities = False

    def __init__(self, budget: float = 0.0, scales: Sequence[int] = (2, 4, 8), candidates: str = "canvas"):
        super().__init__()
        self.candidates = candidates
        self.strides = {scale: canvas_stride(scale, candidates) for scale in scales if scale > 1}
        self.use_budget(budget)

    def use_budget(self, budget: float) -> None:
        """Spend another budget from now on.

        Raises:
            UserError: If it is impossible.
        """
        budget_count(1, 1, 2, budget)
        self.budget = float(budget)

    @property
    def share(self) -> float:
        """Mean of the full-resolution probability map that makes `L` the expected number of points at every scale."""
        return min((1 + self.budget) / 4, 1.0)

    def forward(self, state: State, mode: str | None = None, generator: torch.Generator | None = None) -> Sampling:
        """Choose points.

        Args:
            state: What is known before the stage.
            mode: `"top"`, `"dither"`, `"draw"` or `"pretrain"`, as above; by default `"draw"` while training, else
                `"top"`.
            generator: Makes the draws; without one they come from PyTorch's global state.

        Raises:
            UserError: If the padded image does not divide into patches whose canvases have whole cells, the sampler
                lacks what it needs, or it has no probabilities to dither.
        """
        mode = mode or ("draw" if self.training else "top")
        if mode not in ("top", "dither", "draw", "pretrain"):
            raise UserError(f"mode={mode!r} is unknown: use 'top', 'dither', 'draw' or 'pretrain'.")
        if mode == "dither" and not self.has_probabilities:
            raise UserError("dither needs the probabilities of the learned sampler: use inference=top with a control.")
        patches = self._patches(state)
        choose = self._pretrain if mode == "pretrain" else self._choose
        return choose(state, patches, mode, generator)

    @abstractmethod
    def score(self, state: State) -> Float[Tensor, "b h w"]:
        """How much each pixel of the joined image wants to be sampled; any finite number."""

    def counts(self, patches: Patches, scale: int) -> tuple[int, ...]:
        """The budget `L` of each patch."""
        return tuple(budget_count(*extent, scale, self.budget, self.candidates) for extent in patches.extents)

    def _choose(self, state: State, patches: Patches, mode: str, generator) -> Sampling:
        with torch.no_grad():
            score = self.score(state)
            parts = split(score[:, None], *state.grid)[:, 0]
            points = {}
            for scale, stride in self.strides.items():
                points[scale] = self._take(pool(parts, stride, patches.valid), patches, scale)
        return self._answer(state, patches, points, score)

    def _pretrain(self, state: State, patches: Patches, mode: str, generator) -> Sampling:
        with torch.no_grad():
            share = torch.full_like(state.blurred[:, 0], self.share)
            probabilities = self._probabilities(split(share[:, None], *state.grid)[:, 0], patches)
            points = {}
            for scale, p in probabilities.items():
                points[scale] = self._slots(bernoulli(p, generator), patches, scale, generator)
        return self._answer(state, patches, points, share)

    def _answer(self, state: State, patches: Patches, points, score: Tensor, **learned) -> Sampling:
        counts = {scale: self.counts(patches, scale) for scale in self.strides}
        return Sampling(points, counts, self.strides, score.detach(), state.grid, patches.valid, **learned)

    def _patches(self, state: State) -> Patches:
        batch, _, height, width = state.blurred.shape
        rows, cols = state.grid
        cell = max(self.strides.values(), default=1)
        if height % (rows * cell) or width % (cols * cell):
            raise UserError(
                f"an image of {height}x{width} pixels does not divide into {rows}x{cols} patches whose canvases have"
                f" whole cells: pad its height to a multiple of {rows * cell}, its width to one of {cols * cell}."
            )
        extents = [e for e in patch_extents(height, width, state.grid, state.size) for _ in range(batch)]
        height, width, valid = height // rows, width // cols, None
        if any(extent != (height, width) for extent in extents):
            valid = extent_mask(extents, height, width, state.blurred.device)
        return Patches(height, width, extents, valid, state.windows)

    def _take(
        self, scores: Float[Tensor, "p h2 w2"], patches: Patches, scale: int, select: Select = top_mask
    ) -> Int64[Tensor, "p l"]:
        cells = None
        if patches.valid is not None:
            # Positions that hold any pixel that is no padding.
            sizes = [canvas_size(*extent, scale, self.candidates) for extent in patches.extents]
            cells = extent_mask(sizes, scores.shape[1], scores.shape[2], scores.device)
        counts = self.counts(patches, scale)
        if patches.windows is None:
            return choose_points(scores, counts, cells, select)
        density = (1 + self.budget) / scale**2
        shares = [
            cell_counts(patches.windows, e, density, count) for e, count in zip(patches.extents, counts, strict=True)
        ]
        return choose_points_by_cell(scores, shares, patches.windows, cells, select)

    def _probabilities(self, share: Float[Tensor, "p h w"], patches: Patches) -> dict[int, Tensor]:
        # Exactly 0 in padding, else MARGIN away from 0 and 1, by a map that keeps the gradient alive.
        found = {}
        for scale, stride in self.strides.items():
            p = pool(share, stride, patches.valid) * (2 * stride / scale) ** 2
            p = MARGIN + (1 - 2 * MARGIN) * p
            if patches.valid is not None:
                p = p * (pool(patches.valid.to(p.dtype), stride) > 0)
            found[scale] = p
        return found

    def _slots(self, actions: Bool[Tensor, "p h2 w2"], patches: Patches, scale: int, generator) -> Tensor:
        # Room for the budget and eight standard deviations of a flat map, the widest that keeps the budget.
        most = []
        for extent, count in zip(patches.extents, self.counts(patches, scale), strict=True):
            cells = math.prod(canvas_size(*extent, scale, self.candidates))
            spread = math.sqrt(count * (1 - count / cells)) if cells else 0
            most.append(min(cells, count + math.ceil(8 * spread)))
        mask = limit(actions.flatten(1), most, generator)
        points = points_from_mask(mask, max(most))
        # Where it costs no waiting for a device, slots that nobody uses are cut off.
        return points[:, : int(mask.sum(dim=1).max())].contiguous() if mask.device.type == "cpu" else points


def bernoulli(p: Float[Tensor, "..."], generator: torch.Generator | None = None) -> Bool[Tensor, "..."]:
    """One independent draw per position, from the generator on whatever device it is."""
    device = generator.device if generator is not None else p.device
    return torch.rand(p.shape, dtype=p.dtype, device=device, generator=generator).to(p.device) < p
