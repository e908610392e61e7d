"""Evaluation of a network on whole images, with one result line per image."""

import json
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from sapnet import __version__
from sapnet.evaluation import registration
from sapnet.evaluation.claims import Claims
from sapnet.evaluation.metrics import psnr, ssim_matlab3d
from sapnet.evaluation.result_contexts import context_id
from sapnet.evaluation.results_file import append_result
from sapnet.evaluation.sharing import claims_path, share_images
from sapnet.provenance import provenance

#: Descriptions of the evaluation protocols by their names in data modules. Every result line contains one.
PROTOCOLS = {
    "standard": "uint8 RGB, psnr and ssim_matlab3d per image, no border",
    "realblur": registration.PROTOCOL,
}
#: `(blurred, sharp[, extent]) -> [OP_1, ..., OP_K]`. Only control samplers use the ground truth and the blur extent,
#: which not all data sets have.
Restore = Callable[..., Sequence[Tensor]]
#: Side in pixels of the image crop for the warm-up on CPUs.
_WARM_UP_SIDE = 128


def usual_device() -> torch.device:
    """Return the GPU of this process (by `LOCAL_RANK` under `torchrun`), or the CPU if there is no GPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())
    torch.cuda.set_device(device)
    return device


def environment(device: torch.device) -> dict[str, Any]:
    """Return the conditions that times depend on: device, threads, PyTorch version and TF32 on GPUs."""
    cuda = device.type == "cuda"
    return {
        "device": device.type,
        "device_name": torch.cuda.get_device_name(device) if cuda else platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        **({"tf32_convolutions": torch.backends.cudnn.allow_tf32} if cuda else {}),
    }


@runtime_checkable
class Items(Protocol):
    """Test images, read one at a time."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Mapping[str, Any]: ...


@torch.no_grad()
def warm_up(restore: Restore, item: Mapping[str, Any], device: torch.device) -> None:
    """Restore once before any measurement, to exclude the cost of the first call.

    A GPU selects kernels and allocates memory by image size, so it restores the whole image; other devices restore a
    crop.
    """
    images = _inputs(item)
    if device.type != "cuda":
        images = [image[..., :_WARM_UP_SIDE, :_WARM_UP_SIDE] for image in images]
    restore(*(image.to(device) for image in images))
    _synchronise(device)


@torch.no_grad()
def evaluate_image(
    restore: Restore, item: Mapping[str, Any], device: torch.device, protocol: str = "standard"
) -> tuple[dict[str, Any], list[Tensor]]:
    """Restore one image and compute the metrics of the input and of every stage.

    Args:
        restore: The network. It takes `blurred`, `sharp` and, if the item has one, `extent` as batches of one.
        item: `blurred` and `sharp` `[3, h, w]` in [0, 1], `name` and optionally `extent` `[1, h, w]`.
        device: Device of the network.
        protocol: Key of `PROTOCOLS`.

    Returns:
        The metrics and times for the result line, and the images of the stages, `[3, h, w]` on the CPU. `seconds` is
        the time of the network until its result is available. GPU kernels run asynchronously, so on a GPU there is also
        `seconds_unsynchronised`, the time until the call returns, which most published times are.
    """
    inputs = [image.to(device) for image in _inputs(item)]
    _synchronise(device)
    start = time.perf_counter()
    outputs = restore(*inputs)
    returned = time.perf_counter() - start
    _synchronise(device)
    seconds = time.perf_counter() - start
    images = [output[0].float().cpu() for output in outputs]
    line = {
        "name": item["name"],
        "height": item["sharp"].shape[1],
        "width": item["sharp"].shape[2],
        "dtype": str(outputs[-1].dtype).removeprefix("torch."),
        "seconds": seconds,
        **({"seconds_unsynchronised": returned} if device.type == "cuda" else {}),
        **_metrics([item["blurred"], *images], item["sharp"], protocol),
    }
    return line, images


def _inputs(item: Mapping[str, Any]) -> list[Tensor]:
    return [item[key][None] for key in ("blurred", "sharp", "extent") if key in item]


