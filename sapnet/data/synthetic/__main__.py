"""Write synthetic scenes to a folder: `python -m sapnet.data.synthetic OUT --split train --scenes 400`."""

import argparse
import sys

from sapnet.data.synthetic.dataset import SPLITS, SyntheticScenes
from sapnet.data.synthetic.distributions import DISTRIBUTIONS
from sapnet.data.synthetic.layout import write_gopro_layout
from sapnet.errors import UserError


def _gamma(text: str) -> float | None:
    return None if text.lower() == "none" else float(text)


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line, write the scenes, return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m sapnet.data.synthetic",
        description="Write procedural dynamic scenes as OUT/SPLIT/SEQUENCE/{blur,sharp,extent}/NNNNNN.png.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("out", help="parent folder of the splits")
    parser.add_argument("--split", choices=SPLITS, default="train", help="each split has different scenes")
    parser.add_argument("--scenes", type=int, default=100, help="number of scenes")
    parser.add_argument("--size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"), default=(128, 128), help="pixels")
    parser.add_argument("--seed", type=int, default=0, help="each seed is a different set of scenes")
    parser.add_argument(
        "--gamma",
        type=_gamma,
        default=2.2,
        help="exponent of linear light for averaging, or `none` to average stored values",
    )
    parser.add_argument(
        "--distribution", choices=DISTRIBUTIONS, default="synthetic", help="camera and objects move, or only objects"
    )
    args = parser.parse_args(arguments)
    try:
        dataset = SyntheticScenes(args.split, args.scenes, tuple(args.size), args.seed, args.gamma, args.distribution)
        sequences = write_gopro_layout(dataset, args.out, progress=True)
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{len(dataset)} scenes in {len(sequences)} sequences under {sequences[0].parent}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
