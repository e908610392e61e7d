"""The synthetic scenes as a data set: determinism, ranges, splits, and the distribution that must not change."""

import hashlib
import itertools
import json
import random

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from sapnet.data.synthetic import SyntheticScenes
from sapnet.errors import UserError

SIZE = (64, 80)


def psnr(item: dict) -> float:
    return -10.0 * float(torch.log10(((item["blurred"] - item["sharp"]) ** 2).mean().clamp_min(1e-9)))


@pytest.fixture(scope="module")
def many() -> list[dict]:
    dataset = SyntheticScenes("train", 200, (96, 96))
    return [dataset[index] for index in range(200)]


def test_items_have_the_promised_form() -> None:
    item = SyntheticScenes("val", 13, SIZE)[12]
    assert item["name"] == "val/000012"
    for key in ("blurred", "sharp"):
        assert item[key].shape == (3, *SIZE) and item[key].dtype == torch.float32
        levels = item[key] * 255.0
        assert torch.equal(levels.round() / 255.0, item[key])
        assert item[key].min() >= 0.0 and item[key].max() <= 1.0
    assert item["extent"].shape == (1, *SIZE) and item["extent"].dtype == torch.float32
    assert torch.equal((item["extent"] * 256.0).round() / 256.0, item["extent"])


@pytest.mark.parametrize("workers", [0, 2])
def test_items_do_not_depend_on_the_workers(workers: int) -> None:
    direct = SyntheticScenes("train", 6, SIZE, seed=5)
    loaded = list(DataLoader(SyntheticScenes("train", 6, SIZE, seed=5), batch_size=2, num_workers=workers))
    for index in reversed(range(6)):
        batch, item = loaded[index // 2], direct[index]
        assert batch["name"][index % 2] == item["name"]
        for key in ("blurred", "sharp", "extent"):
            assert torch.equal(batch[key][index % 2], item[key])


def test_global_random_state_is_neither_read_nor_written() -> None:
    dataset = SyntheticScenes("train", 3, SIZE)
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    first = dataset[2]
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1]) and before[2] == random.getstate()
    torch.manual_seed(2), np.random.seed(2), random.seed(2)
    assert torch.equal(first["blurred"], dataset[2]["blurred"])


def test_count_of_scenes_does_not_change_a_scene() -> None:
    few, lots = SyntheticScenes("train", 3, SIZE), SyntheticScenes("train", 3000, SIZE)
    assert torch.equal(few[-1]["blurred"], lots[2]["blurred"])
    with pytest.raises(IndexError):
        few[3]


def test_splits_and_seeds_share_neither_paths_nor_textures() -> None:
    cameras, thumbs = set(), []
    for split, seed in (("train", 0), ("val", 0), ("test", 0), ("train", 1), ("test", 1)):
        dataset = SyntheticScenes(split, 12, (32, 32), seed)
        for index in range(12):
            cameras.add(dataset.scene(index).camera.coefficients.tobytes())
            thumbs.append(dataset[index]["sharp"].flatten())
    assert len(cameras) == 60
    distance = torch.cdist(torch.stack(thumbs), torch.stack(thumbs)) / (3 * 32 * 32) ** 0.5
    assert (distance + torch.eye(60)).min() > 0.05


def test_mean_psnr_is_that_of_real_motion_blur(many: list[dict]) -> None:
    values = np.array([psnr(item) for item in many])
    assert 23.5 < values.mean() < 26.5
    assert 3.0 < values.std() < 6.5
    assert (values < 20).mean() > 0.05 and (values > 30).mean() > 0.05


def test_many_images_hold_still_mild_and_heavy_regions(many: list[dict]) -> None:
    extents = torch.stack([item["extent"][0] for item in many]).flatten(1)
    mixed = ((extents < 1).float().mean(1) > 0.05) & ((extents > 6).float().mean(1) > 0.05)
    assert mixed.float().mean() > 0.25
    assert (extents < 1).float().mean() > 0.1 and (extents > 12).float().mean() > 0.1
    assert 20.0 < extents.quantile(0.99, dim=1).max() < 60.0


def test_error_grows_with_the_extent(many: list[dict]) -> None:
    """Where the map says still, blurred and sharp agree; where it says heavy, they do not."""
    error = torch.stack([(item["blurred"] - item["sharp"]).abs().mean(0) for item in many]).flatten()
    extent = torch.stack([item["extent"][0] for item in many]).flatten()
    steps = [error[(extent >= low) & (extent < high)].mean() for low, high in ((0, 1), (1, 4), (4, 10), (10, 99))]
    assert all(two > 1.3 * one for one, two in itertools.pairwise(steps))


