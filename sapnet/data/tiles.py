"""Training images cut into tiles once, so that a crop is not a whole PNG.

A random 256x256 crop of a 1280x720 image decodes fourteen times the pixels it shows. Tiles of 512x512 every 256 pixels,
the last row and column moved to the border, decode four times as many: 8 from an image of that size, 16,824 from
GoPro's 2103 training images, on 2.3 times the room. `python -m benchmarks.loading` measures what that saves: a core
makes 2.5 times as many crops of GoPro's images.

The tiles are in GoPro's layout, `OUT/train/SEQUENCE/{blur,sharp}/NAME_Y_X.png` (Y and X: the place of the upper left
corner), with ROOT's test images linked beside them, so `data=gopro data.root=OUT` and `data=folder data.root=OUT` train
on tiles and test on whole images. Held-out sequences are validated on in tiles.
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
    """How a folder's tiles were cut, kept in its `tiles.json`: tiles of two kinds never mix in one folder."""

    size: int
    """Side of a tile in pixels."""
    step: int
    """Pixels from one tile to the next."""
    blur: str
    """Folder name of the blurred tiles: GoPro's `blur` or `blur_gamma`."""
    splits: tuple[str, ...] = ("train",)

    def places(self, height: int, width: int) -> list[tuple[int, int]]:
        """Upper left corners (y, x) of the tiles of an image."""
        return list(product(starts(height, self.size, self.step), starts(width, self.size, self.step)))

    def tiles(self, height: int, width: int) -> int:
        """Count of the tiles of an image."""
        return len(self.places(height, width))


def starts(length: int, size: int, step: int) -> list[int]:
    """First pixels of the tiles along a side: every `step`, and one more that ends at the border if none does.

    Raises:
        UserError: a tile is longer than the side.
    """
    if size > length:
        raise UserError(f"a tile of {size} pixels does not fit into a side of {length}: choose a smaller --size.")
    places = list(range(0, length - size + 1, step))
    return places if places[-1] + size == length else [*places, length - size]


def read_plan(folder: str | Path) -> Plan | None:
    """How the tiles in a folder were cut; None for a folder that holds no tiles.

    Raises:
        UserError: its `tiles.json` is damaged.
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
    """Cut the training images of `root` into tiles below `out` and return how many tiles are there.

    Tiles that are there already are not cut again, so an interrupted run goes on. Each file is whole or not there.

    Args:
        root: A data set in a layout that `find_pairs` knows.
        out: A new or empty folder, or one that an earlier run with the same settings began.
        size: Side of a tile in pixels.
        step: Pixels from one tile to the next, at most `size`.
        blur: Which blurred folder to read where there are several.
        workers: Processes that cut; 0 cuts in this one.

    Raises:
        UserError: the images cannot be read or are smaller than a tile, or `out` holds something else.
    """
    if not 1 <= step <= size:
        raise UserError(f"--step is {step} and --size is {size}: tiles overlap or touch, so give 1 to {size} as step.")
    pairs, out = find_pairs(root, "train", blur), Path(out)
    kind = pairs[0].blurred.parent.name
    plan = Plan(size, step, kind if kind in _KINDS else _KINDS[0])
    for image in set(check_sizes(pairs)):
        plan.places(*image)  # a tile that does not fit is told before the first is cut
    _begin(out, plan)
    _link_tests(Path(root), out)
    # A process that inherits a lock of a running thread may wait for ever: start them afresh.
    context, cut = multiprocessing.get_context("spawn"), partial(_cut, out=out / "train", plan=plan)
    bar = {"desc": "cutting", "total": len(pairs), "unit": "pair", "disable": None}
    if workers == 0:
        return sum(tqdm(map(cut, pairs), **bar))
    with ProcessPoolExecutor(workers, context, initializer=_leave_interrupts) as pool:
        try:
            return sum(tqdm(pool.map(cut, pairs, chunksize=2), **bar))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _begin(out: Path, plan: Plan) -> None:
    earlier = read_plan(out)
    if earlier is None:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise UserError(f"{out} holds something other than tiles: choose a new folder.")
        write_atomically(out / _PLAN, json.dumps(asdict(plan)).encode())
    elif earlier != plan:
        raise UserError(
            f"{out} holds tiles of {earlier.size} pixels every {earlier.step} from '{earlier.blur}', and"
            f" {plan.size} every {plan.step} from '{plan.blur}' are asked for: choose a new folder."
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


def _leave_interrupts() -> None:
    # The parent ends its workers; else each would print a trace of its own.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
