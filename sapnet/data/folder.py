"""Pairs of images in folders of the user."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.utilities import rank_zero_info

from sapnet.data.module import PairData
from sapnet.data.pairs import Pair, find_pairs, has_split, hold_out, pair_folders
from sapnet.data.samples import PairFiles
from sapnet.errors import UserError

Folders = Mapping[str, str | None]
"""Folders `blurred` and `sharp` with the same file names; None if not set."""


class FolderData(PairData):
    """Blurred and sharp images: a data set in a known layout below `root`, or two folders for each split.

    Validation uses the `val` folders if they exist. Otherwise a share of the training sequences is held out. Only the
    splits that a command needs have to exist.

    Args:
        root: Folder with `train` and `test` (and optionally `val`) in one of the layouts of `find_pairs`.
        train: Folders of the training images, used instead of `root`.
        val: Folders of the validation images, used instead of `root`.
        test: Folders of the test images, used instead of `root`.
        blur: Name of the folders of blurred images if a sequence has several (`blur` or `blur_gamma`).
        val_share: Share of the training sequences held out for validation; 0 disables validation.
        name: Name of the data in results and tables.
        crop: Side of the square training crops in pixels.
        batch: Number of training crops per batch and device.
        seed: Seed of the order and the crops.
        workers: Number of loader processes; by default one per core, at most four.
        eval_batch: Number of whole images per batch, if all images have the same size; otherwise 1.
        cache: Whether to hold all decoded images in memory (a 1280x720 pair takes 5.5 MB).
        validate_on_test: Whether to validate, and select the best checkpoint, on the test images, as many papers do.
            Nothing is held out then, and all results contain a remark.
    """

    def __init__(
        self,
        root: str | Path | None = None,
        train: Folders | None = None,
        val: Folders | None = None,
        test: Folders | None = None,
        blur: str | None = None,
        val_share: float = 0.05,
        name: str = "folder",
        crop: int = 256,
        batch: int = 6,
        seed: int = 0,
        workers: int | None = None,
        eval_batch: int = 1,
        cache: bool = False,
        validate_on_test: bool = False,
    ):
        super().__init__(name, crop, batch, seed, workers, eval_batch, cache)
        if not 0 <= val_share < 1:
            raise UserError(f"data.val_share is {val_share}: choose a share from 0 to below 1.")
        self.root, self.blur, self.val_share, self.validate_on_test = root, blur, val_share, validate_on_test
        self.folders = {"train": train or {}, "val": val or {}, "test": test or {}}

    def source(self, split: str) -> PairFiles | None:
        """Return the pairs of `train`, `val` or `test`, or None for `val` if there is no validation.

        Raises:
            UserError: No folder is configured, the pairs cannot be found, or the images of a pair differ in size.
        """
        if split == "val" and self.validate_on_test:
            pairs = self.find("test")
            rank_zero_info(f"{self.name}: validating on the test images, which is recorded in all results")
        elif split == "test" or self.validate_on_test or self._has_own("val"):
            pairs = self.find(split)
        elif self.val_share == 0:
            pairs = self.find("train") if split == "train" else None
        else:
            kept, held = hold_out(self.find("train"), self.val_share)
            pairs = kept if split == "train" else held
            if split == "val":
                scenes = sorted({pair.sequence or "the only sequence" for pair in held})
                rank_zero_info(f"{self.name}: validating on {len(held)} training pairs, held out: {', '.join(scenes)}")
        if pairs is None:
            return None
        rank_zero_info(f"{self.name}: {len(pairs)} pairs for {split}, blurred as {pairs[0].blurred}")
        return PairFiles(pairs)

    @property
    def remarks(self) -> dict[str, str]:
        """Kind of blur if selected, and whether the test images are used for validation."""
        kind = {} if self.blur is None else {"blur": self.blur}
        return kind | ({"validated_on": "test"} if self.validate_on_test else {})

    @property
    def test_arguments(self) -> dict[str, Any]:
        """Folders of the test images."""
        folders = {kind: folder for kind, folder in self.folders["test"].items() if folder} or {"root": self.root}
        return {kind: str(Path(folder).resolve()) for kind, folder in folders.items() if folder}

    def find(self, split: str) -> list[Pair]:
        """Return all pairs of a split on disk, before some are held out.

        Raises:
            UserError: No folder is configured, or the pairs cannot be found.
        """
        folders = self.folders[split]
        blurred, sharp = folders.get("blurred"), folders.get("sharp")
        if blurred and sharp:
            return pair_folders(blurred, sharp)
        for here, missing in (("blurred", "sharp"), ("sharp", "blurred")):
            if folders.get(here):
                raise UserError(f"data.{split}.{here} is set without data.{split}.{missing}: set both.")
        if self.root is None:
            raise UserError(
                f"no folder of {split} images is set: set data.root=FOLDER (with a folder {split}), or"
                f" data.{split}.blurred=FOLDER and data.{split}.sharp=FOLDER."
            )
        return find_pairs(self.root, split, self.blur)

    def _has_own(self, split: str) -> bool:
        return any(self.folders[split].values()) or (self.root is not None and has_split(self.root, split))
