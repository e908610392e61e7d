"""Several real processes on one evaluation: every image once, also where one of them is killed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sapnet.errors import UserError
from sapnet.evaluation.sharing import Claims
from sapnet.evaluation.store import append_result, read_results
from tests.integration.conftest import ROOT

SCRIPT = Path(__file__).with_name("evaluating.py")
COUNT = 10
NAMES = [f"{i:02d}" for i in range(COUNT)]


def start(*words: object) -> subprocess.Popen:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, *map(str, words)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def end(process: subprocess.Popen) -> dict:
    out, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    return json.loads(out)


def until(condition: Callable[[], bool], process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline and process.poll() is None, process.stderr.read()
        time.sleep(0.02)


@pytest.mark.slow
def test_two_processes_share_the_images_and_both_summarise_all(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    found = [end(process) for process in [start(SCRIPT, path, COUNT) for _ in range(2)]]
    assert sorted(line["name"] for line in read_results(path)) == NAMES
    assert sorted(found[0]["made"] + found[1]["made"]) == NAMES, "an image was restored twice"
    for each in found:
        assert each["names"] == NAMES and each["images"] == COUNT


@pytest.mark.slow
def test_what_a_killed_process_had_claimed_is_done_by_the_one_that_waits(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    victim = start(SCRIPT, path, COUNT, "03")
    until((tmp_path / "held").exists, victim)
    assert [line["name"] for line in read_results(path)] == NAMES[:3]
    other = start(SCRIPT, path, COUNT)
    until(lambda: len(read_results(path)) == COUNT - 1, other)
    time.sleep(1.2)  # two looks
    assert other.poll() is None and len(read_results(path)) == COUNT - 1, "it has to wait for the claimed image"
    with open(path, "ab") as file:
        file.write(b'{"name": "03", "stage_psnr": [1')  # as if it had died in the middle of writing
    victim.kill()
    assert victim.wait(30) == -signal.SIGKILL
    found = end(other)
    assert found["names"] == NAMES and found["made"] == [*NAMES[4:], "03"]
    assert sorted(line["name"] for line in read_results(path)) == NAMES


def test_a_claim_is_one_processs_and_ends_with_it(tmp_path: Path) -> None:
    code = f"""
from sapnet.evaluation.sharing import Claims
with Claims({str(tmp_path / "claims")!r}) as claims, claims.claim("a") as held, claims.claim("b"):
    print(held, flush=True)
    input()
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    other = subprocess.Popen([sys.executable, "-c", code], env=environment, **pipes)
    assert other.stdout.readline() == "True\n"
    with Claims(tmp_path / "claims") as claims:
        for word, free in (("a", False), ("b", False), ("c", True)):
            with claims.claim(word) as held:
                assert held == free
        other.kill()
        other.communicate()
        for _ in range(2):  # given back after each block
            with claims.claim("a") as held:
                assert held


def test_lines_of_many_writers_stay_whole(tmp_path: Path) -> None:
    code = f"""
from sapnet.evaluation.store import append_result
import sys
for i in range(40):
    append_result({str(tmp_path / "results.jsonl")!r}, {{"name": sys.argv[1] + str(i), "long": "x" * 20000}})
"""
    writers = [start("-c", code, word) for word in "abc"]
    for writer in writers:
        _, error = writer.communicate(timeout=120)
        assert writer.returncode == 0, error
    names = {line["name"] for line in read_results(tmp_path / "results.jsonl")}
    assert names == {f"{word}{i}" for word in "abc" for i in range(40)}


def test_a_folder_that_takes_no_file_is_one_sentence(tmp_path: Path) -> None:
    append_result(tmp_path / "file", {})
    with pytest.raises(UserError, match="claims cannot be made"):
        Claims(tmp_path / "file" / "claims")
