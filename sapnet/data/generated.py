"""The embedded data as a data module: nothing to download, nothing to configure."""

from typing import Any

from sapnet.data.images import to_array
from sapnet.data.module import PairData
from sapnet.data.samples import Sample, Source
from sapnet.data.stored import StoredScenes
from sapnet.data.synthetic import SyntheticScenes


class SyntheticData(PairData):
    """Procedural dynamic scenes with the true extent of the blur; training crops are cut from scenes made once.

    Args:
        train: Training scenes.
        val: Validation scenes.
        test: Test scenes.
        size: Side of a square scene in pixels.
        gamma: Sub-frames are averaged under this exponent (GoPro's `blur_gamma`), or as stored if None (its `blur`).
        distribution: What moves: "synthetic" (camera and objects) or "synthetic_local" (objects before a still camera).
        scene_seed: Start of the scenes' random numbers: another value is another data set.
        name: What results and tables call the data.
        crop: Side of the square training crops in pixels.
        batch: Training crops in a batch, on each device.
        seed: Start of the order and the crops.
        workers: Loader processes; cutting a crop out of memory takes less than passing it between processes.
        eval_batch: Whole scenes in a batch.
        cache: Hold the scenes in memory; without, each is made again for every crop.
        store: Folder in which made scenes are kept for further runs; None: they are made in each run.
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
        # What is stored is in memory already.
        super().__init__(name, crop, batch, seed, workers, eval_batch, cache and store is None)
        self.store = store
        self.scenes = {"train": train, "val": val, "test": test}
        self.size, self.gamma, self.scene_seed, self.distribution = size, gamma, scene_seed, distribution

    @property
    def test_arguments(self) -> dict[str, Any]:
        """Number, size and distribution of the test scenes, and what they start from."""
        return {
            "distribution": self.distribution,
            "scenes": self.scenes["test"],
            "size": self.size,
            "gamma": self.gamma,
            "scene_seed": self.scene_seed,
        }

    def source(self, split: str) -> Source:
        """Scenes of `train`, `val` or `test`, no two from the same random numbers."""
        size = (self.size, self.size)
        count, seed = self.scenes[split], self.scene_seed
        scenes = Scenes(SyntheticScenes(split, count, size, seed, self.gamma, self.distribution))
        if self.store is None:
            return scenes
        key = (self.distribution, split, count, size, seed, self.gamma)
        return StoredScenes(scenes, self.store, key, f"{self.name}: {split}")


class Scenes:
    """Samples of generated scenes, whose values are those of 8-bit images already."""

    def __init__(self, scenes: SyntheticScenes):
        self.scenes = scenes

    def __len__(self) -> int:
        """Count of scenes."""
        return len(self.scenes)

    def __getitem__(self, index: int) -> Sample:
        """Scene `index`."""
        item = self.scenes[index]
        return Sample(item["name"], to_array(item["blurred"]), to_array(item["sharp"]), item["extent"][0].numpy())

    def size(self, index: int) -> tuple[int, int]:
        """Height and width of a scene."""
        return self.scenes.size

    def label(self, index: int) -> str:
        """Name of scene `index`."""
        return self.scenes.name(index)
