"""What a run folder of a training or an evaluation holds for its report."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sapnet.errors import UserError
from sapnet.evaluation.result_contexts import read_evaluation
from sapnet.evaluation.run_summary import SUMMARY
from sapnet.evaluation.summary import summarise
from sapnet.reporting.saved_results import read_table


@dataclass(frozen=True)
class RunResults:
    """Results of a run.

    Attributes:
        folder: Its folder.
        summary: Content of `summary.json`, or what the result lines say if there is none.
        lines: Result lines of the test images, sorted by name.
        metrics: Lines of `metrics.csv`.
        config: Text of the config; empty if there is none.
    """

    folder: Path
    summary: Mapping[str, Any]
    lines: list[dict[str, Any]]
    metrics: list[dict[str, Any]]
    config: str

    @property
    def name(self) -> str:
        """The folder as the user gave it."""
        return str(self.folder)


def is_run(folder: Path) -> bool:
    """Return whether a folder holds results of a training or an evaluation."""
    return any((folder / name).is_file() for name in (SUMMARY, "results.jsonl", "metrics.csv"))


def read_run_results(folder: Path) -> RunResults:
    """Read the results of a run.

    Raises:
        UserError: A file cannot be read or does not have the form that sapnet writes.
    """
    path = folder / SUMMARY
    summary = read_json(path) if path.is_file() else {}
    lines = read_evaluation(folder / "results.jsonl", summary.get("checkpoint_kind") or "last")
    for line in lines:
        _check_line(folder / "results.jsonl", line)
    if lines and "stage_psnr" not in summary:
        summary = {**summarise(lines), "provenance": lines[0].get("provenance"), **summary}
    if "stage_psnr" in summary:
        _check_summary(path, summary)
    metrics = _read_metrics(folder / "metrics.csv")
    return RunResults(folder, summary, lines, metrics, _config(folder))


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        UserError: The file cannot be read or holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: the file cannot be read ({error.strerror or error}).") from error
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error}); repeat the command that wrote it.") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: not a JSON object; repeat the command that wrote it.")
    return content


def _check_line(path: Path, line: Mapping[str, Any]) -> None:
    numbers = [line.get(key) for key in ("input_psnr", "input_ssim", "seconds")]
    stages = [line.get(key) for key in ("stage_psnr", "stage_ssim")]
    listed = all(isinstance(values, list) and values for values in stages)
    if not (listed and all(map(_is_number, [*numbers, *(value for values in stages for value in values or [])]))):
        raise UserError(
            f"{path}: the line of {line.get('name')} lacks PSNR, SSIM or time; delete it and evaluate again."
        )


def _check_summary(path: Path, summary: Mapping[str, Any]) -> None:
    values = [summary.get(key) for key in ("images", "input_psnr", "input_ssim", "gain_db")]
    for key in ("stage_psnr", "stage_ssim"):
        values += summary[key] if isinstance(summary.get(key), list) else [None]
    if not all(map(_is_number, values)) or len(summary.get("gain_ci95") or ()) != 2:
        raise UserError(f"{path}: it lacks PSNR, SSIM or the gain; repeat the command that wrote it.")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)


def _read_metrics(path: Path) -> list[dict[str, Any]]:
    try:
        return read_table(path, missing_ok=True)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not the table of a run ({error}).") from error


def _config(folder: Path) -> str:
    path = config_path(folder)
    return "" if path is None else path.read_text(encoding="utf-8", errors="replace")


def config_path(folder: Path) -> Path | None:
    """Return the file with the config of a run: `config.yaml`, or that of Hydra; None if there is none."""
    paths = (folder / "config.yaml", folder / ".hydra" / "config.yaml")
    return next((path for path in paths if path.is_file()), None)
