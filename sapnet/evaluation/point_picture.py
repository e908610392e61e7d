"""Picture of the sampled points of a network with the error and the value of points."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sapnet.evaluation.pictures import HeatMap, Picture, heat_map, panel, with_points
from sapnet.evaluation.point_values import centre_crop, input_error, network_inputs
from sapnet.models.adaptive_network import AdaptiveNetwork


@torch.no_grad()
def draw(
    network: AdaptiveNetwork,
    items: Sequence[Mapping[str, Any]],
    device: torch.device,
    values: Sequence[Mapping[int, Tensor]] = (),
    rows: int = 4,
) -> Picture:
    """Draw one row per image: blurred image, blur extent and, by sampled stage, input error, value of points, points.

    Images are cropped to their centre, as in `study_values`.

    Args:
        network: Network on the device.
        items: Test images. The blur extent is left out if it is not known.
        device: Device of the network.
        values: Values of points by stage for each of the first images (`study_values`); negative values are drawn as 0.
        rows: Number of images.
    """
    rows, cells, titles = min(rows, len(items)), [], []
    for i in range(rows):
        item = centre_crop(items[i])
        images = network_inputs(item, device)
        walk = network.trace(**images, mode=network.inference)
        row = [("blurred", item["blurred"])]
        if "extent" in item:
            row.append(("blur extent", heat_map(item["extent"])))
        for stage, sampling in walk.sampled_points.items():
            error = input_error(walk, stage, images["sharp"])[0].cpu()
            row.append((f"error before stage {stage + 1}", HeatMap(error, _top(error))))
            if i < len(values):
                value = values[i][stage]
                row.append((f"value of points {stage + 1}", HeatMap(value, _top(value))))
            before = walk.contexts[stage].restored[0, :, : error.shape[0], : error.shape[1]].cpu()
            chosen = sampling.mask(min(sampling.points))[0].cpu()
            row.append((f"points of stage {stage + 1}", with_points(before, chosen)))
        titles.append([title for title, _ in row])
        cells.append([cell for _, cell in row])
    return panel(cells, titles if len({*map(tuple, titles)}) > 1 else titles[0])


def _top(values: Tensor) -> float:
    # With the maximum, a few extreme pixels would make all others dark.
    return max(float(values.flatten().quantile(0.99)), 1e-12)
