"""`python -m sapnet.reproduce table=4 scale=mini`: rebuild a study row by row, and render its table."""

import hashlib
import json
import logging
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import hydra
from omegaconf import DictConfig

from sapnet import __version__
from sapnet.count import count_config
from sapnet.data.images import write_image
from sapnet.data.samples import usable_cores
from sapnet.entry import CONFIG_DIR, entry_point
from sapnet.errors import UserError
from sapnet.files import write_atomically
from sapnet.reporting.render import as_csv, as_markdown, gains_picture
from sapnet.reporting.rows import Study, compare, read_study

log = logging.getLogger(__name__)
EXPERIMENTS = CONFIG_DIR.parent / "experiments"


def train_row(study: Study, name: str, seed: int, folder: Path, threads: int) -> str | None:
    """Train and test one row with one seed in a process of its own, unless it is done; return why it failed.

    A training that was interrupted goes on from its last checkpoint.
    """
    wanted = [*study.overrides, *study.rows[name], f"seed={seed}"]
    marker, begun = folder / "done.json", folder / "begun.json"
    if _says(marker, wanted):
        return None
    if not _says(begun, wanted):
        # Of other settings: nothing of it may go into this row.
        for stale in (marker, folder / "results.jsonl", *folder.glob("checkpoints/*.ckpt")):
            stale.unlink(missing_ok=True)
    origin = {"overrides": wanted, "command": f"sapnet-train {' '.join(wanted)}", "commit": commit()}
    write_atomically(begun, json.dumps(origin).encode())
    words = [sys.executable, "-m", "sapnet.train", *wanted, f"hydra.run.dir={folder}"]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        return f"{name}, seed {seed}: {(done.stderr.strip().splitlines() or ['it was killed'])[-1]}"
    origin["config_hash"] = hashlib.sha256((folder / "config.yaml").read_bytes()).hexdigest()[:12]
    write_atomically(marker, json.dumps(origin).encode())
    return None


def _says(path: Path, wanted: list[str]) -> bool:
    return path.is_file() and json.loads(path.read_text())["overrides"] == wanted


def commit() -> str:
    """Return the commit of the code, marked where it was changed since; without a repository, the version."""
    words = ["git", "-C", str(EXPERIMENTS.parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return f"sapnet {__version__}"


def costs(study: Study) -> dict[str, dict[str, float]]:
    """Count parameters and multiply-adds of every row's network at 3x256x256."""
    widths = [word for word in study.overrides if word.startswith("model.")]
    found = {}
    for name, overrides in study.rows.items():
        words = [word for word in overrides if not word.startswith("data")]
        cost = count_config(hydra.compose("count", [*widths, *words]))
        found[name] = {"parameters_m": cost.total_parameters / 1e6, "gmacs": cost.gmacs}
    return found


def train(study: Study, names: list[str], folder: Path, jobs: int) -> list[str]:
    """Train rows with all seeds, several at a time; return what failed."""
    runs = [(name, seed) for seed in study.seeds for name in names]
    threads = max(1, usable_cores() // jobs)
    start, failures, finished = time.monotonic(), [], []

    def run(name: str, seed: int) -> None:
        failure = train_row(study, name, seed, folder / name / f"seed{seed}", threads)
        finished.append((name, seed))
        if failure is not None:
            failures.append(failure)
        minutes = (time.monotonic() - start) / 60
        left = minutes / len(finished) * (len(runs) - len(finished))
        word = failure or "done"
        log.info("%d of %d: %s, seed %d: %s; about %.0f min left", len(finished), len(runs), name, seed, word, left)

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(run, *zip(*runs)))
    return failures


def render(study: Study, folder: Path, origin: dict[str, str]) -> str:
    """Write ``table.md``, ``table.csv``, ``table.json`` and ``gains.png`` from what is there; return the Markdown."""
    counted = costs(study)
    lines = [{**line, **counted[line["row"]]} for line in compare(study, folder)]
    table = as_markdown(study, lines, origin)
    write_atomically(folder / "table.md", table.encode())
    write_atomically(folder / "table.csv", as_csv(lines).encode())
    write_atomically(folder / "table.json", (json.dumps({"lines": lines, "origin": origin}, indent=2) + "\n").encode())
    picture = gains_picture(study, lines)
    if picture is not None:
        write_image(folder / "gains.png", picture)
    return table


@entry_point("reproduce")
def main(config: DictConfig) -> None:
    """Train what is missing, then render what is there."""
    name = f"table{config.table}" if str(config.table).isdigit() else str(config.table)
    study = read_study(EXPERIMENTS / f"{name}.yaml", config.scale)
    if config.seeds is not None:
        study = replace(study, seeds=tuple(config.seeds))
    study = replace(study, overrides=[*study.overrides, *config.overrides])
    if config.row is not None and config.row not in study.rows:
        raise UserError(f"row={config.row}: {name} has the rows {', '.join(study.rows)}.")
    folder = Path(config.root) / name / config.scale
    names = [config.row] if config.row is not None else list(study.rows)
    failures = [] if config.render_only else train(study, names, folder, config.jobs)
    origin = {
        "Measured with": f"`python -m sapnet.reproduce table={config.table} scale={config.scale}`",
        "Seeds": ", ".join(map(str, study.seeds)),
        "Each run": f"`sapnet-train {' '.join(study.overrides)}` and the row's overrides",
        "Costs": "counted for 3x256x256 at the widths of the runs; paper's: its own widths",
        "Commands, config hashes, commits by row": "table.csv",
    }
    if config.scale == "smoke":
        origin = {"SMOKE": "a trial of the machinery; its figures mean nothing."} | origin
    print(render(study, folder, origin))
    if failures:
        raise UserError(f"{len(failures)} runs failed; the first: {failures[0]}")


if __name__ == "__main__":
    main()
