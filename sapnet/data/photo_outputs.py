"""Which photos of a command line are restored, and where each is written."""

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sapnet.checks import check_writable
from sapnet.data.image_files import SUFFIXES
from sapnet.data.photos import OUTPUT_SUFFIXES
from sapnet.errors import UserError

_URL = re.compile(r"(https?|ftps?|s3)://?", re.IGNORECASE)


@dataclass(frozen=True)
class PhotoPaths:
    """A photo and the file to write.

    Attributes:
        source: The photo.
        target: The restored photo.
    """

    source: Path
    target: Path


def plan_outputs(inputs: Sequence[str | Path], output: str | Path, recursive: bool = False) -> list[PhotoPaths]:
    """Return the photos to restore and the files to write; nothing is created.

    One image is written to `output`, which is a folder if it exists as one or ends in a slash. For several inputs, or
    a folder, `output` is a folder. Images that are written to a folder keep their names and become PNG files.

    Args:
        inputs: Images and folders. An image that is named twice is restored once.
        output: The image or the folder to write.
        recursive: Whether to take images from all folders below a folder too; they keep their folder below `output`.

    Raises:
        UserError: An input is an address or does not exist, a folder contains no image, two inputs have the same
            output, or the output is not the name of an image or of a folder that can be written.
    """
    sources = [_existing(source) for source in inputs]
    target = Path(output)
    if len(sources) == 1 and not sources[0].is_dir():
        into = target.is_dir() or str(output).endswith(("/", os.sep))
        pairs = [PhotoPaths(sources[0], target / f"{sources[0].stem}.png" if into else target)]
    else:
        _check_folder(target, sources)
        pairs = [pair for source in sources for pair in _pairs_of(source, target, recursive)]
    pairs = _distinct(pairs)
    for pair in pairs:
        if pair.target.suffix.lower() not in OUTPUT_SUFFIXES:
            raise UserError(
                f"{pair.target}: the output must end in {', '.join(OUTPUT_SUFFIXES)}, or in a slash for a folder."
            )
    _check_overlap(pairs)
    for folder in sorted({pair.target.parent for pair in pairs}):
        check_writable(folder)
    return pairs


def outputs_to_write(pairs: Sequence[PhotoPaths], overwrite: bool, skip_existing: bool) -> list[PhotoPaths]:
    """Return the photos whose output has to be written.

    Args:
        pairs: All photos.
        overwrite: Whether existing outputs are replaced.
        skip_existing: Whether photos with an existing output are left out.

    Raises:
        UserError: An output exists, and neither is set.
    """
    existing = [pair for pair in pairs if pair.target.exists()]
    if existing and not overwrite and not skip_existing:
        more = f" (and {len(existing) - 1} more)" if len(existing) > 1 else ""
        raise UserError(
            f"{existing[0].target} exists{more}: add --overwrite to replace it or --skip-existing to keep it,"
            " or choose another name."
        )
    return [pair for pair in pairs if pair not in existing] if skip_existing else list(pairs)


def points_target(target: Path, stage: int) -> Path:
    """Return the file for the picture of a stage's points beside a restored photo."""
    return target.with_name(f"{target.stem}_points_{stage}.png")


def check_points_targets(pairs: Iterable[PhotoPaths], stages: Iterable[int]) -> None:
    """Check that no picture of points would replace a photo or a restored photo.

    Args:
        pairs: The photos.
        stages: Numbers of the stages whose points are drawn.

    Raises:
        UserError: One would.
    """
    taken = {path.resolve(): path for pair in pairs for path in (pair.source, pair.target)}
    for pair in pairs:
        for stage in stages:
            picture = points_target(pair.target, stage)
            if picture.resolve() in taken:
                raise UserError(
                    f"--show-points would write the points of {pair.source} to {taken[picture.resolve()]},"
                    " which is a photo: choose another output."
                )


def _existing(source: str | Path) -> Path:
    if _URL.match(str(source)):
        raise UserError(f"{source} is an address on the internet: download the photo first, and give its file.")
    path = Path(source)
    if not path.exists():
        raise UserError(f"{path}: there is no such image or folder.")
    return path


def _check_folder(target: Path, sources: Sequence[Path]) -> None:
    what = f"{sources[0]} is a folder" if len(sources) == 1 else f"there are {len(sources)} inputs"
    if target.is_file():
        raise UserError(f"{target} is a file, and {what}: give a folder to write to.")
    if not target.exists() and target.suffix.lower() in OUTPUT_SUFFIXES:
        raise UserError(f"{target} is the name of an image, and {what}: give a folder to write to.")


def _pairs_of(source: Path, target: Path, recursive: bool) -> list[PhotoPaths]:
    if not source.is_dir():
        return [PhotoPaths(source, target / f"{source.stem}.png")]
    images = _images_below(source, target) if recursive else _images_in(source)
    if not images:
        kinds = ", ".join(sorted(SUFFIXES))
        hint = "" if recursive or not _images_below(source, target) else ", but folders with some: add --recursive"
        raise UserError(f"{source} contains no image ({kinds}){hint or '; give another folder'}.")
    return [PhotoPaths(path, (target / path.relative_to(source)).with_suffix(".png")) for path in images]


def _images_in(folder: Path) -> list[Path]:
    # Hidden files are not photos: macOS writes `._photo.jpg` beside photo.jpg.
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and not path.is_dir()
    )


def _images_below(folder: Path, target: Path) -> list[Path]:
    """Return the images of a folder and all folders below it, without the folder of the outputs."""
    images, output = [], target.resolve()
    for parent, folders, _ in os.walk(folder):
        folders[:] = sorted(
            name for name in folders if not name.startswith(".") and Path(parent, name).resolve() != output
        )
        images += _images_in(Path(parent))
    return images


def _distinct(pairs: Sequence[PhotoPaths]) -> list[PhotoPaths]:
    by_target: dict[Path, PhotoPaths] = {}
    for pair in pairs:
        other = by_target.setdefault(pair.target.resolve(), pair)
        if other.source.resolve() != pair.source.resolve():
            raise UserError(
                f"{other.source} and {pair.source} would both be written to {pair.target}: rename one of them, or"
                " write them to different folders."
            )
    return list(by_target.values())


def _check_overlap(pairs: Sequence[PhotoPaths]) -> None:
    sources = {pair.source.resolve() for pair in pairs}
    for pair in pairs:
        if pair.target.resolve() in sources:
            raise UserError(f"{pair.target} is one of the photos, which are never replaced: choose another output.")
