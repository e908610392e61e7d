"""Study of the gain of sampled points: PSNR by budget, with other points and without points, and gain by stage."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from tqdm import tqdm

from sapnet.errors import UserError
from sapnet.evaluation.metrics import psnr
from sapnet.evaluation.point_values import Inputs, network_inputs, restore_sampling
from sapnet.evaluation.statistics import paired_interval
from sapnet.models.adaptive_network import AdaptiveNetwork
from sapnet.sampling.context import StageContext

#: Budget that denotes no points: only the regular layers of a sampled stage run.
NO_POINTS = -1.0
BUDGETS = (NO_POINTS, -0.9, -0.75, -0.5, -0.25, 0.0, 0.25, 0.5, 1.0, 2.0)
#: Means that differ by less, in dB, count as equal.
NEGLIGIBLE_DB = 0.02


def without_points(network: AdaptiveNetwork, blurred: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b 3 h w"]]:
    """Restore without points: the blocks of sampled stages refine no position, all other layers run."""

    def choose(state: StageContext) -> dict[int, Tensor]:
        patches = state.grid[0] * state.grid[1] * len(state.blurred)
        none = torch.empty(patches, 0, dtype=torch.int64, device=state.blurred.device)
        return dict.fromkeys(network.sampler_of(state.stage).strides, none)

    return network.generator(blurred, choose)


@torch.no_grad()
def study(network: AdaptiveNetwork, items: Sequence[Mapping[str, Any]], device: torch.device) -> dict[str, Any]:
    """Measure the PSNR of a trained network with other budgets, with the points of other samplers and without points.

    Points are chosen as at inference, those of other samplers by their top scores. The network is not changed.

    Args:
        network: Network on the device, in evaluation mode.
        items: Test images, read one at a time.
        device: Device of the network.

    Returns:
        Plain data with these keys. `budgets`: PSNR of the last stage by budget (-1: no points) and its gain over budget
        0. `points_db`: by sampler (the network's own, `random`, `none`, and `extent` if the data provides it), the PSNR
        at the network's budget and the gain of the network's own points over it. `stages`: PSNR of each stage and its
        gain over the previous stage or the blurred image. `conclusion`: one sentence. Gains are means over images in dB
        with paired 95% intervals. Images with an infinite PSNR are excluded.

    Raises:
        UserError: No test image has a finite PSNR.
    """
    own, budgets = network.sampler, sorted({*BUDGETS, network.budget})
    others = _other_samplers(network, "extent" in items[0], device)
    bar = tqdm(items, desc="study of points", unit="image", disable=None, leave=False)
    lines = [_measure(network, others, budgets, network_inputs(item, device)) for item in bar]
    lines = [line for line in lines if np.isfinite(list(line.values())).all()]
    if not lines:
        raise UserError("study=points: every test image equals its ground truth or has no finite PSNR.")
    values = {key: np.array([line[key] for line in lines]) for key in lines[0]}
    at_own = values["budget", network.budget]
    sources = {own: at_own, **{name: values["points", name] for name in others}, "none": values["budget", NO_POINTS]}
    stages = [values["input"], *(value for key, value in values.items() if key[0] == "stage")]
    result = {
        "images": len(lines),
        "sampler": own,
        "budget": network.budget,
        "inference": network.inference,
        "budgets": [
            {"budget": b, "psnr": _mean(values["budget", b]), **_gain(values["budget", b], values["budget", 0.0])}
            for b in budgets
        ],
        "points_db": {name: {"psnr": _mean(psnrs), **_gain(at_own, psnrs)} for name, psnrs in sources.items()},
        "stages": [
            {"stage": k, "psnr": _mean(stages[k]), **_gain(stages[k], stages[k - 1])} for k in range(1, len(stages))
        ],
    }
    return result | {"conclusion": conclusion(result)}


def _other_samplers(network: AdaptiveNetwork, extent_known: bool, device: torch.device) -> dict[str, nn.ModuleDict]:
    samplers = {}
    for name in ("random", "extent") if extent_known else ("random",):
        if name != network.sampler:
            with restore_sampling(network):
                network.use_sampler(name, inference="top")
                samplers[name] = network.samplers.to(device)
    return samplers


def _measure(
    network: AdaptiveNetwork,
    others: Mapping[str, nn.ModuleDict],
    budgets: Sequence[float],
    images: Inputs,
) -> dict[Any, float]:
    def value(image: Tensor) -> float:
        return float(psnr(image[0].float().cpu(), images["sharp"][0].cpu()))

    own_budget = network.budget
    values: dict[Any, float] = {"input": value(images["blurred"])}
    with restore_sampling(network):
        for budget in budgets:
            if budget == NO_POINTS:
                outputs = without_points(network, images["blurred"])
            else:
                network.use_budget(budget)
                outputs = network.trace(**images, mode=network.inference).outputs
            values["budget", budget] = value(outputs[-1])
            if budget == own_budget:
                values |= {("stage", k): value(output) for k, output in enumerate(outputs, start=1)}
        for name, samplers in others.items():
            network.sampler, network.samplers = name, samplers
            values["points", name] = value(network.trace(**images, mode="top").outputs[-1])
    return values


def _mean(values: np.ndarray) -> float:
    return float(values.mean())


def _gain(values: np.ndarray, baseline: np.ndarray) -> dict[str, Any]:
    gain = paired_interval(values - baseline)
    return {"gain_db": gain.mean, "ci95": [gain.low, gain.high]}


def conclusion(result: Mapping[str, Any]) -> str:
    """Return a sentence about the gain of the sampled points."""
    none, own = result["points_db"]["none"], result["sampler"]
    if result["images"] < 2:
        return "One image cannot tell what the sampled points are worth."
    if is_negligible(none):
        return (
            "PSNR without any points equals PSNR at the budget: the sampled points do nothing here"
            f" (difference {_interval(none)})."
        )
    verb = "add" if none["gain_db"] > 0 else "cost"
    text = f"The sampled points {verb} {_interval(none)} against no points"
    if own != "random":
        random = result["points_db"]["random"]
        same = ", no difference that these images show" if is_negligible(random) else ""
        text += f"; against as many random points the {own} ones make {_interval(random)}{same}"
    return f"{text}."


def is_negligible(row: Mapping[str, Any]) -> bool:
    """Return whether a mean gain is negligible or its interval covers zero."""
    low, high = row["ci95"]
    return abs(row["gain_db"]) < NEGLIGIBLE_DB or low <= 0 <= high


def _interval(row: Mapping[str, Any], unit: str = " dB") -> str:
    low, high = row["ci95"]
    return f"{row['gain_db']:+.3f}{unit} [{low:+.3f}, {high:+.3f}]"


def as_markdown(result: Mapping[str, Any]) -> str:
    """Return the study as Markdown, with values of points and signal to noise if they were measured."""
    own = result["sampler"]
    lines = [result["conclusion"], ""]
    lines += _table(
        ["budget", "PSNR dB", "minus budget 0, 95% interval"],
        [[_budget(row["budget"]), f"{row['psnr']:.3f}", _interval(row, "")] for row in result["budgets"]],
    )
    lines += _table(
        [f"points at {result['budget']:+.0%}", "PSNR dB", f"{own} minus it, 95% interval"],
        [
            [name, f"{row['psnr']:.3f}", "" if name == own else _interval(row, "")]
            for name, row in result["points_db"].items()
        ],
    )
    lines += _table(
        ["stage", "PSNR dB", "minus the one before, 95% interval"],
        [[str(row["stage"]), f"{row['psnr']:.3f}", _interval(row, "")] for row in result["stages"]],
    )
    if result.get("values"):
        lines += _table(
            ["value of points in stage", "against", "rank correlation", "AUC (± s.e.)", "pixels where it is positive"],
            [
                [
                    str(row["stage"]),
                    row["truth"],
                    f"{row['rank_correlation']:+.3f}",
                    f"{row['auc']:.3f} ± {row['auc_standard_error']:.3f}",
                    f"{row['helpful']:.0%}",
                ]
                for row in result["values"]
            ],
        )
    if result.get("signal_to_noise"):
        lines += _table(
            ["policy gradient", "signal / deviation of one draw"],
            [[row["estimator"], f"{row['signal_to_noise']:.3f}"] for row in result["signal_to_noise"]],
        )
    lines += [f"- {sentence}" for sentence in result.get("skipped", ())]
    return "\n".join(lines).rstrip()


def _budget(budget: float) -> str:
    return "no points" if budget == NO_POINTS else f"{budget:+.0%}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)] + [""]
