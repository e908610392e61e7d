"""A study: rows of overrides times seeds, and the table of their results."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
    """

    title: str
    reference: str
    seeds: tuple[int, ...]
    rows: dict[str, list[str]]
    overrides: list[str]


def read_study(path: Path, scale: str) -> Study:
    """Read a study at one of its scales.

    Raises:
        UserError: No such study or scale.
    """
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in path.parent.glob("*.yaml")))
        raise UserError(f"table={path.stem}: there is no such study; there are {known}.")
    content = yaml.safe_load(path.read_text())
    if scale not in content["scales"]:
        raise UserError(f"scale={scale}: {path.stem} has the scales {', '.join(content['scales'])}.")
    return Study(
        content["title"],
        content["reference"],
        tuple(content["seeds"]),
        content["rows"],
        content["scales"][scale],
    )


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
    head = f"| row | PSNR dB (± s.d. over seeds) | minus {study.reference}, 95% interval | by seed |"
    text = [f"## {study.title}", "", head, "| --- | --- | --- | --- |"]
    for line in lines:
        if "psnr_db" not in line:
            text.append(f"| {line['row']} | no result yet | | |")
            continue
        spread = "" if line["seed_sd_db"] is None else f" ± {line['seed_sd_db']:.3f}"
        gain = seeds = ""
        if "gain_db" in line:
            gain = f"{line['gain_db']:+.3f} [{line['ci95'][0]:+.3f}, {line['ci95'][1]:+.3f}]"
            seeds = ", ".join(f"{value:+.3f}" for value in line["gain_by_seed_db"])
        text.append(f"| {line['row']} | {line['psnr_db']:.3f}{spread} | {gain} | {seeds} |")
    text += ["", *(f"{key}: {value}  " for key, value in origin.items())]
    return "\n".join(text) + "\n"
