"""REDS (Nah et al., CVPRW 2019): 240 training and 30 validation sequences of 100 frames, 1280x720."""

from pathlib import Path
from typing import ClassVar

from sapnet.data.pairs import Pair, pair_folders
from sapnet.data.published import PublishedData
from sapnet.errors import UserError

_FOLDERS = {"train": "train", "test": "val"}


class RedsData(PublishedData):
    """REDS in the layout of its archives: `root/train/train_{blur,sharp}/SCENE/NNNNNNNN.png`, and the same with `val`.

    The folders `root/train` and `root/val` may be omitted. The sharp images of the official test sequences are not
    public, so published results are on the validation sequences. They are the test images here, and validation holds
    out training sequences.
    """

    title = "REDS"
    pair_counts: ClassVar = {
        "train": {f"{scene:03d}": 100 for scene in range(240)},
        "test": {f"{scene:03d}": 100 for scene in range(30)},
    }

    def image_folders(self, split: str) -> list[Path]:
        name = _FOLDERS[split]
        return [self.folder() / each for each in (name, f"{name}_blur", f"{name}_sharp")]

    def locate(self, split: str) -> list[Pair]:
        root, name = self.folder(), _FOLDERS[split]
        for folder in (root / name, root):
            if (folder / f"{name}_blur").is_dir() or (folder / f"{name}_sharp").is_dir():
                return pair_folders(folder / f"{name}_blur", folder / f"{name}_sharp")
        raise UserError(
            f"{root} contains neither {name}/{name}_blur nor {name}_blur: unpack REDS's {name}_blur.zip and"
            f" {name}_sharp.zip there."
        )
