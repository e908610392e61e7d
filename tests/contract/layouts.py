"""Made-up data sets of a few pairs in exactly the official layouts.

`LAYOUTS[name](root, write)` makes each image by `write(path)` and returns the names of the pairs of each split.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from sapnet.data.images import write_image

Names = dict[str, list[str]]
HEIGHT, WIDTH = 24, 32


def picture(path: Path, height: int = HEIGHT, width: int = WIDTH) -> None:
    """Write a random image that depends on its path, so that all images differ."""
    numbers = np.random.default_rng([*path.as_posix().encode()])
    write_image(path, numbers.integers(0, 256, (height, width, 3), dtype=np.uint8))


def gopro(root: Path, write: Callable[[Path], None] = picture) -> Names:
    names_by_split: Names = {"train": [], "test": []}
    train, test = ("GOPR0372_07_00", "GOPR0374_11_03", "GOPR0884_11_00"), ("GOPR0384_11_00", "GOPR0862_11_00")
    for split, names in (("train", train), ("test", test)):
        for sequence in names:
            for frame in (1, 2):
                for kind in ("blur", "blur_gamma", "sharp"):
                    write(root / split / sequence / kind / f"{frame:06d}.png")
                names_by_split[split].append(f"{sequence}/{frame:06d}")
    return names_by_split


def hide(root: Path, write: Callable[[Path], None] = picture) -> Names:
    names_by_split: Names = {"train": [], "test": []}
    for number in range(6):
        write(root / "train" / f"train{number}.png")
        write(root / "GT" / f"train{number}.png")
        names_by_split["train"].append(f"train{number}")
    for folder in ("test-close-ups", "test-long-shot"):
        for number in range(2):
            name = f"{folder[5:9]}{number}"
            write(root / "test" / folder / f"{name}.png")
            write(root / "GT" / f"{name}.png")
            names_by_split["test"].append(f"{folder}/{name}")
    return names_by_split


def realblur(kind: str, folder: str) -> Callable[..., Names]:
    def make(root: Path, write: Callable[[Path], None] = picture) -> Names:
        names_by_split: Names = {"train": [], "test": []}
        scenes = {"train": ("scene002", "scene010", "scene100"), "test": ("scene001", "scene244_reflect")}
        for split, names in scenes.items():
            lines = []
            for scene in names:
                for number in (1, 10):
                    sharp, blurred = (f"{folder}/{scene}/{role}/{role}_{number}.png" for role in ("gt", "blur"))
                    write(root / sharp)
                    write(root / blurred)
                    # The lists call this scene by its short name.
                    lines.append(f"{sharp} {blurred}".replace("_reflect", ""))
                    names_by_split[split].append(f"{scene}/{number}")
            (root / f"RealBlur_{kind}_{split}_list.txt").write_text("\n".join(reversed(lines)) + "\n")
        return names_by_split

    return make


def reds(root: Path, write: Callable[[Path], None] = picture) -> Names:
    names_by_split: Names = {"train": [], "test": []}
    for split, folder, scenes in (("train", "train", ("000", "001", "239")), ("test", "val", ("000", "029"))):
        for scene in scenes:
            for frame in (0, 1):
                for kind in ("blur", "sharp"):
                    write(root / folder / f"{folder}_{kind}" / scene / f"{frame:08d}.png")
                names_by_split[split].append(f"{scene}/{frame:08d}")
    return names_by_split


LAYOUTS: dict[str, Callable[..., Names]] = {
    "gopro": gopro,
    "hide": hide,
    "realblur_j": realblur("J", "RealBlur-J_ECC_IMCORR_centroid_itensity_ref"),
    "realblur_r": realblur("R", "RealBlur-R_BM3D_ECC_IMCORR_centroid_itensity_ref"),
    "reds": reds,
    "folder": gopro,
}
"""Functions that create a data set, by the name of the option in conf/data."""

OPTIONS: dict[str, dict] = {
    "gopro": {"blur": "blur", "partial": True},
    "hide": {"partial": True},
    "realblur_j": {"partial": True},
    "realblur_r": {"partial": True},
    "reds": {"partial": True},
    "folder": {"blur": "blur_gamma"},
}
"""Settings besides `root` for these small data sets."""
