"""Restoration losses over the stage outputs."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class StageLoss(nn.Module):
    """Loss against the ground truth, averaged over the supervised stages: pixelwise, with optional further terms.

    The truth is reduced bilinearly for outputs that have the size of a coarser scale.

    Args:
        kind: `l1`, `mse`, or `charbonnier`: `sqrt(d^2 + epsilon^2)`. The paper does not specify its loss.
        progressive: Whether all stages are supervised, with equal weights (*Prog.* in the paper), or only the last.
        epsilon: Parameter of `charbonnier`, in units of the image range [0, 1]. Errors well below it are penalised
            quadratically, larger ones linearly.
        frequency: Weight of the L1 distance of the Fourier transforms (MIMO-UNet).
        edge: Weight of the `charbonnier` distance of the Laplacians (MPRNet).
    """

    def __init__(
        self,
        kind: str = "l1",
        progressive: bool = True,
        epsilon: float = 1e-3,
        frequency: float = 0.0,
        edge: float = 0.0,
    ):
        super().__init__()
        if kind not in ("l1", "mse", "charbonnier"):
            raise ValueError(f"loss kind {kind!r} is unknown: use l1, mse or charbonnier")
        self.kind, self.progressive, self.epsilon = kind, progressive, epsilon
        self.frequency, self.edge = frequency, edge

    def per_stage(
        self, outputs: Sequence[Float[Tensor, "b 3 _ _"]], sharp: Float[Tensor, "b 3 h w"]
    ) -> list[Float[Tensor, ""]]:
        """Return the loss of every stage, supervised or not."""
        return [self._stage(output, sharp) for output in outputs]

    def forward(
        self, outputs: Sequence[Float[Tensor, "b 3 _ _"]], sharp: Float[Tensor, "b 3 h w"]
    ) -> Float[Tensor, ""]:
        """Return the loss to minimise."""
        return self.combine(self.per_stage(outputs, sharp))

    def combine(self, per_stage: Sequence[Float[Tensor, ""]]) -> Float[Tensor, ""]:
        """Return the loss to minimise, given the losses of the stages that learn."""
        return torch.stack(list(per_stage)).mean() if self.progressive else per_stage[-1]

    def _stage(self, output: Tensor, sharp: Tensor) -> Tensor:
        if output.shape[-2:] != sharp.shape[-2:]:
            # The output of a coarse scale.
            sharp = F.interpolate(sharp, size=output.shape[-2:], mode="bilinear")
        loss = self._pixelwise(output, sharp)
        if self.frequency:
            loss = loss + self.frequency * torch.view_as_real(torch.fft.fft2((output - sharp).float())).abs().mean()
        if self.edge:
            loss = loss + self.edge * self._charbonnier(_laplacian(output - sharp))
        return loss

    def _pixelwise(self, output: Tensor, sharp: Tensor) -> Tensor:
        if self.kind == "l1":
            return F.l1_loss(output, sharp)
        if self.kind == "mse":
            return F.mse_loss(output, sharp)
        return self._charbonnier(output - sharp)

    def _charbonnier(self, difference: Tensor) -> Tensor:
        return torch.sqrt(difference**2 + self.epsilon**2).mean()


def _laplacian(image: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """Return the finest level of the Laplacian pyramid (Burt and Adelson, 1983, a = 0.4)."""
    reduced = torch.zeros_like(image)
    reduced[..., ::2, ::2] = 4 * _smoothed(image)[..., ::2, ::2]
    return image - _smoothed(reduced)


def _smoothed(image: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    taps = torch.tensor([0.05, 0.25, 0.4, 0.25, 0.05], dtype=image.dtype, device=image.device)
    padded = F.pad(image, (2, 2, 2, 2), mode="reflect")
    return F.conv2d(padded.flatten(0, 1)[:, None], torch.outer(taps, taps)[None, None])[:, 0].reshape(image.shape)
