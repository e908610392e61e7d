"""Carrying out a study of a network that samples: on a data set's test images, with files and tables of the result."""

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
from sapnet.training.noise import signal_to_noise

log = logging.getLogger(__name__)
#: Images, and their largest side in pixels, of the batch whose policy gradient is drawn many times.
NOISE_IMAGES, NOISE_SIDE = 4, 128


def chosen_study(value: bool | str | None) -> str | None:
    """Return the study that ``study=value`` asks for: true is the one of the policy, false and null are none."""
    return "policy" if value is True else value or None


def report_study(kind: str, network: AdaptiveNetwork, data: DictConfig, folder: Path) -> None:
    """Carry out a study and log its tables."""
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
    """Study a network that samples on a data set's test images; the result goes to ``folder/policy.json`` too."""
    module = hydra.utils.instantiate(data)
    module.setup("test")
    device = usual_device()
    found = policy_study.study(network.to(device), module.whole_images("test"), device, controls)
    write_json(folder / "policy.json", found)
    return found


def study_points(network: AdaptiveNetwork, data: DictConfig, folder: Path) -> dict[str, Any]:
    """Study what a network's points are worth on a data set's test images.

    The result goes to ``folder/points.json`` too, and a picture to ``folder/points.png``.
    """
    module = hydra.utils.instantiate(data)
    module.setup("test")
    device, items = usual_device(), module.whole_images("test")
    network.to(device)
    found, maps, skipped = point_study.study(network, items, device), [], []
    if getattr(network.generator, "supports_gates", False):
        found["values"], maps = point_values.study_values(network, items, device)
    else:
        skipped.append(f"Values of points: {type(network.generator).__name__} does not take gates.")
    found["signal_to_noise"], more = signal_to_noise(network, _noise_batch(items, device))
    found["skipped"] = skipped + more
    write_image(folder / "points.png", point_picture.draw(network, items, device, maps))
    write_json(folder / "points.json", found)
    return found


def _noise_batch(items: Sequence[Mapping[str, Any]], device: torch.device) -> dict[str, Tensor]:
    # The middles of the first images, as large as all of them allow.
    first = [point_values.centre(items[i], NOISE_SIDE) for i in range(min(NOISE_IMAGES, len(items)))]
    side = min(min(item["sharp"].shape[-2:]) for item in first)
    first = [point_values.centre(item, side) for item in first]
    known = [key for key in ("blurred", "sharp", "extent") if all(key in item for item in first)]
    return {key: torch.stack([item[key] for item in first]).to(device) for key in known}
