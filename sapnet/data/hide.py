"""HIDE (Shen et al., ICCV 2019): 6397 training and 2025 test pairs of people in motion, 1280x720."""

from pathlib import Path
from typing import ClassVar

from sapnet.data.benchmark import BenchmarkData
from sapnet.data.pairs import Pair, pair_listed
from sapnet.errors import UserError

_TESTS = ("test-close-ups", "test-long-shot")


class HideData(BenchmarkData):
    """HIDE in the layout of its archive: blurred images in three folders, all sharp ones together under equal names.

    `root/train/NAME.png`, `root/test/test-close-ups/NAME.png`, `root/test/test-long-shot/NAME.png`, and
    `root/GT/NAME.png` for each of them. Other layouts that are passed around (`input` and `target`) are read by
    `data=folder`. Downloads that hold a part (1079 or 942 test images) are common, so the counts are checked.

    The published figures are those of networks trained on GoPro. Who trains on HIDE has to know that its names do not
    tell the videos apart: the last images in the order of their names are held out for validation, and neighbours of
    them may be trained on.
    """

    title = "HIDE"
    published: ClassVar = {"train": 6397, "test": 2025}

    def image_folders(self, split: str) -> list[Path]:
        """As `BenchmarkData`; the sharp images of both splits lie together."""
        return [self.folder() / split, self.folder() / "GT"]

    def locate(self, split: str) -> list[Pair]:
        """As `BenchmarkData`; the name of a test pair begins with its folder."""
        root = self.folder()
        folders = [root / "train"] if split == "train" else [root / "test" / name for name in _TESTS]
        for folder in (*folders, root / "GT"):
            if not folder.is_dir():
                raise UserError(
                    f"there is no folder {folder}: HIDE unpacks to train, test/{_TESTS[0]}, test/{_TESTS[1]} and GT;"
                    " read other layouts by data=folder data.test.blurred=FOLDER data.test.sharp=FOLDER."
                )
        pairs = []
        for folder in folders:
            prefix = "" if split == "train" else f"{folder.name}/"
            pairs += [Pair(prefix + p.name, p.blurred, p.sharp) for p in pair_listed(folder, root / "GT")]
        return pairs
