"""Evaluation shared by several processes, also if one of them is killed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sapnet.evaluation.results_file import read_results
from tests.integration.conftest import ROOT

SCRIPT = Path(__file__).with_name("evaluation_process.py")
COUNT = 10
NAMES = [f"{i:02d}" for i in range(COUNT)]


def start(*arguments: object) -> subprocess.Popen:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen) -> dict:
    out, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    return json.loads(out)


def wait_until(condition: Callable[[], bool], process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline and process.poll() is None, process.stderr.read()
        time.sleep(0.02)


@pytest.mark.slow
def test_two_processes_share_the_images_and_both_summarise_all(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    results = [finish(process) for process in [start(SCRIPT, path, COUNT) for _ in range(2)]]
    assert sorted(line["name"] for line in read_results(path)) == NAMES
    assert sorted(results[0]["restored"] + results[1]["restored"]) == NAMES, "an image was restored twice"
    for result in results:
        assert result["names"] == NAMES and result["images"] == COUNT


@pytest.mark.slow
def test_waiting_process_takes_over_the_image_of_a_killed_one(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    victim = start(SCRIPT, path, COUNT, "03")
    wait_until((tmp_path / "held").exists, victim)
    assert [line["name"] for line in read_results(path)] == NAMES[:3]
    other = start(SCRIPT, path, COUNT)
    wait_until(lambda: len(read_results(path)) == COUNT - 1, other)
    time.sleep(1.2)  # two polls
    assert other.poll() is None and len(read_results(path)) == COUNT - 1, "the claimed image was not waited for"
    with open(path, "ab") as file:
        file.write(b'{"name": "03", "stage_psnr": [1')  # an incomplete line, as after a crash
    victim.kill()
    assert victim.wait(30) == -signal.SIGKILL
    result = finish(other)
    assert result["names"] == NAMES and result["restored"] == [*NAMES[4:], "03"]
    assert sorted(line["name"] for line in read_results(path)) == NAMES
