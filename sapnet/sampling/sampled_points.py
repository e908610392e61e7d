"""The points chosen for one stage."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from sapnet.layers.hierarchy import join


@dataclass(frozen=True)
class SampledPoints:
    """Points of one stage, with the probabilities and actions that a policy learns from.

    Patches are stacked on the batch axis as by `split`: patch `i` of image `n` has index `i * images + n`. The keys of
    the dictionaries are the scales `r`.

    Attributes:
        points: Raster indices on each patch's canvas, sorted and distinct, with -1 in unused slots at the end.
        counts: Budget `L` of each patch.
        strides: Image pixels from one canvas position to the next.
        map: Score of every pixel of the joined image, detached. For a learned sampler, the probability map `G`.
        grid: Rows and columns of patches in an image.
        valid: Pixels of each patch that are not padding; None: all.
        probabilities: Probability that each canvas position is drawn, with gradient. Learned samplers only.
        actions: The binary map that was drawn. Learned samplers only, and only where points were drawn.
    """

    points: dict[int, Int64[Tensor, "p _"]]
    counts: dict[int, tuple[int, ...]]
    strides: dict[int, int]
    map: Float[Tensor, "b h w"]
    grid: tuple[int, int]
    valid: Bool[Tensor, "p hp wp"] | None = None
    probabilities: dict[int, Float[Tensor, "p _ _"]] = field(default_factory=dict)
    actions: dict[int, Bool[Tensor, "p _ _"]] = field(default_factory=dict)

    def drawn_counts(self, scale: int) -> Int64[Tensor, "p"]:
        """Return the number of points `L'` drawn in each patch, including points dropped for lack of slots."""
        if scale in self.actions:
            return self.actions[scale].flatten(1).sum(dim=1)
        return self.kept_counts(scale)

    def kept_counts(self, scale: int) -> Int64[Tensor, "p"]:
        """Return the number of points processed in each patch; less than `drawn_counts` if the slots ran out."""
        return (self.points[scale] >= 0).sum(dim=1)

    def mask(self, scale: int) -> Bool[Tensor, "b h w"]:
        """Return a mask of the joined image, true at every pixel whose canvas position was chosen at a scale."""
        points, stride = self.points[scale], self.strides[scale]
        rows, cols = (size // parts // stride for size, parts in zip(self.map.shape[-2:], self.grid, strict=True))
        flat = torch.zeros(len(points), rows * cols + 1, dtype=torch.bool, device=points.device)
        # Unused slots are written to an extra last position, which is dropped.
        flat.scatter_(1, torch.where(points < 0, rows * cols, points), True)
        canvas = join(flat[:, :-1].view(-1, 1, rows, cols), *self.grid)[:, 0]
        return canvas.repeat_interleave(stride, dim=1).repeat_interleave(stride, dim=2)

    def statistics(self) -> dict[str, Tensor]:
        """Compute statistics to log.

        Returns:
            `entropy`: Entropy of `G` read as independent decisions, in nats per pixel. For each scale: `log_ratio`, the
            logarithm of `L'/L`; `over_budget`, the share of patches with `L' > L`; `dropped`, the number of points
            dropped for lack of slots.
        """
        share = self.map.clamp(1e-6, 1 - 1e-6)
        values = {"entropy": -(share * share.log() + (1 - share) * (1 - share).log()).mean()}
        for scale, counts in self.counts.items():
            drawn = self.drawn_counts(scale)
            budget = torch.tensor(counts, device=drawn.device)
            values[f"log_ratio_r{scale}"] = (drawn.sum().clamp(min=1) / max(sum(counts), 1)).log()
            values[f"over_budget_r{scale}"] = (drawn > budget).float().mean()
            values[f"dropped_r{scale}"] = (drawn - self.kept_counts(scale)).sum()
        return values
