"""Runs of studies: each combination of overrides is trained once, in a folder shared by all studies."""

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from sapnet.errors import UserError
from sapnet.evaluation.checkpoints import evaluated_checkpoint
from sapnet.files import exclusive, write_atomically
from sapnet.provenance import commit, config_hash, versions
from sapnet.reporting.study import EVALUATED, evaluated_kind

#: Placeholder for the folder of the data sets in the overrides of a study.
DATA = "{data}"
#: Start of the last line of a training that stopped at values that are not finite.
DIVERGED = "Training stopped at generator step"
#: Interval of checkpoints in steps: a killed training loses no more.
CHECKPOINT_EVERY = 250
#: Exit codes of a run that was ended by a signal (`sapnet.interrupts`).
INTERRUPTED = (130, 143)
#: Interval in seconds at which a lock held by another process is tried again.
_POLL_SECONDS = 0.5


class RunStopped(Exception):
    """The study was stopped by a signal before or during this run."""


class RunProcesses:
    """Processes of the active runs, to which a signal is forwarded."""

    def __init__(self) -> None:
        self._active: set[subprocess.Popen] = set()
        self._lock = threading.Lock()
        self.stopping = False

    def run(self, command: Sequence[str], **options: Any) -> subprocess.CompletedProcess:
        """Run a process to its end and return its output.

        Raises:
            RunStopped: `stop` was called before.
        """
        with self._lock:
            if self.stopping:
                raise RunStopped
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
            process = subprocess.Popen(command, **pipes, **options)
            self._active.add(process)
        out, error = process.communicate()
        with self._lock:
            self._active.discard(process)
        return subprocess.CompletedProcess(command, process.returncode, out, error)

    def stop(self, signum: int) -> None:
        """Forward a signal to all active processes and start no further ones."""
        with self._lock:
            self.stopping = True
            for process in self._active:
                process.send_signal(signum)


@dataclass(frozen=True)
class RunStore:
    """Folders of runs, named by a hash of their overrides.

    The location of the data is not part of the hash.

    Attributes:
        root: Parent of the run folders.
        data: Folder of the data sets, inserted for `DATA`.
        threads: Number of threads of each run.
        processes: The active processes.
    """

    root: Path
    data: str | None = None
    threads: int = 1
    processes: RunProcesses = field(default_factory=RunProcesses, compare=False)

    def folder(self, overrides: Sequence[str], test: Sequence[str] = ()) -> Path:
        """Return the folder of a training, or of its test on other data.

        Args:
            overrides: Overrides of `sapnet train`.
            test: Overrides of `sapnet evaluate`.
        """
        trained = self.root / _digest(_identity(overrides))
        return trained / "tests" / _digest(test) if test else trained

    def run(self, overrides: Sequence[str], test: Sequence[str] = ()) -> None:
        """Train and test in a separate process, unless this has been done.

        An interrupted training continues from its last checkpoint. If another process is running the same training,
        wait for it. A diverged training is finished: it leaves `diverged.json` with its last message and is not
        repeated.

        Args:
            overrides: Overrides of `sapnet train`.
            test: Overrides of `sapnet evaluate`, for a test on other data.

        Raises:
            UserError: The run failed, or needs data without `data` being set.
            RunStopped: `processes.stop` was called.
        """
        folder = self.folder(overrides)
        origin = {"overrides": list(overrides)}
        self._run_once(folder, "train", [f"checkpoint_every={CHECKPOINT_EVERY}", *overrides], origin)
        if test and not (folder / "diverged.json").is_file():
            trained = json.loads((folder / "done.json").read_text())["command"] + " && "
            checkpoint = evaluated_checkpoint(folder / "checkpoints", evaluated_kind(overrides))
            origin["test"] = list(test)
            self._run_once(
                self.folder(overrides, test), "evaluate", [f"checkpoint={checkpoint}", *test], origin, trained
            )

    def _run_once(self, folder: Path, name: str, overrides: Sequence[str], origin: dict, before: str = "") -> None:
        if _is_done(folder):
            return
        overrides = [self._resolve(each) for each in overrides]
        with self._locked(folder) as lock:
            # Another process may have finished the run in the meantime.
            if _is_done(folder):
                return
            origin = {**origin, "command": f"{before}python -m sapnet {name} {' '.join(overrides)}"}
            origin |= {"commit": commit(), "versions": versions()}
            write_atomically(folder / "begun.json", json.dumps(origin).encode())
            environment = os.environ | {"OMP_NUM_THREADS": str(self.threads)}
            command = [sys.executable, "-m", "sapnet", name, *overrides, f"hydra.run.dir={folder}"]
            # The run inherits the lock, so that it stays locked if this process is killed.
            process = self.processes.run(command, pass_fds=(lock.fileno(),), env=environment)
            last = (process.stderr.strip().splitlines() or ["it was killed"])[-1]
            if process.returncode and last.startswith(DIVERGED):
                write_atomically(folder / "diverged.json", json.dumps({**origin, "error": last}).encode())
                return
            if self.processes.stopping and (process.returncode in INTERRUPTED or process.returncode < 0):
                raise RunStopped(last)
            if process.returncode:
                raise UserError(last)
            if not _has_results(folder):
                raise UserError(f"{folder}: the run ended without results: {last}")
            origin["config_hash"] = config_hash((folder / ".hydra" / "config.yaml").read_bytes())
            write_atomically(folder / "done.json", json.dumps(origin).encode())

    @contextmanager
    def _locked(self, folder: Path) -> Iterator[IO]:
        # The lock is polled because a thread that blocks on it cannot be stopped.
        with ExitStack() as stack:
            lock = None
            while lock is None:
                if self.processes.stopping:
                    raise RunStopped
                try:
                    lock = stack.enter_context(exclusive(folder / ".lock", wait=False))
                except BlockingIOError:
                    time.sleep(_POLL_SECONDS)
            yield lock

    def _resolve(self, override: str) -> str:
        if DATA not in override:
            return override
        if self.data is None:
            raise UserError(
                f"{override}: add data_root=FOLDER, the folder that contains the data sets (GOPRO_Large, HIDE)."
            )
        return override.replace(DATA, self.data)


def _identity(overrides: Sequence[str]) -> list[str]:
    # Earlier versions evaluated the last checkpoint without an override: such runs keep their folder.
    others = [each for each in overrides if not each.startswith(EVALUATED)]
    return others if evaluated_kind(overrides) == "last" else [*others, f"{EVALUATED}{evaluated_kind(overrides)}"]


def _is_done(folder: Path) -> bool:
    # Earlier versions wrote done.json without results when a signal ended the training.
    return (folder / "diverged.json").is_file() or ((folder / "done.json").is_file() and _has_results(folder))


def _has_results(folder: Path) -> bool:
    results = folder / "results.jsonl"
    return results.is_file() and results.stat().st_size > 0


def _digest(overrides: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps(list(overrides)).encode()).hexdigest()[:12]
