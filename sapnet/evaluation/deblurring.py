"""Deblurring of photos with a trained checkpoint or published weights."""

from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from sapnet.checkpoints.network import network_from_checkpoint
from sapnet.checks import check_writable
from sapnet.data.images import SUFFIXES, read_image, to_array, to_tensor, write_image
from sapnet.errors import UserError
from sapnet.evaluation.networks import open_published, published_config
from sapnet.evaluation.pictures import with_points
from sapnet.models.adaptive_network import AdaptiveNetwork, use_window


def pairs_of_paths(source: Path, target: Path, overwrite: bool) -> list[tuple[Path, Path]]:
    """Return pairs of input and output paths; the images of a folder keep their names and become PNG files.

    Raises:
        UserError: The input does not exist or contains no image, or an output is not an image file, exists already or
            cannot be written.
    """
    if source.is_dir():
        images = sorted(p for p in source.iterdir() if p.suffix.lower() in SUFFIXES)
        if not images:
            raise UserError(f"{source} contains no image: give a folder with {', '.join(sorted(SUFFIXES))} files.")
        if target.is_file():
            raise UserError(f"{target} is a file, and {source} a folder: give a folder to write to.")
        pairs = [(path, target / f"{path.stem}.png") for path in images]
        if len({out for _, out in pairs}) < len(pairs):
            raise UserError(f"{source} contains images that differ only in their suffix: rename one of them.")
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
    """Restore one image `[3, h, w]` in [0, 1].

    Returns:
        The output of the last stage on the CPU, and for each sampled stage (numbered from 1) its input image with the
        points of the finest scale in red.
    """
    blurred = image[None].to(device)
    if not isinstance(network, AdaptiveNetwork):
        return network(blurred)[-1][0].cpu(), {}
    walk = network.trace(blurred)
    pictures = {}
    for stage, sampling in walk.sampled_points.items():
        chosen = sampling.mask(min(sampling.points))[0].cpu()
        pictures[stage + 1] = with_points(walk.outputs[stage - 1][0].cpu(), chosen)
    return walk.outputs[-1][0].cpu(), pictures


def choose_device(name: str) -> torch.device:
    """Return the device of a name; `auto` is a GPU if there is one, else the CPU.

    Raises:
        UserError: The device does not exist on this machine.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {name}: this machine has no such device; use auto or cpu.") from error
    return device


def open_network(checkpoint: Path | None, network: str | None, weights: Path | None) -> nn.Module:
    """Return the network of a checkpoint, or a published network with the weights of its authors.

    Raises:
        UserError: The arguments name no network or two, or it cannot be loaded.
    """
    if checkpoint is not None:
        if network is not None or weights is not None:
            raise UserError("--checkpoint carries its own network: leave out --network and --weights.")
        return network_from_checkpoint(checkpoint)[0]
    if network is None or weights is None:
        raise UserError("give --checkpoint FILE, or --network NAME and --weights FILE.")
    return open_published(published_config(network), weights)[0]


def deblur(
    input: Path,
    output: Path,
    checkpoint: Path | None = None,
    network: str | None = None,
    weights: Path | None = None,
    show_points: bool = False,
    window: int | None = None,
    device: str = "auto",
    overwrite: bool = False,
) -> None:
    """Restore a photo or every photo of a folder. Finished images are kept if a later one fails.

    Args:
        input: An image, or a folder of images.
        output: The image to write, or a folder.
        checkpoint: Checkpoint of the trained network.
        network: Instead: name of a published network in `conf/network`.
        weights: Weights of the published network, a file or folder of its authors.
        show_points: Whether to write a picture of the points of each stage beside each image.
        window: Side in pixels of the windows for attention and sampling; None for the whole photo.
        device: `auto` or the name of a device.
        overwrite: Whether to replace existing outputs.

    Raises:
        UserError: The photos, the network, the device or the output path cannot be used.
    """
    pairs = pairs_of_paths(input, output, overwrite)
    torch_device = choose_device(device)
    model = open_network(checkpoint, network, weights)
    if show_points and not isinstance(model, AdaptiveNetwork):
        raise UserError(f"the network of {checkpoint or weights} samples no points: leave out --show-points.")
    use_window(model, window)
    model = model.to(torch_device)
    for path, out in tqdm(pairs, desc="deblurring", unit="image", disable=len(pairs) == 1):
        image = to_tensor(read_image(path))
        restored, pictures = restore(model, image, torch_device)
        write_image(out, to_array(restored))
        for stage, picture in pictures.items() if show_points else ():
            write_image(out.with_name(f"{out.stem}_points_{stage}.png"), to_array(picture))
        tqdm.write(f"{out}")
