"""Restore photos with a trained checkpoint."""

from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from sapnet.checks import check_writable
from sapnet.data.images import SUFFIXES, read_image, to_array, to_tensor, write_image
from sapnet.errors import UserError
from sapnet.evaluation.pictures import with_points
from sapnet.models.adaptive_network import AdaptiveNetwork, use_window
from sapnet.training.checkpoints import network_from_checkpoint


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
    walk = network.trace(blurred)
    shown = {}
    for stage, sampling in walk.sampled_points.items():
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


def deblur(
    input: Path,
    output: Path,
    checkpoint: Path,
    show_points: bool = False,
    window: int | None = None,
    device: str = "auto",
    overwrite: bool = False,
) -> None:
    """Restore a photo, or every photo of a folder; finished images stay if a later one fails.

    Args:
        input: An image, or a folder of images.
        output: The image to write, or a folder.
        checkpoint: The trained network.
        show_points: Whether to write a picture of the points of each stage beside each image.
        window: Side in pixels of the windows that attention and sampling see; None for the whole photo.
        device: `auto`, or the name of a device.
        overwrite: Whether to replace outputs that exist.

    Raises:
        UserError: The photos, the checkpoint, the device or the place to write to cannot be used.
    """
    pairs = pairs_of_paths(input, output, overwrite)
    chosen = choose_device(device)
    network, _ = network_from_checkpoint(checkpoint)
    if show_points and not isinstance(network, AdaptiveNetwork):
        raise UserError(f"{checkpoint} samples no points: leave out --show-points.")
    use_window(network, window)
    network = network.to(chosen)
    for path, out in tqdm(pairs, desc="deblurring", unit="image", disable=len(pairs) == 1):
        image = to_tensor(read_image(path))
        restored, shown = restore(network, image, chosen)
        write_image(out, to_array(restored))
        for stage, picture in shown.items() if show_points else ():
            write_image(out.with_name(f"{out.stem}_points_{stage}.png"), to_array(picture))
        tqdm.write(f"{out}")
