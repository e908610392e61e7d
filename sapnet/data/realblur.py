"""RealBlur (Rim et al., ECCV 2020): pairs of photographs by two cameras, 3758 to train on and 980 to test, twice.

RealBlur-J holds the cameras' JPEG images, RealBlur-R images developed from their raw data. Figures are measured after a
registration: see `sapnet.evaluation.registration`.
"""

from pathlib import Path
from typing import Any, ClassVar

from sapnet.data.benchmark import BenchmarkData
from sapnet.data.pairs import Pair
from sapnet.errors import UserError

_FOLDERS = {
    "J": "RealBlur-J_ECC_IMCORR_centroid_itensity_ref",
    "R": "RealBlur-R_BM3D_ECC_IMCORR_centroid_itensity_ref",
}


class RealBlurData(BenchmarkData):
    """RealBlur-J or RealBlur-R in the layout of their common archive.

    `root/RealBlur-J_ECC_IMCORR_centroid_itensity_ref/sceneNNN/{blur,gt}/{blur,gt}_K.png` (`RealBlur-R_BM3D_...` for R),
    and beside these folders `root/RealBlur_J_test_list.txt` and `..._train_list.txt` (`RealBlur_R_...`), which alone
    tell test scenes from training scenes: on each line the path of a sharp image and, behind a space, that of its
    blurred one, both from `root`. A pair is called `sceneNNN/K`.

    Args:
        kind: `J` or `R`.
        root: The folder with the lists.
        options: Those of `BenchmarkData`.
    """

    published: ClassVar = {"train": 3758, "test": 980}
    protocol = "realblur"

    def __init__(self, kind: str, root: str | Path | None = None, **options: Any):
        if kind not in _FOLDERS:
            raise UserError(f"data.kind={kind}: it can be J or R.")
        self.kind, self.title = kind, f"RealBlur-{kind}"
        options.setdefault("name", f"realblur_{kind.lower()}")
        super().__init__(root, **options)

    def image_folders(self, split: str) -> list[Path]:
        """As `BenchmarkData`; training and test scenes lie together."""
        return [self.folder() / _FOLDERS[self.kind]]

    def locate(self, split: str) -> list[Pair]:
        """As `BenchmarkData`; a pair of the list that is not on the disk is left out if `partial` is set."""
        root = self.folder()
        path = root / f"RealBlur_{self.kind}_{split}_list.txt"
        try:
            lines = path.read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(
                f"cannot read {path}, which says what the {split} images are: take it from RealBlur's archive, and give"
                " the folder that holds it as data.root."
            ) from error
        listed = [self._pair(path, number, line) for number, line in enumerate(lines, start=1) if line.strip()]
        there = [pair for pair in listed if pair.sharp.is_file() and pair.blurred.is_file()]
        if len(there) < len(listed) and (not self.partial or not there):
            gone = next(file for pair in listed for file in (pair.sharp, pair.blurred) if not file.is_file())
            raise UserError(
                f"{len(listed) - len(there)} of {len(listed)} pairs in {path} are not there, first {gone}:"
                " complete the download, or accept the part by data.partial=true, which results will say."
            )
        return sorted(there, key=lambda pair: pair.name)

    def _pair(self, path: Path, number: int, line: str) -> Pair:
        words = [Path(word) for word in line.split()]
        kinds = [word.parent.name for word in words]
        if kinds != ["gt", "blur"] or any(_FOLDERS[self.kind] not in word.parts for word in words):
            raise UserError(
                f"{path}, line {number} is not '{_FOLDERS[self.kind]}/SCENE/gt/NAME .../SCENE/blur/NAME': take the list"
                " from RealBlur's archive."
            )
        sharp, blurred = (self._on_disk(word) for word in words)
        return Pair(f"{sharp.parents[1].name}/{sharp.stem.removeprefix('gt_')}", blurred, sharp)

    def _on_disk(self, listed: Path) -> Path:
        inner = listed.parts[listed.parts.index(_FOLDERS[self.kind]) :]
        path = self.folder().joinpath(*inner)
        # One scene goes by two names: results that call it scene244 belong to this folder.
        reflected = path.parents[1].with_name(f"{path.parents[1].name}_reflect")
        if not path.parents[1].is_dir() and reflected.is_dir():
            return reflected / path.parent.name / path.name
        return path
