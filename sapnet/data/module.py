"""The base of all data modules: a source for each split in, loaders out."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from sapnet.data.loading import ResumableLoader
from sapnet.data.samples import Cached, Item, Source, WholeImages, quiet_worker, usable_cores
from sapnet.data.transforms import RandomCrops, check_crop
from sapnet.errors import UserError

_SPLITS = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",)}


class PairData(pl.LightningDataModule, ABC):
    """Random crops for training, whole images for validation and test, from whatever `source` returns.

    A benchmark is a subclass that says where its pairs are. Batches are dictionaries: `blurred` and `sharp`
    [b, 3, h, w] in [0, 1], `name` a list of b names, and for generated scenes `extent` [b, 1, h, w] in pixels.

    Args:
        name: What results and tables call the data.
        crop: Side of the square training crops in pixels.
        batch: Training crops in a batch, on each device.
        seed: Start of the order and the crops; which pairs are held out does not depend on it.
        workers: Loader processes; by default one a core, four at most.
        eval_batch: Whole images in a batch; 1 is used wherever sizes differ.
        cache: Hold all samples in memory, made once before the first batch.
    """

    protocol = "standard"
    """How results are measured: `standard`, or `realblur` (registered first)."""

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
        """Samples of `train`, `val` or `test`; None where validation is switched off.

        Raises:
            UserError: the split cannot be found or read.
        """

    @property
    def remarks(self) -> dict[str, str]:
        """What a result on the test images has to say beside the data's name; known once they are set up."""
        return {}

    @property
    def test_arguments(self) -> dict[str, Any]:
        """What tells these test images from others that go by the same name, as plain values."""
        return {}

    def setup(self, stage: str) -> None:
        """Find and check the pairs that a stage (`fit`, `validate`, `test`) needs; later calls are free.

        Raises:
            UserError: a split is missing, or its files are unusable, or smaller than the crop.
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
        """Endless stream of crops in passes of one epoch, resumable anywhere.

        With the trainer's `overfit_batches` set it is the same crops in each pass.
        """
        crops = RandomCrops(self._present("train"), self.crop, self.seed)
        if self.trainer and getattr(self.trainer, "overfit_batches", 0):
            return DataLoader(crops, self.batch, sampler=[(0, index) for index in range(len(crops))])
        rank, ranks = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        self._train_loader = ResumableLoader(crops, self.batch, self.seed, self.workers, rank, ranks)
        if self._resume_from:
            self._train_loader.load_state_dict(self._resume_from)
            self._resume_from = {}
        return self._train_loader

    def teardown(self, stage: str) -> None:
        """End the loader processes of training."""
        if self._train_loader:
            self._train_loader.close()

    def state_dict(self) -> dict[str, int]:
        """Position of the training stream, for a checkpoint.

        Lightning restores a loader's own state in the middle of an epoch but not from a checkpoint made at its end.
        """
        return self._train_loader.state_dict() if self._train_loader else {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Position to start the next training loader at."""
        self._resume_from = dict(state)

    def check_position(self, state: Mapping[str, int]) -> None:
        """Check that the position of a checkpoint was counted in as many training images as `setup` has found.

        Raises:
            UserError: It was not.
        """
        samples = len(self._present("train"))
        if state.get("samples", samples) != samples:
            raise UserError(
                f"the checkpoint was trained on {state['samples']} images and data.train holds {samples}: to train on"
                " other data, start a new training with init_from=CHECKPOINT in another run folder."
            )

    def val_dataloader(self) -> DataLoader[Item] | list:
        """Whole validation images in the order of their names; an empty list where validation is off."""
        return self._whole("val") if self._sources["val"] is not None else []

    def test_dataloader(self) -> DataLoader[Item]:
        """Whole test images in the order of their names."""
        return self._whole("test")

    def whole_images(self, split: str) -> WholeImages:
        """Items of a split that `setup` has found, one whole image at a time, in the order of their names."""
        return WholeImages(self._present(split))

    def _present(self, split: str) -> Source:
        source = self._sources[split]
        if source is None:
            raise ValueError(f"{self.name} has no images for {split}")
        return source

    def _whole(self, split: str) -> DataLoader[Item]:
        source = self._present(split)
        one_size = len({source.size(index) for index in range(len(source))}) == 1
        return DataLoader(
            WholeImages(source),
            batch_size=self.eval_batch if one_size else 1,
            num_workers=self.workers,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=quiet_worker,
            generator=torch.Generator(),
        )
