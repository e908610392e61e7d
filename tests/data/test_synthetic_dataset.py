"""Synthetic scenes: determinism, value ranges, splits, and hashes of the frozen distribution."""

import hashlib
import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import sapnet.data.synthetic
from sapnet.data.synthetic import SyntheticScenes
from sapnet.data.synthetic.distributions import DISTRIBUTIONS
from sapnet.data.synthetic.scenes import Scene
from sapnet.errors import UserError

SIZE = (64, 80)
IMAGES = ("blurred", "sharp", "extent")


@pytest.fixture(scope="module")
def scenes() -> Callable[..., SyntheticScenes]:
    """Function that creates a data set of small scenes with default arguments."""

    def make(count: int = 3, split: str = "train", size: tuple[int, int] = SIZE, **settings: Any) -> SyntheticScenes:
        return SyntheticScenes(split, count, size, **settings)

    return make


def seed_all(seed: int) -> None:
    torch.manual_seed(seed), np.random.seed(seed), random.seed(seed)


def test_items_have_the_documented_form(scenes: Callable) -> None:
    item = scenes(13, "val")[12]
    assert item["name"] == "val/000012"
    for key in ("blurred", "sharp"):
        assert item[key].shape == (3, *SIZE) and item[key].dtype == torch.float32
        levels = item[key] * 255.0
        assert torch.equal(levels.round() / 255.0, item[key])
        assert item[key].min() >= 0.0 and item[key].max() <= 1.0
    assert item["extent"].shape == (1, *SIZE) and item["extent"].dtype == torch.float32
    assert torch.equal((item["extent"] * 256.0).round() / 256.0, item["extent"])


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("workers", [0, 2])
def test_items_do_not_depend_on_the_workers(workers: int, distribution: str, scenes: Callable) -> None:
    direct, dataset = (scenes(6, seed=5, distribution=distribution) for _ in range(2))
    loaded = list(DataLoader(dataset, batch_size=2, num_workers=workers))
    for index in reversed(range(6)):
        batch, item = loaded[index // 2], direct[index]
        assert batch["name"][index % 2] == item["name"]
        for key in IMAGES:
            assert torch.equal(batch[key][index % 2], item[key])


def test_global_random_state_is_neither_read_nor_written(scenes: Callable) -> None:
    dataset = scenes()
    seed_all(1)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    first = dataset[2]
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])
    # The run-time type checks of the tests draw from `random`, so its state cannot be compared.
    sources = Path(sapnet.data.synthetic.__file__).parent.glob("*.py")
    assert not any(re.search(r"^(import|from) random\b", path.read_text(), re.MULTILINE) for path in sources)
    seed_all(2)
    assert torch.equal(first["blurred"], dataset[2]["blurred"])


def test_scene_does_not_depend_on_the_number_of_scenes(scenes: Callable) -> None:
    few, lots = scenes(3), scenes(3000)
    assert torch.equal(few[-1]["blurred"], lots[2]["blurred"])
    with pytest.raises(IndexError):
        few[3]


def test_splits_and_seeds_share_neither_paths_nor_textures(scenes: Callable) -> None:
    cameras, thumbs = set(), []
    for split, seed in (("train", 0), ("val", 0), ("test", 0), ("train", 1), ("test", 1)):
        dataset = scenes(12, split, (32, 32), seed=seed)
        for index in range(12):
            cameras.add(dataset.scene(index).camera.coefficients.tobytes())
            thumbs.append(dataset[index]["sharp"].flatten())
    assert len(cameras) == 60
    distance = torch.cdist(torch.stack(thumbs), torch.stack(thumbs)) / (3 * 32 * 32) ** 0.5
    assert (distance + torch.eye(60)).min() > 0.05


def test_gamma_changes_only_the_blurred_image(scenes: Callable) -> None:
    linear, stored = (scenes(4, gamma=gamma)[3] for gamma in (2.2, None))
    assert torch.equal(linear["sharp"], stored["sharp"]) and torch.equal(linear["extent"], stored["extent"])
    gap = 255.0 * (linear["blurred"] - stored["blurred"])
    assert gap.min() >= -1.01 and gap.max() > 5.0  # a mean in linear light is never darker


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split": "valid"}, "train, val, test"),
        ({"count": 0}, "scenes is 0"),
        ({"size": (16, 64)}, "size is"),
        ({"seed": -1}, "seed is -1"),
        ({"gamma": 0.0}, "gamma is 0.0"),
        ({"distribution": "local"}, "distribution is 'local': choose one of synthetic, synthetic_local"),
    ],
)
def test_arguments_out_of_range_are_rejected(change: dict, message: str, scenes: Callable) -> None:
    with pytest.raises(UserError, match=message):
        scenes(**change)


