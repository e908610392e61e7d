"""Results of a study as CSV files, from which its tables are rendered and the study is continued without the runs.

`NAME.csv` has one line per run, `NAME_images.csv` one per run and test image, `NAME_curves.csv` one per run and logged
step, `NAME_rows.csv` one per row of the table, and `NAME.md` is the rendered page. A row without saved results by image
keeps the confidence intervals recorded when it was measured.
"""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from sapnet.errors import UserError
from sapnet.files import write_atomically
from sapnet.provenance import KEYS

#: Columns of `NAME_images.csv`. The configuration hash identifies the run.
IMAGE_COLUMNS = ("row", "seed", "image", "psnr_db", "ssim", "config_hash")
_TEXT_COLUMNS = {"row", "image", "intervals_from", "evaluated_checkpoint", *KEYS}


@dataclass(frozen=True)
class RunResults:
    """Test results of one run.

    Attributes:
        images: Names of the test images; empty if the training diverged.
        psnr: PSNR of the last stage in dB, by image.
        ssim: SSIM of the last stage, by image.
        seconds: Runtimes in seconds, by image or a single median.
        checkpoint: Kind of the evaluated checkpoint and its number of steps.
    """

    images: Sequence[str]
    psnr: Float[np.ndarray, "images"]
    ssim: Float[np.ndarray, "images"]
    seconds: Float[np.ndarray, "n"]
    checkpoint: str = ""

    @classmethod
    def of_diverged_run(cls) -> "RunResults":
        """Return the results of a run whose training diverged."""
        return cls((), np.empty(0), np.empty(0), np.empty(0))

    @property
    def diverged(self) -> bool:
        """Whether the training diverged."""
        return not self.images


@dataclass(frozen=True)
class SavedResults:
    """Contents of the result files of a study.

    Attributes:
        runs: Lines of `NAME.csv` by row and seed.
        rows: Lines of `NAME_rows.csv` by row, without rows that have no result.
        images: Lines of `NAME_images.csv` by row and seed, sorted by image name.
    """

    runs: dict[tuple[str, int], dict[str, Any]] = field(default_factory=dict)
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    images: dict[tuple[str, int], list[dict[str, Any]]] = field(default_factory=dict)

    def run_results(self, row: str, seed: int) -> RunResults | None:
        """Return the results of a run by image, or None if they are not saved."""
        run, images = self.runs.get((row, seed)), self.images.get((row, seed))
        if run is not None and "diverged" in run:
            return RunResults.of_diverged_run()
        if run is None or images is None:
            return None
        return RunResults(
            [image["image"] for image in images],
            np.array([float(image["psnr_db"]) for image in images]),
            np.array([float(image["ssim"]) for image in images]),
            np.array([float(run["runtime_s"])]),
            # Files without this column hold results of the last checkpoint.
            run.get("evaluated_checkpoint", f"last, {run['steps']} steps"),
        )


def read_saved_results(folder: Path, name: str) -> SavedResults:
    """Read the result files of a study; files that do not exist count as empty.

    Args:
        folder: Folder of the files.
        name: Name of the study.

    Raises:
        UserError: A line of `NAME_images.csv` has no run in `NAME.csv`, or a different configuration hash.
    """
    runs = {(line["row"], int(line["seed"])): line for line in read_table(folder / f"{name}.csv", missing_ok=True)}
    rows = {line["row"]: line for line in read_table(folder / f"{name}_rows.csv", missing_ok=True)}
    images: dict[tuple[str, int], list[dict[str, Any]]] = {}
    path = folder / f"{name}_images.csv"
    for line in read_table(path, missing_ok=True):
        key = line["row"], int(line["seed"])
        if runs.get(key, {}).get("config_hash") != line["config_hash"]:
            raise UserError(f"{path}: {key[0]}, seed {key[1]} matches no run of {name}.csv; render both files again.")
        images.setdefault(key, []).append(line)
    ordered = {key: sorted(lines, key=lambda line: line["image"]) for key, lines in images.items()}
    return SavedResults(runs, {row: line for row, line in rows.items() if "psnr_db" in line}, ordered)


def read_table(path: Path, missing_ok: bool = False) -> list[dict[str, Any]]:
    """Read a CSV file of results. Numbers and lists are parsed; empty cells are left out.

    Args:
        path: The file.
        missing_ok: Whether to return an empty list if the file does not exist.

    Raises:
        UserError: The file does not exist.
    """
    if not path.is_file():
        if missing_ok:
            return []
        raise UserError(f"{path}: there is no such results file.")
    with open(path, newline="") as file:
        return [{key: _parse(key, cell) for key, cell in line.items() if cell} for line in csv.DictReader(file)]


def _parse(column: str, cell: str) -> Any:
    if column in _TEXT_COLUMNS:
        return cell
    try:
        return json.loads(cell)
    except ValueError:
        # The interval over a single image is infinite.
        return float(cell)


def image_lines(row: str, seed: int, results: RunResults, config_hash: str) -> list[dict[str, Any]]:
    """Return the lines of `NAME_images.csv` for one run."""
    columns = zip(results.images, results.psnr.tolist(), results.ssim.tolist(), strict=True)
    return [dict(zip(IMAGE_COLUMNS, (row, seed, *cells, config_hash), strict=True)) for cells in columns]


def write_saved_results(folder: Path, name: str, files: Mapping[str, str]) -> None:
    """Write the result files of a study, without empty ones.

    Args:
        folder: Folder of the files.
        name: Name of the study.
        files: Text by the part of the file name after `name`: `.csv`, `_images.csv`, `_curves.csv`, `_rows.csv`, `.md`.
    """
    for ending, text in files.items():
        if text.strip():
            write_atomically(folder / f"{name}{ending}", text.encode())
