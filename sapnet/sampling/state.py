"""What is known when the points of a stage are chosen."""

from dataclasses import dataclass

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
        windows: Those of a patch that each get their share of the points; None: a patch shares them freely.
    """

    stage: int
    grid: tuple[int, int]
    size: tuple[int, int]
    features: Float[Tensor, "b hf wf s"] | None
    restored: Float[Tensor, "b 3 h w"]
    blurred: Float[Tensor, "b 3 h w"]
    sharp: Float[Tensor, "b 3 h0 w0"] | None = None
    windows: Windows | None = None
    extent: Float[Tensor, "b 1 h0 w0"] | None = None
