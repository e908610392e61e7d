"""Pairs in the user's own folders."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.utilities import rank_zero_info

from sapnet.data.module import PairData
from sapnet.data.pairs import Pair, find_pairs, has_split, hold_out, pair_folders
from sapnet.data.samples import PairFiles
from sapnet.errors import UserError

Folders = Mapping[str, str | None]
"""`blurred` and `sharp`: two folders with equal file names. Either may be None, for not given."""


class FolderData(PairData):
    """Any blurred/sharp folders: a data set in a known layout below `root`, or two folders for each split.

    Validation reads the `val` folders where they are given or found, and otherwise a share of the training sequences
    that is then not trained on. Only the splits that a command needs have to exist.

    Args:
        root: Folder with `train` and `test` (and `val`) in the GoPro, REDS or plain layout, see `find_pairs`.
        train: Folders of the training images; goes before `root`, as do the next two.
        val: Folders of the validation images.
        test: Folders of the test images.
        blur: Name of the blurred folders where a sequence has several (`blur` or `blur_gamma`).
        val_share: Share of the training sequences held out for validation; 0 trains without.
        name: What results and tables call the data.
        crop: Side of the square training crops in pixels.
        batch: Training crops in a batch, on each device.
        seed: Start of the order and the crops.
        workers: Loader processes; by default one a core, four at most.
        eval_batch: Whole images in a batch; 1 is used wherever sizes differ.
        cache: Hold all decoded images in memory (a 1280x720 pair takes 5.5 MB).
        validate_on_test: Validate, and so choose the best checkpoint, on the test images, as many published figures do.
            Nothing is held out then, and results say so.
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
            raise UserError(f"data.val_share is {val_share}: give a share from 0 to below 1.")
        self.root, self.blur, self.val_share, self.validate_on_test = root, blur, val_share, validate_on_test
        self.folders = {"train": train or {}, "val": val or {}, "test": test or {}}

    def source(self, split: str) -> PairFiles | None:
        """Pairs of `train`, `val` or `test`, sizes checked; None for `val` where `val_share` is 0 and none is given.

        Raises:
            UserError: as `find_pairs`, `pair_folders` and `check_sizes`, or no folder is configured.
        """
        if split == "val" and self.validate_on_test:
            pairs = self.find("test")
            rank_zero_info(f"{self.name}: validating on the test images, which results will say")
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
        """Which of several kinds of blur is read, and whether the test images served for validation."""
        kind = {} if self.blur is None else {"blur": self.blur}
        return kind | ({"validated_on": "test"} if self.validate_on_test else {})

    @property
    def test_arguments(self) -> dict[str, Any]:
        """The folders of the test images."""
        given = {kind: folder for kind, folder in self.folders["test"].items() if folder} or {"root": self.root}
        return {kind: str(Path(folder).resolve()) for kind, folder in given.items() if folder}

    def find(self, split: str) -> list[Pair]:
        """Pairs on disk of a split, before any is held out.

        Raises:
            UserError: as `source`.
        """
        given = self.folders[split]
        blurred, sharp = given.get("blurred"), given.get("sharp")
        if blurred and sharp:
            return pair_folders(blurred, sharp)
        for here, missing in (("blurred", "sharp"), ("sharp", "blurred")):
            if given.get(here):
                raise UserError(f"data.{split}.{here} is given without data.{split}.{missing}: give both.")
        if self.root is None:
            raise UserError(
                f"no {split} images are named: give data.root=FOLDER (with {split}/ in it), or"
                f" data.{split}.blurred=FOLDER and data.{split}.sharp=FOLDER."
            )
        return find_pairs(self.root, split, self.blur)

    def _has_own(self, split: str) -> bool:
        return any(self.folders[split].values()) or (self.root is not None and has_split(self.root, split))
