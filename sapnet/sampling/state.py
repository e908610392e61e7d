"""What is known when the points of a stage are chosen."""

from dataclasses import dataclass
from typing import cast

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sapnet.layers.windows import Windows


@dataclass(frozen=True)
class State:
    """The joined results of the stage before, padded to the network's multiple.

    Attributes:
        stage: Index of the stage whose points are chosen, from 0.
        grid: Rows and columns of its patches.
        size: Height and width of the image without padding; padded positions must not be chosen.
        features: The previous stage's last features, channels-last, at full resolution or a coarser one; None where a
            network has none to give.
        restored: ``OP_{k-1}``.
        blurred: The blurred image.
        sharp: The ground truth, where it is known (training, the oracle); unpadded sizes are padded by the reader.
        extent: The true length of the blur in pixels, where the data knows it; unpadded like `sharp`.
        windows: Those of a patch that each get their share of the points; None: a patch shares them freely.
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


def true_error(state: State) -> Float[Tensor, "b h w"]:
    """Mean over RGB of `|OP_{k-1} - GT|`, detached; 0 in the padding. The ground truth must be known."""
    sharp = cast(Tensor, state.sharp)
    height, width = sharp.shape[-2:]
    error = (state.restored[..., :height, :width].detach() - sharp).abs().mean(dim=1)
    return pad_to_state(error, state)


def pad_to_state(image: Float[Tensor, "b h0 w0"], state: State) -> Float[Tensor, "b h w"]:
    """Extend a map of the unpadded image by zeros to the padded size."""
    height, width = state.restored.shape[-2:]
    return F.pad(image, (0, width - image.shape[-1], 0, height - image.shape[-2]))