# What trained weights and results rest on: scenes that change make every number measured on them void.
FROZEN_PLANS = {
    "synthetic": "392e51625ff5ab16f1cdcb3bbfb419a20d7b178aa9a89e5fa7fd37af8fa439e8",
    "synthetic_local": "633aab0fb674dd4f1ea7621bed3eb449b1b5b3a5ad3bcde2467923120069a4a4",
}
FROZEN_BLOCKS = {  # by distribution, split, index: grey means of 4 x 4 blocks of blurred, extent in 1/10 pixel
    ("synthetic", "train", 0): (
        [151, 180, 173, 168, 167, 190, 180, 164, 146, 138, 143, 176, 121, 114, 136, 120],
        [48, 59, 24, 24, 44, 49, 29, 25, 39, 38, 24, 31, 26, 26, 28, 21],
    ),
    ("synthetic", "train", 11): (
        [173, 165, 176, 142, 166, 130, 124, 182, 174, 177, 193, 198, 68, 128, 192, 183],
        [2, 2, 5, 2, 40, 27, 18, 2, 27, 15, 7, 6, 5, 12, 31, 63],
    ),
    ("synthetic", "val", 3): (
        [55, 127, 67, 13, 52, 120, 106, 83, 91, 118, 114, 169, 115, 134, 122, 136],
        [6, 8, 2, 1, 14, 26, 6, 1, 6, 31, 27, 10, 2, 55, 57, 24],
    ),
    ("synthetic", "test", 2): (
        [161, 145, 147, 149, 127, 137, 132, 123, 155, 120, 123, 127, 151, 167, 103, 112],
        [2, 3, 6, 3, 3, 11, 3, 3, 4, 28, 13, 10, 2, 21, 25, 22],
    ),
    ("synthetic", "test", 9): (
        [179, 111, 45, 24, 107, 55, 53, 29, 105, 53, 88, 134, 142, 99, 175, 121],
        [33, 30, 31, 44, 25, 24, 29, 38, 24, 25, 29, 34, 22, 22, 58, 36],
    ),
    ("synthetic_local", "train", 0): (
        [173, 193, 208, 165, 163, 183, 178, 152, 173, 205, 159, 146, 191, 206, 103, 127],
        [0, 0, 23, 33, 0, 0, 22, 43, 0, 0, 10, 21, 0, 0, 0, 0],
    ),
    ("synthetic_local", "val", 3): (
        [67, 69, 191, 164, 118, 126, 150, 145, 154, 154, 178, 164, 130, 107, 132, 96],
        [8, 4, 26, 1, 14, 7, 9, 27, 8, 0, 0, 14, 20, 9, 0, 0],
    ),
    ("synthetic_local", "test", 9): (
        [179, 200, 149, 122, 149, 214, 134, 197, 148, 188, 92, 64, 84, 82, 94, 73],
        [0, 0, 14, 27, 0, 0, 21, 31, 0, 0, 17, 11, 0, 0, 0, 11],
    ),
}


def plan_numbers(scene: Scene) -> list[str]:
    paths = [(layer.path.coefficients, layer.share, *layer.corner, layer.image.shape) for layer in scene.layers]
    flat = np.concatenate([np.ravel(part) for path in [(scene.camera.coefficients,), *paths] for part in path])
    return [f"{number:.6e}" for number in flat + 0.0]


def blocks(image: torch.Tensor) -> list[float]:
    return torch.nn.functional.avg_pool2d(image.mean(0)[None], 16)[0].flatten().tolist()


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_motion_of_the_scenes_has_not_changed(distribution: str, scenes: Callable) -> None:
    sets = [scenes(100, split, (64, 64), distribution=distribution) for split in ("train", "val", "test")]
    numbers = [plan_numbers(dataset.scene(index)) for dataset in sets for index in range(8)]
    assert hashlib.sha256(json.dumps(numbers).encode()).hexdigest() == FROZEN_PLANS[distribution]


@pytest.mark.parametrize("which", FROZEN_BLOCKS)
def test_images_of_the_scenes_have_not_changed(which: tuple[str, str, int], scenes: Callable) -> None:
    """Coarse means with a tolerance for rounding and fonts of other OpenCV versions."""
    distribution, split, index = which
    item = scenes(100, split, (64, 64), distribution=distribution)[index]
    blurred, extent = FROZEN_BLOCKS[which]
    assert np.abs(255.0 * np.array(blocks(item["blurred"])) - blurred).mean() < 3.0
    assert np.abs(10.0 * np.array(blocks(item["extent"])) - extent).mean() < 2.0
