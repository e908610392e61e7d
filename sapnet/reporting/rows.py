"""A study: rows of overrides times seeds, and the table of their results."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from sapnet.errors import UserError
from sapnet.evaluation.statistics import paired_interval
from sapnet.evaluation.store import read_results


@dataclass(frozen=True)
class Study:
    """What a file of ``experiments/`` says.

    Attributes:
        title: Stands above the table.
        reference: The row that gains are measured against.
        seeds: Each row is trained once with each.
        rows: Overrides of ``sapnet-train`` by the row's name.
        overrides: What the chosen scale adds to every row.
        paper: The paper's figures of a row, by ``paper_<quantity>_<unit>``; empty where it gives none.
    """

    title: str
    reference: str
    seeds: tuple[int, ...]
    rows: dict[str, list[str]]
    overrides: list[str]
    paper: dict[str, dict[str, float]] = field(default_factory=dict)


def read_study(path: Path, scale: str | None = None) -> Study:
    """Read a study at one of its scales, or its rows alone.

    A row is a list of overrides, or ``{overrides: [...], paper_psnr_db: ...}`` with the paper's figures beside them.

    Raises:
        UserError: No such study or scale, or a row that is neither of the two.
    """
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in path.parent.glob("*.yaml")))
        raise UserError(f"table={path.stem}: there is no such study; there are {known}.")
    content = yaml.safe_load(path.read_text())
    if scale is not None and scale not in content["scales"]:
        raise UserError(f"scale={scale}: {path.stem} has the scales {', '.join(content['scales'])}.")
    return Study(
        content["title"],
        content["reference"],
        tuple(content["seeds"]),
        {name: _overrides(path, name, row) for name, row in content["rows"].items()},
        [] if scale is None else content["scales"][scale],
        {name: _figures(path, name, row) for name, row in content["rows"].items() if isinstance(row, dict)},
    )


def _overrides(path: Path, name: str, row: Any) -> list[str]:
    found = row.get("overrides") if isinstance(row, dict) else row
    if not isinstance(found, list):
        raise UserError(f"{path.name}, row {name}: write a list of overrides, or {{overrides: [...], paper_...: ...}}.")
    return found


def _figures(path: Path, name: str, row: Mapping[str, Any]) -> dict[str, float]:
    figures = {key: value for key, value in row.items() if key != "overrides"}
    for key, value in figures.items():
        if not key.startswith("paper_") or not isinstance(value, int | float):
            raise UserError(
                f"{path.name}, row {name}: {key} is no figure of the paper; write paper_QUANTITY_UNIT: NUMBER."
            )
    return figures


def collect(folder: Path, seeds: Sequence[int]) -> np.ndarray | None:
    """Return the PSNR of a row's last stage, ``[seeds, images]`` in dB; None where a seed is missing."""
    table = []
    for seed in seeds:
        lines = sorted(read_results(folder / f"seed{seed}" / "results.jsonl"), key=lambda line: line["name"])
        if not lines:
            return None
        table.append([line["stage_psnr"][-1] for line in lines])
    return np.array(table)


def compare(study: Study, folder: Path) -> list[dict[str, Any]]:
    """Return one line per row: mean PSNR, spread between seeds, and the paired gain over the reference.

    The interval resamples images, after the mean over seeds of each image's difference; the spread between seeds is
    given beside it, for the interval does not hold it.
    """
    found = {name: collect(folder / name, study.seeds) for name in study.rows}
    reference = found[study.reference]
    lines = []
    for name, values in found.items():
        line: dict[str, Any] = {"row": name}
        if values is not None:
            means = values.mean(axis=1)
            line |= {"psnr_db": float(means.mean()), "seed_sd_db": float(means.std(ddof=1)) if len(means) > 1 else None}
            line |= {"images": values.shape[1]}
        if values is not None and reference is not None and name != study.reference:
            difference = values - reference
            gain = paired_interval(difference.mean(axis=0))
            line |= {"gain_db": gain.mean, "ci95": [gain.low, gain.high]}
            line |= {"gain_by_seed_db": difference.mean(axis=1).tolist()}
        lines.append(line)
    return lines


def as_markdown(study: Study, lines: Sequence[Mapping[str, Any]], origin: Mapping[str, str]) -> str:
    """Return the table with where it came from; a row without a result says so."""
    published = {name: figures["paper_psnr_db"] for name, figures in study.paper.items() if "paper_psnr_db" in figures}
    head = f"| row | PSNR dB (± s.d. over seeds) | minus {study.reference}, 95% interval | by seed |"
    rule = "| --- | --- | --- | --- |"
    text = [f"## {study.title}", "", head + " paper, dB |" * bool(published), rule + " --- |" * bool(published)]
    for line in lines:
        paper = f" {published.get(line['row'], '')} |" if published else ""
        if "psnr_db" not in line:
            text.append(f"| {line['row']} | no result yet | | |{paper}")
            continue
        spread = "" if line["seed_sd_db"] is None else f" ± {line['seed_sd_db']:.3f}"
        gain = seeds = ""
        if "gain_db" in line:
            gain = f"{line['gain_db']:+.3f} [{line['ci95'][0]:+.3f}, {line['ci95'][1]:+.3f}]"
            seeds = ", ".join(f"{value:+.3f}" for value in line["gain_by_seed_db"])
        text.append(f"| {line['row']} | {line['psnr_db']:.3f}{spread} | {gain} | {seeds} |{paper}")
    text += ["", *(f"{key}: {value}  " for key, value in origin.items())]
    return "\n".join(text) + "\n"
