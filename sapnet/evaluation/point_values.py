"""What each sampled point is worth: gradients of unit gates, as maps beside the error and the blur extent."""

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

#: The budget that buys every position of every canvas.
EVERYTHING = 3.0
#: Largest side in pixels of the area that is looked at: with every position refined it takes a training step's memory.
SIDE = 256


@contextmanager
def unchanged(network: AdaptiveNetwork) -> Iterator[None]:
    """Put a network's samplers, inference and budget back at the end."""
    kept, budget = (network.samplers, network.sampler, network.inference), network.budget
    try:
        yield
    finally:
        network.samplers, network.sampler, network.inference = kept
        network.use_budget(budget)


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Record no gradients of a module's parameters meanwhile: the graph of activations alone is smaller."""
    trainable = [p for p in module.parameters() if p.requires_grad]
    try:
        for p in trainable:
            p.requires_grad_(False)
        yield
    finally:
        for p in trainable:
            p.requires_grad_(True)


def centre(item: Mapping[str, Any], side: int = SIDE) -> dict[str, Any]:
    """Return an item whose images are cut to their middle, at most `side` pixels high and wide."""
    height, width = item["sharp"].shape[-2:]
    tall, wide = min(height, side), min(width, side)
    top, left = (height - tall) // 2, (width - wide) // 2
    images = {key: item[key] for key in ("blurred", "sharp", "extent") if key in item}
    return {**item, **{key: image[..., top : top + tall, left : left + wide] for key, image in images.items()}}


class Inputs(TypedDict):
    """What `AdaptiveNetwork.trace` takes of an item."""

    blurred: Float[Tensor, "1 3 h w"]
    sharp: Float[Tensor, "1 3 h w"]
    extent: Float[Tensor, "1 1 h w"] | None


def inputs(item: Mapping[str, Any], device: torch.device) -> Inputs:
    """Return what `AdaptiveNetwork.trace` takes of an item, as a batch of one."""
    blurred, sharp = (item[key][None].to(device) for key in ("blurred", "sharp"))
    return Inputs(blurred=blurred, sharp=sharp, extent=item["extent"][None].to(device) if "extent" in item else None)


def error_before(walk: Trace, stage: int, sharp: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b h w"]:
    """Return `|OP_{k-1} - GT|`, mean over RGB: the error that a sampled stage finds."""
    height, width = sharp.shape[-2:]
    return (walk.contexts[stage].restored[..., :height, :width] - sharp).abs().mean(dim=1).detach()


def value_map(sampling: SampledPoints, values: Mapping[int, Float[Tensor, "p l"]]) -> Float[Tensor, "b h w"]:
    """Spread the values of points over the pixels of the joined image, padding included, and sum over scales.

    A point of scale `r` shares its value among the pixels of its canvas position, so that sums are kept; pixels
    without a point have 0.

    Args:
        sampling: Whose points they are.
        values: By scale, one for each slot; those of unused slots are left out.
    """
    total = torch.zeros_like(sampling.map)
    for scale, found in values.items():
        points, stride = sampling.points[scale], sampling.strides[scale]
        rows, cols = (
            size // parts // stride for size, parts in zip(sampling.map.shape[-2:], sampling.grid, strict=True)
        )
        # Unused slots name the dump position behind the last.
        slots = torch.where(points < 0, rows * cols, points)
        flat = found.new_zeros(len(points), rows * cols + 1).scatter(1, slots, found)[:, :-1]
        canvas = join(flat.view(-1, 1, rows, cols), *sampling.grid)[:, 0] / stride**2
        total = total + canvas.repeat_interleave(stride, dim=1).repeat_interleave(stride, dim=2)
    return total


@torch.enable_grad()
def point_values(
    network: AdaptiveNetwork, item: Mapping[str, Any], device: torch.device, budget: float = EVERYTHING
) -> tuple[Trace, dict[int, Float[Tensor, "h w"]]]:
    """Measure the first-order value of each point of one image: how much error its update takes away.

    Returns:
        The walk, and by stage the value of each pixel: minus the derivative of the sum over pixels of the last
        output's error (mean over RGB, intensities in [0, 1]) by the gate of the points there. Positive helps.
    """
    known = inputs(item, device)
    height, width = item["sharp"].shape[-2:]
    with unchanged(network), frozen(network):
        network.use_budget(budget)
        walk = network.trace(**known, mode="top", gates="unit")
        loss = (walk.outputs[-1] - known["sharp"]).abs().mean(dim=1).sum()
        places = [(stage, scale) for stage, gates in walk.gates.items() for scale in gates]
        gradients = torch.autograd.grad(loss, [walk.gates[stage][scale] for stage, scale in places])
    values: dict[int, dict[int, Tensor]] = defaultdict(dict)
    for (stage, scale), gradient in zip(places, gradients, strict=True):
        values[stage][scale] = -gradient
    maps = {stage: value_map(walk.sampled_points[stage], found)[0, :height, :width] for stage, found in values.items()}
    return walk, maps


def study_values(
    network: AdaptiveNetwork, items: Sequence[Mapping[str, Any]], device: torch.device, keep: int = 4
) -> tuple[list[dict[str, Any]], list[dict[int, Tensor]]]:
    """Compare the points' values, all positions refined, with the error of the stage before and the blur extent.

    Of each image the middle is taken, at most `SIDE` pixels high and wide.

    Args:
        network: Its generator takes gates.
        items: Test images.
        device: Where to compute.
        keep: Number of first images whose maps are returned.

    Returns:
        Means over images by stage and truth, with ``helpful``, the share of pixels whose points have a positive value;
        and the maps by stage, on the CPU.
    """
    rows, helpful, kept = defaultdict(list), defaultdict(list), []
    for item in tqdm(items, desc="values of points", unit="image", disable=None, leave=False):
        item = centre(item)
        walk, maps = point_values(network, item, device)
        maps = {stage: found.cpu() for stage, found in maps.items()}
        for stage, found in maps.items():
            truths = {"error": error_before(walk, stage, item["sharp"][None].to(device))[0].cpu()}
            if "extent" in item:
                truths["extent"] = item["extent"][0]
            helpful[stage + 1].append(float((found > 0).float().mean()))
            for name, truth in truths.items():
                rows[stage + 1, "value", name].append((rank_correlation(found, truth), auc_of_hardest(found, truth)))
        if len(kept) < keep:
            kept.append(maps)
    shares = {stage: sum(found) / len(found) for stage, found in helpful.items()}
    means = [mean_agreement(key, found) for key, found in rows.items()]
    return [{**row, "helpful": shares[row["stage"]]} for row in means], kept
