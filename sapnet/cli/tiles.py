"""`sapnet tiles`: cut the training images of a data set into tiles."""

import argparse
import sys
from pathlib import Path

from sapnet import interrupts
from sapnet.data.samples import usable_cores
from sapnet.data.tiles import cut_tiles
from sapnet.errors import UserError


def main() -> None:
    """Run the command; a user error ends in one sentence and exit code 1."""
    arguments = parser().parse_args()
    try:
        with interrupts.raise_on_signals():
            tiles = cut_tiles(**vars(arguments))
    except UserError as error:
        print(error, file=sys.stderr)
        raise SystemExit(1) from None
    except interrupts.Interrupted as stop:
        interrupts.exit_process(interrupts.Interrupted(stop.signum, "run the same command again to continue"))
    size, out = arguments.size, arguments.out
    print(f"{tiles} tiles of {size}x{size} are in {out}: train with data.root={out}")


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        prog="sapnet tiles", description="Cut training images into tiles. An interrupted run is continued."
    )
    parser.add_argument("root", type=Path, help="data set with train/ in the layout of GoPro or REDS")
    parser.add_argument("out", type=Path, help="folder of the tiles")
    parser.add_argument("--size", type=int, default=512, help="side of a tile in pixels")
    parser.add_argument("--step", type=int, default=256, help="pixels from one tile to the next")
    parser.add_argument("--blur", help="blur or blur_gamma, where the set has both")
    parser.add_argument("--workers", type=int, default=usable_cores(), help="processes")
    return parser
