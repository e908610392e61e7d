"""Single figures of results files, as the prose of the documentation quotes them (`sapnet.reporting.docs`)."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from sapnet.errors import UserError
from sapnet.evaluation.statistics import paired_interval
from sapnet.reporting.kept import read_kept, read_table


def value(path: Path, row: str, column: str, form: str) -> str:
    """Return a cell of a row, as ``value study_local_rows.csv U psnr_db .2f``; with ``ROW:SEED`` that of a run."""
    return format(cell(path, row, column), form)


def gain(path: Path, row: str, reference: str | None = None) -> str:
    """Return a row's gain over its table's reference, or over a further one, with its 95% interval."""
    key = "gain" if reference is None else f"gain_over_{reference}"
    mean, low, high = (cell(path, row, f"{key}_{part}db") for part in ("", "ci95_low_", "ci95_high_"))
    return interval_text(mean, low, high, ".2f")


def by_seed(path: Path, row: str, reference: str | None = None) -> str:
    """Return the same gain by seed."""
    key = "gain" if reference is None else f"gain_over_{reference}"
    return ", ".join(f"{each:+.2f}" for each in cell(path, row, f"{key}_by_seed_db"))


def difference(path: Path, row: str, other: str, form: str = ".2f") -> str:
    """Return the mean difference of two rows' runs, from a study's ``NAME.csv``, over the seeds that both have.

    Where the values by image of both were kept, with its paired 95% interval over images.
    """
    kept = read_kept(path.parent, path.stem)
    seeds = [seed for name, seed in kept.runs if name == row and (other, seed) in kept.runs]
    if not seeds:
        raise UserError(f"{path}: {row} and {other} have no seed in common.")
    values = [[kept.collect(name, seed) for seed in seeds] for name in (row, other)]
    if all(found is not None for side in values for found in side):
        ours, theirs = (np.concatenate([found["psnr"] for found in side if found is not None]) for side in values)
        return interval_text(*paired_interval((ours - theirs).mean(axis=0)), form)
    return f"{np.mean(_differences(kept.runs, row, other, seeds)):+{form}}"


def difference_by_seed(path: Path, row: str, other: str, form: str = ".2f") -> str:
    """Return the difference of two rows' runs by seed, from a study's ``NAME.csv``."""
    kept = read_kept(path.parent, path.stem)
    seeds = [seed for name, seed in kept.runs if name == row and (other, seed) in kept.runs]
    return ", ".join(f"{each:+{form}}" for each in _differences(kept.runs, row, other, seeds))


def _differences(runs: dict, row: str, other: str, seeds: list[int]) -> list[float]:
    return [runs[row, seed]["psnr_db"] - runs[other, seed]["psnr_db"] for seed in seeds]


def mean(path: Path, row: str, column: str, form: str) -> str:
    """Return the mean of a column over a row's runs, from a study's ``NAME.csv``."""
    found = [line[column] for line in lines(path) if line["row"] == row and column in line]
    if not found:
        raise UserError(f"{path}: no run of {row} has a {column}.")
    return format(float(np.mean(found)), form)


def share(path: Path, row: str, best: str) -> str:
    """Return how far a row goes from the table's reference to another row, in percent of PSNR."""
    return f"{cell(path, row, 'gain_db') / cell(path, best, 'gain_db'):.0%}"


def entry(path: Path, keys: str, form: str = "") -> str:
    """Return an entry of a JSON file, as ``entry demo.json stage_psnr.1 .2f``."""
    return format(find(path, keys), form)


def interval(path: Path, keys: str, form: str = ".3f") -> str:
    """Return ``gain_db`` of an entry of a JSON file with its ``ci95``; of ``.`` the file's own."""
    found = read_json(path) if keys == "." else find(path, keys)
    low, high = found.get("ci95") or found["gain_ci95"]
    return interval_text(found["gain_db"], low, high, form)


def markdown(path: Path, first: str, column: str) -> str:
    """Return a cell of a printed page: of the first line that begins with the cells ``first`` (parted by ``;``)."""
    wanted = [part.strip() for part in first.split(";")]
    for table in tables(path):
        for line in table:
            if list(line.values())[: len(wanted)] == wanted and column in line:
                return line[column]
    raise UserError(f"{path}: no table has a line {first} with a column {column}.")


def paper(path: Path, row: str, other: str) -> str:
    """Return the difference of two rows' PSNR in the paper."""
    rows = yaml.safe_load(path.read_text())["rows"]
    found = [rows[name].get("paper_psnr_db", rows[name].get("derived_psnr_db")) for name in (row, other)]
    return f"{found[0] - found[1]:+.2f}"


#: What a page may quote, by the name in its marks.
FIGURES = {
    each.__name__: each
    for each in (value, gain, by_seed, difference, difference_by_seed, mean, share, entry, interval, markdown, paper)
}


def interval_text(middle: float, low: float, high: float, form: str) -> str:
    """Return a mean with its interval as text."""
    return f"{middle:+{form}} [{low:+{form}}, {high:+{form}}]"


def cell(path: Path, row: str, column: str) -> Any:
    """Return a cell of a CSV of results by the row's name, or by ``ROW:SEED``.

    Raises:
        UserError: There is no such row or column, or the cell is empty.
    """
    name, _, seed = row.partition(":")
    for line in lines(path):
        if line["row"] == name and (not seed or line["seed"] == int(seed)):
            if column not in line:
                raise UserError(f"{path}: row {row} has no {column}.")
            return line[column]
    raise UserError(f"{path}: there is no row {row}.")


@cache
def lines(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a CSV of results."""
    return read_table(path)


@cache
def read_json(path: Path) -> dict[str, Any]:
    """Return a JSON file of results."""
    return json.loads(path.read_text())


def find(path: Path, keys: str) -> Any:
    """Return an entry of a JSON file by its keys, parted by dots; a number is the place in a list.

    Raises:
        UserError: There is none.
    """
    found: Any = read_json(path)
    try:
        for key in keys.split("."):
            found = found[int(key)] if isinstance(found, list) else found[key]
    except (KeyError, IndexError, ValueError, TypeError) as error:
        raise UserError(f"{path}: there is no entry {keys}.") from error
    return found


def tables(path: Path) -> list[list[dict[str, str]]]:
    """Return the tables of a Markdown page, each a list of lines by their columns."""
    found: list[list[list[str]]] = [[]]
    for text in path.read_text().splitlines():
        if text.startswith("|"):
            found[-1].append([part.strip() for part in text.strip().strip("|").split("|")])
        elif found[-1]:
            found.append([])
    tables = [table for table in found if table]
    return [[dict(zip(head, line, strict=True)) for line in rest] for head, _, *rest in tables]
