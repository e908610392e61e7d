"""Deblurring of photos with a trained checkpoint or published weights."""

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor, nn

from sapnet.checkpoints.network import network_from_checkpoint
from sapnet.data.images import write_image
from sapnet.data.photo_outputs import (
    PhotoPaths,
    check_points_targets,
    outputs_to_write,
    plan_outputs,
    points_target,
)
from sapnet.data.photos import Photo, check_output_format, read_photo, read_photo_size, write_photo
from sapnet.errors import UserError
from sapnet.evaluation.photo_memory import SMALL, MemoryEstimate, available_memory, frugal_allocation, measure
from sapnet.evaluation.photo_progress import Failures, Progress
from sapnet.evaluation.photo_tiles import restore_photo
from sapnet.evaluation.photo_ways import TileRules, Way, choose_way, tile_rules
from sapnet.evaluation.pictures import with_points
from sapnet.models.adaptive_network import AdaptiveNetwork, use_window

Size = tuple[int, int]


def deblur(
    inputs: Sequence[str | Path],
    output: str | Path,
    checkpoint: Path | None = None,
    show_points: bool = False,
    window: int | None = None,
    budget: float | None = None,
    device: str = "auto",
    recursive: bool = False,
    overwrite: bool = False,
    skip_existing: bool = False,
    ema: bool = False,
    network: str | None = None,
    weights: Path | None = None,
    tile: int | None = None,
) -> None:
    """Restore photos. One that cannot be restored is reported, and the others are restored.

    Args:
        inputs: Images, and folders of images.
        output: The image to write, or a folder.
        checkpoint: Checkpoint of the trained network.
        show_points: Whether to write a picture of the points of each stage beside each image.
        window: Side in pixels of the windows for attention and sampling; None for the whole photo.
        budget: Points relative to a uniform grid, such as -0.1 for NU-10%; None for the budget of the training.
        device: `auto` or the name of a device.
        recursive: Whether to restore the images of all folders below a folder too.
        overwrite: Whether to replace existing outputs.
        skip_existing: Whether to leave out photos whose output exists.
        ema: Whether to use the moving average of the generator's weights.
        network: Instead of a checkpoint: name of a published network in `conf/network`.
        weights: Weights of the published network, a file or folder of its authors.
        tile: Side in pixels of the tiles in which larger photos are restored; 0 for whole photos only; None for tiles
            where the memory does not suffice for the whole photo.

    Raises:
        UserError: The inputs, the network, its settings, the device or the output cannot be used; or a photo was
            not restored.
    """
    planned = plan_outputs(inputs, output, recursive)
    pairs = outputs_to_write(planned, overwrite, skip_existing)
    if len(pairs) < len(planned):
        print(f"{len(planned) - len(pairs)} of {len(planned)} photos have an output already and are skipped.")
    failures = Failures(len(pairs))
    sizes = _sizes(pairs, failures)
    if sizes:
        torch_device = choose_device(device)
        model = open_network(checkpoint, network, weights, ema)
        _adjust(model, window, budget, show_points, list(sizes))
        rules = tile_rules(model, tile, window)
        model = model.to(torch_device)
        ways = _choose_ways(model, sizes, rules, torch_device, failures)
        _restore_files(model, ways, show_points, torch_device, failures)
    failures.raise_if_any()


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


def open_network(
    checkpoint: Path | None = None, network: str | None = None, weights: Path | None = None, ema: bool = False
) -> nn.Module:
    """Return the network of a checkpoint, or a published network with the weights of its authors.

    Raises:
        UserError: The arguments name no network or two, or it cannot be loaded.
    """
    if checkpoint is not None:
        if network is not None or weights is not None:
            raise UserError("--checkpoint carries its own network: leave out --network and --weights.")
        return network_from_checkpoint(checkpoint, ema)[0]
    if network is None or weights is None:
        raise UserError("give --checkpoint FILE, or --network NAME and --weights FILE.")
    if ema:
        raise UserError("--ema goes with --checkpoint alone: authors' files have one set of weights.")
    # Imported here because it takes seconds, which checkpoints do not need.
    from sapnet.evaluation.networks import open_published, published_config

    return open_published(published_config(network), weights)[0]


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


