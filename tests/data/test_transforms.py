"""Random crops: equal for all images of a sample, all 8 symmetries, determined by (seed, epoch, index)."""

from collections import Counter

import numpy as np
import pytest
import torch

from sapnet.data.samples import Sample
from sapnet.data.transforms import RandomCrops, check_crop
from sapnet.errors import UserError


class Coordinates:
    """A source whose pixels contain their coordinates, which reveal the position of a crop."""

    def __init__(self, sizes: list[tuple[int, int]], extent: bool = True):
        self.sizes, self.extent = sizes, extent

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, index: int) -> Sample:
        height, width = self.sizes[index]
        y, x = np.mgrid[:height, :width]
        picture = np.stack([y, x, np.full_like(x, index)], axis=2).astype(np.uint8)
        extent = (1000.0 * y + x).astype(np.float32) if self.extent else None
        return Sample(f"image{index}", picture, 255 - picture, extent)

    def size(self, index: int) -> tuple[int, int]:
        return self.sizes[index]

    def label(self, index: int) -> str:
        return f"folder/image{index}.png"


def rows_and_columns(item: dict) -> tuple[np.ndarray, np.ndarray]:
    levels = (item["blurred"] * 255).round().numpy().astype(int)
    return levels[0], levels[1]


def test_images_of_a_sample_have_the_same_crop_and_symmetry() -> None:
    crops = RandomCrops(Coordinates([(20, 33)]), crop=7, seed=0)
    for epoch in range(40):
        item = crops[epoch, 0]
        assert item["blurred"].shape == item["sharp"].shape == (3, 7, 7) and item["extent"].shape == (1, 7, 7)
        assert item["name"] == "image0"
        torch.testing.assert_close(item["blurred"] + item["sharp"], torch.ones(3, 7, 7))
        y, x = rows_and_columns(item)
        np.testing.assert_array_equal(item["extent"][0].numpy(), 1000.0 * y + x)


def test_all_8_symmetries_are_equally_likely() -> None:
    """If the symmetry depended on the position of the crop, some combinations would not occur."""
    crops = RandomCrops(Coordinates([(6, 5)], extent=False), crop=3, seed=1)
    seen = Counter()
    for epoch in range(2400):
        item = crops[epoch, 0]
        assert "extent" not in item
        y, x = rows_and_columns(item)
        assert sorted(set(y.ravel())) == list(range(y.min(), y.min() + 3))
        assert sorted(set(x.ravel())) == list(range(x.min(), x.min() + 3))
        step_down, step_right = (y[1, 0] - y[0, 0], x[1, 0] - x[0, 0]), (y[0, 1] - y[0, 0], x[0, 1] - x[0, 0])
        seen[int(y.min()), int(x.min()), step_down, step_right] += 1
    assert len(seen) == 4 * 3 * 8
    # 25 are expected of each: 6 standard deviations allow 55.
    assert max(seen.values()) < 55
    deviation = sum((count - 25) ** 2 / 25 for count in seen.values())
    assert deviation < 95 + 5 * np.sqrt(2 * 95)


def test_item_depends_only_on_seed_epoch_and_index() -> None:
    source = Coordinates([(20, 33)] * 3)
    crops, others = RandomCrops(source, 5, seed=0), RandomCrops(source, 5, seed=1)
    keys = [(epoch, index) for epoch in range(4) for index in range(3)]
    forwards = {key: crops[key]["blurred"] for key in keys}
    np.random.seed(7)
    torch.manual_seed(7)
    for key in reversed(keys):
        assert torch.equal(RandomCrops(source, 5, seed=0)[key]["blurred"], forwards[key])
        assert torch.equal(crops[key]["blurred"], forwards[key])
    for change in (
        [others[key]["blurred"] for key in keys],
        [crops[epoch + 4, index]["blurred"] for epoch, index in keys],
    ):
        assert sum(torch.equal(a, b) for a, b in zip(change, forwards.values(), strict=True)) <= 1


def test_crop_can_be_the_whole_image() -> None:
    crops = RandomCrops(Coordinates([(8, 8)]), crop=8, seed=0)
    y, _ = rows_and_columns(crops[0, 0])
    assert set(y.ravel()) == set(range(8))


@pytest.mark.parametrize("small", [(63, 200), (200, 63)])
def test_image_smaller_than_the_crop_is_rejected(small: tuple[int, int]) -> None:
    check_crop(Coordinates([(64, 64)]), 64)
    message = rf"folder/image1\.png is {small[1]}x{small[0]}, smaller than the crop of 64x64: set data\.crop to 63"
    with pytest.raises(UserError, match=message):
        check_crop(Coordinates([(64, 64), small]), 64)
