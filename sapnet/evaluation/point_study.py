"""What sampled points are worth: PSNR against the budget, other points, no points, and the gain of each stage."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from tqdm import tqdm

from sapnet.errors import UserError
from sapnet.evaluation.metrics import psnr
from sapnet.evaluation.point_values import Inputs, inputs, unchanged
from sapnet.evaluation.statistics import paired_interval
from sapnet.models.adaptive_network import AdaptiveNetwork
from sapnet.sampling.context import StageContext

#: Stands for no points at all: nothing but the regular layers of a sampled stage runs.
NO_POINTS = -1.0
BUDGETS = (NO_POINTS, -0.9, -0.75, -0.5, -0.25, 0.0, 0.25, 0.5, 1.0, 2.0)
#: Two means that differ by less, in dB, count as equal.
NEGLIGIBLE_DB = 0.02


def without_points(network: AdaptiveNetwork, blurred: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b 3 h w"]]:
    """Restore with no points: the blocks of sampled stages refine nothing, all other layers run."""

    def choose(state: StageContext) -> dict[int, Tensor]:
        patches = state.grid[0] * state.grid[1] * len(state.blurred)
        none = torch.empty(patches, 0, dtype=torch.int64, device=state.blurred.device)
        return dict.fromkeys(network.sampler_of(state.stage).strides, none)

    return network.generator(blurred, choose)


@torch.no_grad()
def study(network: AdaptiveNetwork, items: Sequence[Mapping[str, Any]], device: torch.device) -> dict[str, Any]:
    """Measure a trained network's PSNR with more points, fewer, none, and those of other samplers.

    Points are chosen as at inference, other samplers' by their top scores. The network is left as it was.

    Args:
        network: On the device, in evaluation mode.
        items: Test images, read one at a time.
        device: Where to compute.

    Returns:
        Plain data. ``budgets``: PSNR of the last stage by budget (-1: no points) and its gain over budget 0;
        ``points_db``: by the points' origin (the network's own sampler, ``random``, ``none``, and ``extent`` where the
        data knows it) the PSNR at the own budget and the own points' gain over it; ``stages``: PSNR of each stage and
        its gain over the one before, of the first over the blurred image; ``words``: the conclusion. Gains are means
        over images with paired 95% intervals, in dB; images with an infinite PSNR are left out.

    Raises:
        UserError: No test image differs from its ground truth.
    """
    own, budgets = network.sampler, sorted({*BUDGETS, network.budget})
    others = _other_samplers(network, "extent" in items[0], device)
    bar = tqdm(items, desc="study of points", unit="image", disable=None, leave=False)
    lines = [_measure(network, others, budgets, inputs(item, device)) for item in bar]
    lines = [line for line in lines if np.isfinite(list(line.values())).all()]
    if not lines:
        raise UserError("study=points: every test image equals its ground truth or has no finite PSNR.")
    values = {key: np.array([line[key] for line in lines]) for key in lines[0]}
    at_own = values["budget", network.budget]
    sources = {own: at_own, **{name: values["points", name] for name in others}, "none": values["budget", NO_POINTS]}
    stages = [values["input"], *(found for key, found in values.items() if key[0] == "stage")]
    found = {
        "images": len(lines),
        "sampler": own,
        "budget": network.budget,
        "inference": network.inference,
        "budgets": [
            {"budget": b, "psnr": _mean(values["budget", b]), **_gain(values["budget", b], values["budget", 0.0])}
            for b in budgets
        ],
        "points_db": {name: {"psnr": _mean(each), **_gain(at_own, each)} for name, each in sources.items()},
        "stages": [
            {"stage": k, "psnr": _mean(stages[k]), **_gain(stages[k], stages[k - 1])} for k in range(1, len(stages))
        ],
    }
    return found | {"words": in_words(found)}


def _other_samplers(network: AdaptiveNetwork, extent_known: bool, device: torch.device) -> dict[str, nn.ModuleDict]:
    found = {}
    for name in ("random", "extent") if extent_known else ("random",):
        if name != network.sampler:
            with unchanged(network):
                network.use_sampler(name, inference="top")
                found[name] = network.samplers.to(device)
    return found


def _measure(
    network: AdaptiveNetwork,
    others: Mapping[str, nn.ModuleDict],
    budgets: Sequence[float],
    known: Inputs,
) -> dict[Any, float]:
    def value(image: Tensor) -> float:
        return float(psnr(image[0].float().cpu(), known["sharp"][0].cpu()))

    own_budget = network.budget
    found: dict[Any, float] = {"input": value(known["blurred"])}
    with unchanged(network):
        for budget in budgets:
            if budget == NO_POINTS:
                outputs = without_points(network, known["blurred"])
            else:
                network.use_budget(budget)
                outputs = network.trace(**known, mode=network.inference).outputs
            found["budget", budget] = value(outputs[-1])
            if budget == own_budget:
                found |= {("stage", k): value(output) for k, output in enumerate(outputs, start=1)}
        for name, samplers in others.items():
            network.sampler, network.samplers = name, samplers
            found["points", name] = value(network.trace(**known, mode="top").outputs[-1])
    return found


def _mean(values: np.ndarray) -> float:
    return float(values.mean())


def _gain(ours: np.ndarray, theirs: np.ndarray) -> dict[str, Any]:
    gain = paired_interval(ours - theirs)
    return {"gain_db": gain.mean, "ci95": [gain.low, gain.high]}


def in_words(found: Mapping[str, Any]) -> str:
    """Say in a sentence what the points are worth."""
    none, own = found["points_db"]["none"], found["sampler"]
    if found["images"] < 2:
        return "One image cannot tell what the sampled points are worth."
    if is_nothing(none):
        return (
            "PSNR without any points equals PSNR at the budget: the sampled points do nothing here"
            f" (difference {_interval(none)})."
        )
    verb = "add" if none["gain_db"] > 0 else "cost"
    text = f"The sampled points {verb} {_interval(none)} against no points"
    if own != "random":
        random = found["points_db"]["random"]
        same = ", no difference that these images show" if is_nothing(random) else ""
        text += f"; against as many random points the {own} ones make {_interval(random)}{same}"
    return f"{text}."


def is_nothing(row: Mapping[str, Any]) -> bool:
    """Tell whether a mean gain is negligible, or its interval covers zero."""
    low, high = row["ci95"]
    return abs(row["gain_db"]) < NEGLIGIBLE_DB or low <= 0 <= high


def _interval(row: Mapping[str, Any], unit: str = " dB") -> str:
    low, high = row["ci95"]
    return f"{row['gain_db']:+.3f}{unit} [{low:+.3f}, {high:+.3f}]"


def as_markdown(found: Mapping[str, Any]) -> str:
    """Return the study as Markdown; values of points and signal to noise are shown where they were measured."""
    own = found["sampler"]
    lines = [found["words"], ""]
    lines += _table(
        ["budget", "PSNR dB", "minus budget 0, 95% interval"],
        [[_budget(row["budget"]), f"{row['psnr']:.3f}", _interval(row, "")] for row in found["budgets"]],
    )
    lines += _table(
        [f"points at {found['budget']:+.0%}", "PSNR dB", f"{own} minus it, 95% interval"],
        [
            [name, f"{row['psnr']:.3f}", "" if name == own else _interval(row, "")]
            for name, row in found["points_db"].items()
        ],
    )
    lines += _table(
        ["stage", "PSNR dB", "minus the one before, 95% interval"],
        [[str(row["stage"]), f"{row['psnr']:.3f}", _interval(row, "")] for row in found["stages"]],
    )
    if found.get("values"):
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
                for row in found["values"]
            ],
        )
    if found.get("signal_to_noise"):
        lines += _table(
            ["policy gradient", "signal / deviation of one draw"],
            [[row["estimator"], f"{row['signal_to_noise']:.3f}"] for row in found["signal_to_noise"]],
        )
    lines += [f"- {sentence}" for sentence in found.get("skipped", ())]
    return "\n".join(lines).rstrip()


def _budget(budget: float) -> str:
    return "no points" if budget == NO_POINTS else f"{budget:+.0%}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)] + [""]
