"""Restoration losses over the stage outputs."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class StageLoss(nn.Module):
    """Pixelwise loss against the ground truth, averaged over the supervised stages.

    Args:
        kind: `l1`, `mse`, or `charbonnier`: `sqrt(d^2 + epsilon^2)`. The paper does not specify its loss.
        progressive: Whether all stages are supervised, with equal weights (*Prog.* in the paper), or only the last.
        epsilon: Parameter of `charbonnier`, in units of the image range [0, 1]. Errors well below it are penalised
            quadratically, larger ones linearly.
    """

    def __init__(self, kind: str = "l1", progressive: bool = True, epsilon: float = 1e-3):
        super().__init__()
        if kind not in ("l1", "mse", "charbonnier"):
            raise ValueError(f"loss kind {kind!r} is unknown: use l1, mse or charbonnier")
        self.kind, self.progressive, self.epsilon = kind, progressive, epsilon

    def per_stage(
        self, outputs: Sequence[Float[Tensor, "b 3 h w"]], sharp: Float[Tensor, "b 3 h w"]
    ) -> list[Float[Tensor, ""]]:
        """Return the loss of every stage, supervised or not."""
        return [self._pixelwise(output, sharp) for output in outputs]

    def forward(
        self, outputs: Sequence[Float[Tensor, "b 3 h w"]], sharp: Float[Tensor, "b 3 h w"]
    ) -> Float[Tensor, ""]:
        """Return the loss to minimise."""
        return self.combine(self.per_stage(outputs, sharp))

    def combine(self, per_stage: Sequence[Float[Tensor, ""]]) -> Float[Tensor, ""]:
        """Return the loss to minimise, given the losses of the stages that learn."""
        return torch.stack(list(per_stage)).mean() if self.progressive else per_stage[-1]

    def _pixelwise(self, output: Tensor, sharp: Tensor) -> Tensor:
        if self.kind == "l1":
            return F.l1_loss(output, sharp)
        if self.kind == "mse":
            return F.mse_loss(output, sharp)
        return torch.sqrt((output - sharp) ** 2 + self.epsilon**2).mean()
