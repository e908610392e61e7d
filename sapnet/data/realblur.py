"""RealBlur (Rim et al., ECCV 2020): photographs by two cameras, 3758 training and 980 test pairs in two versions.

RealBlur-J contains the JPEG images of the cameras, RealBlur-R images developed from raw data. Images are registered
before they are compared: see `sapnet.evaluation.registration`.
"""

from pathlib import Path
from typing import Any, ClassVar

from sapnet.data.pairs import Pair
from sapnet.data.published import PublishedData
from sapnet.errors import UserError

_FOLDERS = {
    "J": "RealBlur-J_ECC_IMCORR_centroid_itensity_ref",
    "R": "RealBlur-R_BM3D_ECC_IMCORR_centroid_itensity_ref",
}


class RealBlurData(PublishedData):
    """RealBlur-J or RealBlur-R in the layout of their common archive.

    The images are `root/RealBlur-J_ECC_IMCORR_centroid_itensity_ref/sceneNNN/{blur,gt}/{blur,gt}_K.png`
    (`RealBlur-R_BM3D_...` for R). The splits are defined by `root/RealBlur_J_test_list.txt` and `..._train_list.txt`
    (`RealBlur_R_...`): each line contains the paths of a sharp and a blurred image relative to `root`, separated by a
    space. The name of a pair is `sceneNNN/K`.

    Args:
        kind: `J` or `R`.
        root: Folder of the lists.
        options: Arguments of `PublishedData`.
    """

    pair_counts: ClassVar = {"train": 3758, "test": 980}
    protocol = "realblur"

    def __init__(self, kind: str, root: str | Path | None = None, **options: Any):
        if kind not in _FOLDERS:
            raise UserError(f"data.kind={kind}: choose J or R.")
        self.kind, self.title = kind, f"RealBlur-{kind}"
        options.setdefault("name", f"realblur_{kind.lower()}")
        super().__init__(root, **options)

    def image_folders(self, split: str) -> list[Path]:
        # Training and test scenes are in one folder.
        return [self.folder() / _FOLDERS[self.kind]]

    def locate(self, split: str) -> list[Pair]:
        """Return the available pairs; with `partial`, missing pairs of the list are skipped."""
        root = self.folder()
        path = root / f"RealBlur_{self.kind}_{split}_list.txt"
        try:
            lines = path.read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(
                f"cannot read {path}, the list of the {split} images: take it from RealBlur's archive, and set"
                " data.root to its folder."
            ) from error
        listed = [self._pair(path, number, line) for number, line in enumerate(lines, start=1) if line.strip()]
        available = [pair for pair in listed if pair.sharp.is_file() and pair.blurred.is_file()]
        if len(available) < len(listed) and (not self.partial or not available):
            missing = next(file for pair in listed for file in (pair.sharp, pair.blurred) if not file.is_file())
            raise UserError(
                f"{len(listed) - len(available)} of {len(listed)} pairs in {path} are missing, first {missing}:"
                " complete the download, or accept the part by data.partial=true, which is recorded in all results."
            )
        return sorted(available, key=lambda pair: pair.name)

    def _pair(self, path: Path, number: int, line: str) -> Pair:
        files = [Path(file) for file in line.split()]
        kinds = [file.parent.name for file in files]
        if kinds != ["gt", "blur"] or any(_FOLDERS[self.kind] not in file.parts for file in files):
            raise UserError(
                f"{path}, line {number} is not '{_FOLDERS[self.kind]}/SCENE/gt/NAME .../SCENE/blur/NAME': take the list"
                " from RealBlur's archive."
            )
        sharp, blurred = (self._on_disk(file) for file in files)
        return Pair(f"{sharp.parents[1].name}/{sharp.stem.removeprefix('gt_')}", blurred, sharp)

    def _on_disk(self, listed: Path) -> Path:
        inner = listed.parts[listed.parts.index(_FOLDERS[self.kind]) :]
        path = self.folder().joinpath(*inner)
        # One scene has two names: results named scene244 belong to the folder scene244_reflect.
        reflected = path.parents[1].with_name(f"{path.parents[1].name}_reflect")
        if not path.parents[1].is_dir() and reflected.is_dir():
            return reflected / path.parent.name / path.name
        return path
