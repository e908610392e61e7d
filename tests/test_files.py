"""A file is there whole or not at all."""

import os

import pytest

from sapnet.files import write_atomically


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
