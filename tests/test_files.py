"""Atomic file writes and file locks."""

import os
import subprocess
import sys

import pytest

from sapnet.files import exclusive, write_atomically


def test_missing_folders_are_created(tmp_path):
    write_atomically(tmp_path / "a" / "b.txt", b"one")
    write_atomically(str(tmp_path / "a" / "b.txt"), memoryview(b"two"))
    assert (tmp_path / "a" / "b.txt").read_bytes() == b"two"
    assert os.listdir(tmp_path / "a") == ["b.txt"]


WRITE = """
import sys
from sapnet.files import write_atomically
for _ in range(60):
    write_atomically(sys.argv[1], sys.argv[2].encode() * 50_000)
"""


def test_concurrent_writes_do_not_mix(tmp_path):
    path = tmp_path / "b.txt"
    writers = [subprocess.Popen([sys.executable, "-c", WRITE, path, letter], stderr=subprocess.PIPE) for letter in "ab"]
    seen = set()
    while any(writer.poll() is None for writer in writers):
        if path.exists():
            seen.add(path.read_bytes())
    assert [(writer.returncode, writer.stderr.read()) for writer in writers] == [(0, b"")] * 2
    assert seen == {b"a" * 50_000, b"b" * 50_000}
    assert os.listdir(tmp_path) == ["b.txt"]


KILL_WHILE_WRITING = """
import os, signal, sys
from sapnet import files
files.os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)
files.write_atomically(sys.argv[1], b"half")
"""
PAUSE_WHILE_WRITING = """
import os, sys
from sapnet import files
def wait(descriptor, plain=os.fsync):
    if files.os.fsync is wait:
        print("writing", flush=True)
        input()
        files.os.fsync = plain
files.os.fsync = wait
files.write_atomically(sys.argv[1], b"slow")
"""


def test_temporary_files_of_killed_writers_are_removed(tmp_path):
    path = tmp_path / "b[1].txt"
    for _ in range(3):
        subprocess.run([sys.executable, "-c", KILL_WHILE_WRITING, path], check=False)
    write_atomically(tmp_path / "c.txt", b"another file")
    assert len(list(tmp_path.glob("*.partial"))) == 1, "each writer removes the file of the previous one"
    slow = subprocess.Popen(
        [sys.executable, "-c", PAUSE_WHILE_WRITING, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert slow.stdout.readline() == b"writing\n"
    write_atomically(path, b"fast")
    assert path.read_bytes() == b"fast"
    assert len(list(tmp_path.glob("*.partial"))) == 1, "the file of an active writer stays"
    slow.communicate(b"\n", timeout=30)
    assert slow.returncode == 0 and path.read_bytes() == b"slow"
    assert sorted(os.listdir(tmp_path)) == ["b[1].txt", "c.txt"]


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_failure_leaves_the_previous_file(tmp_path, monkeypatch, broken):
    write_atomically(tmp_path / "b.txt", b"one")

    def fail(*arguments):
        raise OSError("no")

    monkeypatch.setattr(os, broken, fail)
    with pytest.raises(OSError, match="no"):
        write_atomically(tmp_path / "b.txt", b"two")
    assert (tmp_path / "b.txt").read_bytes() == b"one"
    assert os.listdir(tmp_path) == ["b.txt"]


def test_the_data_is_flushed_before_the_rename(tmp_path, monkeypatch):
    calls = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, name=name, real=real: (calls.append(name), real(*a))[1])
    write_atomically(tmp_path / "b.txt", b"one")
    assert calls == ["fsync", "replace", "fsync"]


HOLD = """
import sys
from sapnet.files import exclusive
with exclusive(sys.argv[1]):
    print("locked", flush=True)
    input()
"""


def test_the_lock_of_a_killed_process_is_released(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path / "a" / "lock"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout.readline() == b"locked\n"
        probe = "import fcntl, sys; fcntl.flock(open(sys.argv[1]), fcntl.LOCK_EX | fcntl.LOCK_NB)"
        command = [sys.executable, "-c", probe, tmp_path / "a" / "lock"]
        assert b"BlockingIOError" in subprocess.run(command, capture_output=True, check=False).stderr
        holder.kill()
    with exclusive(tmp_path / "a" / "lock"):
        pass


def test_without_waiting_a_held_lock_is_an_error(tmp_path):
    with exclusive(tmp_path / "lock"), pytest.raises(BlockingIOError), exclusive(tmp_path / "lock", wait=False):
        pass
    with exclusive(tmp_path / "lock", wait=False):
        pass


SHARE_WITH_CHILD = """
import subprocess, sys
from sapnet.files import exclusive
with exclusive(sys.argv[1]) as lock:
    child = subprocess.Popen([sys.executable, "-c", "input()"], pass_fds=(lock.fileno(),), stdin=0)
    print(child.pid, flush=True)
    child.wait()
"""


def test_a_child_process_keeps_the_lock_of_its_killed_parent(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", SHARE_WITH_CHILD, tmp_path / "lock"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert int(parent.stdout.readline())
        parent.kill()
        parent.wait()
        with pytest.raises(BlockingIOError), exclusive(tmp_path / "lock", wait=False):
            pass
        parent.stdin.write(b"\n")
    with exclusive(tmp_path / "lock"):  # after the child has ended
        pass
