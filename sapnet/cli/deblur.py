"""`sapnet deblur`: restore photos with a trained checkpoint or published weights."""

import argparse
import sys
from pathlib import Path

from sapnet import interrupts
from sapnet.cli.argument_types import budget, pixels, tile
from sapnet.errors import UserError


def main() -> None:
    """Run the command; a user error ends in one sentence and exit code 1."""
    arguments = parser().parse_args()
    # Imported here because it takes seconds, which the help does not need.
    from sapnet.evaluation.deblurring import deblur

    try:
        with interrupts.raise_on_signals():
            deblur(**vars(arguments))
    except UserError as error:
        print(error, file=sys.stderr)
        raise SystemExit(1) from None
    except interrupts.Interrupted as stop:
        interrupts.exit_process(interrupts.Interrupted(stop.signum, "finished images stay; --skip-existing goes on"))


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        prog="sapnet deblur",
        description="Restore blurred photos with a trained checkpoint or published weights. Photos keep their 8 or 16"
        " bits, transparency, EXIF data and colour profile as far as the format of the output holds them.",
        epilog="example: sapnet deblur holiday old.tif -o sharp --recursive -c outputs/demo/checkpoints/best.ckpt",
    )
    add = parser.add_argument
    add("inputs", nargs="+", metavar="input", help="images (PNG, JPEG, BMP, TIFF, WebP), and folders of them")
    add("-o", "--output", required=True, help="the image to write; for several or a folder, a folder for PNG files")
    add("-c", "--checkpoint", type=Path, help="a checkpoint that sapnet train wrote")
    add("--network", metavar="NAME", help="instead: a published network, such as restormer, with --weights")
    add("--weights", type=Path, metavar="FILE", help="the file of its authors (of DMPHN, the folder)")
    text = "use the moving average of the weights, which callbacks=[default,ema] keeps in training"
    add("--ema", action="store_true", help=text)
    add("-r", "--recursive", action="store_true", help="restore the images of all folders below a folder too")
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument("--overwrite", action="store_true", help="replace outputs that exist")
    existing.add_argument("--skip-existing", action="store_true", help="leave out photos whose output exists")
    add("--show-points", action="store_true", help="also write OUTPUT_points_K.png: in red what stage K sampled")
    add("--budget", type=budget, metavar="SHARE", help="points beyond a uniform grid: 0.1 is NU+10%%, -0.5 half of it")
    add("--window", type=pixels, metavar="PIXELS", help="side of the training crops: attention and sampling keep to it")
    text = "side of the tiles of large photos; 0: no tiles; default: tiles where the memory is too small for the whole"
    add("--tile", type=tile, metavar="PIXELS", help=text)
    add("--device", default="auto", help="auto (default), cpu, cuda or cuda:N")
    return parser
