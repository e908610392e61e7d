"""Measure how many training crops per second are loaded from whole PNGs, from tiles and from memory.

    python -m benchmarks.loading
    python -m benchmarks.loading --root GOPRO_Large --blur blur

Without --root, 1280x720 pairs are generated whose PNGs have the size of GoPro's. One process loads random crops of both
images of a pair in the same way as training. The table shows how many such processes (cores) supply a GPU that takes 30
steps per second with a batch of 6. Times are processor times, which exclude other processes and waiting for the disk.
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
from sapnet.markdown import markdown_table

REQUIRED = 30 * 6  # crops per second


def make_pairs(root: Path, pairs: int) -> None:
    """Write pairs of 1280x720 images of noise at several scales, whose PNGs take about 1.0 MB like GoPro frames."""
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
    """Return the number of crops per second that one process loads in the random order of training."""
    order = np.random.default_rng(epoch).permutation(len(crops))
    start = time.process_time()
    for count, index in enumerate(itertools.cycle(order), start=1):
        crops[epoch, int(index)]
        if (elapsed := time.process_time() - start) >= seconds:
            return count / elapsed


def measure(sources: dict[str, Path], blur: str | None, crop: int, seconds: float, rounds: int) -> dict[str, float]:
    """Return the best crops per second of each source over interleaved rounds."""
    crops = {name: RandomCrops(PairFiles(find_pairs(root, "train", blur)), crop, 0) for name, root in sources.items()}
    speeds: dict[str, list[float]] = {name: [] for name in crops}
    for number in range(rounds):
        for name, each in crops.items():
            speeds[name].append(crops_per_second(each, seconds, number))
    return {name: max(values) for name, values in speeds.items()}


def cached(root: Path, blur: str | None, crop: int, seconds: float) -> float:
    """Return the crops per second with `data.cache=true`."""
    data = FolderData(root, blur=blur, crop=crop, val_share=0, workers=0, cache=True)
    data.setup("fit")
    return crops_per_second(data.train_dataloader()._loader.dataset, seconds, 0)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, help="a data set with train/ (default: generated pairs)")
    parser.add_argument("--blur", help="blur or blur_gamma, if the set has both")
    parser.add_argument("--crop", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=4.0, help="duration of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    cv2.setNumThreads(0)
    with tempfile.TemporaryDirectory() as folder:
        whole, tiles = args.root or Path(folder) / "made", Path(folder) / "tiles"
        if args.root is None:
            make_pairs(whole, pairs=6)
        size = statistics.mean(path.stat().st_size for path in (whole / "train").rglob("*.png")) / 2**20
        cut_tiles(whole, tiles, blur=args.blur)
        sources = {"whole PNGs": whole, "tiles 512, step 256": tiles}
        speeds = measure(sources, args.blur, args.crop, args.seconds, args.rounds)
        speeds["decoded, in memory"] = cached(whole, args.blur, args.crop, args.seconds)
    print(f"Crops of {args.crop}x{args.crop}, both images of a pair; PNGs of {size:.2f} MiB on average.\n")
    head = ["read from", "crops/s, one core", "against whole PNGs", "cores for 30 steps/s of batch 6"]
    rows = [
        [name, f"{speed:.1f}", f"{speed / speeds['whole PNGs']:.1f}x", f"{REQUIRED / speed:.1f}"]
        for name, speed in speeds.items()
    ]
    print(markdown_table(head, rows))


if __name__ == "__main__":
    main()
