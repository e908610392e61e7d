"""The lock of a run folder."""

import subprocess
import sys
from pathlib import Path

import pytest

from sapnet.errors import UserError
from sapnet.training.run_lock import lock_run_folder

HOLD = """
import sys
from sapnet.training.run_lock import lock_run_folder
with lock_run_folder(sys.argv[1]):
    print("locked", flush=True)
    input()
"""


def test_a_second_training_in_a_folder_is_refused_until_the_first_ends(tmp_path: Path, monkeypatch) -> None:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", HOLD, tmp_path / "run"], **pipes) as holder:
        assert holder.stdout.readline() == b"locked\n"
        message = r"run: another process is training in this folder: .*hydra\.run\.dir=FOLDER"
        with pytest.raises(UserError, match=message), lock_run_folder(tmp_path / "run"):
            pass
        with lock_run_folder(tmp_path / "other"):
            pass
        with monkeypatch.context() as patch:
            # In a distributed training only the first process locks the folder.
            patch.setattr("sapnet.training.run_lock.rank_zero_only.rank", 1)
            with lock_run_folder(tmp_path / "run"):
                pass
        holder.kill()
    for _ in range(2):  # repeatedly in one process
        with lock_run_folder(tmp_path / "run"):
            pass
