"""The learned sampler: points drawn from, or ranked by, a policy's probability map (Eq. 4, Sec. 3.1.1)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sapnet.errors import UserError
from sapnet.layers.hierarchy import join, split
from sapnet.sampling.base import Patches, Sampler, bernoulli
from sapnet.sampling.calibration import calibrate
from sapnet.sampling.dither import dither_mask
from sapnet.sampling.result import Sampling
from sapnet.sampling.selection import top_mask
from sapnet.sampling.state import State


class LearnedSampler(Sampler):
    """The policy's map `G`: one action per stage and scale is drawn from it in training.

    At inference the map is ranked, or dithered: `L` points again, but scattered as the draws of training are.

    At scale `r` each canvas position is drawn with the average of `G` over its pixels, so that one map with the mean
    `(1 + b) / 4` gives `L` points at every scale in the mean.

    Args:
        policy: Takes a `State` and gives logits `[b, h, w]` at the image's resolution; `Policy` or one's own.
        budget_control: `"calibrated"` shifts the logits of each patch (of each cell, where there are windows) so that
            the mean of their probabilities is the budget's share, in training and at inference; `"indicator"` leaves
            them alone and trusts the penalty in the reward (Eq. 5), whose gradient is alive only while `L'` falls now
            below, now above `L`.
        settings: Those of `Sampler`.

    Raises:
        UserError: If `budget_control` is neither.
    """

    has_probabilities = True

    def __init__(self, policy: nn.Module, budget_control: str = "calibrated", **settings):
        super().__init__(**settings)
        if budget_control not in ("calibrated", "indicator"):
            raise UserError(f"budget_control={budget_control!r} is unknown: use 'calibrated' or 'indicator'.")
        self.policy, self.budget_control = policy, budget_control

    def score(self, state: State) -> Float[Tensor, "b h w"]:
        """The probability map `G` of the joined image."""
        return join(self._map(state, self._patches(state))[:, None], *state.grid)[:, 0]

    def _map(self, state: State, patches: Patches) -> Float[Tensor, "p h w"]:
        logits = self.policy(state)
        # Half precision would lose the budget.
        logits = split(logits.to(torch.promote_types(logits.dtype, torch.float32))[:, None], *state.grid)[:, 0]
        if self.budget_control == "calibrated":
            logits = self._calibrate(logits, patches)
        return torch.sigmoid(logits)

    def _calibrate(self, logits: Float[Tensor, "p h w"], patches: Patches) -> Float[Tensor, "p h w"]:
        windows, valid = patches.windows, patches.valid
        if windows is None:
            return calibrate(logits, self.share, valid)
        valid = windows.to_cells(torch.ones_like(logits, dtype=torch.bool) if valid is None else valid)
        return windows.from_cells(calibrate(windows.to_cells(logits), self.share, valid), 1)

    def _choose(self, state: State, patches: Patches, mode: str, generator) -> Sampling:
        share = self._map(state, patches)
        probabilities = self._probabilities(share, patches)
        points, actions = {}, {}
        with torch.no_grad():
            for scale, p in probabilities.items():
                if mode == "draw":
                    actions[scale] = bernoulli(p, generator)
                    points[scale] = self._slots(actions[scale], patches, scale, generator)
                else:
                    select = dither_mask if mode == "dither" else top_mask
                    points[scale] = self._take(p, patches, scale, select)
        score = join(share[:, None], *state.grid)[:, 0]
        return self._answer(state, patches, points, score, probabilities=probabilities, actions=actions)
