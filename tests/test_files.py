"""A file is there whole or not at all."""

import os
import subprocess
import sys

import pytest

from sapnet.files import exclusive, write_atomically


def test_a_file_is_written_into_folders_that_are_not_there_yet(tmp_path):
    write_atomically(tmp_path / "a" / "b.txt", b"one")
    write_atomically(str(tmp_path / "a" / "b.txt"), memoryview(b"two"))
    assert (tmp_path / "a" / "b.txt").read_bytes() == b"two"
    assert os.listdir(tmp_path / "a") == ["b.txt"]


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_failure_at_any_point_leaves_what_was_there(tmp_path, monkeypatch, broken):
    write_atomically(tmp_path / "b.txt", b"one")

    def fail(*arguments):
        raise OSError("no")

    monkeypatch.setattr(os, broken, fail)
    with pytest.raises(OSError, match="no"):
        write_atomically(tmp_path / "b.txt", b"two")
    assert (tmp_path / "b.txt").read_bytes() == b"one"
    assert os.listdir(tmp_path) == ["b.txt"]


def test_the_data_is_on_the_disk_before_the_name_is(tmp_path, monkeypatch):
    calls = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, name=name, real=real: (calls.append(name), real(*a))[1])
    write_atomically(tmp_path / "b.txt", b"one")
    assert calls == ["fsync", "replace", "fsync"]


HOLD = (
    "import sys\nfrom sapnet.files import exclusive\nwith exclusive(sys.argv[1]):\n print('held', flush=True)\n input()"
)


def test_a_lock_is_let_go_of_by_a_killed_process(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path / "a" / "lock"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout.readline() == b"held\n"
        probe = "import fcntl, sys; fcntl.flock(open(sys.argv[1]), fcntl.LOCK_EX | fcntl.LOCK_NB)"
        command = [sys.executable, "-c", probe, tmp_path / "a" / "lock"]
        assert b"BlockingIOError" in subprocess.run(command, capture_output=True, check=False).stderr
        holder.kill()
    with exclusive(tmp_path / "a" / "lock"):
        pass
