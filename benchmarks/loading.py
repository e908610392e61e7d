"""Training images per second out of whole PNGs and out of tiles, as a Markdown table.

    python -m benchmarks.loading
    python -m benchmarks.loading --root GOPRO_Large --blur blur

Without --root it makes 1280x720 pairs whose PNGs are as large as GoPro's. One process reads random crops of both images
of a pair, exactly as training does; the table says how many such processes (cores) keep a GPU fed that takes 30 steps
with a batch of 6 in a second. Seconds are the processor's: what else runs on the machine does not count, nor does
waiting for a disk.
"""

import argparse
import itertools
import statistics
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from sapnet.data.folder import FolderData
from sapnet.data.images import write_image
from sapnet.data.pairs import find_pairs
from sapnet.data.samples import PairFiles
from sapnet.data.tiles import cut_tiles
from sapnet.data.transforms import RandomCrops

WANTED = 30 * 6


def make_pairs(root: Path, pairs: int) -> None:
    """Pairs of 1280x720: noise at several scales, which as PNG takes about the 1.0 MB of a GoPro frame."""
    for number in range(pairs):
        rng = np.random.default_rng(number)
        image = np.zeros((720, 1280, 3), np.float32)
        for cells in (8, 32, 128, 512):
            noise = rng.normal(size=(cells, 2 * cells, 3)).astype(np.float32)
            image += cv2.resize(noise, (1280, 720), interpolation=cv2.INTER_CUBIC) * 40 / cells**0.35
        sharp = np.clip(127 + image, 0, 255).round().astype(np.uint8)
        blurred = cv2.blur(sharp, (15, 1))
        for kind, picture in (("blur", blurred), ("sharp", sharp)):
            write_image(root / "train" / f"made_{number % 2}" / kind / f"{number:06d}.png", picture)


def crops_per_second(crops: RandomCrops, seconds: float, epoch: int) -> float:
    """Crops that one process makes in a second, in a random order as training visits them."""
    order = np.random.default_rng(epoch).permutation(len(crops))
    start = time.process_time()
    for done, index in enumerate(itertools.cycle(order), start=1):
        crops[epoch, int(index)]
        if (spent := time.process_time() - start) >= seconds:
            return done / spent


def measure(sources: dict[str, Path], blur: str | None, crop: int, seconds: float, rounds: int) -> dict[str, float]:
    """Best crops per second of each source over interleaved rounds: a busy machine only ever slows down."""
    crops = {name: RandomCrops(PairFiles(find_pairs(root, "train", blur)), crop, 0) for name, root in sources.items()}
    found: dict[str, list[float]] = {name: [] for name in crops}
    for number in range(rounds):
        for name, each in crops.items():
            found[name].append(crops_per_second(each, seconds, number))
    return {name: max(values) for name, values in found.items()}


def cached(root: Path, blur: str | None, crop: int, seconds: float) -> float:
    """Crops per second with `data.cache=true`: decoded once, cut out of memory."""
    data = FolderData(root, blur=blur, crop=crop, val_share=0, workers=0, cache=True)
    data.setup("fit")
    return crops_per_second(data.train_dataloader()._loader.dataset, seconds, 0)


def main() -> None:
    """Cut, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, help="a data set with train/; else pairs are made")
    parser.add_argument("--blur", help="blur or blur_gamma, where the set has both")
    parser.add_argument("--crop", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    cv2.setNumThreads(0)
    with tempfile.TemporaryDirectory() as folder:
        whole, tiles = given.root or Path(folder) / "made", Path(folder) / "tiles"
        if given.root is None:
            make_pairs(whole, pairs=6)
        size = statistics.mean(path.stat().st_size for path in (whole / "train").rglob("*.png")) / 2**20
        cut_tiles(whole, tiles, blur=given.blur)
        sources = {"whole PNGs": whole, "tiles 512, step 256": tiles}
        speeds = measure(sources, given.blur, given.crop, given.seconds, given.rounds)
        speeds["decoded, in memory"] = cached(whole, given.blur, given.crop, given.seconds)
    print(f"Crops of {given.crop}x{given.crop}, both images of a pair; PNGs of {size:.2f} MiB on average.\n")
    print("| read from | crops/s, one core | against whole PNGs | cores for 30 steps/s of batch 6 |")
    print("|---|---|---|---|")
    for name, speed in speeds.items():
        ratio = speed / speeds["whole PNGs"]
        print(f"| {name} | {speed:.1f} | {ratio:.1f}x | {WANTED / speed:.1f} |")


if __name__ == "__main__":
    main()
