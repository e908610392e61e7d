"""Whole-image evaluation: every image through the network, one result line each."""

import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from sapnet.errors import UserError
from sapnet.evaluation import registration
from sapnet.evaluation.metrics import psnr, ssim_matlab3d
from sapnet.evaluation.statistics import paired_interval
from sapnet.evaluation.store import append_result, read_results

#: What the figures mean, by the name that a data module gives its protocol; named in every result line.
PROTOCOLS = {
    "standard": "uint8 RGB, psnr and ssim_matlab3d per image, no border",
    "realblur": registration.PROTOCOL,
}
#: ``(blurred, sharp) -> [OP_1, ..., OP_K]``; only an oracle looks at the ground truth.
Restore = Callable[[Tensor, Tensor], Sequence[Tensor]]


def environment(device: torch.device) -> dict[str, Any]:
    """Return what a result depends on beside model and data: device, threads, versions."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {"device": device.type, "device_name": name, "threads": torch.get_num_threads(), "torch": torch.__version__}


@torch.no_grad()
def evaluate_image(
    restore: Restore, item: Mapping[str, Any], device: torch.device, protocol: str = "standard"
) -> tuple[dict[str, Any], list[Tensor]]:
    """Restore one image and measure the input and every stage.

    Args:
        restore: Takes ``[1, 3, h, w]``, blurred and sharp.
        item: ``blurred`` and ``sharp`` ``[3, h, w]`` in [0, 1], and ``name``.
        device: Where to compute.
        protocol: One of `PROTOCOLS`.

    Returns:
        The result line's figures (``seconds`` is the synchronised time of the network alone) and the stages' images,
        ``[3, h, w]`` on the CPU.
    """
    blurred, truth = item["blurred"][None].to(device), item["sharp"][None].to(device)
    _synchronise(device)
    start = time.perf_counter()
    outputs = restore(blurred, truth)
    _synchronise(device)
    seconds = time.perf_counter() - start
    images = [output[0].float().cpu() for output in outputs]
    line = {
        "name": item["name"],
        "height": item["sharp"].shape[1],
        "width": item["sharp"].shape[2],
        "seconds": seconds,
        **_figures([item["blurred"], *images], item["sharp"], protocol),
    }
    return line, images


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
    items: Iterable[Mapping[str, Any]],
    device: torch.device,
    path: Path,
    context: Mapping[str, Any],
    on_image: Callable[[Mapping[str, Any], Sequence[Tensor]], None] | None = None,
    protocol: str = "standard",
) -> list[dict[str, Any]]:
    """Evaluate images one by one, appending a JSON line for each to ``path``, and go on where an earlier run stopped.

    Args:
        restore: As in :func:`evaluate_image`.
        items: The images, read one at a time.
        device: Where to compute.
        path: The file of result lines.
        context: What each line repeats: model, checkpoint, data; lines with another context are not ours.
        on_image: Called with each newly restored item and its stage images.
        protocol: One of `PROTOCOLS`.
    """
    context = {**context, "protocol": PROTOCOLS[protocol], **environment(device)}
    done = {line["name"]: line for line in read_results(path) if context.items() <= line.items()}
    lines = []
    for item in _progress(items, "evaluating"):
        line = done.get(item["name"])
        if line is None:
            figures, images = evaluate_image(restore, item, device, protocol)
            line = {**figures, **context}
            append_result(path, line)
            if on_image is not None:
                on_image(item, images)
        lines.append(line)
    return lines


def summarise(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return means over images, and the paired 95% bootstrap interval of the last stage's gain over the input.

    An image that equals its ground truth has no finite PSNR; such images are counted and left out of all means. Where
    images are registered, `unregistered` counts those for which a fit failed.
    """
    total = len(lines)
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
        "seconds_per_image": float(np.mean([line["seconds"] for line in lines])),
        "protocol": lines[0]["protocol"],
        **({"unregistered": sum(any(line["unregistered"]) for line in lines)} if "unregistered" in lines[0] else {}),
    }


def as_table(summary: Mapping[str, Any]) -> str:
    """Return the summary as lines for a terminal."""
    rows = [("blurred input", summary["input_psnr"], summary["input_ssim"])]
    rows += [
        (f"stage {k}", *values) for k, values in enumerate(zip(summary["stage_psnr"], summary["stage_ssim"]), start=1)
    ]
    body = "\n".join(f"{name:<15}{value:>10.2f}{ssim:>10.4f}" for name, value, ssim in rows)
    low, high = summary["gain_ci95"]
    table = (
        f"{'':<15}{'PSNR dB':>10}{'SSIM':>10}   ({summary['protocol']}; mean of {summary['images']} images)\n{body}\n"
        f"gain {summary['gain_db']:+.2f} dB, 95% interval [{low:+.2f}, {high:+.2f}] (paired bootstrap over images)"
    )
    if "unregistered" in summary:
        table += f"\nimages that could not be registered, compared as they are: {summary['unregistered']}"
    return table


def _progress(items: Iterable, title: str) -> Iterator:
    return iter(tqdm(items, desc=title, unit="image", disable=None))


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
