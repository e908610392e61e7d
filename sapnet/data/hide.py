"""HIDE (Shen et al., ICCV 2019): 6397 training and 2025 test pairs of people in motion, 1280x720."""

from pathlib import Path
from typing import ClassVar

from sapnet.data.pairs import Pair, pair_listed
from sapnet.data.published import PublishedData
from sapnet.errors import UserError

_TESTS = ("test-close-ups", "test-long-shot")


class HideData(PublishedData):
    """HIDE in the layout of its archive: blurred images in three folders, all sharp images in one.

    The blurred images are `root/train/NAME.png`, `root/test/test-close-ups/NAME.png` and
    `root/test/test-long-shot/NAME.png`; the sharp image of each is `root/GT/NAME.png`. Other common layouts (`input`
    and `target`) are read by `data=folder`. Incomplete downloads (1079 or 942 test images) are common.

    Published results are those of networks trained on GoPro. For training on HIDE, note that image names do not
    identify the video: the last images in the order of their names are held out for validation, and frames of the same
    videos may be in the training set.
    """

    title = "HIDE"
    pair_counts: ClassVar = {"train": 6397, "test": 2025}

    def image_folders(self, split: str) -> list[Path]:
        # The sharp images of both splits are in one folder.
        return [self.folder() / split, self.folder() / "GT"]

    def locate(self, split: str) -> list[Pair]:
        """Return the available pairs; the name of a test pair starts with its folder."""
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
