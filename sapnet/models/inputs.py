"""What a network requires of its input: image size, padding and range of values."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from sapnet.layers.padding import crop_to


@dataclass(frozen=True)
class InputRequirements:
    """Sizes and values of the images that a network processes, and how an image is made to meet them.

    Values are converted first and padding is added afterwards, so that zeros are zeros of the network's range.

    Attributes:
        multiple: Height and width are multiples of this number of pixels.
        padding: Values outside the image: `replicate` repeats the border, `reflect` mirrors at the border pixels,
            `zeros` is 0 in the network's range.
        centred: Whether padding is added on all sides, with the odd pixel at the bottom and right; otherwise at the
            bottom and right alone.
        square: Whether height and width are equal.
        always_padded: Whether a size that is a multiple already grows to the next one.
        black: Value of 0 in the network's range.
        white: Value of 1 in the network's range.
        minimum: Height and width are at least this number of pixels, a multiple.
    """

    multiple: int = 1
    padding: Literal["replicate", "reflect", "zeros"] = "replicate"
    centred: bool = False
    square: bool = False
    always_padded: bool = False
    black: float = 0.0
    white: float = 1.0
    minimum: int = 1

    def __str__(self) -> str:
        size = f"{'square, ' if self.square else ''}multiples of {self.multiple}"
        size += " that exceed the size" if self.always_padded else ""
        size += f", at least {self.minimum}" if self.minimum > 1 else ""
        where = "on all sides" if self.centred else "at the bottom and right"
        return f"{size}; {self.padding} {where}; values {self.black:g} to {self.white:g}"

    def padded_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the size to which an image is padded."""
        height, width = height + self._missing(height), width + self._missing(width)
        side = max(height, width)
        return (side, side) if self.square else (height, width)

    def _missing(self, size: int) -> int:
        missing = self.multiple - size % self.multiple if self.always_padded else -size % self.multiple
        return max(missing, self.minimum - size)

    def to_range(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """Convert an image from [0, 1] to the network's range."""
        if (self.black, self.white) == (0, 1):
            return image
        return image * (self.white - self.black) + self.black

    def from_range(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """Convert an image from the network's range to [0, 1]."""
        if (self.black, self.white) == (0, 1):
            return image
        return (image - self.black) / (self.white - self.black)

    def pad(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h2 w2"]:
        """Pad an image in the network's range; any size from 1x1 up."""
        height, width = image.shape[-2:]
        (top, bottom), (left, right) = self._margins(height, width)
        if not any((top, bottom, left, right)):
            return image
        if self.padding != "reflect":
            return F.pad(image, (left, right, top, bottom), mode="constant" if self.padding == "zeros" else "replicate")
        # Unlike `F.pad`, which adds less than the size of the image.
        rows = _mirrored_positions(height, top, bottom, image.device)
        return image[..., rows, :][..., _mirrored_positions(width, left, right, image.device)]

    def _margins(self, height: int, width: int) -> list[tuple[int, int]]:
        sizes = zip((height, width), self.padded_size(height, width), strict=True)
        before = [(padded - size, (padded - size) // 2 if self.centred else 0) for size, padded in sizes]
        return [(first, margin - first) for margin, first in before]

    def run(
        self,
        restore: Callable[[Tensor], Sequence[Tensor]],
        blurred: Float[Tensor, "b 3 h w"],
        keep_scales: bool = False,
    ) -> list[Tensor]:
        """Restore images in [0, 1] of any size from 1x1 up with a function that has these requirements.

        Args:
            restore: Maps images that meet the requirements to outputs in the network's range, the result last. Outputs
                of a coarser scale are smaller by a whole factor.
            blurred: RGB in [0, 1].
            keep_scales: Whether coarse outputs keep their size, for losses at each scale (height and width are rounded
                up). Otherwise they are enlarged to the size of the image.

        Returns:
            The outputs in [0, 1], not clamped.
        """
        height, width = blurred.shape[-2:]
        padded = self.pad(self.to_range(blurred))
        (top, _), (left, _) = self._margins(height, width)
        images = []
        for output in restore(padded):
            factor = padded.shape[-2] // output.shape[-2]
            if factor > 1 and not keep_scales:
                output, factor = F.interpolate(output, size=padded.shape[-2:], mode="bilinear"), 1
            inside = output[..., top // factor :, left // factor :]
            images.append(self.from_range(crop_to(inside, -(-height // factor), -(-width // factor))))
        return images


def _mirrored_positions(size: int, before: int, after: int, device: torch.device) -> Int64[Tensor, "_"]:
    # Positions in a line of `size` pixels that continues in both directions as its own mirror image.
    positions = torch.arange(-before, size + after, device=device).abs() % max(2 * (size - 1), 1)
    return torch.minimum(positions, (2 * (size - 1) - positions).abs())
