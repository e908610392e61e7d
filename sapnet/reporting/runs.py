"""The runs behind the tables: each done once, however many tables ask for it, and gone on with where it stopped."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

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


@dataclass(frozen=True)
class Runs:
    """Where runs are kept, by a hash of their overrides.

    The place of the data is no part of the hash: a folder that is moved makes no run another.

    Attributes:
        root: Holds one folder per run.
        data: The folder of the data sets, for overrides that speak of it.
        threads: Of each run.
    """

    root: Path
    data: str | None = None
    threads: int = 1

    def folder(self, overrides: Sequence[str], test: Sequence[str] = ()) -> Path:
        """Return where a training, or its test on other data, keeps ``results.jsonl`` and ``done.json``."""
        trained = self.root / _short(_identity(overrides))
        return trained / "tests" / _short(test) if test else trained

    def do(self, overrides: Sequence[str], test: Sequence[str] = ()) -> None:
        """Train and test in a process of its own, unless that is done; a training goes on from its last checkpoint.

        Where another process is at the same run, wait for it. A training that diverges is done: it leaves
        ``diverged.json`` with what it said, and is not tried again.

        Raises:
            UserError: It failed, with the last line it wrote; or the overrides need data, and there is none.
        """
        folder = self.folder(overrides)
        said = {"overrides": list(overrides)}
        self._once(folder, "sapnet.train", [f"checkpoint_every={CHECKPOINT_EVERY}", *overrides], said)
        if test and not (folder / "diverged.json").is_file():
            trained = json.loads((folder / "done.json").read_text())["command"] + " && "
            words = [f"checkpoint={evaluated_checkpoint(folder / 'checkpoints', evaluated_kind(overrides))}", *test]
            self._once(self.folder(overrides, test), "sapnet.evaluate", words, {**said, "test": list(test)}, trained)

    def _once(self, folder: Path, module: str, words: Sequence[str], said: dict, before: str = "") -> None:
        marker, diverged = folder / "done.json", folder / "diverged.json"
        if marker.is_file() or diverged.is_file():
            return
        words = [self._resolve(word) for word in words]
        with exclusive(folder / ".lock") as lock:
            # Whoever held it may have done it.
            if marker.is_file() or diverged.is_file():
                return
            origin = {**said, "command": f"{before}python -m {module} {' '.join(words)}", "commit": commit()}
            origin["versions"] = versions()
            write_atomically(folder / "begun.json", json.dumps(origin).encode())
            environment = os.environ | {"OMP_NUM_THREADS": str(self.threads)}
            command = [sys.executable, "-m", module, *words, f"hydra.run.dir={folder}"]
            # Handed the lock: where this process is killed, nobody joins the one that goes on.
            handed = {"pass_fds": (lock.fileno(),), "env": environment}
            done = subprocess.run(command, **handed, capture_output=True, text=True, check=False)
            if done.returncode:
                last = (done.stderr.strip().splitlines() or ["it was killed"])[-1]
                if not last.startswith(DIVERGED):
                    raise UserError(last)
                write_atomically(diverged, json.dumps({**origin, "error": last}).encode())
                return
            origin["config_hash"] = config_hash((folder / ".hydra" / "config.yaml").read_bytes())
            write_atomically(marker, json.dumps(origin).encode())

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


def _short(words: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps(list(words)).encode()).hexdigest()[:12]
