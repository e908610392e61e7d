"""Sweeps (`--multirun`): folders named by the overrides of a job, and a table of all jobs at the end."""

import csv
import hashlib
import io
import json
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from sapnet.evaluation.run_summary import SUMMARY
from sapnet.files import write_atomically

#: Longest name of a job's folder.
MAX_NAME = 100
#: Folder of the records of a sweep's jobs, in that of the sweep.
RECORDS = ".jobs"
#: Columns of `summary.csv` beside one for each swept key.
COLUMNS = ("job", "state", "val_psnr_best", "test_psnr", "test_ssim", "seconds", "folder", "log", "error")
#: The report of the sweep of this process.
_active: "list[SweepReport]" = []


def folder_name(overrides: str, number: int) -> str:
    """Return the name of a job's folder from its overrides.

    A name that is too long, or holds characters that a path in an override must not hold, is changed and ends with a
    hash of the overrides.

    Args:
        overrides: Such as `loss-l1_seed-0`, Hydra's `override_dirname`.
        number: Number of the job, its name if it has no overrides.
    """
    name = re.sub(r"-*[^\w.+@%-]+", "-", overrides, flags=re.ASCII).strip("-_+.")
    if not overrides:
        return str(number)
    if name == overrides and len(name) <= MAX_NAME:
        return name
    return f"{name[: MAX_NAME - 9].rstrip('-_')}-{hashlib.sha256(overrides.encode()).hexdigest()[:8]}"


OmegaConf.register_new_resolver("sapnet.folder_name", folder_name, replace=True)


class SweepReport(Callback):
    """Hydra callback that prints a table of the jobs at the end of a sweep and writes it to `summary.csv`.

    Each job writes a record in its own process. Hydra does not call `on_multirun_end` after a failed job:
    `report_after_error` then reports.
    """

    def __init__(self) -> None:
        self._started = 0.0
        self._sweep = Path()

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Leave overrides that are the same in all jobs out of the names of folders, and remove earlier records."""
        overrides = OverridesParser.create().parse_overrides(list(config.hydra.overrides.task))
        # Of several overrides of a key the last one counts.
        swept = {override.key_or_group: override.is_sweep_override() for override in overrides}
        with read_write(config), open_dict(config):
            # Hydra composes the config of each job from these overrides.
            words = ",".join(f"'{key}'" for key, several in swept.items() if not several)
            config.hydra.overrides.hydra.append(f"hydra.job.config.override_dirname.exclude_keys=[{words}]")
        self._sweep = Path(config.hydra.sweep.dir)
        shutil.rmtree(self._sweep / RECORDS, ignore_errors=True)
        _active[:] = [self]

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Record that a job has begun."""
        if config.hydra.mode == RunMode.MULTIRUN:
            self._started = time.monotonic()
            self._record(config, {"state": "unfinished", "error": "interrupted, or its process was killed"})

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Record how a job has ended."""
        if config.hydra.mode != RunMode.MULTIRUN:
            return
        result: dict[str, Any] = {"seconds": round(time.monotonic() - self._started, 1)}
        if job_return.status == JobStatus.COMPLETED:
            result |= {"state": "done", **_results(Path(config.hydra.runtime.output_dir))}
        else:
            error = " ".join(str(job_return._return_value).split()) or type(job_return._return_value).__name__
            result |= {"state": "failed", "error": error}
        self._record(config, result)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        self.report()

    def report(self) -> None:
        """Write `summary.csv` to the folder of the sweep, and print the table."""
        _active.clear()
        files = sorted((self._sweep / RECORDS).glob("*.json"), key=lambda path: int(path.stem))
        jobs = [json.loads(path.read_text()) for path in files]
        if jobs:
            write_atomically(self._sweep / "summary.csv", as_csv(jobs).encode())
            print(f"\n{as_text(jobs)}\n{self._sweep / 'summary.csv'}", flush=True)

    def _record(self, config: DictConfig, result: Mapping[str, Any]) -> None:
        job = config.hydra.job
        excluded, folder = set(job.config.override_dirname.exclude_keys), Path(config.hydra.runtime.output_dir)
        pairs = (override.partition("=")[::2] for override in config.hydra.overrides.task)
        record = {
            "job": job.num,
            "overrides": {key: value for key, value in pairs if key.lstrip("+~") not in excluded},
            "folder": str(folder),
            "log": str(folder / f"{job.name}.log"),
            **result,
        }
        path = Path(config.hydra.sweep.dir) / RECORDS / f"{job.num}.json"
        write_atomically(path, json.dumps(record).encode(), durable=False)


@contextmanager
def report_after_error() -> Iterator[None]:
    """Report the sweep of this process if it ends with an error or an interrupt."""
    try:
        yield
    except BaseException:
        for report in list(_active):
            with suppress(OSError):
                report.report()
        raise


def _results(folder: Path) -> dict[str, Any]:
    """Return the results of a training or an evaluation; other commands leave no summary."""
    if not (folder / SUMMARY).is_file():
        return {}
    summary = json.loads((folder / SUMMARY).read_text())
    results = {"val_psnr_best": (summary.get("validation") or {}).get("psnr_best")}
    for metric in ("psnr", "ssim"):
        results[f"test_{metric}"] = summary.get(f"stage_{metric}", [None])[-1]
    return results


def as_csv(jobs: Sequence[Mapping[str, Any]]) -> str:
    """Return the records of jobs as CSV, with a column for each swept key."""
    keys = list(dict.fromkeys(key for job in jobs for key in job["overrides"]))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, [COLUMNS[0], *keys, *COLUMNS[1:]])
    writer.writeheader()
    writer.writerows({**{name: job.get(name) for name in COLUMNS}, **job["overrides"]} for job in jobs)
    return text.getvalue()


def as_text(jobs: Sequence[Mapping[str, Any]]) -> str:
    """Return the records of jobs as a table for the terminal, and the log of each failed job below it."""
    numbers = {"val_psnr_best": "best val PSNR", "test_psnr": "test PSNR", "test_ssim": "test SSIM"}
    shown = [key for key in numbers if any(job.get(key) is not None for job in jobs)]
    rows = [["job", "overrides", "state", *(numbers[key] for key in shown), "seconds"]]
    for job in jobs:
        overrides = " ".join(f"{key}={value}" for key, value in job["overrides"].items())
        values = [_number(job.get(key), 4 if key == "test_ssim" else 2) for key in shown]
        rows.append([f"#{job['job']}", overrides, job["state"], *values, _number(job.get("seconds"), 0)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(cell.rjust(width) if column > 2 else cell.ljust(width) for column, (cell, width) in enumerate(cells))
        for cells in (list(zip(row, widths, strict=True)) for row in rows)
    ]
    failed = [f"#{job['job']} {job['state']}: {job['error']} (log: {job['log']})" for job in jobs if job.get("error")]
    return "\n".join([*(line.rstrip() for line in lines), *failed])


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
