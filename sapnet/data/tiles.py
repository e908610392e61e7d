"""Tiles of training images, which make random crops cheaper to load.

A random 256x256 crop of a 1280x720 PNG decodes fourteen times the pixels that it uses. Tiles of 512x512 at a step of
256 pixels, with the last row and column aligned to the border, decode four times as many. An image of that size has 8
tiles; the 2103 training images of GoPro have 16,824, which take 2.3 times the disk space. `python -m
benchmarks.loading` measures the gain: a core loads 2.5 times as many crops of GoPro images.

The tiles are in GoPro's layout, `OUT/train/SEQUENCE/{blur,sharp}/NAME_Y_X.png` (Y and X: position of the upper left
corner), with a link to the test images of ROOT. `data=gopro data.root=OUT` and `data=folder data.root=OUT` train and
validate on tiles and test on whole images.
"""

import json
import multiprocessing
import signal
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from pathlib import Path

from tqdm import tqdm

from sapnet.data.images import read_image, read_size, write_image
from sapnet.data.pairs import Pair, check_sizes, find_pairs
from sapnet.errors import UserError
from sapnet.files import write_atomically

_PLAN = "tiles.json"
_KINDS = ("blur", "blur_gamma")


@dataclass(frozen=True)
class Plan:
    """Parameters of the tiles of a folder, saved in its `tiles.json`.

    Attributes:
        size: Side of a tile in pixels.
        step: Distance of neighbouring tiles in pixels.
        blur: Folder of the blurred tiles: `blur` or `blur_gamma`.
        splits: Splits that were cut.
    """

    size: int
    step: int
    blur: str
    splits: tuple[str, ...] = ("train",)

    def places(self, height: int, width: int) -> list[tuple[int, int]]:
        """Return the upper left corners (y, x) of the tiles of an image."""
        return list(product(starts(height, self.size, self.step), starts(width, self.size, self.step)))

    def tiles(self, height: int, width: int) -> int:
        """Return the number of tiles of an image."""
        return len(self.places(height, width))


def starts(length: int, size: int, step: int) -> list[int]:
    """Return the first pixels of the tiles along a side; the last tile ends at the border.

    Args:
        length: Length of the side in pixels.
        size: Side of a tile in pixels.
        step: Distance of neighbouring tiles in pixels.

    Raises:
        UserError: A tile is longer than the side.
    """
    if size > length:
        raise UserError(f"a tile of {size} pixels does not fit into a side of {length}: choose a smaller --size.")
    places = list(range(0, length - size + 1, step))
    return places if places[-1] + size == length else [*places, length - size]


def read_plan(folder: str | Path) -> Plan | None:
    """Read the parameters of the tiles of a folder, or return None if the folder has no tiles.

    Raises:
        UserError: `tiles.json` is damaged.
    """
    path = Path(folder) / _PLAN
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_text())
        return Plan(int(values["size"]), int(values["step"]), str(values["blur"]), tuple(values["splits"]))
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise UserError(f"{path} is damaged: remove {folder} and cut the tiles again.") from error


def cut_tiles(
    root: str | Path, out: str | Path, size: int = 512, step: int = 256, blur: str | None = None, workers: int = 0
) -> int:
    """Cut the training images of a data set into tiles.

    Existing tiles are kept, so an interrupted run can be continued. Files are written atomically.

    Args:
        root: A data set in one of the layouts of `find_pairs`.
        out: A new or empty folder, or the folder of an interrupted run with the same settings.
        size: Side of a tile in pixels.
        step: Distance of neighbouring tiles in pixels, at most `size`.
        blur: Folder of the blurred images if there are several.
        workers: Number of processes; 0 uses this one.

    Returns:
        Number of tiles below `out`.

    Raises:
        UserError: The images cannot be read or are smaller than a tile, or `out` contains other files.
    """
    if not 1 <= step <= size:
        raise UserError(
            f"--step is {step} and --size is {size}: tiles must overlap or touch, so choose a step from 1 to {size}."
        )
    pairs, out = find_pairs(root, "train", blur), Path(out)
    kind = pairs[0].blurred.parent.name
    plan = Plan(size, step, kind if kind in _KINDS else _KINDS[0])
    for image in set(check_sizes(pairs)):
        plan.places(*image)  # raises if a tile does not fit
    _begin(out, plan)
    _link_tests(Path(root), out)
    # Forked processes can deadlock on a lock that a running thread holds.
    context, cut = multiprocessing.get_context("spawn"), partial(_cut, out=out / "train", plan=plan)
    bar = {"desc": "cutting", "total": len(pairs), "unit": "pair", "disable": None}
    if workers == 0:
        return sum(tqdm(map(cut, pairs), **bar))
    with ProcessPoolExecutor(workers, context, initializer=_ignore_interrupts) as pool:
        try:
            return sum(tqdm(pool.map(cut, pairs, chunksize=2), **bar))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _begin(out: Path, plan: Plan) -> None:
    earlier = read_plan(out)
    if earlier is None:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise UserError(f"{out} contains other files than tiles: choose a new folder.")
        write_atomically(out / _PLAN, json.dumps(asdict(plan)).encode())
    elif earlier != plan:
        raise UserError(
            f"{out} contains tiles of size {earlier.size} and step {earlier.step} from '{earlier.blur}', not of"
            f" size {plan.size} and step {plan.step} from '{plan.blur}': choose a new folder."
        )


def _link_tests(root: Path, out: Path) -> None:
    source, link = (root / "test").resolve(), out / "test"
    if source.is_dir() and not link.is_symlink() and not link.exists():
        link.symlink_to(source, target_is_directory=True)


def _cut(pair: Pair, out: Path, plan: Plan) -> int:
    sequence = out / (pair.sequence or "all")
    stem = pair.name.rpartition("/")[2]
    places = plan.places(*read_size(pair.sharp))
    for source, kind in ((pair.blurred, plan.blur), (pair.sharp, "sharp")):
        image = None
        for y, x in places:
            path = sequence / kind / f"{stem}_{y:04d}_{x:04d}.png"
            if path.exists():
                continue
            image = read_image(source) if image is None else image
            write_image(path, image[y : y + plan.size, x : x + plan.size])
    return len(places)


def _ignore_interrupts() -> None:
    # The parent stops its workers; otherwise each would print a traceback.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
