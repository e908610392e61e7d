"""Pairs of blurred and sharp image files: search on disk, size check, and hold-out by sequence."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sapnet.data.image_files import SUFFIXES
from sapnet.data.images import read_size
from sapnet.errors import UserError

_BLUR_NAMES = ("blur", "blur_gamma", "blurred")
_WHICH_BLUR = "blur (mean of the stored frames, used by most papers) and blur_gamma (mean in linear light)"


@dataclass(frozen=True)
class Pair:
    """A blurred image file and its sharp counterpart.

    Attributes:
        name: Name without suffix, unique in the data set (`GOPR0384_11_00/000001`).
        blurred: Blurred image.
        sharp: Sharp image.
    """

    name: str
    blurred: Path
    sharp: Path

    @property
    def sequence(self) -> str:
        """Scene or video of the pair: the part of the name before the last slash, or an empty string."""
        return self.name.rpartition("/")[0]


def pair_folders(blurred: str | Path, sharp: str | Path) -> list[Pair]:
    """Pair the images of two folders that have the same relative path without suffix; sorted by name.

    Raises:
        UserError: A folder is missing or contains no image, both folders are the same, two images of a folder have the
            same name, or an image has no partner.
    """
    blurred, sharp = Path(blurred), Path(sharp)
    inputs, targets = _images_below(blurred), _images_below(sharp)
    _check_different(blurred, sharp)
    _check_partners(inputs, targets, sharp)
    _check_partners(targets, inputs, blurred)
    return [Pair(name, inputs[name], targets[name]) for name in sorted(inputs)]


def pair_listed(blurred: str | Path, sharp: str | Path) -> list[Pair]:
    """Pair the images of two folders like `pair_folders`, but ignore sharp images without a blurred one.

    Raises:
        UserError: See `pair_folders`.
    """
    blurred, sharp = Path(blurred), Path(sharp)
    inputs, targets = _images_below(blurred), _images_below(sharp)
    _check_different(blurred, sharp)
    _check_partners(inputs, targets, sharp)
    return [Pair(name, inputs[name], targets[name]) for name in sorted(inputs)]


def find_pairs(root: str | Path, split: str, blur: str | None = None) -> list[Pair]:
    """Find the pairs of a split of a data set, sorted by name.

    Three layouts below `root/split` are supported:

    - GoPro: `SEQUENCE/{blur or blur_gamma}/NAME` and `SEQUENCE/sharp/NAME`,
    - REDS: `X_blur/SEQUENCE/NAME` and `X_sharp/SEQUENCE/NAME`,
    - plain: `{blur or blur_gamma or blurred}/NAME` and `sharp/NAME`.

    Args:
        root: Folder of the data set.
        split: `train`, `val` or `test`.
        blur: Folder of the blurred images if there are several. GoPro has two whose results are not comparable, so
            there is no default.

    Raises:
        UserError: The layout is unknown, there are several folders of blurred images and none is selected, or
            `pair_folders` fails.
    """
    root = Path(root)
    folder = root / split
    if not folder.is_dir():
        raise UserError(
            f"there is no folder {folder}: data.root must contain {split}/SEQUENCE/blur and .../sharp,"
            f" or set the folders by data.{split}.blurred and data.{split}.sharp."
        )
    subfolders = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    whole = [p for p in subfolders if p.name.endswith("_blur")]
    if len(whole) == 1 and (partner := folder / re.sub("_blur$", "_sharp", whole[0].name)).is_dir():
        if blur not in (None, whole[0].name):
            raise UserError(f"{folder} is read from {whole[0].name}, not from '{blur}': remove data.blur.")
        return pair_folders(whole[0], partner)
    if any(p.name == "sharp" for p in subfolders):
        return pair_folders(_blurred_folder(folder, blur), folder / "sharp")
    return _gopro_pairs(folder, subfolders, blur)


def has_split(root: str | Path, split: str) -> bool:
    """Return whether a data set has a folder for a split."""
    return (Path(root) / split).is_dir()


def check_sizes(pairs: Sequence[Pair]) -> list[tuple[int, int]]:
    """Return the height and width of each pair, read from the headers of its files.

    Raises:
        UserError: The images of a pair differ in size, or a file cannot be read.
    """
    sizes = [(read_size(pair.blurred), read_size(pair.sharp)) for pair in pairs]
    unequal = [(pair, size) for pair, size in zip(pairs, sizes, strict=True) if size[0] != size[1]]
    if unequal:
        pair, ((h, w), (target_h, target_w)) = unequal[0]
        raise UserError(
            f"{len(unequal)} of {len(pairs)} pairs differ in size, first {pair.blurred} ({w}x{h}) and {pair.sharp}"
            f" ({target_w}x{target_h}): both images of a pair must have the same size."
        )
    return [size for size, _ in sizes]


def hold_out(pairs: Sequence[Pair], share: float) -> tuple[list[Pair], list[Pair]]:
    """Split pairs by sequence into a training and a validation part.

    At least one sequence is held out, and the held-out ones are evenly spread over the sorted names. If there is only
    one sequence, its last images are held out, because neighbouring frames of a video are nearly equal. The result
    depends only on the names.

    Args:
        pairs: Pairs of the training split.
        share: Share of the sequences to hold out.

    Raises:
        UserError: There are fewer than two pairs.
    """
    if len(pairs) < 2:
        raise UserError(
            "a single training pair leaves none for validation: add pairs, set data.val.blurred and data.val.sharp,"
            " or disable validation by data.val_share=0."
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
        raise UserError(f"{blurred} is used for the blurred and the sharp images: choose two different folders.")


def _check_partners(here: dict[str, Path], there: dict[str, Path], folder: Path) -> None:
    alone = [here[name] for name in here if name not in there]
    if alone:
        raise UserError(f"{_first(alone)} without a partner in {folder}: add the missing files or remove these.")


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
            raise UserError(f"{images[name]} and {path} have the same name: remove one of them.")
        images[name] = path
    if not images:
        raise UserError(f"{folder} contains no image ({', '.join(sorted(SUFFIXES))}): check the path.")
    return images


def _blurred_folder(folder: Path, blur: str | None) -> Path:
    present = [name for name in _BLUR_NAMES if (folder / name).is_dir()]
    if blur is not None:
        if not (folder / blur).is_dir():
            raise UserError(f"{folder} contains no folder '{blur}' but {present}: set data.blur to one of these.")
        return folder / blur
    if not present:
        raise UserError(f"{folder} contains sharp images but none of {', '.join(_BLUR_NAMES)}: complete the download.")
    if len(present) > 1:
        raise UserError(f"{folder} contains {_WHICH_BLUR}: choose by data.blur={present[0]} or data.blur={present[1]}.")
    return folder / present[0]


def _gopro_pairs(folder: Path, subfolders: list[Path], blur: str | None) -> list[Pair]:
    sequences = [p for p in subfolders if any((p / name).is_dir() for name in (*_BLUR_NAMES, "sharp"))]
    if not sequences:
        raise UserError(
            f"{folder} has none of the layouts SEQUENCE/blur and SEQUENCE/sharp, X_blur and X_sharp, blur and sharp:"
            " set the folders by data.train.blurred, data.train.sharp, data.test.blurred, data.test.sharp."
        )
    pairs, example = [], {}
    for sequence in sequences:
        if not (sequence / "sharp").is_dir():
            raise UserError(f"{sequence} contains no folder 'sharp': complete the download.")
        blurred = _blurred_folder(sequence, blur)
        example.setdefault(blurred.name, sequence)
        pairs += [
            Pair(f"{sequence.name}/{pair.name}", pair.blurred, pair.sharp)
            for pair in pair_folders(blurred, sequence / "sharp")
        ]
    if len(example) > 1:
        (kind, first), (other, second) = list(example.items())[:2]
        raise UserError(
            f"{first} has only '{kind}' and {second} only '{other}', two kinds of blur that are not comparable:"
            " complete the download and choose one by data.blur."
        )
    return pairs


def _first(paths: list[Path], shown: int = 3) -> str:
    names = ", ".join(str(path) for path in paths[:shown])
    more = f" and {len(paths) - shown} more" if len(paths) > shown else ""
    return f"{names}{more} ({len(paths)} in all)" if more else names
