"""Blurred/sharp file pairs: found on disk, named, checked before anything trains on them, split by sequence."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sapnet.data.images import SUFFIXES, read_size
from sapnet.errors import UserError

_BLUR_NAMES = ("blur", "blur_gamma", "blurred")
_WHICH_BLUR = (
    "blur (plain mean of the stored frames, behind most published figures) and blur_gamma (mean in linear light)"
)


@dataclass(frozen=True)
class Pair:
    """Two files that show the same picture, blurred and sharp.

    `name` is unique in its set and has no suffix (`GOPR0384_11_00/000001`); `sequence` is the part before the last
    slash, or empty: pairs of one sequence show the same scene.
    """

    name: str
    blurred: Path
    sharp: Path

    @property
    def sequence(self) -> str:
        """Name of the scene or video that the pair is from."""
        return self.name.rpartition("/")[0]


def pair_folders(blurred: str | Path, sharp: str | Path) -> list[Pair]:
    """Pairs of the images that have the same path, up to the suffix, below two folders; sorted by name.

    Raises:
        UserError: a folder is missing or holds no image, both are the same, two images of one folder share a name, or
            an image has no partner.
    """
    blurred, sharp = Path(blurred), Path(sharp)
    inputs, targets = _images_below(blurred), _images_below(sharp)
    _check_different(blurred, sharp)
    _check_partners(inputs, targets, sharp)
    _check_partners(targets, inputs, blurred)
    return [Pair(name, inputs[name], targets[name]) for name in sorted(inputs)]


def pair_listed(blurred: str | Path, sharp: str | Path) -> list[Pair]:
    """Pairs for the images below `blurred` alone; `sharp` may hold others too. Sorted by name.

    Raises:
        UserError: as `pair_folders`, save for sharp images without a blurred one.
    """
    blurred, sharp = Path(blurred), Path(sharp)
    inputs, targets = _images_below(blurred), _images_below(sharp)
    _check_different(blurred, sharp)
    _check_partners(inputs, targets, sharp)
    return [Pair(name, inputs[name], targets[name]) for name in sorted(inputs)]


def find_pairs(root: str | Path, split: str, blur: str | None = None) -> list[Pair]:
    """Pairs of one split (`train`, `val`, `test`) of a data set on disk, sorted by name.

    Three layouts below `root/split` are known:

    - GoPro: `SEQUENCE/{blur or blur_gamma}/NAME` and `SEQUENCE/sharp/NAME`,
    - REDS: `X_blur/SEQUENCE/NAME` and `X_sharp/SEQUENCE/NAME`,
    - plain: `{blur or blur_gamma or blurred}/NAME` and `sharp/NAME`.

    Args:
        root: Folder of the data set.
        split: Folder below `root`.
        blur: Which folder to read as the input where there are several. GoPro ships two, and results on one do not
            compare with results on the other, so none is preferred.

    Raises:
        UserError: no known layout, several blurred folders and none named, or what `pair_folders` raises.
    """
    root = Path(root)
    folder = root / split
    if not folder.is_dir():
        raise UserError(
            f"there is no folder {folder}: data.root has to hold {split}/SEQUENCE/blur and .../sharp,"
            f" or name the folders by data.{split}.blurred and data.{split}.sharp."
        )
    subfolders = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    whole = [p for p in subfolders if p.name.endswith("_blur")]
    if len(whole) == 1 and (partner := folder / re.sub("_blur$", "_sharp", whole[0].name)).is_dir():
        if blur not in (None, whole[0].name):
            raise UserError(f"{folder} is read from {whole[0].name}, not from '{blur}': leave data.blur out.")
        return pair_folders(whole[0], partner)
    if any(p.name == "sharp" for p in subfolders):
        return pair_folders(_blurred_folder(folder, blur), folder / "sharp")
    return _gopro_pairs(folder, subfolders, blur)


def has_split(root: str | Path, split: str) -> bool:
    """Whether a data set has a folder for this split."""
    return (Path(root) / split).is_dir()


def check_sizes(pairs: Sequence[Pair]) -> list[tuple[int, int]]:
    """Height and width of each pair, read from the headers of its two files.

    Raises:
        UserError: the two images of a pair differ in size, or a file cannot be read as an image.
    """
    sizes = [(read_size(pair.blurred), read_size(pair.sharp)) for pair in pairs]
    unequal = [(pair, size) for pair, size in zip(pairs, sizes, strict=True) if size[0] != size[1]]
    if unequal:
        pair, ((h, w), (target_h, target_w)) = unequal[0]
        raise UserError(
            f"{len(unequal)} of {len(pairs)} pairs differ in size, first {pair.blurred} ({w}x{h}) and {pair.sharp}"
            f" ({target_w}x{target_h}): both images of a pair must have one size."
        )
    return [size for size, _ in sizes]


def hold_out(pairs: Sequence[Pair], share: float) -> tuple[list[Pair], list[Pair]]:
    """Split into a larger part to train on and a smaller one to validate on, never a sequence in both.

    About `share` of the sequences are held out, at least one, evenly spread over their sorted names. Where there is
    only one sequence, its last images are: neighbours in a video are almost the same picture, so a scattered choice
    would validate on what was trained on. The result depends on the names alone, so every run holds out the same.

    Raises:
        UserError: there are fewer than two pairs.
    """
    if len(pairs) < 2:
        raise UserError(
            "a single training pair leaves none to validate on: add pairs, name data.val.blurred and data.val.sharp,"
            " or switch validation off by data.val_share=0."
        )
    sequences = sorted({pair.sequence for pair in pairs})
    if len(sequences) == 1:
        ordered = sorted(pairs, key=lambda pair: pair.name)
        count = _at_least_one(share, len(ordered))
        return ordered[:-count], ordered[-count:]
    count = _at_least_one(share, len(sequences))
    held = {sequences[int((i + 0.5) * len(sequences) / count)] for i in range(count)}
    return [p for p in pairs if p.sequence not in held], [p for p in pairs if p.sequence in held]


def _at_least_one(share: float, total: int) -> int:
    return min(max(1, round(share * total)), total - 1)


def _check_different(blurred: Path, sharp: Path) -> None:
    if blurred.resolve() == sharp.resolve():
        raise UserError(f"{blurred} is given for the blurred and the sharp images: give two different folders.")


def _check_partners(here: dict[str, Path], there: dict[str, Path], folder: Path) -> None:
    alone = [here[name] for name in here if name not in there]
    if alone:
        raise UserError(f"{_some(alone)} without a partner in {folder}: add the missing files or remove these.")


def _images_below(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}: check the path.")
    images: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        inner = path.relative_to(folder)
        if path.suffix.lower() not in SUFFIXES or any(part.startswith(".") for part in inner.parts):
            continue
        name = inner.with_suffix("").as_posix()
        if name in images:
            raise UserError(f"{images[name]} and {path} have one name: keep one of them.")
        images[name] = path
    if not images:
        raise UserError(f"{folder} holds no image ({', '.join(sorted(SUFFIXES))}): check the path.")
    return images


def _blurred_folder(folder: Path, blur: str | None) -> Path:
    present = [name for name in _BLUR_NAMES if (folder / name).is_dir()]
    if blur is not None:
        if not (folder / blur).is_dir():
            raise UserError(f"{folder} holds no folder '{blur}' but {present}: set data.blur to one of these.")
        return folder / blur
    if not present:
        raise UserError(f"{folder} holds sharp images but none of {', '.join(_BLUR_NAMES)}: complete the download.")
    if len(present) > 1:
        raise UserError(f"{folder} holds {_WHICH_BLUR}: choose by data.blur={present[0]} or data.blur={present[1]}.")
    return folder / present[0]


def _gopro_pairs(folder: Path, subfolders: list[Path], blur: str | None) -> list[Pair]:
    sequences = [p for p in subfolders if any((p / name).is_dir() for name in (*_BLUR_NAMES, "sharp"))]
    if not sequences:
        raise UserError(
            f"{folder} has none of the layouts SEQUENCE/blur and SEQUENCE/sharp, X_blur and X_sharp, blur and sharp:"
            " name the folders by data.train.blurred, data.train.sharp, data.test.blurred, data.test.sharp."
        )
    pairs, read = [], {}
    for sequence in sequences:
        if not (sequence / "sharp").is_dir():
            raise UserError(f"{sequence} holds no folder 'sharp': complete the download.")
        blurred = _blurred_folder(sequence, blur)
        read.setdefault(blurred.name, sequence)
        pairs += [
            Pair(f"{sequence.name}/{pair.name}", pair.blurred, pair.sharp)
            for pair in pair_folders(blurred, sequence / "sharp")
        ]
    if len(read) > 1:
        (one, first), (other, second) = list(read.items())[:2]
        raise UserError(
            f"{first} has only '{one}' and {second} only '{other}', two kinds of blur that do not compare:"
            " complete the download and choose one by data.blur."
        )
    return pairs


def _some(paths: list[Path], shown: int = 3) -> str:
    names = ", ".join(str(path) for path in paths[:shown])
    more = f" and {len(paths) - shown} more" if len(paths) > shown else ""
    return f"{names}{more} ({len(paths)} in all)" if more else names
