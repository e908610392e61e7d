"""The part of a report about a study, and the comparison of several runs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sapnet.errors import UserError
from sapnet.evaluation.statistics import paired_interval
from sapnet.reporting.html_report.elements import interval, remark, section, table, text
from sapnet.reporting.html_report.run_results import RunResults, read_json
from sapnet.reporting.html_report.svg_charts import Gain, gains_chart
from sapnet.reporting.saved_results import read_table

#: Columns of `table.csv` that are shown, with their heading and format; intervals follow their value.
_COLUMNS = {
    "row": ("row", ""),
    "method": ("method", ""),
    "psnr_db": ("PSNR dB", ".3f"),
    "psnr_seed_sd_db": ("SD over seeds, dB", ".3f"),
    "ssim_matlab3d": ("SSIM", ".4f"),
    "ssim": ("SSIM", ".4f"),
    "runtime_s": ("time s", ".3f"),
    "images": ("images", "d"),
    "seeds": ("seeds", "d"),
    "parameters_m": ("parameters 1e6", ".2f"),
    "run_parameters_m": ("parameters of the runs, 1e6", ".2f"),
    "gmacs": ("GMACs", ".1f"),
    "run_gmacs": ("GMACs of the runs", ".2f"),
}
#: Ends of the keys of a gain, without the unit.
_ENDS = ("", "_ci95_low", "_ci95_high")


def is_study(folder: Path) -> bool:
    """Return whether a folder holds the report of a study."""
    return (folder / "table.json").is_file() or (folder / "table.csv").is_file()


def study_section(folder: Path) -> str:
    """Return the part of the page about a study: its table with intervals, its gains and its runs.

    Raises:
        UserError: A file cannot be read or does not have the form that sapnet writes.
    """
    path = folder / "table.json"
    if path.is_file():
        content = read_json(path)
        lines, origin = content.get("lines"), content.get("origin") or {}
    else:
        path, origin = folder / "table.csv", {}
        lines = _read(path)
    if not isinstance(lines, list) or not all(isinstance(line, Mapping) for line in lines):
        raise UserError(f"{path}: it holds no lines of a table; render the study again.")
    prefixes = sorted(
        {key.removesuffix("_ci95_low_db") for line in lines for key in line if key.endswith("_ci95_low_db")}
    )
    gains = [line.get(f"{prefix}{end}_db") for line in lines for prefix in prefixes for end in _ENDS]
    if any(isinstance(value, bool) or not isinstance(value, int | float | None) for value in gains):
        raise UserError(f"{path}: a gain is not a number; render the study again.")
    try:
        return section(
            str(folder),
            _table(lines, prefixes, "Rows of the study; intervals of 95%"),
            f'<div class="charts">{"".join(_gains(lines, prefix) for prefix in prefixes)}</div>',
            _runs(_read(folder / "runs.csv")),
            *(f"<p>{text(key)}: {text(value)}</p>" for key, value in origin.items()),
        )
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: a value is not of the kind that sapnet writes ({error}); render it again.") from error


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        return read_table(path, missing_ok=True)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not a table of results ({error}); render the study again.") from error


def _reference(prefix: str) -> str:
    over = prefix.removeprefix("gain").removeprefix("_over_")
    return f"over {over}" if over else "over the reference"


def _table(lines: Sequence[Mapping[str, Any]], prefixes: Sequence[str], caption: str) -> str:
    shown = {key: value for key, value in _COLUMNS.items() if any(line.get(key) not in (None, "") for line in lines)}
    columns = dict(shown.values())
    for prefix in prefixes:
        columns |= {f"gain {_reference(prefix)}, dB": "+.3f", f"interval {_reference(prefix)}, dB": ""}
    rows = []
    for line in lines:
        row = [line.get(key) for key in shown]
        for prefix in prefixes:
            bounds = interval(line.get(f"{prefix}_ci95_low_db"), line.get(f"{prefix}_ci95_high_db"))
            row += [line.get(f"{prefix}_db"), bounds]
        rows.append(row)
    return table(columns, rows, caption)


def _gains(lines: Sequence[Mapping[str, Any]], prefix: str) -> str:
    gains = [
        Gain(
            str(line.get("row", "")),
            line[f"{prefix}_db"],
            line.get(f"{prefix}_ci95_low_db"),
            line.get(f"{prefix}_ci95_high_db"),
        )
        for line in lines
        if line.get(f"{prefix}_db") is not None
    ]
    return gains_chart(f"PSNR gain {_reference(prefix)}, with intervals of 95%", "gain (dB)", gains)


def _runs(lines: Sequence[Mapping[str, Any]]) -> str:
    if not lines:
        return ""
    keys = {"row": "", "seed": "d", "steps": "d", "psnr_db": ".3f", "runtime_s": ".3f"}
    keys |= {key: "+.3f" for line in lines for key in line if key.startswith("stage") and key.endswith("_gain_db")}
    keys |= {"evaluated_checkpoint": "", "commit": "", "config_hash": "", "command": ""}
    keys = {key: form for key, form in keys.items() if any(key in line for line in lines)}
    headings = {
        key: key.replace("_db", " dB").replace("_s", " s") if key == "runtime_s" else key.replace("_", " ")
        for key in keys
    }
    columns = {headings[key]: form for key, form in keys.items()}
    return "<h3>Runs</h3>\n" + table(columns, [[line.get(key) for key in keys] for line in lines], "Runs of the study")


def comparison_section(runs: Sequence[RunResults]) -> str:
    """Return the table of several runs side by side, with their gains over the first one on the same test images."""
    runs = [run for run in runs if "stage_psnr" in run.summary]
    if len(runs) < 2:
        return ""
    rows, gains = [], []
    for run in runs:
        summary = run.summary
        gain = Gain(run.name, 0.0, None, None) if run is runs[0] else _gain_over(runs[0], run)
        over_input = interval(*summary["gain_ci95"])
        own = [run.name, summary["images"], summary["stage_psnr"][-1], summary["stage_ssim"][-1]]
        own += [summary["gain_db"], over_input, None, "", summary.get("parameters"), summary.get("seconds")]
        if gain is not None and run is not runs[0]:
            own[6:8] = [gain.value, interval(gain.low, gain.high)]
            gains.append(gain)
        rows.append(own)
    columns = {"run": "", "images": "d", "PSNR dB": ".3f", "SSIM": ".4f", "gain over the input, dB": "+.3f"}
    columns |= {"its interval, dB": "", "gain over the first run, dB": "+.3f", "its interval, dB ": ""}
    columns |= {"parameters": "d", "time s": ".3f"}
    chart = gains_chart(f"PSNR gain over {runs[0].name}, with intervals of 95%", "gain (dB)", gains)
    sentence = (
        ""
        if len(gains) == len(runs) - 1
        else remark(
            "Runs without a gain over the first one were tested on other images, other data or by another protocol."
        )
    )
    return section(
        "Comparison",
        table(columns, rows, "Runs side by side; intervals of 95%", links=True),
        sentence,
        f'<div class="charts">{chart}</div>' if chart else "",
    )


def _gain_over(first: RunResults, other: RunResults) -> Gain | None:
    """Return the paired gain of a run, or None if the two were tested on other images."""
    sides = [{line["name"]: line for line in run.lines} for run in (first, other)]
    keys = ("data", "data_arguments", "split", "protocol")
    if not sides[0] or sides[0].keys() != sides[1].keys():
        return None
    if any(first.lines[0].get(key) != other.lines[0].get(key) for key in keys):
        return None
    psnr = np.array([[side[name]["stage_psnr"][-1] for name in sides[0]] for side in sides])
    psnr = psnr[:, np.isfinite(psnr).all(axis=0)]
    if not psnr.size:
        return None
    mean, low, high = paired_interval(psnr[1] - psnr[0])
    return Gain(other.name, mean, *((low, high) if np.isfinite(high - low) else (None, None)))
