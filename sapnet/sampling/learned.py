"""The learned sampler: points drawn or ranked by the probability map of a policy (Eq. 4, Sec. 3.1.1)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sapnet.errors import UserError
from sapnet.layers.hierarchy import join, split
from sapnet.sampling.base import PatchLayout, Sampler, bernoulli
from sapnet.sampling.calibration import calibrate
from sapnet.sampling.context import StageContext
from sapnet.sampling.dither import dither_mask
from sapnet.sampling.sampled_points import SampledPoints
from sapnet.sampling.selection import top_mask


class LearnedSampler(Sampler):
    """A sampler with a policy, whose map `G` gives the probability of drawing each position in training.

    At inference the `L` highest probabilities are selected, or `L` points are dithered, which scatters them like the
    draws of training.

    At scale `r` the probability of a canvas position is the average of `G` over its pixels. A map with the mean
    `(1 + b) / 4` therefore gives `L` points at every scale in expectation.

    Args:
        policy: A module that maps a `StageContext` to logits `[b, h, w]` at the image's resolution, such as `Policy`.
        budget_control: `"calibrated"` shifts the logits of each patch (or of each cell with windows) so that the mean
            probability is the budget's share, in training and at inference. `"indicator"` leaves the logits unchanged
            and relies on the penalty in the reward (Eq. 5), which has a gradient only while `L'` is sometimes below and
            sometimes above `L`.
        settings: Arguments of `Sampler`.

    Raises:
        UserError: `budget_control` is unknown.
    """

    has_probabilities = True

    def __init__(self, policy: nn.Module, budget_control: str = "calibrated", **settings):
        super().__init__(**settings)
        if budget_control not in ("calibrated", "indicator"):
            raise UserError(f"budget_control={budget_control!r} is unknown: use 'calibrated' or 'indicator'.")
        self.policy, self.budget_control = policy, budget_control

    def score(self, context: StageContext) -> Float[Tensor, "b h w"]:
        """Compute the probability map `G` of the joined image."""
        return join(self._map(context, self._patches(context))[:, None], *context.grid)[:, 0]

    def _map(self, context: StageContext, patches: PatchLayout) -> Float[Tensor, "p h w"]:
        logits = self.policy(context)
        # Half precision is too coarse to keep the budget.
        logits = split(logits.to(torch.promote_types(logits.dtype, torch.float32))[:, None], *context.grid)[:, 0]
        if self.budget_control == "calibrated":
            logits = self._calibrate(logits, patches)
        return torch.sigmoid(logits)

    def _calibrate(self, logits: Float[Tensor, "p h w"], patches: PatchLayout) -> Float[Tensor, "p h w"]:
        windows, valid = patches.windows, patches.valid
        if windows is None:
            return calibrate(logits, self.share, valid)
        valid = windows.to_cells(torch.ones_like(logits, dtype=torch.bool) if valid is None else valid)
        return windows.from_cells(calibrate(windows.to_cells(logits), self.share, valid), 1)

    def _choose(
        self, context: StageContext, patches: PatchLayout, mode: str, rng: torch.Generator | None
    ) -> SampledPoints:
        share = self._map(context, patches)
        probabilities = self._probabilities(share, patches)
        points, actions = {}, {}
        with torch.no_grad():
            for scale, p in probabilities.items():
                if mode == "draw":
                    actions[scale] = bernoulli(p, rng)
                    points[scale] = self._points_from_actions(actions[scale], patches, scale, rng)
                else:
                    select = dither_mask if mode == "dither" else top_mask
                    points[scale] = self._select(p, patches, scale, select)
        score = join(share[:, None], *context.grid)[:, 0]
        return self._sampled(context, patches, points, score, probabilities=probabilities, actions=actions)
