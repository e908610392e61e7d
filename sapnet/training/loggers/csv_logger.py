"""Metrics as a CSV file."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only

from sapnet.files import write_atomically
from sapnet.training.loggers.labels import Labels
from sapnet.training.loggers.steps import STEP, split_step


class CsvLogger(Logger):
    """Write metrics to `metrics.csv` in the run's folder, one row at a time.

    A resumed run keeps the rows before its first step and drops the later ones, which belong to lost steps.
    """

    def __init__(self, folder: Path, config: dict[str, Any] | None = None, labels: Labels | None = None):
        super().__init__()
        self._folder = Path(folder)
        self._file = self._folder / "metrics.csv"
        self._columns: list[str] = []

    @property
    def name(self) -> str:
        return "csv"

    @property
    def version(self) -> str:
        return ""

    @property
    def save_dir(self) -> str:
        return str(self._folder)

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing; Hydra saves the config in the run's folder."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        values, step = split_step(metrics, step)
        row = {STEP: step} | {name: f"{float(value):.7g}" for name, value in values.items()}  # digits of float32
        if not self._columns:
            self._resume_at(step, set(values))
        if new := [name for name in row if name not in self._columns]:
            self._columns += new
            self._rewrite(_read_rows(self._file))
        with open(self._file, "a", newline="") as file:
            csv.DictWriter(file, self._columns).writerow(row)

    def finish(self, exit_code: int) -> None:
        """Do nothing; all rows are on the disk."""

    def _resume_at(self, step: int | None, names: set[str]) -> None:
        def keep(row: dict[str, str]) -> bool:
            if step is None or not row[STEP] or int(row[STEP]) < step:
                return True
            # A training row of this step stays if the resumed run only repeats the validation of the step.
            return int(row[STEP]) == step and not any(row[name] for name in (names & row.keys()) - {"epoch"})

        rows = _read_rows(self._file)
        if rows:
            self._columns = list(rows[0])
            self._rewrite([row for row in rows if keep(row)])

    def _rewrite(self, rows: list[dict[str, str]]) -> None:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self._columns)
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(self._file, text.getvalue().encode())


def _read_rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    complete, _, _partial_row = path.read_text().rpartition("\n")
    return list(csv.DictReader(io.StringIO(complete, newline="")))