def test_gamma_changes_the_blurred_image_alone() -> None:
    linear, stored = SyntheticScenes("train", 4, SIZE, gamma=2.2)[3], SyntheticScenes("train", 4, SIZE, gamma=None)[3]
    assert torch.equal(linear["sharp"], stored["sharp"]) and torch.equal(linear["extent"], stored["extent"])
    gap = 255.0 * (linear["blurred"] - stored["blurred"])
    assert gap.min() >= -1.01 and gap.max() > 5.0  # a mean in linear light is never darker


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"split": "valid"}, "train, val, test"),
        ({"scenes": 0}, "scenes is 0"),
        ({"size": (16, 64)}, "size is"),
        ({"seed": -1}, "seed is -1"),
        ({"gamma": 0.0}, "gamma is 0.0"),
    ],
)
def test_arguments_out_of_range_are_named(change: dict, word: str) -> None:
    with pytest.raises(UserError, match=word):
        SyntheticScenes(**{"split": "train", "scenes": 1, **change})


# What trained weights and results rest on: scenes that change make every number measured on them void.
FROZEN_PLANS = "fc4d593f441d5509717f8a04dd8cd042f17e8e6336cb21f4c366cc12ff1769fb"
FROZEN_BLOCKS = {  # (split, index): grey means of 4 x 4 blocks of blurred, and of the extent in 1/10 pixel
    ("train", 0): (
        [71, 47, 89, 170, 87, 85, 148, 198, 118, 122, 101, 121, 140, 118, 111, 104],
        [73, 80, 68, 41, 59, 60, 50, 39, 38, 37, 37, 36, 36, 34, 37, 34],
    ),
    ("train", 11): (
        [179, 148, 144, 134, 146, 140, 141, 163, 130, 179, 184, 120, 131, 156, 136, 95],
        [162, 171, 171, 178, 153, 165, 166, 173, 152, 164, 164, 168, 127, 129, 173, 164],
    ),
    ("val", 3): (
        [129, 106, 145, 148, 55, 73, 135, 107, 86, 87, 94, 86, 103, 87, 74, 71],
        [148, 180, 168, 179, 144, 173, 199, 203, 147, 180, 208, 222, 151, 167, 204, 226],
    ),
    ("test", 2): (
        [153, 120, 150, 146, 177, 155, 103, 134, 170, 189, 144, 130, 151, 151, 126, 145],
        [2, 44, 110, 22, 41, 118, 70, 5, 51, 158, 73, 3, 2, 12, 46, 3],
    ),
    ("test", 9): (
        [169, 152, 149, 62, 92, 109, 119, 75, 118, 109, 113, 109, 80, 80, 69, 71],
        [28, 37, 48, 35, 36, 90, 91, 45, 32, 67, 87, 62, 34, 39, 37, 41],
    ),
}


def plan_numbers(split: str, index: int) -> list:
    scene = SyntheticScenes(split, 100, (64, 64)).scene(index)
    paths = [(layer.path.coefficients, layer.share, *layer.corner, layer.image.shape) for layer in scene.layers]
    flat = np.concatenate([np.ravel(part) for path in [(scene.camera.coefficients,), *paths] for part in path])
    return [f"{number:.6e}" for number in flat + 0.0]


def blocks(image: torch.Tensor) -> list[float]:
    return torch.nn.functional.avg_pool2d(image.mean(0)[None], 16)[0].flatten().tolist()


def test_motion_of_the_scenes_is_the_frozen_one() -> None:
    numbers = [plan_numbers(split, index) for split in ("train", "val", "test") for index in range(8)]
    assert hashlib.sha256(json.dumps(numbers).encode()).hexdigest() == FROZEN_PLANS


@pytest.mark.parametrize("which", FROZEN_BLOCKS)
def test_pictures_of_the_scenes_are_the_frozen_ones(which: tuple[str, int]) -> None:
    """Coarse means with room for another OpenCV's rounding and lettering, not for other scenes."""
    item = SyntheticScenes(which[0], 100, (64, 64))[which[1]]
    blurred, extent = FROZEN_BLOCKS[which]
    assert np.abs(255.0 * np.array(blocks(item["blurred"])) - blurred).mean() < 3.0
    assert np.abs(10.0 * np.array(blocks(item["extent"])) - extent).mean() < 2.0
