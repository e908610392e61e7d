"""The runs behind the tables: each done once, however many tables ask for it, and gone on with where it stopped."""

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
from sapnet.reporting.rows import EVALUATED, evaluated_kind

#: Stands in a study's overrides for the folder of the data sets.
DATA = "{data}"
#: Begins the last line of a training that stopped on numbers that are not finite.
DIVERGED = "Training stopped at generator step"
#: Steps that a killed training loses at most.
CHECKPOINT_EVERY = 250
#: Exit codes of a run that a signal ended (`sapnet.interrupts`).
INTERRUPTED = (130, 143)
#: Seconds between two looks at a lock that another process holds.
_POLL_SECONDS = 0.5


class Stopped(Exception):
    """The study ends by a signal, so this run is not begun, or has not come to its end."""


class Children:
    """The processes of the runs at work, to which a signal is passed on."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen] = set()
        self._lock = threading.Lock()
        self.stopping = False

    def run(self, command: Sequence[str], **options: Any) -> subprocess.CompletedProcess:
        """Run a process to its end and return what it wrote.

        Raises:
            Stopped: `stop` was called before.
        """
        with self._lock:
            if self.stopping:
                raise Stopped
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
            process = subprocess.Popen(command, **pipes, **options)
            self._running.add(process)
        out, error = process.communicate()
        with self._lock:
            self._running.discard(process)
        return subprocess.CompletedProcess(command, process.returncode, out, error)

    def stop(self, signum: int) -> None:
        """Pass a signal on to all processes that run, and let no other begin."""
        with self._lock:
            self.stopping = True
            for process in self._running:
                process.send_signal(signum)


@dataclass(frozen=True)
class Runs:
    """Where runs are kept, by a hash of their overrides.

    The place of the data is no part of the hash: a folder that is moved makes no run another.

    Attributes:
        root: Holds one folder per run.
        data: The folder of the data sets, for overrides that speak of it.
        threads: Of each run.
        children: The processes at work.
    """

    root: Path
    data: str | None = None
    threads: int = 1
    children: Children = field(default_factory=Children, compare=False)

    def folder(self, overrides: Sequence[str], test: Sequence[str] = ()) -> Path:
        """Return where a training, or its test on other data, keeps ``results.jsonl`` and ``done.json``."""
        trained = self.root / _short(_identity(overrides))
        return trained / "tests" / _short(test) if test else trained

    def do(self, overrides: Sequence[str], test: Sequence[str] = ()) -> None:
        """Train and test in a process of its own, unless that is done; a training goes on from its last checkpoint.

        Where another process is at the same run, wait for it. A training that diverges is done: it leaves
        ``diverged.json`` with its last message, and is not tried again.

        Raises:
            UserError: It failed, with the last line it wrote; or the overrides need data, and there is none.
            Stopped: `children.stop` was called.
        """
        folder = self.folder(overrides)
        origin = {"overrides": list(overrides)}
        self._once(folder, "train", [f"checkpoint_every={CHECKPOINT_EVERY}", *overrides], origin)
        if test and not (folder / "diverged.json").is_file():
            trained = json.loads((folder / "done.json").read_text())["command"] + " && "
            words = [f"checkpoint={evaluated_checkpoint(folder / 'checkpoints', evaluated_kind(overrides))}", *test]
            self._once(self.folder(overrides, test), "evaluate", words, {**origin, "test": list(test)}, trained)

    def _once(self, folder: Path, name: str, words: Sequence[str], origin: dict, before: str = "") -> None:
        if _is_done(folder):
            return
        words = [self._resolve(word) for word in words]
        with self._locked(folder) as lock:
            # Whoever held it may have done it.
            if _is_done(folder):
                return
            origin = {**origin, "command": f"{before}python -m sapnet {name} {' '.join(words)}", "commit": commit()}
            origin["versions"] = versions()
            write_atomically(folder / "begun.json", json.dumps(origin).encode())
            environment = os.environ | {"OMP_NUM_THREADS": str(self.threads)}
            command = [sys.executable, "-m", "sapnet", name, *words, f"hydra.run.dir={folder}"]
            # Handed the lock: where this process is killed, nobody joins the one that goes on.
            done = self.children.run(command, pass_fds=(lock.fileno(),), env=environment)
            last = (done.stderr.strip().splitlines() or ["it was killed"])[-1]
            if done.returncode and last.startswith(DIVERGED):
                write_atomically(folder / "diverged.json", json.dumps({**origin, "error": last}).encode())
                return
            if self.children.stopping and (done.returncode in INTERRUPTED or done.returncode < 0):
                raise Stopped(last)
            if done.returncode:
                raise UserError(last)
            if not _has_results(folder):
                raise UserError(f"{folder}: the run has ended without results: {last}")
            origin["config_hash"] = config_hash((folder / ".hydra" / "config.yaml").read_bytes())
            write_atomically(folder / "done.json", json.dumps(origin).encode())

    @contextmanager
    def _locked(self, folder: Path) -> Iterator[IO]:
        # Not by a lock that is waited for: a thread that waits for one cannot be stopped.
        with ExitStack() as stack:
            lock = None
            while lock is None:
                if self.children.stopping:
                    raise Stopped
                try:
                    lock = stack.enter_context(exclusive(folder / ".lock", wait=False))
                except BlockingIOError:
                    time.sleep(_POLL_SECONDS)
            yield lock

    def _resolve(self, word: str) -> str:
        if DATA not in word:
            return word
        if self.data is None:
            raise UserError(f"{word}: add data_root=FOLDER, the folder that holds the data sets (GOPRO_Large, HIDE).")
        return word.replace(DATA, self.data)


def _identity(overrides: Sequence[str]) -> list[str]:
    # Runs of earlier versions were evaluated at their last checkpoint and did not say so: they keep their place.
    words = [word for word in overrides if not word.startswith(EVALUATED)]
    return words if evaluated_kind(overrides) == "last" else [*words, f"{EVALUATED}{evaluated_kind(overrides)}"]


def _is_done(folder: Path) -> bool:
    # Results too: the mark alone was once given to trainings that a signal had ended.
    return (folder / "diverged.json").is_file() or ((folder / "done.json").is_file() and _has_results(folder))


def _has_results(folder: Path) -> bool:
    results = folder / "results.jsonl"
    return results.is_file() and results.stat().st_size > 0


def _short(words: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps(list(words)).encode()).hexdigest()[:12]
