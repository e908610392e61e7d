"""The spatially variant recurrent network, SVRN (Zhang et al., CVPR 2018), with the authors' layer names."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sapnet.layers.recurrence import linear_recurrence
from sapnet.models.inputs import InputRequirements

#: Recurrent stages, and scans of each stage.
STAGES, SCANS = 4, 4


class SVRN(nn.Module):
    """Recurrences over the image's features, with gates that a second network computes for every position.

    The image is predicted itself, without a residual. The authors' program stores images column by column, so that
    their network sees the transposed image; the kernels and directions here are those of their files.

    Args:
        width: Channels of the features at half resolution; half as many at full resolution.
        gate_widths: Channels of the gates' network at full resolution and at 1/2, 1/4 and 1/8.
    """

    #: The authors' test images have this multiple.
    requirements = InputRequirements(8)

    def __init__(self, width: int = 32, gate_widths: Sequence[int] = (64, 128, 256, 512)):
        super().__init__()
        self.conve1_1, self.conve1_2 = _conv(3, width // 2, 11), _conv(width // 2, width, 7, stride=2)
        one, two, three, four = gate_widths
        self.convg1_1, self.convg1_2 = _conv(3, one), _conv(one, one)
        self.convg2_1, self.convg2_2 = _conv(one, two), _conv(two, two)
        self.convg3_1, self.convg3_2, self.convg3_3 = _conv(two, three), _conv(three, three), _conv(three, three)
        self.convg4_1, self.convg4_2, self.convg4_3 = _conv(three, four), _conv(four, four), _conv(four, three)
        self.convgd1, self.convgd1_2 = _conv(2 * three, two), _conv(two, two)
        self.convgd2, self.convgd2_2 = _conv(2 * two, 2 * two), _conv(2 * two, STAGES * SCANS * width)
        for n in range(1, STAGES + 1):
            self.add_module(f"conv_rnn{n}", _conv(SCANS * width, width))
        self.convd1_1, self.convd1_2 = _conv(2 * width, width // 2, 9), _conv(width, 3, 5)

    def forward(self, blurred: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b 3 h w"]]:
        """Restore images of any size from 1x1 up.

        Args:
            blurred: RGB in [0, 1].

        Returns:
            The restored image, not clamped.
        """
        return self.requirements.run(self.restore, blurred)

    def restore(self, blurred: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b 3 h w"]]:
        """Restore images that meet the requirements."""
        image = blurred.mT
        full = _leaky(self.conve1_1(image))
        half = self.conve1_2(full)
        x, gates = half, self.gates(image).chunk(STAGES * SCANS, dim=1)
        for n in range(STAGES):
            # In the order of the file: rows forwards, columns forwards, rows backwards, columns backwards.
            row, column, row_back, column_back = gates[SCANS * n : SCANS * (n + 1)]
            scans = [
                linear_recurrence(x, row, 3),
                linear_recurrence(x, row_back, 3, reverse=True),
                linear_recurrence(x, column, 2),
                linear_recurrence(x, column_back, 2, reverse=True),
            ]
            x = _leaky(self.get_submodule(f"conv_rnn{n + 1}")(torch.cat(scans, dim=1)))
        x = _leaky(self.convd1_1(torch.cat([half, x], dim=1)))
        return [self.convd1_2(torch.cat([full, _doubled(x)], dim=1)).mT]

    def gates(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c h2 w2"]:
        """Return the gates of all stages and scans at half resolution, in (-1, 1)."""
        x = F.max_pool2d(_chain(image, self.convg1_1, self.convg1_2), 2)
        two = _chain(x, self.convg2_1, self.convg2_2)
        three = _chain(F.max_pool2d(two, 2), self.convg3_1, self.convg3_2)
        x = F.max_pool2d(_chain(three, self.convg3_3), 2)
        x = _chain(x, self.convg4_1, self.convg4_2, self.convg4_3)
        x = _chain(torch.cat([three, _doubled(x)], dim=1), self.convgd1, self.convgd1_2)
        x = _chain(torch.cat([two, _doubled(x)], dim=1), self.convgd2)
        return torch.tanh(self.convgd2_2(x))


def _conv(before: int, after: int, size: int = 3, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(before, after, size, stride, size // 2)


def _chain(x: Tensor, *layers: nn.Module) -> Tensor:
    for layer in layers:
        x = layer(x).relu()
    return x


def _leaky(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.1)


def _doubled(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h2 w2"]:
    # Linear, with the given values at even positions, their means between them, and 0 beyond the last one.
    for dim in (2, 3):
        following = torch.cat([x.narrow(dim, 1, x.shape[dim] - 1), torch.zeros_like(x.narrow(dim, 0, 1))], dim)
        x = torch.stack([x, (x + following) / 2], dim + 1).flatten(dim, dim + 1)
    return x
