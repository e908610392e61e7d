"""Tables and charts of the documentation, made from results files by `sapnet.reporting.docs`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sapnet.configs import EXPERIMENTS
from sapnet.errors import UserError
from sapnet.evaluation import point_study
from sapnet.markdown import markdown_table
from sapnet.reporting.comparison import gain_key
from sapnet.reporting.docs_values import lines, read_json, tables
from sapnet.reporting.saved_results import read_saved_results
from sapnet.reporting.study import Study, read_study
from sapnet.reporting.study_tables import gain_cells, recorded_note

#: Selection of the points in the rows of the studies of points.
POINTS_OF_ROWS = {
    "U": "everything, on the coarse grid; stem 7",
    "U-stem6": "the same; stem 6, 3 to 4% fewer multiply-adds",
    "NU-random": "random",
    "NU-uniform": "a regular grid of points on the finer canvas (control)",
    "NU-gradient": "where the image gradient is large (control)",
    "NU-reinforce": "policy, REINFORCE as in the paper",
    "NU-reinforce-warm": "policy, REINFORCE as in the paper, warm start",
    "NU-paired": "policy, second draw as baseline",
    "NU-paired-warm": "policy, second draw as baseline, warm start",
    "NU-gate": "policy, value of each point",
    "NU-gate-warm": "policy, value of each point, warm start",
    "NU-gate-wide": "policy, value of each point, warm start over a wider neighbourhood",
    "NU-predicted_error": "where a head predicts the error (control)",
    "NU-oracle": "true error (control)",
    "NU-extent": "true blur extent (control)",
}


def study(path: Path) -> str:
    """Return the rows of a study of points that have results, from its `NAME_rows.csv` and `NAME.csv`."""
    name = path.stem.removesuffix("_rows")
    known, runs = read_study(EXPERIMENTS / f"{name}.yaml"), read_saved_results(path.parent, name).runs
    done = [line for line in lines(path) if "psnr_db" in line]
    order = [*POINTS_OF_ROWS, *known.rows]
    done.sort(key=lambda line: order.index(line["row"]))
    head = ["row", "points of the last stage", "PSNR dB (± s.d. over seeds)"]
    head += [f"minus {known.reference}, 95% interval", "by seed", "minus U, 95% interval"]
    head += ["last stage adds, dB", "AUC, error", "AUC, extent"]
    body = []
    for line in done:
        own = [run for (row, _), run in runs.items() if row == line["row"] and "diverged" not in run]
        last = max((key for run in own for key in run if key.startswith("stage")), default="")
        gain, error, extent = (_mean(own, key) for key in (last, "auc_error", "auc_extent"))
        cells = [line["row"], POINTS_OF_ROWS.get(line["row"], ""), _psnr(line), *gain_cells(line)]
        cells += [gain_cells(line, "gain_over_U")[0], _or_blank(gain, "+.2f"), _or_blank(error, ".2f")]
        body.append([*cells, _or_blank(extent, ".2f")])
    return "\n\n".join([markdown_table(head, body), *recorded_note(done)])


def rates(path: Path) -> str:
    """Return PSNR by learning rate and network."""
    names = list(dict.fromkeys(line["row"].rsplit(" ", 1)[0] for line in lines(path)))
    peaks = list(dict.fromkeys(line["row"].rsplit(" ", 1)[1] for line in lines(path)))
    done = {line["row"]: line for line in lines(path)}
    body = [[peak, *(_psnr(done[f"{name} {peak}"]) for name in names)] for peak in peaks]
    return markdown_table(["peak rate", *names], body)


def table(path: Path, *columns: str) -> str:
    """Return the rows of one of the paper's tables that have results.

    Args:
        path: `TABLE_rows.csv`.
        columns: Optional columns: `by_seed`, `paper`, `gmacs` (full size), `run_gmacs`.
    """
    known = _study_of(path)
    done = [line for line in lines(path) if "psnr_db" in line]
    gains = [(each, gain_key(known, each)) for each in (known.reference, *known.references)]
    gains = [(each, key) for each, key in gains if any(f"{key}_db" in line for line in done)]
    head = ["row", "PSNR dB", *(f"minus {each}, 95% interval" for each, _ in gains)]
    optional: dict[str, Any] = {
        "by_seed": ("by seed", lambda line: gain_cells(line)[1]),
        "paper": ("paper's PSNR dB", _paper_psnr),
        "gmacs": ("GMACs, full size", lambda line: f"{line['gmacs']:.1f}"),
        "run_gmacs": ("GMACs as run", lambda line: f"{line.get('run_gmacs', line.get('gmacs')):.1f}"),
    }
    head += [optional[column][0] for column in columns]
    body = []
    for line in done:
        cells = [gain_cells(line, key)[0] for _, key in gains]
        body.append([line["row"], _psnr(line), *cells, *(optional[column][1](line) for column in columns)])
    return "\n\n".join([markdown_table(head, body), *recorded_note(done)])


def points(path: Path) -> str:
    """Return the results of `sapnet evaluate study=points` for a network."""
    return point_study.as_markdown(read_json(path))


def forward(path: Path) -> str:
    """Return time, ratio to the arithmetic floor and memory of the networks, from a report of `benchmarks.networks`."""
    seconds, memory = (_table_with(path, column) for column in ("x floor", "peak beside parameters"))
    gmacs = {(line["network"], line["size"]): line["GMACs"] for line in _table_with(path, "read, MiB")}
    together = {(line["network"], line["size"]): line["together"] for line in memory}
    head = ["forward pass", "size", "GMACs", "seconds, median [lowest, highest]", "times the floor", "goal"]
    head.append("peak memory, MiB")
    body = []
    for line in seconds:
        key = line["forward pass"], line["size"]
        body.append([*key, gmacs[key], line["seconds"], line["x floor"], line["goal"], together[key]])
    return markdown_table(head, body, 2)


def ratios(path: Path) -> str:
    """Return the cost of sampling, from a report of `benchmarks.networks`."""
    keys = ("non-uniform to uniform", "size", "what", "GMACs", "seconds", "goal")
    body = [[line[key] for key in keys] for line in _table_with(path, "non-uniform to uniform")]
    return markdown_table([*keys[:3], "multiply-adds", *keys[4:]], body, 3)


def mini_step(path: Path) -> str:
    """Return the time of a training step of the small network, from the results of `benchmarks.mini_step`."""
    head = ["network", "seconds a step, median [lowest, highest]", "times the floor"]
    body = [
        [line["model"], "{middle:.3f} [{low:.3f}, {high:.3f}]".format(**line["seconds"]), f"{line['times_floor']:.2f}"]
        for line in read_json(path)["steps"]
    ]
    return markdown_table(head, body, 1)


def against(path: Path) -> str:
    """Return the speed of a training step relative to earlier commits, from the results of `benchmarks.against`."""
    compared = read_json(path)["comparisons"]
    head = ["network", f"ms at {compared[0]['commit']}"]
    head += [f"times as fast as at {each['other']} [quartiles]" for each in compared]
    body = []
    for steps in zip(*(each["steps"] for each in compared), strict=True):
        times = [step["processor"] for step in steps]
        cells = [f"{time['ratio']:.2f} [{time['quartiles'][0]:.2f}, {time['quartiles'][1]:.2f}]" for time in times]
        body.append([steps[0]["model"], f"{1000 * times[0]['here']:.0f}", *cells])
    return markdown_table(head, body, 1)


def _study_of(path: Path) -> Study:
    return read_study(EXPERIMENTS / f"{path.stem.removesuffix('_rows')}.yaml")


def _psnr(line: Mapping[str, Any]) -> str:
    spread = line.get("psnr_seed_sd_db")
    return f"{line['psnr_db']:.2f}" + ("" if spread is None else f" ± {spread:.2f}")


def _paper_psnr(line: Mapping[str, Any]) -> str:
    if "derived_psnr_db" in line:
        return f"{line['derived_psnr_db']:.2f} (derived)"
    return f"{line['paper_psnr_db']:.2f}" if "paper_psnr_db" in line else ""


def _mean(runs: Sequence[Mapping[str, Any]], key: str) -> float | None:
    values = [run[key] for run in runs if key in run]
    return float(np.mean(values)) if values else None


def _or_blank(number: float | None, form: str) -> str:
    return "" if number is None else f"{number:{form}}"


def _table_with(path: Path, column: str) -> list[dict[str, str]]:
    for lines_of_table in tables(path):
        if lines_of_table and column in lines_of_table[0]:
            return lines_of_table
    raise UserError(f"{path}: there is no table with a column {column}.")


#: Functions that make the blocks of a page, by name.
BLOCKS = {each.__name__: each for each in (study, rates, table, points, forward, ratios, mini_step, against)}
