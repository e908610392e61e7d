"""Whole-image evaluation: every image through the network, one result line each."""

import json
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from sapnet import __version__
from sapnet.errors import UserError
from sapnet.evaluation import registration
from sapnet.evaluation.contexts import context_id
from sapnet.evaluation.division import share
from sapnet.evaluation.metrics import psnr, ssim_matlab3d
from sapnet.evaluation.sharing import Claims
from sapnet.evaluation.statistics import paired_interval
from sapnet.evaluation.store import append_result
from sapnet.provenance import provenance

#: What the figures mean, by the name that a data module gives its protocol; named in every result line.
PROTOCOLS = {
    "standard": "uint8 RGB, psnr and ssim_matlab3d per image, no border",
    "realblur": registration.PROTOCOL,
}
#: ``(blurred, sharp[, extent]) -> [OP_1, ..., OP_K]``; only controls look at the ground truth, and at the true blur,
#: which is given where the data knows it.
Restore = Callable[..., Sequence[Tensor]]
#: Side in pixels of the corner that warms up where whole images need not.
_CORNER = 128


def usual_device() -> torch.device:
    """The GPU where there is one, under `torchrun` that of the process, else the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())
    torch.cuda.set_device(device)
    return device


def environment(device: torch.device) -> dict[str, Any]:
    """Return what times depend on beside model and image: device, threads, version, reduced precision of a GPU."""
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
    """Restore once without measuring, so that what a first call costs is in no time.

    A GPU chooses kernels and takes memory for an image's size, so there it is the whole image; elsewhere a corner.
    """
    images = _inputs(item)
    if device.type != "cuda":
        images = [image[..., :_CORNER, :_CORNER] for image in images]
    restore(*(image.to(device) for image in images))
    _synchronise(device)


@torch.no_grad()
def evaluate_image(
    restore: Restore, item: Mapping[str, Any], device: torch.device, protocol: str = "standard"
) -> tuple[dict[str, Any], list[Tensor]]:
    """Restore one image and measure the input and every stage.

    Args:
        restore: Takes ``[1, 3, h, w]``, blurred and sharp, and where the item has it the extent ``[1, 1, h, w]``.
        item: ``blurred`` and ``sharp`` ``[3, h, w]`` in [0, 1], ``name``, and where it is known ``extent``.
        device: Where to compute.
        protocol: One of `PROTOCOLS`.

    Returns:
        The result line's figures and the stages' images, ``[3, h, w]`` on the CPU. ``seconds`` is the time of the
        network alone until its result is there. A GPU works on after the call has returned, so there
        ``seconds_unsynchronised`` stands beside it: the time until the return, as most published figures are taken. On
        the CPU the two are one.
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
        **_figures([item["blurred"], *images], item["sharp"], protocol),
    }
    return line, images


def _inputs(item: Mapping[str, Any]) -> list[Tensor]:
    return [item[key][None] for key in ("blurred", "sharp", "extent") if key in item]


def _figures(images: Sequence[Tensor], sharp: Tensor, protocol: str) -> dict[str, Any]:
    """Figures of the input, which comes first, and of the stages."""
    more = {}
    if protocol == "realblur":
        # A fit takes seconds, and OpenCV lets other threads run.
        with ThreadPoolExecutor(len(images)) as pool:
            found = list(pool.map(lambda image: registration.aligned_metrics(image, sharp), images))
        values, ssims = [each.psnr for each in found], [each.ssim for each in found]
        more = {"unregistered": [each.fell_back for each in found]}
    else:
        values = [float(psnr(image, sharp)) for image in images]
        ssims = [float(ssim_matlab3d(image, sharp)) for image in images]
    return {
        "input_psnr": values[0],
        "input_ssim": ssims[0],
        "stage_psnr": values[1:],
        "stage_ssim": ssims[1:],
        **more,
    }


def evaluate_images(
    restore: Restore,
    items: Items,
    device: torch.device,
    path: Path,
    context: Mapping[str, Any],
    on_image: Callable[[Mapping[str, Any], Sequence[Tensor]], None] | None = None,
    protocol: str = "standard",
    lacks: Callable[[str], bool] | None = None,
) -> list[dict[str, Any]]:
    """Evaluate images one by one, appending a JSON line for each to ``path``, and go on where an earlier run stopped.

    Processes with one ``path`` share the images: each restores those that no other has claimed, and in the end waits
    for the others' or, where another was killed, restores them itself. A claim is a lock in a file beside ``path``.

    Args:
        restore: As in :func:`evaluate_image`.
        items: The images, read one at a time; where they have a method ``name(index)``, what is done is not read again.
        device: Where to compute.
        path: The file of result lines.
        context: What each line repeats: model, checkpoint, data; lines with another context are not ours, nor are those
            of another kind of device, version of torch or version of this package.
        on_image: Called with each item that this process restored and its stage images.
        protocol: One of `PROTOCOLS`.
        lacks: Tells by an image's name whether `on_image` is wanted for it even where its result is there already: it
            is then restored again, and measured no second time.

    Returns:
        A line for each image, in their order, whichever process made it.
    """
    context = full_context(context, device, protocol)
    # No part of the context: another commit does not make the work of an earlier one another's.
    around, warm = {**environment(device), "provenance": provenance()}, set()

    def work(index: int) -> dict[str, Any]:
        item = items[index]
        size = tuple(item["blurred"].shape) if device.type == "cuda" else None
        if size not in warm:
            warm_up(restore, item, device)
            warm.add(size)
        figures, images = evaluate_image(restore, item, device, protocol)
        line = {**figures, **context, **around}
        append_result(path, line)
        if on_image is not None:
            on_image(item, images)
        return line

    name_of = getattr(items, "name", lambda index: items[index]["name"])
    names = [name_of(index) for index in range(len(items))]
    lines = share(work, names, path, context)
    if on_image is not None and lacks is not None:
        _complete(restore, items, names, device, path, context, on_image, lacks)
    return lines


