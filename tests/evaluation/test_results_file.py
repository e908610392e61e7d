"""Appending to and reading results files, also after crashes and with damaged lines."""

import json
import math
import os
import subprocess
import sys

import pytest

from sapnet.errors import UserError
from sapnet.evaluation.results_file import ResultReader, append_result, read_results
from tests.integration.conftest import ROOT

LINES = [
    {"name": "a.png", "psnr": 31.25, "stages": [30.0, 31.25]},
    {"name": "ü\n.png", "psnr": math.inf, "extra": None},
]


def test_lines_are_read_as_written(tmp_path):
    path = tmp_path / "run" / "results.jsonl"
    assert read_results(path) == []
    for line in LINES:
        append_result(path, line)
    assert read_results(path) == LINES
    assert len(path.read_text().splitlines()) == 2


@pytest.mark.parametrize("cut", [1, 5, 5000, 9000])
def test_incomplete_last_line_is_ignored_and_removed_by_the_next_append(tmp_path, cut):
    path = tmp_path / "results.jsonl"
    append_result(path, LINES[0])
    whole = path.read_bytes()
    append_result(path, {"name": "b.png", "padding": "x" * 10000})
    path.write_bytes(path.read_bytes()[: len(whole) + cut])
    assert read_results(path) == LINES[:1]
    append_result(path, LINES[1])
    assert read_results(path) == LINES
    assert path.read_bytes().startswith(whole)


def test_file_of_one_incomplete_line_is_emptied(tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_bytes(b'{"name": "' + b"x" * 5000)
    assert read_results(path) == []
    append_result(path, LINES[0])
    assert read_results(path) == LINES[:1]


@pytest.mark.parametrize("broken", ["{'name': 1}", "[1, 2]", '{"name": "a"', "\xff"])
def test_damaged_line_raises_user_error_with_its_number(tmp_path, broken):
    path = tmp_path / "results.jsonl"
    path.write_bytes(json.dumps(LINES[0]).encode() + b"\n" + broken.encode("latin-1") + b"\n{}\n")
    with pytest.raises(UserError, match=r"results.jsonl, line 2: not a result"):
        read_results(path)


def test_value_without_json_representation_leaves_the_file_unchanged(tmp_path):
    path = tmp_path / "results.jsonl"
    append_result(path, LINES[0])
    with pytest.raises(TypeError):
        append_result(path, {"name": object()})
    assert read_results(path) == LINES[:1]


def test_folder_as_path_raises_user_error(tmp_path):
    for attempt in (lambda: read_results(tmp_path), lambda: append_result(tmp_path, {})):
        with pytest.raises(UserError, match="the results cannot be"):
            attempt()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_full_disk_raises_user_error(tmp_path):
    path = tmp_path / "results.jsonl"
    path.symlink_to("/dev/full")
    with pytest.raises(UserError, match="No space left on device"):
        append_result(path, LINES[0])


def test_reader_returns_lines_when_they_are_complete(tmp_path):
    path = tmp_path / "results.jsonl"
    reader = ResultReader(path)
    assert reader.read_new() == []
    append_result(path, LINES[0])
    with open(path, "ab") as file:
        file.write(b'{"name": "b.p')
        file.flush()
        assert reader.read_new() == LINES[:1] and reader.read_new() == []
        file.write(b'ng"}\n[1]\n')
        file.flush()
        with pytest.raises(UserError, match=r"results.jsonl, line 3: not a result"):
            reader.read_new()


def test_lines_of_several_writers_are_not_mixed(tmp_path):
    code = f"""
from sapnet.evaluation.results_file import append_result
import sys
for i in range(40):
    append_result({str(tmp_path / "results.jsonl")!r}, {{"name": sys.argv[1] + str(i), "long": "x" * 20000}})
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    writers = [subprocess.Popen([*command, letter], env=environment, stderr=subprocess.PIPE) for letter in "abc"]
    for writer in writers:
        _, error = writer.communicate(timeout=120)
        assert writer.returncode == 0, error
    names = {line["name"] for line in read_results(tmp_path / "results.jsonl")}
    assert names == {f"{letter}{i}" for letter in "abc" for i in range(40)}
