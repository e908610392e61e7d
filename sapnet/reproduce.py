"""`python -m sapnet.reproduce table=controls`: rebuild a study, row by row, and render its table."""

import json
import logging
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from omegaconf import DictConfig

from sapnet import __version__
from sapnet.data.samples import usable_cores
from sapnet.entry import CONFIG_DIR, entry_point
from sapnet.errors import UserError
from sapnet.files import write_atomically
from sapnet.reporting.rows import Study, as_markdown, compare, read_study

log = logging.getLogger(__name__)
EXPERIMENTS = CONFIG_DIR.parent / "experiments"


def train_row(study: Study, name: str, seed: int, folder: Path, threads: int) -> str | None:
    """Train and test one row with one seed in a process of its own, unless it is done; return why it failed."""
    wanted = [*study.overrides, *study.rows[name], f"seed={seed}"]
    marker = folder / "done.json"
    if marker.is_file() and json.loads(marker.read_text()) == wanted:
        return None
    (folder / "results.jsonl").unlink(missing_ok=True)
    words = [sys.executable, "-m", "sapnet.train", *wanted, f"hydra.run.dir={folder}"]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        return f"{name}, seed {seed}: {done.stderr.strip().splitlines()[-1]}"
    write_atomically(marker, json.dumps(wanted).encode())
    return None


def commit() -> str:
    """Return the commit of the code, marked where it was changed since."""
    words = ["git", "-C", str(EXPERIMENTS.parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return f"sapnet {__version__}"


@entry_point("reproduce")
def main(config: DictConfig) -> None:
    """Train what is missing, then render what is there."""
    study = read_study(EXPERIMENTS / f"{config.table}.yaml", config.scale)
    if config.seeds is not None:
        study = replace(study, seeds=tuple(config.seeds))
    folder = Path(config.root) / str(config.table) / config.scale
    if config.row is not None and config.row not in study.rows:
        raise UserError(f"row={config.row}: {config.table} has the rows {', '.join(study.rows)}.")
    names = [config.row] if config.row is not None else list(study.rows)
    runs = [(name, seed) for seed in study.seeds for name in names]
    threads = max(1, usable_cores() // config.jobs)
    start, failures = time.monotonic(), []

    def run(number: int) -> None:
        name, seed = runs[number]
        failure = train_row(study, name, seed, folder / name / f"seed{seed}", threads)
        if failure is not None:
            failures.append(failure)
        minutes = (time.monotonic() - start) / 60
        log.info("%s, seed %d: %s (%.0f min since the start)", name, seed, failure or "done", minutes)

    with ThreadPoolExecutor(config.jobs) as pool:
        list(pool.map(run, range(len(runs))))
    lines = compare(study, folder)
    origin = {
        "Measured with": f"`python -m sapnet.reproduce table={config.table} scale={config.scale}`",
        "Commit": commit(),
        "Seeds": ", ".join(map(str, study.seeds)),
        "Each run": f"`sapnet-train {' '.join(study.overrides)}` and the row's overrides",
    }
    if config.scale == "smoke":
        origin = {"SMOKE": "a trial of the machinery; its figures mean nothing."} | origin
    table = as_markdown(study, lines, origin)
    write_atomically(folder / "table.md", table.encode())
    write_atomically(folder / "table.json", (json.dumps({"lines": lines, "origin": origin}, indent=2) + "\n").encode())
    print(table)
    if failures:
        raise UserError(f"{len(failures)} of {len(runs)} runs failed; the first: {failures[0]}")


if __name__ == "__main__":
    main()