def full_context(context: Mapping[str, Any], device: torch.device, protocol: str = "standard") -> dict[str, Any]:
    """Return a context with what `evaluate_images` adds to it, as it comes back from the file of results."""
    more = {"protocol": PROTOCOLS[protocol], "device": device.type, "torch": torch.__version__, "sapnet": __version__}
    return json.loads(json.dumps({**context, **more}))


@torch.no_grad()
def _complete(
    restore: Restore,
    items: Items,
    names: Sequence[str],
    device: torch.device,
    path: Path,
    context: Mapping[str, Any],
    on_image: Callable[[Mapping[str, Any], Sequence[Tensor]], None],
    lacks: Callable[[str], bool],
) -> None:
    # Processes share this as they share the evaluation; what another one has claimed is left to it.
    prefix = context_id(context)
    with Claims(path.with_name(f".{path.name}.claims")) as claims:
        for index, name in enumerate(names):
            if not lacks(name):
                continue
            with claims.claim(f"{prefix} image {name}") as claimed:
                if claimed and lacks(name):
                    outputs = restore(*(image.to(device) for image in _inputs(items[index])))
                    on_image(items[index], [output[0].float().cpu() for output in outputs])


def summarise(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return means over images, and the paired 95% bootstrap interval of the last stage's gain over the input.

    An image that equals its ground truth has no finite PSNR; such images are counted and left out of all means. Where
    images are registered, `unregistered` counts those for which a fit failed. Times are in `timing`.
    """
    total = len(lines)
    times = timing(lines)
    lines = [line for line in lines if np.isfinite([line["input_psnr"], *line["stage_psnr"]]).all()]
    if not lines:
        raise UserError("every test image equals its ground truth: give blurred images as input.")
    stages = np.array([line["stage_psnr"] for line in lines])
    before = np.array([line["input_psnr"] for line in lines])
    gain = paired_interval(stages[:, -1] - before)
    return {
        "images": len(lines),
        "images_equal_to_truth": total - len(lines),
        "input_psnr": float(before.mean()),
        "stage_psnr": stages.mean(axis=0).tolist(),
        "input_ssim": float(np.mean([line["input_ssim"] for line in lines])),
        "stage_ssim": np.mean([line["stage_ssim"] for line in lines], axis=0).tolist(),
        "gain_db": gain.mean,
        "gain_ci95": [gain.low, gain.high],
        **times,
        "protocol": lines[0]["protocol"],
        **{key: lines[0][key] for key in ("checkpoint_kind", "generator_steps") if key in lines[0]},
        **({"unregistered": sum(any(line["unregistered"]) for line in lines)} if "unregistered" in lines[0] else {}),
    }


def timing(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return medians over images in seconds: ``seconds``, from a GPU ``seconds_unsynchronised``; and what they are of.

    `of` names devices, threads, precision and sizes, all of them where processes on unlike devices shared the work.
    """
    kinds = ("seconds", "seconds_unsynchronised")
    found = {kind: [line[kind] for line in lines if kind in line] for kind in kinds}
    of = [line["device_name"] for line in lines]
    of += [f"{line['threads']} threads" for line in lines if line["device"] == "cpu"]
    of += [line["dtype"] + (", TF32 in convolutions" if line.get("tf32_convolutions") else "") for line in lines]
    sizes = dict.fromkeys(f"{line['width']}x{line['height']}" for line in lines)
    of += sizes if len(sizes) == 1 else [f"{len(sizes)} sizes"]
    medians = {kind: float(np.median(values)) for kind, values in found.items() if values}
    return {**medians, "of": ", ".join(dict.fromkeys(of))}


def as_table(summary: Mapping[str, Any]) -> str:
    """Return the summary as lines for a terminal."""
    rows = [("blurred input", summary["input_psnr"], summary["input_ssim"])]
    rows += [
        (f"stage {k}", *values)
        for k, values in enumerate(zip(summary["stage_psnr"], summary["stage_ssim"], strict=True), start=1)
    ]
    body = "\n".join(f"{name:<15}{value:>10.2f}{ssim:>10.4f}" for name, value, ssim in rows)
    low, high = summary["gain_ci95"]
    table = (
        f"{'':<15}{'PSNR dB':>10}{'SSIM':>10}   ({summary['protocol']}; mean of {summary['images']} images)\n{body}\n"
        f"gain {summary['gain_db']:+.2f} dB, 95% interval [{low:+.2f}, {high:+.2f}] (paired bootstrap over images)"
    )
    hasty = summary.get("seconds_unsynchronised")
    hasty = "" if hasty is None else f", {hasty:.3f} s without synchronising"
    table += f"\n{summary['seconds']:.3f} s per image{hasty} (median; {summary['of']})"
    if "checkpoint_kind" in summary:
        table += f"\ncheckpoint: {summary['checkpoint_kind']}, of step {summary['generator_steps']}"
    if "unregistered" in summary:
        table += f"\nimages that could not be registered, compared as they are: {summary['unregistered']}"
    return table


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
