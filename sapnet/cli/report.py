"""`sapnet report`: one self-contained HTML file about runs and studies."""

import argparse
import sys
from pathlib import Path

from sapnet import interrupts
from sapnet.cli.argument_types import whole
from sapnet.errors import UserError


def main() -> None:
    """Run the command; a user error ends in one sentence and exit code 1."""
    arguments = parser().parse_args()
    # Imported here because it takes seconds, which the help does not need.
    from sapnet.reporting.html_report.report import write_report

    try:
        with interrupts.raise_on_signals():
            print(write_report(arguments.folders, arguments.output, 0 if arguments.no_images else arguments.images))
    except UserError as error:
        print(error, file=sys.stderr)
        raise SystemExit(1) from None
    except interrupts.Interrupted as stop:
        interrupts.exit_process(interrupts.Interrupted(stop.signum, "no report was written"))


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        prog="sapnet report",
        description="Write the results of runs and studies as one HTML file, which needs no network: summary, test"
        " images, curves, pictures with the sampled points, config and commit; of several runs also a comparison.",
        epilog="example: sapnet report outputs/demo -o demo.html",
    )
    add = parser.add_argument
    text = "folder of a training or an evaluation, or of a rendered study (with table.json)"
    add("folders", nargs="+", type=Path, metavar="folder", help=text)
    add("-o", "--output", type=Path, metavar="FILE.html", help="default: report.html in the folder; of several, here")
    pictures = parser.add_mutually_exclusive_group()
    text = "test images of each run with pictures: the worst, the median, the best by PSNR (default 6)"
    pictures.add_argument("--images", type=whole, default=6, metavar="N", help=text)
    pictures.add_argument("--no-images", action="store_true", help="no pictures: neither data nor checkpoint is read")
    return parser
