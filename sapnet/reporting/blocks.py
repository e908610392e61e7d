"""Tables and pictures of the documentation, made from results files (`sapnet.reporting.docs`)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from sapnet.configs import EXPERIMENTS
from sapnet.errors import UserError
from sapnet.evaluation import point_study
from sapnet.reporting.charts import gains_chart
from sapnet.reporting.figures import lines, read_json, tables
from sapnet.reporting.kept import read_kept
from sapnet.reporting.render import gain_cells, recorded_note
from sapnet.reporting.rows import Study, gain_key, read_study

#: What is said of the rows of the studies of points.
ROWS = {
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
    """Return the rows of a study of points that have a result, from its ``NAME_rows.csv`` and ``NAME.csv``."""
    name = path.stem.removesuffix("_rows")
    known, runs = read_study(EXPERIMENTS / f"{name}.yaml"), read_kept(path.parent, name).runs
    done = [line for line in lines(path) if "psnr_db" in line]
    order = [*ROWS, *known.rows]
    done.sort(key=lambda line: order.index(line["row"]))
    head = ["row", "points of the last stage", "PSNR dB (± s.d. over seeds)"]
    head += [f"minus {known.reference}, 95% interval", "by seed", "minus U, 95% interval"]
    head += ["last stage adds, dB", "AUC, error", "AUC, extent"]
    body = []
    for line in done:
        own = [run for (row, _), run in runs.items() if row == line["row"] and "diverged" not in run]
        last = max((key for run in own for key in run if key.startswith("stage")), default="")
        adds, error, extent = (_mean(own, key) for key in (last, "auc_error", "auc_extent"))
        cells = [line["row"], ROWS.get(line["row"], ""), _psnr(line), *gain_cells(line)]
        cells += [gain_cells(line, "gain_over_U")[0], _or_blank(adds, "+.2f"), _or_blank(error, ".2f")]
        body.append([*cells, _or_blank(extent, ".2f")])
    return "\n\n".join([_table(head, body), *recorded_note(done)])


def rates(path: Path) -> str:
    """Return PSNR by learning rate and network."""
    names = list(dict.fromkeys(line["row"].rsplit(" ", 1)[0] for line in lines(path)))
    steps = list(dict.fromkeys(line["row"].rsplit(" ", 1)[1] for line in lines(path)))
    done = {line["row"]: line for line in lines(path)}
    body = [[step, *(_psnr(done[f"{name} {step}"]) for name in names)] for step in steps]
    return _table(["peak rate", *names], body)


def table(path: Path, *columns: str) -> str:
    """Return the rows of one of the paper's tables that have a result.

    Args:
        path: ``TABLE_rows.csv``.
        columns: Further ones: ``by_seed``, ``paper``, ``gmacs`` (full size), ``run_gmacs``.
    """
    known = _study_of(path)
    done = [line for line in lines(path) if "psnr_db" in line]
    gains = [(each, gain_key(known, each)) for each in (known.reference, *known.references)]
    gains = [(each, key) for each, key in gains if any(f"{key}_db" in line for line in done)]
    head = ["row", "PSNR dB", *(f"minus {each}, 95% interval" for each, _ in gains)]
    made: dict[str, Any] = {
        "by_seed": ("by seed", lambda line: gain_cells(line)[1]),
        "paper": ("paper's PSNR dB", _papers),
        "gmacs": ("GMACs, full size", lambda line: f"{line['gmacs']:.1f}"),
        "run_gmacs": ("GMACs as run", lambda line: f"{line.get('run_gmacs', line.get('gmacs')):.1f}"),
    }
    head += [made[column][0] for column in columns]
    body = []
    for line in done:
        cells = [gain_cells(line, key)[0] for _, key in gains]
        body.append([line["row"], _psnr(line), *cells, *(made[column][1](line) for column in columns)])
    return "\n\n".join([_table(head, body), *recorded_note(done)])


def points(path: Path) -> str:
    """Return what ``study=points`` measured of a network."""
    return point_study.as_markdown(read_json(path))


def forward(path: Path) -> str:
    """Return seconds, ratio to the floor and memory of the networks, from what ``benchmarks.networks`` printed."""
    seconds, memory = (_find(path, column) for column in ("x floor", "peak beside parameters"))
    gmacs = {(line["network"], line["size"]): line["GMACs"] for line in _find(path, "read, MiB")}
    together = {(line["network"], line["size"]): line["together"] for line in memory}
    head = ["forward pass", "size", "GMACs", "seconds, median [lowest, highest]", "times the floor", "goal"]
    head.append("peak memory, MiB")
    body = []
    for line in seconds:
        key = line["forward pass"], line["size"]
        body.append([*key, gmacs[key], line["seconds"], line["x floor"], line["goal"], together[key]])
    return _table(head, body, figures=2)


def ratios(path: Path) -> str:
    """Return what sampling costs, from what ``benchmarks.networks`` printed."""
    keys = ("non-uniform to uniform", "size", "what", "GMACs", "seconds", "goal")
    body = [[line[key] for key in keys] for line in _find(path, "non-uniform to uniform")]
    return _table([*keys[:3], "multiply-adds", *keys[4:]], body, figures=3)


def mini_step(path: Path) -> str:
    """Return seconds of a training step of the miniature, from what ``benchmarks.mini_step`` wrote."""
    head = ["network", "seconds a step, median [lowest, highest]", "times the floor"]
    body = [
        [line["model"], "{middle:.3f} [{low:.3f}, {high:.3f}]".format(**line["seconds"]), f"{line['times_floor']:.2f}"]
        for line in read_json(path)["steps"]
    ]
    return _table(head, body, figures=1)


def against(path: Path) -> str:
    """Return how a training step compares with earlier commits, from what ``benchmarks.against`` wrote."""
    compared = read_json(path)["comparisons"]
    head = ["network", f"ms at {compared[0]['commit']}"]
    head += [f"times as fast as at {each['other']} [quartiles]" for each in compared]
    body = []
    for steps in zip(*(each["steps"] for each in compared), strict=True):
        times = [step["processor"] for step in steps]
        cells = [f"{time['ratio']:.2f} [{time['quartiles'][0]:.2f}, {time['quartiles'][1]:.2f}]" for time in times]
        body.append([steps[0]["model"], f"{1000 * times[0]['here']:.0f}", *cells])
    return _table(head, body, figures=1)


def _study_of(path: Path) -> Study:
    return read_study(EXPERIMENTS / f"{path.stem.removesuffix('_rows')}.yaml")


def _table(head: Sequence[str], body: Sequence[Sequence[str]], figures: int | None = None) -> str:
    # From column `figures` on, cells stand at the right.
    marks = ["---" if figures is None or i < figures else "---:" for i in range(len(head))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, marks, *body))


def _psnr(line: Mapping[str, Any]) -> str:
    spread = line.get("psnr_seed_sd_db")
    return f"{line['psnr_db']:.2f}" + ("" if spread is None else f" ± {spread:.2f}")


def _papers(line: Mapping[str, Any]) -> str:
    if "derived_psnr_db" in line:
        return f"{line['derived_psnr_db']:.2f} (derived)"
    return f"{line['paper_psnr_db']:.2f}" if "paper_psnr_db" in line else ""


def _mean(runs: Sequence[Mapping[str, Any]], key: str) -> float | None:
    values = [run[key] for run in runs if key in run]
    return float(np.mean(values)) if values else None


def _or_blank(number: float | None, form: str) -> str:
    return "" if number is None else f"{number:{form}}"


def _find(path: Path, column: str) -> list[dict[str, str]]:
    found = next((found for found in tables(path) if found and column in found[0]), None)
    if found is None:
        raise UserError(f"{path}: there is no table with a column {column}.")
    return found


#: What a page may hold, by the name in its marks.
BLOCKS = {each.__name__: each for each in (study, rates, table, points, forward, ratios, mini_step, against)}
#: Pictures of gains in docs/, by the study and the results file of its rows. Others show images, and are no figures.
PICTURES = {
    "study_local.png": ("study_local", "study_local_rows.csv"),
    "controls.png": ("controls", "earlier/controls_rows.csv"),
    "table4.png": ("table4", "earlier/table4_rows.csv"),
}


def picture(name: str, results: Path) -> UInt8[np.ndarray, "h w 3"]:
    """Draw one of `PICTURES`."""
    study_name, file = PICTURES[name]
    drawn = gains_chart(read_study(EXPERIMENTS / f"{study_name}.yaml"), lines(results / file))
    if drawn is None:
        raise UserError(f"{results / file}: no row has a gain to draw.")
    return drawn
