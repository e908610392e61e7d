"""Studies of a network that samples on a data set's test images, with result files and tables."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra
import torch
from omegaconf import DictConfig
from torch import Tensor

from sapnet.data.images import write_image
from sapnet.evaluation import point_picture, point_study, point_values, policy_study
from sapnet.evaluation.runner import usual_device
from sapnet.models.adaptive_network import AdaptiveNetwork
from sapnet.provenance import write_json
from sapnet.training.gradient_noise import signal_to_noise

log = logging.getLogger(__name__)
#: Number and largest side in pixels of the images for the signal-to-noise ratio of the policy gradient.
NOISE_IMAGES, NOISE_SIDE = 4, 128


def chosen_study(value: bool | str | None) -> str | None:
    """Return the name of the study for `study=value`: true is `policy`, false and null are None."""
    return "policy" if value is True else value or None


def report_study(kind: str, network: AdaptiveNetwork, data: DictConfig, folder: Path) -> None:
    """Run a study and log its tables."""
    if kind == "points":
        text, path = point_study.as_markdown(study_points(network, data, folder)), folder / "points.json"
    else:
        controls = policy_study.CONTROLS if kind == "policy" else ()
        text = policy_study.as_markdown(study_policy(network, data, folder, controls), network.sampler)
        path = folder / "policy.json"
    log.info("%s: %s\n%s", kind, path, text)


def study_policy(
    network: AdaptiveNetwork, data: DictConfig, folder: Path, controls: Sequence[str] = policy_study.CONTROLS
) -> dict[str, Any]:
    """Run the study of a policy on a data set's test images and write `folder/policy.json`."""
    module = hydra.utils.instantiate(data)
    module.setup("test")
    device = usual_device()
    result = policy_study.study(network.to(device), module.whole_images("test"), device, controls)
    write_json(folder / "policy.json", result)
    return result


def study_points(network: AdaptiveNetwork, data: DictConfig, folder: Path) -> dict[str, Any]:
    """Run the study of points on a data set's test images and write `folder/points.json` and `folder/points.png`."""
    module = hydra.utils.instantiate(data)
    module.setup("test")
    device, items = usual_device(), module.whole_images("test")
    network.to(device)
    result, maps, skipped = point_study.study(network, items, device), [], []
    if getattr(network.generator, "supports_gates", False):
        result["values"], maps = point_values.study_values(network, items, device)
    else:
        skipped.append(f"Values of points: {type(network.generator).__name__} does not take gates.")
    result["signal_to_noise"], skipped_estimators = signal_to_noise(network, _noise_batch(items, device))
    result["skipped"] = skipped + skipped_estimators
    write_image(folder / "points.png", point_picture.draw(network, items, device, maps))
    write_json(folder / "points.json", result)
    return result


def _noise_batch(items: Sequence[Mapping[str, Any]], device: torch.device) -> dict[str, Tensor]:
    # Centre crops of the first images, of the largest size that fits all of them.
    first = [point_values.centre_crop(items[i], NOISE_SIDE) for i in range(min(NOISE_IMAGES, len(items)))]
    side = min(min(item["sharp"].shape[-2:]) for item in first)
    first = [point_values.centre_crop(item, side) for item in first]
    keys = [key for key in ("blurred", "sharp", "extent") if all(key in item for item in first)]
    return {key: torch.stack([item[key] for item in first]).to(device) for key in keys}
