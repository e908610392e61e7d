"""Base class of the data modules: loaders for the samples of each split."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from sapnet.data.loading import ResumableLoader
from sapnet.data.samples import Cached, Item, Source, WholeImages, init_worker, usable_cores
from sapnet.data.transforms import RandomCrops, check_crop
from sapnet.errors import UserError

_SPLITS = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",), "predict": ("test",)}


class PairData(pl.LightningDataModule, ABC):
    """Data module with random crops for training and whole images for validation and test.

    Subclasses implement `source`. A batch is a dictionary: `blurred` and `sharp` [b, 3, h, w] in [0, 1], a list `name`,
    and for synthetic scenes `extent` [b, 1, h, w] in pixels.

    Args:
        name: Name of the data in results and tables.
        crop: Side of the square training crops in pixels.
        batch: Number of training crops per batch and device.
        seed: Seed of the order and the crops; the held-out pairs do not depend on it.
        workers: Number of loader processes; by default one per core, at most four.
        eval_batch: Number of whole images per batch, if all images have the same size; otherwise 1.
        cache: Whether to hold all samples in memory, loaded before the first batch.
    """

    protocol = "standard"
    """Evaluation protocol: `standard`, or `realblur` (with registration)."""

    def __init__(
        self,
        name: str,
        crop: int,
        batch: int,
        seed: int = 0,
        workers: int | None = None,
        eval_batch: int = 1,
        cache: bool = False,
    ):
        super().__init__()
        self.name, self.crop, self.batch, self.seed = name, crop, batch, seed
        self.workers = min(4, usable_cores()) if workers is None else workers
        self.eval_batch, self.cache = eval_batch, cache
        self._sources: dict[str, Source | None] = {}
        self._train_loader: ResumableLoader | None = None
        self._resume_from: dict[str, int] = {}

    @abstractmethod
    def source(self, split: str) -> Source | None:
        """Return the samples of `train`, `val` or `test`, or None for `val` if there is no validation.

        Raises:
            UserError: The split cannot be found or read.
        """

    @property
    def remarks(self) -> dict[str, str]:
        """Properties of the test images that results have to mention; available after `setup`."""
        return {}

    @property
    def test_arguments(self) -> dict[str, Any]:
        """Values that distinguish the test images from others of the same name."""
        return {}

    def setup(self, stage: str) -> None:
        """Find and check the pairs for a stage (`fit`, `validate`, `test` or `predict`); repeated calls do nothing.

        Raises:
            UserError: A split is missing, or its files are unusable or smaller than the crop.
        """
        for split in _SPLITS[stage]:
            if split not in self._sources:
                source = self.source(split)
                if split == "train" and source is not None:
                    check_crop(source, self.crop)
                if source is not None and self.cache:
                    source = Cached(source, usable_cores(), f"{self.name}: {split}")
                self._sources[split] = source

    def train_dataloader(self) -> ResumableLoader | DataLoader[Item]:
        """Return the resumable loader of training crops; with `overfit_batches`, a loader of the same crops."""
        crops = RandomCrops(self._require("train"), self.crop, self.seed)
        if self.trainer and getattr(self.trainer, "overfit_batches", 0):
            return DataLoader(crops, self.batch, sampler=[(0, index) for index in range(len(crops))])
        rank, ranks = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        self._train_loader = ResumableLoader(crops, self.batch, self.seed, self.workers, rank, ranks)
        if self._resume_from:
            self._train_loader.load_state_dict(self._resume_from)
            self._resume_from = {}
        return self._train_loader

    def teardown(self, stage: str) -> None:
        """Stop the loader processes of training."""
        if self._train_loader:
            self._train_loader.close()

    def state_dict(self) -> dict[str, int]:
        """Return the position of the training loader.

        Lightning restores the state of a loader in the middle of an epoch, but not from a checkpoint at its end.
        """
        return self._train_loader.state_dict() if self._train_loader else {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Set the position of the next training loader."""
        self._resume_from = dict(state)

    def check_position(self, state: Mapping[str, int]) -> None:
        """Check that a position refers to the number of training images found by `setup`.

        Raises:
            UserError: The numbers differ.
        """
        samples = len(self._require("train"))
        if state.get("samples", samples) != samples:
            raise UserError(
                f"the checkpoint was trained on {state['samples']} images and data.train has {samples}: to train on"
                " other data, start a new training with init_from=CHECKPOINT in another run folder."
            )

    def val_dataloader(self) -> DataLoader[Item] | list:
        """Return the loader of whole validation images sorted by name; an empty list disables validation."""
        return self._whole("val") if self._sources["val"] is not None else []

    def test_dataloader(self) -> DataLoader[Item]:
        """Return the loader of whole test images sorted by name."""
        return self._whole("test")

    def predict_dataloader(self) -> DataLoader[Item]:
        """Return the loader of the test images."""
        return self._whole("test")

    def whole_images(self, split: str) -> WholeImages:
        """Return the whole images of a split found by `setup`, sorted by name."""
        return WholeImages(self._require(split))

    def _require(self, split: str) -> Source:
        source = self._sources[split]
        if source is None:
            raise ValueError(f"{self.name} has no images for {split}")
        return source

    def _whole(self, split: str) -> DataLoader[Item]:
        source = self._require(split)
        one_size = len({source.size(index) for index in range(len(source))}) == 1
        return DataLoader(
            WholeImages(source),
            batch_size=self.eval_batch if one_size else 1,
            num_workers=self.workers,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=init_worker,
            generator=torch.Generator(),
        )
