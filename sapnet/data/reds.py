"""REDS (Nah et al., CVPRW 2019): 240 training and 30 validation sequences of 100 frames, 1280x720."""

from pathlib import Path
from typing import ClassVar

from sapnet.data.benchmark import BenchmarkData
from sapnet.data.pairs import Pair, pair_folders
from sapnet.errors import UserError

_FOLDERS = {"train": "train", "test": "val"}


class RedsData(BenchmarkData):
    """REDS in the layout of its archives: `root/train/train_{blur,sharp}/SCENE/NNNNNNNN.png`, the same with `val`.

    The folder between (`train`, `val`) may be missing, as where each archive was unpacked by hand. The sharp images of
    the official test sequences are not public, so published figures are on the validation sequences: here they are the
    test images, and validation holds out training sequences.
    """

    title = "REDS"
    published: ClassVar = {
        "train": {f"{scene:03d}": 100 for scene in range(240)},
        "test": {f"{scene:03d}": 100 for scene in range(30)},
    }

    def image_folders(self, split: str) -> list[Path]:
        """As `BenchmarkData`."""
        name = _FOLDERS[split]
        return [self.folder() / each for each in (name, f"{name}_blur", f"{name}_sharp")]

    def locate(self, split: str) -> list[Pair]:
        """As `BenchmarkData`."""
        root, name = self.folder(), _FOLDERS[split]
        for folder in (root / name, root):
            if (folder / f"{name}_blur").is_dir() or (folder / f"{name}_sharp").is_dir():
                return pair_folders(folder / f"{name}_blur", folder / f"{name}_sharp")
        raise UserError(
            f"{root} holds neither {name}/{name}_blur nor {name}_blur: unpack REDS's {name}_blur.zip and"
            f" {name}_sharp.zip there."
        )
