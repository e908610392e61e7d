"""Values of sampled points: gradients of unit gates, compared with the error and the blur extent."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypedDict

import torch
from jaxtyping import Float
from torch import Tensor, nn
from tqdm import tqdm

from sapnet.evaluation.policy_study import auc_of_hardest, mean_agreement, rank_correlation
from sapnet.layers.hierarchy import join
from sapnet.models.adaptive_network import AdaptiveNetwork, Trace
from sapnet.sampling.sampled_points import SampledPoints

#: Budget at which every position of every canvas is sampled.
FULL_BUDGET = 3.0
#: Largest side in pixels of the centre crop; with every position sampled it needs the memory of a training step.
SIDE = 256


@contextmanager
def restore_sampling(network: AdaptiveNetwork) -> Iterator[None]:
    """Restore the samplers, the inference and the budget of a network at the end of the context."""
    settings, budget = (network.samplers, network.sampler, network.inference), network.budget
    try:
        yield
    finally:
        network.samplers, network.sampler, network.inference = settings
        network.use_budget(budget)


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Disable the gradients of a module's parameters in the context, which reduces the size of the graph."""
    trainable = [p for p in module.parameters() if p.requires_grad]
    try:
        for p in trainable:
            p.requires_grad_(False)
        yield
    finally:
        for p in trainable:
            p.requires_grad_(True)


def centre_crop(item: Mapping[str, Any], side: int = SIDE) -> dict[str, Any]:
    """Crop the images of an item to their centre, at most `side` pixels high and wide."""
    height, width = item["sharp"].shape[-2:]
    crop_height, crop_width = min(height, side), min(width, side)
    top, left = (height - crop_height) // 2, (width - crop_width) // 2
    images = {key: item[key] for key in ("blurred", "sharp", "extent") if key in item}
    return {
        **item,
        **{key: image[..., top : top + crop_height, left : left + crop_width] for key, image in images.items()},
    }


class Inputs(TypedDict):
    """Images of an item, arguments of `AdaptiveNetwork.trace`."""

    blurred: Float[Tensor, "1 3 h w"]
    sharp: Float[Tensor, "1 3 h w"]
    extent: Float[Tensor, "1 1 h w"] | None


def network_inputs(item: Mapping[str, Any], device: torch.device) -> Inputs:
    """Return the images of an item as a batch of one."""
    blurred, sharp = (item[key][None].to(device) for key in ("blurred", "sharp"))
    return Inputs(blurred=blurred, sharp=sharp, extent=item["extent"][None].to(device) if "extent" in item else None)


def input_error(walk: Trace, stage: int, sharp: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b h w"]:
    """Return the error of the image that a sampled stage refines, `|OP_{k-1} - GT|`, mean over RGB."""
    height, width = sharp.shape[-2:]
    return (walk.contexts[stage].restored[..., :height, :width] - sharp).abs().mean(dim=1).detach()


def value_map(sampling: SampledPoints, values: Mapping[int, Float[Tensor, "p _"]]) -> Float[Tensor, "b h w"]:
    """Distribute the values of points over the pixels of the joined, padded image and sum over scales.

    The value of a point is divided equally among the pixels of its canvas position, so that the sum is preserved.
    Pixels without a point are 0.

    Args:
        sampling: The points.
        values: By scale, the value of each slot; values of unused slots are ignored.
    """
    total = torch.zeros_like(sampling.map)
    for scale, scale_values in values.items():
        points, stride = sampling.points[scale], sampling.strides[scale]
        rows, cols = (
            size // parts // stride for size, parts in zip(sampling.map.shape[-2:], sampling.grid, strict=True)
        )
        # Unused slots are scattered to an extra position behind the last, which is dropped.
        slots = torch.where(points < 0, rows * cols, points)
        flat = scale_values.new_zeros(len(points), rows * cols + 1).scatter(1, slots, scale_values)[:, :-1]
        canvas = join(flat.view(-1, 1, rows, cols), *sampling.grid)[:, 0] / stride**2
        total = total + canvas.repeat_interleave(stride, dim=1).repeat_interleave(stride, dim=2)
    return total


@torch.enable_grad()
def point_values(
    network: AdaptiveNetwork, item: Mapping[str, Any], device: torch.device, budget: float = FULL_BUDGET
) -> tuple[Trace, dict[int, Float[Tensor, "h w"]]]:
    """Compute the first-order value of each point of one image: the reduction of the error by its update.

    Args:
        network: Network whose generator takes gates.
        item: The image.
        device: Device of the network.
        budget: Budget; the default samples every position.

    Returns:
        The walk, and by stage the value of each pixel: minus the derivative of the error of the last output (mean over
        RGB, sum over pixels, intensities in [0, 1]) with respect to the gates of the points at this pixel. Positive
        values reduce the error.
    """
    images = network_inputs(item, device)
    height, width = item["sharp"].shape[-2:]
    with restore_sampling(network), frozen(network):
        network.use_budget(budget)
        walk = network.trace(**images, mode="top", gates="unit")
        loss = (walk.outputs[-1] - images["sharp"]).abs().mean(dim=1).sum()
        keys = [(stage, scale) for stage, gates in walk.gates.items() for scale in gates]
        gradients = torch.autograd.grad(loss, [walk.gates[stage][scale] for stage, scale in keys])
    values: dict[int, dict[int, Tensor]] = defaultdict(dict)
    for (stage, scale), gradient in zip(keys, gradients, strict=True):
        values[stage][scale] = -gradient
    maps = {
        stage: value_map(walk.sampled_points[stage], by_scale)[0, :height, :width] for stage, by_scale in values.items()
    }
    return walk, maps


def study_values(
    network: AdaptiveNetwork, items: Sequence[Mapping[str, Any]], device: torch.device, keep: int = 4
) -> tuple[list[dict[str, Any]], list[dict[int, Tensor]]]:
    """Compare the values of points, with all positions sampled, with the input error of the stage and the blur extent.

    Images are cropped to their centre, at most `SIDE` pixels high and wide.

    Args:
        network: Network whose generator takes gates.
        items: Test images.
        device: Device of the network.
        keep: Number of first images whose maps are returned.

    Returns:
        Means over images by stage and truth, with `helpful`, the share of pixels whose points have a positive value;
        and the maps by stage, on the CPU.
    """
    agreement, helpful, kept_maps = defaultdict(list), defaultdict(list), []
    for item in tqdm(items, desc="values of points", unit="image", disable=None, leave=False):
        item = centre_crop(item)
        walk, maps = point_values(network, item, device)
        maps = {stage: values.cpu() for stage, values in maps.items()}
        for stage, values in maps.items():
            truths = {"error": input_error(walk, stage, item["sharp"][None].to(device))[0].cpu()}
            if "extent" in item:
                truths["extent"] = item["extent"][0]
            helpful[stage + 1].append(float((values > 0).float().mean()))
            for name, truth in truths.items():
                scores = rank_correlation(values, truth), auc_of_hardest(values, truth)
                agreement[stage + 1, "value", name].append(scores)
        if len(kept_maps) < keep:
            kept_maps.append(maps)
    shares = {stage: sum(values) / len(values) for stage, values in helpful.items()}
    means = [mean_agreement(key, scores) for key, scores in agreement.items()]
    return [{**row, "helpful": shares[row["stage"]]} for row in means], kept_maps
