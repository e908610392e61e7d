"""`sapnet-deblur photo.jpg -o out.png --checkpoint best.ckpt`: restore one's own photos."""

from sapnet import interrupts

if __name__ == "__main__":
    interrupts.install()  # before the imports below, which take seconds

import argparse
import sys
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from sapnet.checks import check_writable
from sapnet.data.images import SUFFIXES, read_image, to_array, to_tensor, write_image
from sapnet.errors import UserError
from sapnet.evaluation.pictures import with_points
from sapnet.models.adaptive import AdaptiveNetwork, use_window
from sapnet.training.checkpoints import network_from_checkpoint


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        prog="sapnet-deblur",
        description="Restore a blurred photo, or every photo of a folder, with a trained checkpoint.",
        epilog="example: sapnet-deblur photo.jpg -o sharp.png --checkpoint outputs/demo/checkpoints/best.ckpt",
    )
    parser.add_argument("input", type=Path, help="an image (PNG, JPEG, BMP, TIFF, WebP), or a folder of them")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the image to write, or a folder for a folder")
    parser.add_argument("-c", "--checkpoint", type=Path, required=True, help="a checkpoint that sapnet-train wrote")
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
        argparse.ArgumentTypeError: It is none.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: give a whole number, 1 or more")
    return int(text)


def pairs_of_paths(source: Path, target: Path, overwrite: bool) -> list[tuple[Path, Path]]:
    """Return (input, output) paths; a folder's images keep their names and are written as PNG.

    Raises:
        UserError: No such input, nothing in it, an output that would not be an image, one that exists, or one that
            cannot be written where it should be.
    """
    if source.is_dir():
        found = sorted(p for p in source.iterdir() if p.suffix.lower() in SUFFIXES)
        if not found:
            raise UserError(f"{source} holds no image: give a folder with {', '.join(sorted(SUFFIXES))} files.")
        if target.is_file():
            raise UserError(f"{target} is a file, and {source} a folder: give a folder to write to.")
        pairs = [(path, target / f"{path.stem}.png") for path in found]
        if len({out for _, out in pairs}) < len(pairs):
            raise UserError(f"{source} holds images that differ only in their ending: rename one of them.")
    elif not source.exists():
        raise UserError(f"{source}: there is no such image or folder.")
    else:
        pairs = [(source, target / f"{source.stem}.png" if target.is_dir() else target)]
    for path, out in pairs:
        if out.suffix.lower() not in (".png", ".jpg", ".jpeg"):
            raise UserError(f"{out}: the output must end in .png or .jpg.")
        if out.exists() and (not overwrite or out.resolve() == path.resolve()):
            raise UserError(f"{out} exists: add --overwrite, or choose another name (the input is never replaced).")
    for parent in {out.parent for _, out in pairs}:
        check_writable(parent)
    return pairs


@torch.no_grad()
def restore(network: nn.Module, image: Tensor, device: torch.device) -> tuple[Tensor, dict[int, Tensor]]:
    """Restore one ``[3, h, w]`` image in [0, 1].

    Returns:
        The last stage's output on the CPU, and for each stage that samples (by its number from 1) the image it worked
        on with the points of its finest scale in red.
    """
    blurred = image[None].to(device)
    if not isinstance(network, AdaptiveNetwork):
        return network(blurred)[-1][0].cpu(), {}
    walk = network.walk(blurred)
    shown = {}
    for stage, sampling in walk.samplings.items():
        chosen = sampling.mask(min(sampling.points))[0].cpu()
        shown[stage + 1] = with_points(walk.outputs[stage - 1][0].cpu(), chosen)
    return walk.outputs[-1][0].cpu(), shown


def choose_device(name: str) -> torch.device:
    """Return the device of that name; ``auto`` takes a GPU where there is one.

    Raises:
        UserError: The name is no device, or the machine lacks it.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {name}: this machine has no such device; use auto or cpu.") from error
    return device


def run(arguments: argparse.Namespace) -> None:
    """Restore everything that the command line names; finished images stay if a later one fails."""
    pairs = pairs_of_paths(arguments.input, arguments.output, arguments.overwrite)
    device = choose_device(arguments.device)
    network, _ = network_from_checkpoint(arguments.checkpoint)
    if arguments.show_points and not isinstance(network, AdaptiveNetwork):
        raise UserError(f"{arguments.checkpoint} samples no points: leave out --show-points.")
    use_window(network, arguments.window)
    network = network.to(device)
    for path, out in tqdm(pairs, desc="deblurring", unit="image", disable=len(pairs) == 1):
        image = to_tensor(read_image(path))
        restored, shown = restore(network, image, device)
        write_image(out, to_array(restored))
        for stage, picture in shown.items() if arguments.show_points else ():
            write_image(out.with_name(f"{out.stem}_points_{stage}.png"), to_array(picture))
        tqdm.write(f"{out}")


def main() -> None:
    """Run the command; a mistake ends in one sentence and exit code 1."""
    arguments = parser().parse_args()
    try:
        with interrupts.raising():
            run(arguments)
    except UserError as error:
        print(error, file=sys.stderr)
        raise SystemExit(1) from None
    except interrupts.Interrupted as stop:
        interrupts.leave(interrupts.Interrupted(stop.signum, "finished images stay"))


if __name__ == "__main__":
    main()