def _sizes(pairs: Sequence[PhotoPaths], failures: Failures) -> dict[PhotoPaths, Size]:
    """Return the height and width of the photos that can be read, as far as the headers of their files tell."""
    sizes = {}
    for pair in pairs:
        with failures.reported(pair.source):
            sizes[pair] = read_photo_size(pair.source)
    return sizes


def _adjust(
    network: nn.Module, window: int | None, budget: float | None, show_points: bool, pairs: Sequence[PhotoPaths]
) -> None:
    if isinstance(network, AdaptiveNetwork):
        if budget is not None:
            network.use_budget(budget)
        if show_points:
            check_points_targets(pairs, [stage + 1 for stage in network.sampled_stages])
    elif show_points or budget is not None:
        option = "--show-points" if show_points else f"--budget {budget:g}"
        raise UserError(f"the network samples no points: leave out {option}.")
    use_window(network, window)


def _choose_ways(
    network: nn.Module, sizes: Mapping[PhotoPaths, Size], rules: TileRules, device: torch.device, failures: Failures
) -> dict[PhotoPaths, Way]:
    """Return how each photo is restored, without those that do not fit into the memory."""
    estimate, available, ways = _measure_memory(network, sizes, device), available_memory(device), {}
    for pair, size in sizes.items():
        with failures.reported(pair.source):
            ways[pair] = choose_way(pair.source, size, rules, estimate, available, device)
    return ways


def _measure_memory(
    network: nn.Module, sizes: Mapping[PhotoPaths, Size], device: torch.device
) -> MemoryEstimate | None:
    """Measure the memory of a pass; None if all photos are small or the system does not tell."""
    largest = max(height * width for height, width in sizes.values())
    if largest <= SMALL or available_memory(device) is None:
        return None
    rng = np.random.default_rng(0)

    def restore_noise(height: int, width: int) -> None:
        noise = Photo(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        noise.with_colours(restore(network, noise.colours(), device)[0].nan_to_num_())

    return measure(restore_noise, largest, device)


def _restore_files(
    network: nn.Module, ways: Mapping[PhotoPaths, Way], show_points: bool, device: torch.device, failures: Failures
) -> None:
    progress = Progress([way.pixels for way in ways.values()])
    for pair, way in ways.items():
        start = time.perf_counter()
        result = None
        with failures.reported(pair.source), frugal_allocation(way.frugal):
            photo = read_photo(pair.source)
            check_output_format(pair.target, photo)
            result = _restore_photo(network, photo, pair.source, way, show_points, device, progress)
        if result is None:
            progress.skip(way.pixels)
            continue
        restored, pictures = result
        # The photo is written last: where it exists, everything does.
        for stage, picture in pictures.items():
            write_image(points_target(pair.target, stage), picture)
        write_photo(pair.target, restored)
        if failures.total == 1:
            print(pair.target)
        else:
            print(progress.line(pair.source, way.pixels, time.perf_counter() - start), flush=True)


def _restore_photo(
    network: nn.Module,
    photo: Photo,
    source: Path,
    way: Way,
    show_points: bool,
    device: torch.device,
    progress: Progress,
) -> tuple[Photo, dict[int, UInt8[np.ndarray, "h w 3"]]]:
    """Restore a photo, with lines on standard error about its tiles, if there are several."""
    start = time.perf_counter()

    def restore_tile(colours: Tensor) -> tuple[Tensor, dict[int, Tensor]]:
        restored, pictures = restore(network, colours, device)
        if not torch.isfinite(restored).all():
            raise UserError(f"{source}: the network returns NaN or infinite values: use another checkpoint.")
        return restored, pictures if show_points else {}

    def report(done: int) -> None:
        seconds = time.perf_counter() - start
        if way.plan.number > 1:
            line = progress.tile_line(source, way.pixels, done, way.plan.number, seconds)
            print(line, file=sys.stderr, flush=True)

    if way.plan.number > 1:
        print(f"{source}: {way.notice}", file=sys.stderr, flush=True)
    return restore_photo(photo, way.plan, restore_tile, report)
