"""Random crops, flips and rotations by 90 degrees, independent of the number of loader processes."""

import os
import random
from typing import Any

# Without this, albumentations looks for updates on the internet when it is imported.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations as A
import numpy as np
from torch.utils.data import Dataset

from sapnet.data.samples import Item, Sample, Source
from sapnet.errors import UserError


class RandomCrops(Dataset[Item]):
    """Square random crops with one of the 8 symmetries of the square, the same for all images of a sample.

    Indexed by `(epoch, index)`. An item depends only on these two numbers and the seed, and not on the process or the
    items before it.

    Args:
        source: Samples that are not smaller than the crop (`check_crop`).
        crop: Side of the crop in pixels.
        seed: Seed of the crops.
    """

    def __init__(self, source: Source, crop: int, seed: int):
        self.source, self.crop, self.seed = source, crop, seed
        # The extent is passed as a mask: its values have no direction and are not changed by a rotation.
        self._transform = A.Compose([A.RandomCrop(crop, crop), A.D4(p=1.0)], additional_targets={"sharp": "image"})

    def __len__(self) -> int:
        """Number of samples, each of which has one crop per epoch."""
        return len(self.source)

    def __getitem__(self, key: tuple[int, int]) -> Item:
        """Return the crop of a sample for `key = (epoch, index)`."""
        epoch, index = key
        sample = self.source[index]
        # All transforms share one state: with equal seeds, the symmetry would depend on the position of the crop.
        rng = np.random.default_rng([self.seed, epoch, index])
        self._transform.set_random_state(rng, random.Random(int(rng.integers(2**63))))
        arrays: dict[str, Any] = {"image": sample.blurred, "sharp": sample.sharp}
        if sample.extent is not None:
            arrays["mask"] = sample.extent
        cut = self._transform(**arrays)
        return Sample(sample.name, cut["image"], cut["sharp"], cut.get("mask")).to_item()


def check_crop(source: Source, crop: int) -> None:
    """Check that no sample is smaller than the crop.

    Raises:
        UserError: A sample is smaller than the crop.
    """
    for index in range(len(source)):
        height, width = source.size(index)
        if min(height, width) < crop:
            raise UserError(
                f"{source.label(index)} is {width}x{height}, smaller than the crop of {crop}x{crop}:"
                f" set data.crop to {min(height, width)} or less, or remove the image."
            )
