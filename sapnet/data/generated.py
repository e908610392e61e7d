"""Data module of the synthetic scenes, which need no download."""

from typing import Any

from sapnet.data.images import to_array
from sapnet.data.module import PairData
from sapnet.data.samples import Sample, Source
from sapnet.data.scene_store import StoredScenes
from sapnet.data.synthetic import SyntheticScenes


class SyntheticData(PairData):
    """Procedural dynamic scenes with the true extent of the blur.

    Args:
        train: Number of training scenes.
        val: Number of validation scenes.
        test: Number of test scenes.
        size: Side of the square scenes in pixels.
        gamma: Exponent under which sub-frames are averaged in linear light (GoPro's `blur_gamma`); None averages the
            stored values (GoPro's `blur`).
        distribution: "synthetic" (camera and objects move) or "synthetic_local" (objects move before a still camera).
        scene_seed: Seed of the scenes; each value is a different data set.
        name: Name of the data in results and tables.
        crop: Side of the square training crops in pixels.
        batch: Number of training crops per batch and device.
        seed: Seed of the order and the crops.
        workers: Number of loader processes. Cutting a crop in memory is faster than passing it between processes.
        eval_batch: Number of whole scenes per batch.
        cache: Whether to hold the scenes in memory; otherwise a scene is rendered again for every crop.
        store: Folder of scenes shared by several runs (`StoredScenes`); None renders them in each run.
    """

    def __init__(
        self,
        train: int = 512,
        val: int = 24,
        test: int = 40,
        size: int = 128,
        gamma: float | None = 2.2,
        scene_seed: int = 0,
        name: str = "synthetic",
        crop: int = 64,
        batch: int = 8,
        seed: int = 0,
        workers: int = 0,
        eval_batch: int = 8,
        cache: bool = True,
        distribution: str = "synthetic",
        store: str | None = None,
    ):
        # Stored scenes are already in memory.
        super().__init__(name, crop, batch, seed, workers, eval_batch, cache and store is None)
        self.store = store
        self.scenes = {"train": train, "val": val, "test": test}
        self.size, self.gamma, self.scene_seed, self.distribution = size, gamma, scene_seed, distribution

    @property
    def test_arguments(self) -> dict[str, Any]:
        """Number, size, distribution and seed of the test scenes."""
        return {
            "distribution": self.distribution,
            "scenes": self.scenes["test"],
            "size": self.size,
            "gamma": self.gamma,
            "scene_seed": self.scene_seed,
        }

    def source(self, split: str) -> Source:
        """Return the scenes of `train`, `val` or `test`, which have separate random streams."""
        size = (self.size, self.size)
        count, seed = self.scenes[split], self.scene_seed
        scenes = Scenes(SyntheticScenes(split, count, size, seed, self.gamma, self.distribution))
        if self.store is None:
            return scenes
        key = (self.distribution, split, count, size, seed, self.gamma)
        return StoredScenes(scenes, self.store, key, f"{self.name}: {split}")


class Scenes:
    """Synthetic scenes as samples."""

    def __init__(self, scenes: SyntheticScenes):
        self.scenes = scenes

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, index: int) -> Sample:
        item = self.scenes[index]
        return Sample(item["name"], to_array(item["blurred"]), to_array(item["sharp"]), item["extent"][0].numpy())

    def size(self, index: int) -> tuple[int, int]:
        return self.scenes.size

    def label(self, index: int) -> str:
        return self.scenes.name(index)
