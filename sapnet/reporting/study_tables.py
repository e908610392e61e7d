"""The table of a study as Markdown and CSV."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from sapnet.markdown import markdown_table
from sapnet.reporting.comparison import gain_key
from sapnet.reporting.study import PAPER, Study

#: Key of the measured value, key of the paper's value, heading, number format.
COLUMNS = (
    ("psnr_db", "paper_psnr_db", "PSNR dB", ".2f"),
    ("ssim_matlab3d", "paper_ssim", "SSIM", ".4f"),
    ("parameters_m", "paper_parameters_m", "parameters, M", ".2f"),
    ("run_parameters_m", "", "as run", ".2f"),
    ("gmacs", "paper_gmacs", "GMACs", ".1f"),
    ("run_gmacs", "", "as run", ".1f"),
    ("runtime_s", "paper_runtime_s", "s per image", ".3f"),
)


def as_markdown(study: Study, lines: Sequence[Mapping[str, Any]], origin: Mapping[str, str]) -> str:
    """Return the table of a study with its notes and the origin of the measured values.

    Args:
        study: The study.
        lines: Lines of `sapnet.reporting.comparison.compare` with the costs of the networks.
        origin: Text by keyword, printed below the table.
    """
    shown = [
        (measured, paper, *rest)
        for measured, paper, *rest in COLUMNS
        if measured == "psnr_db" or any(measured in line or paper in line for line in lines)
    ]
    head = ["row"]
    for _, paper, heading, _ in shown:
        head += [heading, f"paper's {heading}"] if any(_paper_cell(line, paper) for line in lines) else [heading]
    head += [f"minus {study.reference}, dB, 95% interval", "by seed"]
    rows = []
    for line in lines:
        cells = [line["row"]]
        for measured, paper, _, form in shown:
            cells.append(_measured_cell(line, measured, form))
            if any(_paper_cell(other, paper) for other in lines):
                cells.append(_paper_cell(line, paper))
        rows.append(cells + gain_cells(line))
    text = [f"## {study.title}", "", markdown_table(head, rows)]
    text += ["", *note] if (note := recorded_note(lines)) else []
    text += ["", *(f"- {note}" for note in study.notes)] if study.notes else []
    text += ["", *(f"{key}: {value}  " for key, value in origin.items())]
    commits = dict.fromkeys(name for line in lines if "commit" in line for name in line["commit"].split(", "))
    kinds = dict.fromkeys(line["evaluated_checkpoint"] for line in lines if "evaluated_checkpoint" in line)
    text += [f"Evaluated checkpoint: {' | '.join(kinds)}  "] if kinds else []
    text += [f"Trained at commit: {', '.join(commits) or 'nothing trained'}  "]
    return "\n".join(text) + "\n"


def _paper_cell(line: Mapping[str, Any], key: str) -> str:
    derived = key.replace("paper_", "derived_")
    if key and derived in line:
        return f"{line[derived]:g} (derived)"
    return f"{line[key]:g}" if key in line else ""


def _measured_cell(line: Mapping[str, Any], key: str, form: str) -> str:
    if key != "psnr_db":
        return f"{line[key]:{form}}" if key in line else ""
    diverged = f"{line['diverged_seeds']} diverged" if "diverged_seeds" in line else ""
    if key not in line:
        return diverged or "no result yet"
    spread = line.get("psnr_seed_sd_db")
    return f"{line[key]:{form}}" + (f" ± {spread:.2f}" if spread is not None else "") + (diverged and f", {diverged}")


def gain_cells(line: Mapping[str, Any], key: str = "gain") -> list[str]:
    """Return a gain with its interval and the gain by seed; a star marks an interval that was recorded earlier.

    Args:
        line: Line of a row.
        key: Prefix of the keys of the gain (`sapnet.reporting.comparison.gain_key`).
    """
    if f"{key}_db" not in line:
        return ["", ""]
    low, high = line[f"{key}_ci95_low_db"], line[f"{key}_ci95_high_db"]
    star = "*" if line.get("intervals_from") == "recorded" else ""
    return [
        f"{line[f'{key}_db']:+.2f} [{low:+.2f}, {high:+.2f}]{star}",
        ", ".join(f"{value:+.2f}" for value in line[f"{key}_by_seed_db"]),
    ]


def gains_table(study: Study, lines: Sequence[Mapping[str, Any]], reference: str) -> str:
    """Return the gains over one reference row as Markdown."""
    key = gain_key(study, reference)
    head = ["row", f"minus {reference}, dB, 95% interval", "by seed"]
    rows = [[line["row"], *gain_cells(line, key)] for line in lines if f"{key}_db" in line]
    return markdown_table(head, rows) + "\n"


def recorded_note(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the explanation of the star of `gain_cells`, or an empty list if no interval has one."""
    recorded = [line for line in lines if line.get("intervals_from") == "recorded"]
    commits = dict.fromkeys(commit for line in recorded for commit in line["commit"].split(", "))
    text = f"\\* Recorded earlier, at {', '.join(commits)}: the values by image were not kept."
    return [text] if recorded else []


def as_csv(lines: Sequence[Mapping[str, Any]]) -> str:
    """Return all values as CSV.

    Column names contain the unit. The paper's columns start with `paper_` or `derived_` and come last. A cell without a
    value is empty.
    """
    columns = list(dict.fromkeys(key for line in lines for key in line))
    columns.sort(key=lambda key: key.startswith(PAPER))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(dict(line) for line in lines)
    return text.getvalue()
