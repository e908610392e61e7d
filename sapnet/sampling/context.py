"""Inputs to a sampler for one stage, and maps derived from them."""

from dataclasses import dataclass
from typing import cast

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sapnet.layers.windows import Windows


@dataclass(frozen=True)
class StageContext:
    """Inputs to a sampler for one stage: the joined results of the previous stage, padded to the network's multiple.

    Attributes:
        stage: Index of the stage whose points are chosen, from 0.
        grid: Rows and columns of its patches.
        size: Height and width of the image without padding. Padded positions must not be chosen.
        features: Last features of the previous stage, channels-last, at full resolution or a coarser one. None if the
            network provides none.
        restored: `OP_{k-1}`.
        blurred: The blurred image.
        sharp: The ground truth without padding, if it is known (in training and for the oracle).
        extent: True length of the blur in pixels, without padding, if the data provides it.
        windows: Windows of a patch that each receive their share of the points. None: one budget for the whole patch.
    """

    stage: int
    grid: tuple[int, int]
    size: tuple[int, int]
    features: Float[Tensor, "b hf wf s"] | None
    restored: Float[Tensor, "b 3 h w"]
    blurred: Float[Tensor, "b 3 h w"]
    sharp: Float[Tensor, "b 3 h0 w0"] | None = None
    extent: Float[Tensor, "b 1 h0 w0"] | None = None
    windows: Windows | None = None


def true_error(context: StageContext) -> Float[Tensor, "b h w"]:
    """Compute the mean over RGB of `|OP_{k-1} - GT|`, detached and 0 in the padding; the ground truth must be known."""
    sharp = cast(Tensor, context.sharp)
    height, width = sharp.shape[-2:]
    error = (context.restored[..., :height, :width].detach() - sharp).abs().mean(dim=1)
    return pad_to_context(error, context)


def pad_to_context(image: Float[Tensor, "b h0 w0"], context: StageContext) -> Float[Tensor, "b h w"]:
    """Extend a map of the unpadded image with zeros to the padded size."""
    height, width = context.restored.shape[-2:]
    return F.pad(image, (0, width - image.shape[-1], 0, height - image.shape[-2]))
