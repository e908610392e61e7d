"""A study's results kept in a folder, so that its tables can be made, and the study continued, without the runs.

`NAME.csv` has a line per run, `NAME_images.csv` one per run and test image, `NAME_rows.csv` one per row of the table,
and `NAME.md` is the page. Rows whose values by image were not kept can only be quoted: with the intervals that were
recorded when they were measured.
"""

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sapnet.errors import UserError
from sapnet.files import write_atomically
from sapnet.provenance import KEYS

#: Columns of `NAME_images.csv`; the configuration hash says which run of the row and seed it was.
IMAGE_COLUMNS = ("row", "seed", "image", "psnr_db", "ssim", "config_hash")
_TEXT = {"row", "image", "intervals_from", "evaluated_checkpoint", *KEYS}


@dataclass(frozen=True)
class Kept:
    """Results that were kept.

    Attributes:
        runs: Line of `NAME.csv` by row and seed.
        rows: Line of `NAME_rows.csv` by row, of rows with a result.
        images: Lines of `NAME_images.csv` by row and seed, in the order of the images' names.
    """

    runs: dict[tuple[str, int], dict[str, Any]] = field(default_factory=dict)
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    images: dict[tuple[str, int], list[dict[str, Any]]] = field(default_factory=dict)

    def collect(self, row: str, seed: int) -> dict[str, Any] | None:
        """Return a run's values by image, as `sapnet.reporting.rows.collect` does; None where they were not kept."""
        run, images = self.runs.get((row, seed)), self.images.get((row, seed))
        if run is not None and "diverged" in run:
            return {"kept": np.array([])}
        if run is None or images is None:
            return None
        return {
            "psnr": np.array([[image["psnr_db"] for image in images]]),
            "ssim": np.array([[image["ssim"] for image in images]]),
            "seconds": np.array([[run["runtime_s"]]]),
            "names": [image["image"] for image in images],
            "kept": np.array([0]),
            # Runs that do not say were evaluated at their last checkpoint.
            "checkpoint": [run.get("evaluated_checkpoint", f"last, {run['steps']} steps")],
        }


def read_kept(folder: Path, name: str) -> Kept:
    """Read what a folder holds of a study; nothing where it holds none of the files.

    Raises:
        UserError: An image's line belongs to no run, or to another one than the line of the run.
    """
    runs = {(line["row"], int(line["seed"])): line for line in read_table(folder / f"{name}.csv", missing_ok=True)}
    rows = {line["row"]: line for line in read_table(folder / f"{name}_rows.csv", missing_ok=True)}
    images: dict[tuple[str, int], list[dict[str, Any]]] = {}
    path = folder / f"{name}_images.csv"
    for line in read_table(path, missing_ok=True):
        key = line["row"], int(line["seed"])
        if runs.get(key, {}).get("config_hash") != line["config_hash"]:
            raise UserError(f"{path}: {key[0]}, seed {key[1]} belongs to no run of {name}.csv; render both together.")
        images.setdefault(key, []).append(line)
    ordered = {key: sorted(lines, key=lambda line: line["image"]) for key, lines in images.items()}
    return Kept(runs, {row: line for row, line in rows.items() if "psnr_db" in line}, ordered)


def read_table(path: Path, missing_ok: bool = False) -> list[dict[str, Any]]:
    """Read a CSV of results: figures as numbers, lists as lists, no key where a cell is empty.

    Raises:
        UserError: There is no such file.
    """
    if not path.is_file():
        if missing_ok:
            return []
        raise UserError(f"{path}: there is no such results file.")
    with open(path, newline="") as file:
        return [{key: _value(key, cell) for key, cell in line.items() if cell} for line in csv.DictReader(file)]


def _value(key: str, cell: str) -> Any:
    if key in _TEXT:
        return cell
    try:
        return json.loads(cell)
    except ValueError:  # infinity, of an interval over one image
        return float(cell)


def image_lines(row: str, seed: int, values: Mapping[str, Any], config_hash: str) -> list[dict[str, Any]]:
    """Return the lines of `NAME_images.csv` of one run from what `collect` returned of it."""
    columns = zip(values["names"], values["psnr"][0].tolist(), values["ssim"][0].tolist(), strict=True)
    return [dict(zip(IMAGE_COLUMNS, (row, seed, *cells, config_hash), strict=True)) for cells in columns]


def write_kept(folder: Path, name: str, files: Mapping[str, str]) -> None:
    """Keep a study's tables in a folder.

    Args:
        folder: Where.
        name: Of the study.
        files: Text by what follows the name: ``.csv``, ``_images.csv``, ``_rows.csv``, ``.md``; without empty ones.
    """
    for ending, text in files.items():
        if not text.strip():
            continue
        write_atomically(folder / f"{name}{ending}", text.encode())
