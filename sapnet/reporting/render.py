"""The table of a study as Markdown and CSV."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from sapnet.reporting.rows import PAPER, Study, gain_key

#: Ours, the paper's beside it, heading, format.
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
    """Return the table, the notes on the paper's figures, and where ours came from; rows without a result say so."""
    shown = [
        (ours, *rest)
        for ours, *rest in COLUMNS
        if ours == "psnr_db" or any(ours in line or rest[0] in line for line in lines)
    ]
    head = ["row"]
    for _, theirs, heading, _ in shown:
        head += [heading, f"paper's {heading}"] if any(_paper(line, theirs) for line in lines) else [heading]
    head += [f"minus {study.reference}, dB, 95% interval", "by seed"]
    text = [f"## {study.title}", "", f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    for line in lines:
        cells = [line["row"]]
        for ours, theirs, _, form in shown:
            cells.append(_ours(line, ours, form))
            if any(_paper(other, theirs) for other in lines):
                cells.append(_paper(line, theirs))
        text.append(f"| {' | '.join(cells + gain_cells(line))} |")
    text += ["", *note] if (note := recorded_note(lines)) else []
    text += ["", *(f"- {note}" for note in study.notes)] if study.notes else []
    text += ["", *(f"{key}: {value}  " for key, value in origin.items())]
    commits = dict.fromkeys(name for line in lines if "commit" in line for name in line["commit"].split(", "))
    kinds = dict.fromkeys(line["evaluated_checkpoint"] for line in lines if "evaluated_checkpoint" in line)
    text += [f"Evaluated checkpoint: {' | '.join(kinds)}  "] if kinds else []
    text += [f"Trained at commit: {', '.join(commits) or 'nothing trained'}  "]
    return "\n".join(text) + "\n"


def _paper(line: Mapping[str, Any], key: str) -> str:
    derived = key.replace("paper_", "derived_")
    if key and derived in line:
        return f"{line[derived]:g} (derived)"
    return f"{line[key]:g}" if key in line else ""


def _ours(line: Mapping[str, Any], key: str, form: str) -> str:
    if key != "psnr_db":
        return f"{line[key]:{form}}" if key in line else ""
    diverged = f"{line['diverged_seeds']} diverged" if "diverged_seeds" in line else ""
    if key not in line:
        return diverged or "no result yet"
    spread = line.get("psnr_seed_sd_db")
    return f"{line[key]:{form}}" + (f" ± {spread:.2f}" if spread is not None else "") + (diverged and f", {diverged}")


def gain_cells(line: Mapping[str, Any], key: str = "gain") -> list[str]:
    """Return a gain with its interval, a star where it was recorded earlier, and the gain by seed.

    Args:
        line: Of a row.
        key: How the keys of the gain begin (`sapnet.reporting.rows.gain_key`).
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
    """Return the gains over a reference alone."""
    key = gain_key(study, reference)
    text = [f"| row | minus {reference}, dB, 95% interval | by seed |", "| --- | --- | --- |"]
    text += [f"| {' | '.join([line['row'], *gain_cells(line, key)])} |" for line in lines if f"{key}_db" in line]
    return "\n".join(text) + "\n"


def recorded_note(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what a star means, where there is one."""
    found = [line for line in lines if line.get("intervals_from") == "recorded"]
    commits = dict.fromkeys(commit for line in found for commit in line["commit"].split(", "))
    text = f"\\* Recorded earlier, at {', '.join(commits)}: the values by image were not kept."
    return [text] if found else []


def as_csv(lines: Sequence[Mapping[str, Any]]) -> str:
    """Return all figures, units in the column names, ``paper_`` or ``derived_`` before the paper's.

    Cells are empty where there is none.
    """
    columns = list(dict.fromkeys(key for line in lines for key in line))
    columns.sort(key=lambda key: key.startswith(PAPER))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(dict(line) for line in lines)
    return text.getvalue()
