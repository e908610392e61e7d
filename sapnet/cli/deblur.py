"""`sapnet deblur`: restore photos with a trained checkpoint or published weights."""

import argparse
import sys
from pathlib import Path

from sapnet import interrupts
from sapnet.errors import UserError
from sapnet.evaluation.deblurring import deblur


def main() -> None:
    """Run the command; a user error ends in one sentence and exit code 1."""
    arguments = parser().parse_args()
    try:
        with interrupts.raise_on_signals():
            deblur(**vars(arguments))
    except UserError as error:
        print(error, file=sys.stderr)
        raise SystemExit(1) from None
    except interrupts.Interrupted as stop:
        interrupts.exit_process(interrupts.Interrupted(stop.signum, "finished images stay"))


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        prog="sapnet deblur",
        description="Restore a blurred photo, or every photo of a folder, with a trained checkpoint or the weights that"
        " the authors of a network distribute.",
        epilog="examples: sapnet deblur photo.jpg -o sharp.png --checkpoint outputs/demo/checkpoints/best.ckpt;"
        " sapnet deblur photo.jpg -o sharp.png --network restormer --weights motion_deblurring.pth",
    )
    parser.add_argument("input", type=Path, help="an image (PNG, JPEG, BMP, TIFF, WebP), or a folder of them")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the image to write, or a folder for a folder")
    parser.add_argument("-c", "--checkpoint", type=Path, help="a checkpoint that sapnet train wrote")
    parser.add_argument("--network", metavar="NAME", help="instead: a published network, such as restormer")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="its authors' file (or folder, of DMPHN)")
    parser.add_argument(
        "--show-points", action="store_true", help="also write OUTPUT_points_K.png: in red what stage K sampled"
    )
    parser.add_argument(
        "--window",
        type=pixels,
        metavar="PIXELS",
        help="side of the crops the network was trained on: attention and sampling see windows of that size, not the"
        " whole photo",
    )
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda or cuda:N")
    parser.add_argument("--overwrite", action="store_true", help="replace outputs that exist")
    return parser


def pixels(text: str) -> int:
    """Return a positive number of pixels given on the command line.

    Raises:
        argparse.ArgumentTypeError: The text is not a positive whole number.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: give a whole number, 1 or more")
    return int(text)
