"""Summary of result lines: means over images, confidence interval and times."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from sapnet.errors import UserError
from sapnet.evaluation.metrics import ImageMean
from sapnet.evaluation.statistics import paired_interval


def summarise(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return means over images and the paired 95% bootstrap interval of the last stage's PSNR gain over the input.

    Images without a finite PSNR, such as those that equal their ground truth, are counted and excluded from all means.
    For registered images, `unregistered` counts the images whose registration failed. The times are those of `timing`.

    Raises:
        UserError: No image has a finite PSNR.
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
        "input_psnr": _mean(before),
        "stage_psnr": _mean(stages),
        "input_ssim": _mean(np.array([line["input_ssim"] for line in lines])),
        "stage_ssim": _mean(np.array([line["stage_ssim"] for line in lines])),
        "gain_db": gain.mean,
        "gain_ci95": [gain.low, gain.high],
        **times,
        "protocol": lines[0]["protocol"],
        **{key: lines[0][key] for key in ("checkpoint_kind", "generator_steps") if key in lines[0]},
        **({"unregistered": sum(any(line["unregistered"]) for line in lines)} if "unregistered" in lines[0] else {}),
    }


def _mean(values: np.ndarray) -> Any:
    """Return the mean over images, one per column of a table, as plain numbers."""
    # Every process summarises the lines of all processes.
    metric = ImageMean(sync_on_compute=False).set_dtype(torch.float64)
    metric.update(torch.from_numpy(values))
    # torchmetrics squeezes the mean of a single column.
    return metric.compute().reshape(values.shape[1:]).tolist()


def timing(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the median over images of `seconds` and, on GPUs, `seconds_unsynchronised`, and the conditions as `of`.

    `of` lists the devices, threads, precisions and image sizes of all processes that shared the images.
    """
    keys = ("seconds", "seconds_unsynchronised")
    times = {key: [line[key] for line in lines if key in line] for key in keys}
    of = [line["device_name"] for line in lines]
    of += [f"{line['threads']} threads" for line in lines if line["device"] == "cpu"]
    of += [line["dtype"] + (", TF32 in convolutions" if line.get("tf32_convolutions") else "") for line in lines]
    sizes = dict.fromkeys(f"{line['width']}x{line['height']}" for line in lines)
    of += sizes if len(sizes) == 1 else [f"{len(sizes)} sizes"]
    medians = {key: float(np.median(values)) for key, values in times.items() if values}
    return {**medians, "of": ", ".join(dict.fromkeys(of))}


def as_table(summary: Mapping[str, Any]) -> str:
    """Format a summary as a table for the terminal."""
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
    unsynchronised = summary.get("seconds_unsynchronised")
    unsynchronised = "" if unsynchronised is None else f", {unsynchronised:.3f} s without synchronising"
    table += f"\n{summary['seconds']:.3f} s per image{unsynchronised} (median; {summary['of']})"
    if "checkpoint_kind" in summary:
        table += f"\ncheckpoint: {summary['checkpoint_kind']}, of step {summary['generator_steps']}"
    if "unregistered" in summary:
        table += f"\nimages that could not be registered, compared without registration: {summary['unregistered']}"
    return table
