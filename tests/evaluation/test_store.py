"""The result store keeps whole lines through crashes and says what is wrong with broken ones."""

import json
import math
import os

import pytest

from sapnet.errors import UserError
from sapnet.evaluation.store import ResultReader, append_result, read_results

LINES = [
    {"name": "a.png", "psnr": 31.25, "stages": [30.0, 31.25]},
    {"name": "ü\n.png", "psnr": math.inf, "extra": None},
]


def test_lines_come_back_as_they_were_written(tmp_path):
    path = tmp_path / "run" / "results.jsonl"
    assert read_results(path) == []
    for line in LINES:
        append_result(path, line)
    assert read_results(path) == LINES
    assert len(path.read_text().splitlines()) == 2


@pytest.mark.parametrize("cut", [1, 5, 5000, 9000])
def test_a_torn_last_line_is_left_out_and_cut_away_by_the_next_append(tmp_path, cut):
    path = tmp_path / "results.jsonl"
    append_result(path, LINES[0])
    whole = path.read_bytes()
    append_result(path, {"name": "b.png", "padding": "x" * 10000})
    path.write_bytes(path.read_bytes()[: len(whole) + cut])
    assert read_results(path) == LINES[:1]
    append_result(path, LINES[1])
    assert read_results(path) == LINES
    assert path.read_bytes().startswith(whole)


def test_a_file_that_is_one_torn_line_starts_afresh(tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_bytes(b'{"name": "' + b"x" * 5000)
    assert read_results(path) == []
    append_result(path, LINES[0])
    assert read_results(path) == LINES[:1]


@pytest.mark.parametrize("broken", ["{'name': 1}", "[1, 2]", '{"name": "a"', "\xff"])
def test_a_broken_line_in_the_middle_is_named(tmp_path, broken):
    path = tmp_path / "results.jsonl"
    path.write_bytes(json.dumps(LINES[0]).encode() + b"\n" + broken.encode("latin-1") + b"\n{}\n")
    with pytest.raises(UserError, match=r"results.jsonl, line 2: not a result"):
        read_results(path)


def test_what_json_cannot_say_leaves_the_file_untouched(tmp_path):
    path = tmp_path / "results.jsonl"
    append_result(path, LINES[0])
    with pytest.raises(TypeError):
        append_result(path, {"name": object()})
    assert read_results(path) == LINES[:1]


def test_a_folder_in_the_place_of_the_file_is_one_sentence(tmp_path):
    for attempt in (lambda: read_results(tmp_path), lambda: append_result(tmp_path, {})):
        with pytest.raises(UserError, match="the results cannot be"):
            attempt()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full, a disk that is always full")
def test_a_full_disk_is_one_sentence(tmp_path):
    path = tmp_path / "results.jsonl"
    path.symlink_to("/dev/full")
    with pytest.raises(UserError, match="No space left on device"):
        append_result(path, LINES[0])


def test_a_line_that_another_process_is_writing_comes_when_it_is_whole(tmp_path):
    path = tmp_path / "results.jsonl"
    reader = ResultReader(path)
    assert reader.news() == []
    append_result(path, LINES[0])
    with open(path, "ab") as file:
        file.write(b'{"name": "b.p')
        file.flush()
        assert reader.news() == LINES[:1] and reader.news() == []
        file.write(b'ng"}\n[1]\n')
        file.flush()
        with pytest.raises(UserError, match=r"results.jsonl, line 3: not a result"):
            reader.news()