def _metrics(images: Sequence[Tensor], sharp: Tensor, protocol: str) -> dict[str, Any]:
    """Compute the metrics of the input, which is the first image, and of the stages."""
    extra = {}
    if protocol == "realblur":
        # The registration takes seconds and releases the GIL.
        with ThreadPoolExecutor(len(images)) as pool:
            results = list(pool.map(lambda image: registration.registered_metrics(image, sharp), images))
        psnrs, ssims = [result.psnr for result in results], [result.ssim for result in results]
        extra = {"unregistered": [result.unregistered for result in results]}
    else:
        psnrs = [float(psnr(image, sharp)) for image in images]
        ssims = [float(ssim_matlab3d(image, sharp)) for image in images]
    return {
        "input_psnr": psnrs[0],
        "input_ssim": ssims[0],
        "stage_psnr": psnrs[1:],
        "stage_ssim": ssims[1:],
        **extra,
    }


def evaluate_images(
    restore: Restore,
    items: Items,
    device: torch.device,
    path: Path,
    context: Mapping[str, Any],
    on_image: Callable[[Mapping[str, Any], Sequence[Tensor]], None] | None = None,
    protocol: str = "standard",
    image_missing: Callable[[str], bool] | None = None,
) -> list[dict[str, Any]]:
    """Evaluate images and append one JSON line per image to a file, skipping images that have a line there already.

    Processes with the same `path` share the images. Each process restores the images that no other process has claimed,
    then waits for the others; if another process dies, its image is claimed again. Claims are locks in a file beside
    `path`.

    Args:
        restore: As in `evaluate_image`.
        items: The images, read one at a time. With a method `name(index)`, images that are evaluated already are not
            read.
        device: Device of the network.
        path: The results file.
        context: Entries of every line: model, checkpoint, data. Lines of another context, type of device, PyTorch
            version or version of this package are ignored.
        on_image: Called with each item that this process restored and its stage images.
        protocol: Key of `PROTOCOLS`.
        image_missing: Whether an image, given by name, still has to be passed to `on_image` although its line exists.
            It is then restored again, without a new line.

    Returns:
        The lines of all images in their order, from all processes.
    """
    context = full_context(context, device, protocol)
    # Not in the context: results stay valid when the commit changes.
    conditions, warm_sizes = {**environment(device), "provenance": provenance()}, set()

    def evaluate(index: int) -> dict[str, Any]:
        item = items[index]
        size = tuple(item["blurred"].shape) if device.type == "cuda" else None
        if size not in warm_sizes:
            warm_up(restore, item, device)
            warm_sizes.add(size)
        metrics, images = evaluate_image(restore, item, device, protocol)
        line = {**metrics, **context, **conditions}
        append_result(path, line)
        if on_image is not None:
            on_image(item, images)
        return line

    name_of = getattr(items, "name", lambda index: items[index]["name"])
    names = [name_of(index) for index in range(len(items))]
    lines = share_images(evaluate, names, path, context)
    if on_image is not None and image_missing is not None:
        _restore_missing(restore, items, names, device, path, context, on_image, image_missing)
    return lines


def full_context(context: Mapping[str, Any], device: torch.device, protocol: str = "standard") -> dict[str, Any]:
    """Return a context with the entries that `evaluate_images` adds, in the form read from a results file."""
    added = {"protocol": PROTOCOLS[protocol], "device": device.type, "torch": torch.__version__, "sapnet": __version__}
    return json.loads(json.dumps({**context, **added}))


@torch.no_grad()
def _restore_missing(
    restore: Restore,
    items: Items,
    names: Sequence[str],
    device: torch.device,
    path: Path,
    context: Mapping[str, Any],
    on_image: Callable[[Mapping[str, Any], Sequence[Tensor]], None],
    image_missing: Callable[[str], bool],
) -> None:
    # Processes share these images too. An image that another process has claimed is left to it.
    prefix = context_id(context)
    with Claims(claims_path(path)) as claims:
        for index, name in enumerate(names):
            if not image_missing(name):
                continue
            with claims.claim(f"{prefix} image {name}") as claimed:
                if claimed and image_missing(name):
                    outputs = restore(*(image.to(device) for image in _inputs(items[index])))
                    on_image(items[index], [output[0].float().cpu() for output in outputs])


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
