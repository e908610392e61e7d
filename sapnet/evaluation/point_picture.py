"""A picture of what points are worth: blurred image, error, value and points of the sampled stages."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sapnet.evaluation.pictures import HeatMap, Picture, heat_map, panel, with_points
from sapnet.evaluation.point_values import centre, error_before, inputs
from sapnet.models.adaptive_network import AdaptiveNetwork


@torch.no_grad()
def draw(
    network: AdaptiveNetwork,
    items: Sequence[Mapping[str, Any]],
    device: torch.device,
    values: Sequence[Mapping[int, Tensor]] = (),
    rows: int = 4,
) -> Picture:
    """Draw the middle of the first images: blurred, extent, and of each sampled stage error before, value and points.

    Args:
        network: On the device.
        items: Test images; what they do not know is left out.
        device: Where to compute.
        values: The values of points by stage, of each of the first images (`study_values`); negative ones look like 0.
        rows: Number of images.
    """
    rows, cells, titles = min(rows, len(items)), [], []
    for i in range(rows):
        item = centre(items[i])
        known = inputs(item, device)
        walk = network.trace(**known, mode=network.inference)
        named = [("blurred", item["blurred"])]
        if "extent" in item:
            named.append(("blur extent", heat_map(item["extent"])))
        for stage, sampling in walk.sampled_points.items():
            error = error_before(walk, stage, known["sharp"])[0].cpu()
            named.append((f"error before stage {stage + 1}", HeatMap(error, _top(error))))
            if i < len(values):
                found = values[i][stage]
                named.append((f"value of points {stage + 1}", HeatMap(found, _top(found))))
            before = walk.contexts[stage].restored[0, :, : error.shape[0], : error.shape[1]].cpu()
            chosen = sampling.mask(min(sampling.points))[0].cpu()
            named.append((f"points of stage {stage + 1}", with_points(before, chosen)))
        titles.append([title for title, _ in named])
        cells.append([cell for _, cell in named])
    return panel(cells, titles if len({*map(tuple, titles)}) > 1 else titles[0])


def _top(found: Tensor) -> float:
    # A few extreme pixels would leave the rest dark.
    return max(float(found.flatten().quantile(0.99)), 1e-12)
