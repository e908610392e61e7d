"""Learning curves of a study: the training loss of each run by step, as CSV and as a chart."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sapnet.evaluation.pictures import Picture, figure, rasterise
from sapnet.provenance import as_columns
from sapnet.reporting.comparison import FolderOf
from sapnet.reporting.saved_results import read_table
from sapnet.reporting.study import Study

_WIDTH, _HEIGHT, _DPI = 1120, 620, 150
#: Logged values that are averaged for one point of a curve.
_WINDOW = 3


def curve_lines(study: Study, folder_of: FolderOf, saved: Sequence[Mapping[str, Any]] = ()) -> list[dict[str, Any]]:
    """Return the curves of the finished runs of a study, one line per run and logged step.

    Keys: `row`, `seed`, `step`, `loss`, the training loss of the stages that learn in this step, on one batch, and
    `config_hash`, which identifies the run.

    Args:
        study: The study.
        folder_of: Folders of the runs.
        saved: Lines of an earlier call, used for runs that have no finished folder.
    """
    earlier: dict[tuple[str, int], list[dict[str, Any]]] = defaultdict(list)
    for line in saved:
        earlier[line["row"], line["seed"]].append(dict(line))
    lines = []
    for row in study.rows:
        for seed in study.seeds:
            folder = folder_of(row, seed)
            if (folder / "done.json").is_file():
                run = {"config_hash": as_columns(json.loads((folder / "done.json").read_text()))["config_hash"]}
                lines += [{"row": row, "seed": seed, **point, **run} for point in _curve(folder / "metrics.csv")]
            else:
                lines += earlier[row, seed]
    return lines


def _curve(path: Path) -> list[dict[str, Any]]:
    lines = read_table(path, missing_ok=True)
    return [{"step": line["generator_steps"], "loss": line["train/loss"]} for line in lines if "train/loss" in line]


def curves_chart(lines: Sequence[Mapping[str, Any]], reference: str, rows: Sequence[str]) -> Picture | None:
    """Draw the training loss of rows relative to a reference row, with bands over seeds.

    Runs of one seed see the same crops in the same order, so the ratio of two runs at a step has much less noise than
    each loss.

    Args:
        lines: Return value of `curve_lines`.
        reference: Row that the others are divided by.
        rows: Rows to draw, in this order; those without a run are left out.

    Returns:
        The chart, or None if no row can be compared with the reference.
    """
    losses: dict[str, dict[int, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for line in lines:
        losses[line["row"]][line["seed"]][line["step"]] = line["loss"]
    curves = {row: _relative(losses[row], losses[reference]) for row in rows if row != reference}
    curves = {row: curve for row, curve in curves.items() if len(curve[0])}
    if not curves:
        return None
    with figure(_WIDTH, _HEIGHT, _DPI) as drawing:
        drawing.set_layout_engine("constrained")
        axes = drawing.add_subplot()
        axes.axhline(0, color="0.6", linewidth=1)
        for number, (row, (steps, ratios)) in enumerate(curves.items()):
            axes.plot(steps, 100 * ratios.mean(axis=0), color=f"C{number}", label=f"{row} ({len(ratios)} seeds)")
            low, high = 100 * ratios.min(axis=0), 100 * ratios.max(axis=0)
            axes.fill_between(steps, low, high, color=f"C{number}", alpha=0.15, linewidth=0)
        axes.set_xlabel("generator step")
        axes.set_ylabel(f"training loss relative to {reference} (%)")
        axes.grid(color="0.9")
        axes.set_axisbelow(True)
        drawing.legend(loc="outside upper center", ncols=3, frameon=False)
        return rasterise(drawing)


def _relative(own: Mapping[int, Mapping[int, float]], reference: Mapping[int, Mapping[int, float]]) -> Any:
    """Return the common steps and the relative differences [seed, step], averaged over a window of logged values."""
    seeds = sorted(own.keys() & reference.keys())
    if not seeds:
        return np.empty(0), np.empty((0, 0))
    steps = sorted(set.intersection(*(set(runs[seed]) for runs in (own, reference) for seed in seeds)))
    logs = np.array([[np.log(own[seed][step] / reference[seed][step]) for step in steps] for seed in seeds])
    width = min(_WINDOW, len(steps))
    means = np.array([np.convolve(each, np.full(width, 1 / width), mode="valid") for each in logs])
    return np.array(steps)[width - 1 :], np.expm1(means)
