"""The first test images with the outputs of a network, their metrics and the sampled points, for tables of loggers."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import hydra
from omegaconf import DictConfig
from torch import Tensor, nn

from sapnet.evaluation.networks import as_restore
from sapnet.evaluation.pictures import Picture, picture, with_points
from sapnet.evaluation.runner import evaluate_image, usual_device
from sapnet.models.adaptive_network import AdaptiveNetwork


@dataclass(frozen=True)
class RestoredImage:
    """A test image.

    Attributes:
        name: Name in the data set.
        pictures: `blurred`, `stage_1` ... `stage_K`, `sharp`, and for each sampled stage, such as 2, `points_2`: its
            points of the finest scale over the output of the stage before.
        metrics: Metrics as in a result line.
    """

    name: str
    pictures: dict[str, Picture]
    metrics: dict[str, Any]


def restored_images(network: nn.Module, data: DictConfig, limit: int) -> Iterator[RestoredImage]:
    """Restore the first test images of a data set, one at a time.

    Args:
        network: Network in evaluation mode.
        data: Config of the data.
        limit: Largest number of images.
    """
    module = hydra.utils.instantiate(data)
    module.setup("test")
    items, device = module.whole_images("test"), usual_device()
    network.to(device)
    for index in range(min(limit, len(items))):
        yield _restored(network, items[index], device, module.protocol)


def _restored(network: nn.Module, item: Mapping[str, Any], device: Any, protocol: str) -> RestoredImage:
    points: dict[str, Picture] = {}

    def restore(blurred: Tensor, *truth: Tensor) -> list[Tensor]:
        if not isinstance(network, AdaptiveNetwork):
            return list(as_restore(network)(blurred))
        sharp, extent = (*truth, None)[:2]
        trace = network.trace(blurred, sharp, extent=extent)
        for stage, sampled in trace.sampled_points.items():
            mask = sampled.mask(min(sampled.points))[0].cpu()
            before = trace.outputs[stage - 1] if stage else blurred
            points[f"points_{stage + 1}"] = picture(with_points(before[0].float().cpu(), mask))
        return trace.outputs

    metrics, outputs = evaluate_image(restore, item, device, protocol)
    stages = {f"stage_{k}": picture(output) for k, output in enumerate(outputs, 1)}
    pictures = {"blurred": picture(item["blurred"]), **stages, "sharp": picture(item["sharp"]), **points}
    return RestoredImage(item["name"], pictures, metrics)
