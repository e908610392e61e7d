"""Random crops, flips and quarter turns of pairs, reproducible whatever the number of loader processes."""

import os
import random
from typing import Any

# albumentations asks the network for its newest version when it is imported.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations as A
import numpy as np
from torch.utils.data import Dataset

from sapnet.data.samples import Item, Sample, Source
from sapnet.errors import UserError


class RandomCrops(Dataset[Item]):
    """Square crops of a source, turned and mirrored: one of the 8 symmetries of the square, the same for every image.

    Indexed by `(epoch, index)`: the crop of sample `index` is a function of the seed and these two numbers, so an item
    does not depend on which process makes it, nor on what was made before.

    Args:
        source: Samples at full size, none smaller than the crop: see `check_crop`.
        crop: Side of the crop in pixels.
        seed: Start of the random numbers.
    """

    def __init__(self, source: Source, crop: int, seed: int):
        self.source, self.crop, self.seed = source, crop, seed
        # An extent is a length in pixels without direction, so turning the picture leaves its values alone: a mask.
        self._transform = A.Compose([A.RandomCrop(crop, crop), A.D4(p=1.0)], additional_targets={"sharp": "image"})

    def __len__(self) -> int:
        """Count of samples; each has one crop in an epoch."""
        return len(self.source)

    def __getitem__(self, key: tuple[int, int]) -> Item:
        """Crop of sample `index` in `epoch`, for `key = (epoch, index)`."""
        epoch, index = key
        sample = self.source[index]
        # One state for all steps: seeded apart, the turn would be a function of the crop's position.
        numbers = np.random.default_rng([self.seed, epoch, index])
        self._transform.set_random_state(numbers, random.Random(int(numbers.integers(2**63))))
        arrays: dict[str, Any] = {"image": sample.blurred, "sharp": sample.sharp}
        if sample.extent is not None:
            arrays["mask"] = sample.extent
        cut = self._transform(**arrays)
        return Sample(sample.name, cut["image"], cut["sharp"], cut.get("mask")).to_item()


def check_crop(source: Source, crop: int) -> None:
    """Refuse samples that are smaller than the crop, before training starts.

    Raises:
        UserError: naming the first such sample, its size and the crop.
    """
    for index in range(len(source)):
        height, width = source.size(index)
        if min(height, width) < crop:
            raise UserError(
                f"{source.label(index)} is {width}x{height}, smaller than the crop of {crop}x{crop}:"
                f" set data.crop to {min(height, width)} or less, or remove the image."
            )
