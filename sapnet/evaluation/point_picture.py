"""Panels of the error, the value of points and the chosen points of the sampled stages."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sapnet.evaluation.pictures import HeatMap, Picture, heat_map, panel, with_points
from sapnet.evaluation.point_values import centre, error_before, inputs
from sapnet.models.adaptive import AdaptiveNetwork


@torch.no_grad()
def draw(
    network: AdaptiveNetwork,
    items: Sequence[Mapping[str, Any]],
    device: torch.device,
    values: Sequence[Mapping[int, Tensor]] = (),
    rows: int = 4,
) -> Picture:
    """Draw a panel with the centre of the first test images, one per row.

    A row contains the blurred image, the blur extent if it is known, and for each sampled stage the error before the
    stage, the value of points and the chosen points.

    Args:
        network: Network on the device.
        items: Test images.
        device: Device of the network.
        values: Values of points by stage for the first images (`study_values`). Negative values are drawn as 0.
        rows: Number of images.
    """
    rows, cells, titles = min(rows, len(items)), [], []
    for i in range(rows):
        item = centre(items[i])
        known = inputs(item, device)
        walk = network.walk(**known, mode=network.inference)
        columns = [("blurred", item["blurred"])]
        if "extent" in item:
            columns.append(("blur extent", heat_map(item["extent"])))
        for stage, sampling in walk.samplings.items():
            error = error_before(walk, stage, known["sharp"])[0].cpu()
            columns.append((f"error before stage {stage + 1}", HeatMap(error, _top(error))))
            if i < len(values):
                value = values[i][stage]
                columns.append((f"value of points {stage + 1}", HeatMap(value, _top(value))))
            before = walk.states[stage].restored[0, :, : error.shape[0], : error.shape[1]].cpu()
            chosen = sampling.mask(min(sampling.points))[0].cpu()
            columns.append((f"points of stage {stage + 1}", with_points(before, chosen)))
        titles.append([title for title, _ in columns])
        cells.append([cell for _, cell in columns])
    return panel(cells, titles if len({*map(tuple, titles)}) > 1 else titles[0])


def _top(values: Tensor) -> float:
    # The maximum would make all other pixels dark.
    return max(float(values.flatten().quantile(0.99)), 1e-12)
