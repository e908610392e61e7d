"""Single values of results files, quoted in the text of the documentation by `sapnet.reporting.docs`."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from sapnet.errors import UserError
from sapnet.evaluation.statistics import paired_interval
from sapnet.reporting.saved_results import read_saved_results, read_table


def value(path: Path, row: str, column: str, form: str) -> str:
    """Return a cell of a row, as in `value study_local_rows.csv U psnr_db .2f`, or of a run given as `ROW:SEED`."""
    return format(cell(path, row, column), form)


def gain(path: Path, row: str, reference: str | None = None) -> str:
    """Return the gain of a row with its 95% interval, over the first reference of its table or another one."""
    key = "gain" if reference is None else f"gain_over_{reference}"
    mean, low, high = (cell(path, row, f"{key}_{part}db") for part in ("", "ci95_low_", "ci95_high_"))
    return interval_text(mean, low, high, ".2f")


def by_seed(path: Path, row: str, reference: str | None = None) -> str:
    """Return the gain of a row by seed, over the first reference of its table or another one."""
    key = "gain" if reference is None else f"gain_over_{reference}"
    return ", ".join(f"{each:+.2f}" for each in cell(path, row, f"{key}_by_seed_db"))


def difference(path: Path, row: str, other: str, form: str = ".2f") -> str:
    """Return the mean PSNR difference of two rows over the seeds that both have, from the `NAME.csv` of a study.

    If the results by image of both rows are saved, the 95% interval over images is included.
    """
    saved = read_saved_results(path.parent, path.stem)
    seeds = [seed for name, seed in saved.runs if name == row and (other, seed) in saved.runs]
    if not seeds:
        raise UserError(f"{path}: {row} and {other} have no seed in common.")
    pairs = [(saved.run_results(row, seed), saved.run_results(other, seed)) for seed in seeds]
    by_image = [first.psnr - second.psnr for first, second in pairs if first is not None and second is not None]
    if len(by_image) == len(seeds):
        return interval_text(*paired_interval(np.array(by_image).mean(axis=0)), form)
    return f"{np.mean(_differences(saved.runs, row, other, seeds)):+{form}}"


def difference_by_seed(path: Path, row: str, other: str, form: str = ".2f") -> str:
    """Return the PSNR difference of two rows by seed, from the `NAME.csv` of a study."""
    saved = read_saved_results(path.parent, path.stem)
    seeds = [seed for name, seed in saved.runs if name == row and (other, seed) in saved.runs]
    return ", ".join(f"{each:+{form}}" for each in _differences(saved.runs, row, other, seeds))


def _differences(runs: dict, row: str, other: str, seeds: list[int]) -> list[float]:
    return [runs[row, seed]["psnr_db"] - runs[other, seed]["psnr_db"] for seed in seeds]


def mean(path: Path, row: str, column: str, form: str) -> str:
    """Return the mean of a column over the runs of a row, from the `NAME.csv` of a study."""
    values = [line[column] for line in lines(path) if line["row"] == row and column in line]
    if not values:
        raise UserError(f"{path}: no run of {row} has a {column}.")
    return format(float(np.mean(values)), form)


def share(path: Path, row: str, best: str) -> str:
    """Return the gain of a row in percent of the gain of another row."""
    return f"{cell(path, row, 'gain_db') / cell(path, best, 'gain_db'):.0%}"


def entry(path: Path, keys: str, form: str = "") -> str:
    """Return an entry of a JSON file, as in `entry demo.json stage_psnr.1 .2f`."""
    return format(json_entry(path, keys), form)


def interval(path: Path, keys: str, form: str = ".3f") -> str:
    """Return `gain_db` of an entry of a JSON file with its 95% interval; the keys `.` select the whole file."""
    result = read_json(path) if keys == "." else json_entry(path, keys)
    low, high = result.get("ci95") or result["gain_ci95"]
    return interval_text(result["gain_db"], low, high, form)


def markdown(path: Path, first: str, column: str) -> str:
    """Return a cell of a table in a Markdown file.

    Args:
        path: The file.
        first: First cells of the line, separated by `;`.
        column: Heading of the column.
    """
    cells = [part.strip() for part in first.split(";")]
    for table in tables(path):
        for line in table:
            if list(line.values())[: len(cells)] == cells and column in line:
                return line[column]
    raise UserError(f"{path}: no table has a line {first} with a column {column}.")


def paper(path: Path, row: str, other: str) -> str:
    """Return the PSNR difference of two rows in the paper."""
    rows = yaml.safe_load(path.read_text())["rows"]
    first, second = (rows[name].get("paper_psnr_db", rows[name].get("derived_psnr_db")) for name in (row, other))
    return f"{first - second:+.2f}"


#: Functions that a page can use in its text, by name.
VALUES = {
    each.__name__: each
    for each in (value, gain, by_seed, difference, difference_by_seed, mean, share, entry, interval, markdown, paper)
}


def interval_text(middle: float, low: float, high: float, form: str) -> str:
    """Return a mean with its interval as text."""
    return f"{middle:+{form}} [{low:+{form}}, {high:+{form}}]"


def cell(path: Path, row: str, column: str) -> Any:
    """Return a cell of a CSV file of results.

    Args:
        path: The file.
        row: Name of the row, or `ROW:SEED`.
        column: Name of the column.

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
    """Return the lines of a CSV file of results."""
    return read_table(path)


@cache
def read_json(path: Path) -> dict[str, Any]:
    """Return the content of a JSON file of results."""
    return json.loads(path.read_text())


def json_entry(path: Path, keys: str) -> Any:
    """Return an entry of a JSON file.

    Args:
        path: The file.
        keys: Keys separated by dots; a number is an index of a list.

    Raises:
        UserError: There is no such entry.
    """
    content: Any = read_json(path)
    try:
        for key in keys.split("."):
            content = content[int(key)] if isinstance(content, list) else content[key]
    except (KeyError, IndexError, ValueError, TypeError) as error:
        raise UserError(f"{path}: there is no entry {keys}.") from error
    return content


def tables(path: Path) -> list[list[dict[str, str]]]:
    """Return the tables of a Markdown file, each a list of lines by column."""
    blocks: list[list[list[str]]] = [[]]
    for text in path.read_text().splitlines():
        if text.startswith("|"):
            blocks[-1].append([part.strip() for part in text.strip().strip("|").split("|")])
        elif blocks[-1]:
            blocks.append([])
    return [
        [dict(zip(head, line, strict=True)) for line in body] for head, _, *body in (block for block in blocks if block)
    ]
