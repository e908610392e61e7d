"""Pictures of chosen test images, restored anew from a run's checkpoint, with the sampled points."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import torch
from jaxtyping import Bool
from omegaconf import DictConfig, OmegaConf
from torch import nn

from sapnet.error_messages import user_error_message
from sapnet.errors import UserError
from sapnet.evaluation.networks import as_restore, open_checkpoint, open_published
from sapnet.evaluation.pictures import Picture, picture
from sapnet.evaluation.runner import usual_device
from sapnet.models.adaptive_network import AdaptiveNetwork
from sapnet.reporting.html_report.run_results import RunResults, config_path


@dataclass(frozen=True)
class RestoredPictures:
    """Pictures of one test image.

    Attributes:
        name: Name in the data set.
        pictures: `blurred`, `stage 1` ... `stage K`, `sharp`.
        points: For each sampled stage, such as `stage 2`, its points of the finest scale.
    """

    name: str
    pictures: dict[str, Picture]
    points: dict[str, Bool[np.ndarray, "h w"]]


def chosen_images(lines: Sequence[Mapping[str, Any]], count: int) -> dict[str, str]:
    """Choose images by the PSNR of the last stage: as many of the worst, the median and the best.

    Args:
        lines: Result lines. Those without a finite PSNR are not chosen.
        count: Number of images.

    Returns:
        `worst`, `median` or `best` by name, taken in turn, so that each beginning of the list shows all three.
    """
    ordered = sorted(lines, key=lambda line: line["stage_psnr"][-1])
    names = [line["name"] for line in ordered if math.isfinite(line["stage_psnr"][-1])]
    count = min(count, len(names))
    worst, best = (count + 2) // 3, (count + 1) // 3
    median = count - worst - best
    start = min(max(worst, (len(names) - median) // 2), len(names) - best - median)
    kinds = {"worst": names[:worst], "median": names[start : start + median], "best": names[len(names) - best :][::-1]}
    turns = [(kind, own[turn]) for turn in range(worst) for kind, own in kinds.items() if turn < len(own)]
    return {name: kind for kind, name in turns}


def restored_pictures(run: RunResults, names: Sequence[str]) -> Iterator[RestoredPictures]:
    """Restore images of a run from its checkpoint and the data of its config, one at a time.

    Args:
        run: The run.
        names: Names of the images; those that the data do not hold are left out.

    Raises:
        UserError: The config, the checkpoint or the data are not available, or the checkpoint is not the one of the
            results.
    """
    path = config_path(run.folder)
    if path is None:
        raise UserError(f"{run.folder}: there is no config.yaml, which names the data.")
    try:
        config = OmegaConf.load(path)
        if not isinstance(config, DictConfig) or "data" not in config:
            raise UserError(f"{path}: it names no data.")
        _check_targets(config, path)
        network = _open_network(run, config)
        if "cache" in config.data:
            config.data.cache = False  # few of the images are read
        module = hydra.utils.instantiate(config.data)
        module.setup("test")
    except Exception as error:
        # Whatever the config holds, the report has its tables.
        raise UserError(user_error_message(error) or f"{path}: {error!r}") from error
    items, device = module.whole_images("test"), usual_device()
    network.to(device)
    places = {items.name(index): index for index in range(len(items))}
    for name in names:
        if name in places:
            yield _restored(network, items[places[name]], device)


def _check_targets(config: DictConfig, path: Path) -> None:
    """Check that a config from elsewhere builds only data and networks of sapnet.

    Raises:
        UserError: It names another class.
    """
    plain: Any = OmegaConf.to_container(config, resolve=False)
    for key, packages in (("data", ("sapnet.data.",)), ("network", ("sapnet.models.", "sapnet.layers."))):
        for target in _targets(plain.get(key)):
            if not str(target).startswith(packages):
                raise UserError(f"{path}: {key} is built by {target}, which is not of sapnet and is not run here.")


def _targets(node: Any) -> Iterator[Any]:
    if isinstance(node, dict):
        yield from (value for key, value in node.items() if key == "_target_")
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from _targets(child)


def _open_network(run: RunResults, config: DictConfig) -> nn.Module:
    if config.get("weights"):
        return open_published(config.network, Path(config.weights))[0]
    checkpoint = run.folder / str(run.summary.get("checkpoint") or "checkpoints/best.ckpt")
    if not checkpoint.is_file():
        raise UserError(f"{checkpoint}: there is no such checkpoint.")
    # The config of an evaluation may choose another sampling; that of a training holds the trained one.
    choice = {}
    if "checkpoint" in config:
        choice = {**(config.get("sampling") or {}), "window": config.get("window"), "ema": bool(config.get("ema"))}
    network, origin = open_checkpoint(checkpoint, **choice)
    if run.lines[0].get("checkpoint") not in (None, origin["checkpoint"]):
        raise UserError(f"{checkpoint}: the checkpoint has changed since it was evaluated.")
    return network


@torch.no_grad()
def _restored(network: nn.Module, item: Mapping[str, Any], device: torch.device) -> RestoredPictures:
    images = [item[key][None].to(device) for key in ("blurred", "sharp", "extent") if key in item]
    points = {}
    if isinstance(network, AdaptiveNetwork):
        trace = network.trace(images[0], images[1], extent=images[2] if len(images) > 2 else None)
        outputs, (height, width) = trace.outputs, item["sharp"].shape[1:]
        for stage, sampled in trace.sampled_points.items():
            points[f"stage {stage + 1}"] = sampled.mask(min(sampled.points))[0, :height, :width].cpu().numpy()
    else:
        outputs = as_restore(network)(*images)
    stages = {f"stage {k}": picture(output[0]) for k, output in enumerate(outputs, 1)}
    pictures = {"blurred": picture(item["blurred"]), **stages, "sharp": picture(item["sharp"])}
    return RestoredPictures(item["name"], pictures, points)
