"""What a sampler answers."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from sapnet.layers.hierarchy import join


@dataclass(frozen=True)
class Sampling:
    """Points of one stage, and what learning needs to know of how they came about.

    Patches stand on the batch axis as `split` stacks them: patch `i` of image `n` at `i * images + n`. Dictionaries go
    by the scale `r`.

    Attributes:
        points: Raster indices on each patch's canvas, sorted, distinct, unused slots -1 at the end.
        counts: The budget `L` of each patch.
        strides: Image pixels from one canvas position to the next.
        map: The score (of a learned sampler the map `G` it drew from) of every pixel of the joined image, detached.
        grid: Rows and columns of patches in an image.
        valid: Pixels of each patch that are no padding; None: all.
        probabilities: Each canvas position's probability of being drawn, with gradient. Learned samplers only.
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

    def drawn(self, scale: int) -> Int64[Tensor, "p"]:
        """Number of points `L'` of each patch, counted before any was dropped for lack of slots."""
        if scale in self.actions:
            return self.actions[scale].flatten(1).sum(dim=1)
        return self.kept(scale)

    def kept(self, scale: int) -> Int64[Tensor, "p"]:
        """Number of points of each patch that are processed; smaller than `drawn` where slots ran out."""
        return (self.points[scale] >= 0).sum(dim=1)

    def mask(self, scale: int) -> Bool[Tensor, "b h w"]:
        """True at every pixel of the joined image whose canvas position was chosen at a scale."""
        points, stride = self.points[scale], self.strides[scale]
        rows, cols = (size // parts // stride for size, parts in zip(self.map.shape[-2:], self.grid, strict=True))
        flat = torch.zeros(len(points), rows * cols + 1, dtype=torch.bool, device=points.device)
        # Unused slots name the dump position behind the last.
        flat.scatter_(1, torch.where(points < 0, rows * cols, points), True)
        canvas = join(flat[:, :-1].view(-1, 1, rows, cols), *self.grid)[:, 0]
        return canvas.repeat_interleave(stride, dim=1).repeat_interleave(stride, dim=2)

    def statistics(self) -> dict[str, Tensor]:
        """Numbers worth logging.

        ``entropy``: of ``G`` read as independent decisions, in nats per pixel. By scale: ``log_ratio``, ``log(L'/L)``;
        ``over_budget``, the share of patches with ``L' > L``; ``dropped``, points for which there was no slot.
        """
        share = self.map.clamp(1e-6, 1 - 1e-6)
        numbers = {"entropy": -(share * share.log() + (1 - share) * (1 - share).log()).mean()}
        for scale, counts in self.counts.items():
            drawn = self.drawn(scale)
            budget = torch.tensor(counts, device=drawn.device)
            numbers[f"log_ratio_r{scale}"] = (drawn.sum().clamp(min=1) / max(sum(counts), 1)).log()
            numbers[f"over_budget_r{scale}"] = (drawn > budget).float().mean()
            numbers[f"dropped_r{scale}"] = (drawn - self.kept(scale)).sum()
        return numbers
