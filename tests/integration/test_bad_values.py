"""Commands with values out of range or paths that cannot be written end with a message and leave nothing behind."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.conftest import ROOT, TINY, run
from tests.integration.test_commands import photo

pytestmark = pytest.mark.slow

CASES = {
    "steps": (["sapnet", "train", "steps=abc"], "steps=abc: give a whole number"),
    "stages": (["sapnet", "demo", "network.stages=5"], "network.stages=5: give a whole number from 1 to 4"),
    "budget": (
        ["sapnet", "evaluate", "checkpoint=none", "sampling.budget=-1"],
        "sampling.budget=-1: give a number above",
    ),
    "jobs": (["sapnet", "reproduce", "table=controls", "scale=smoke", "jobs=0"], "jobs=0: give a whole number"),
    "a place without files": (["sapnet", "train", "hydra.run.dir=/proc/x"], "/proc/x"),
    "a file in the way": (["sapnet", "evaluate", "checkpoint=none", "hydra.run.dir=file/x"], "file/x"),
    "a sweep without a place": (["sapnet", "train", "-m", "seed=0,1", "hydra.sweep.dir=/proc/x"], "/proc/x"),
    "the demo's place": (["sapnet", "demo", "hydra.run.dir=file"], "file"),
    "a study's place": (["sapnet", "reproduce", "table=controls", "scale=smoke", "root=/proc/x"], "/proc/x"),
    "a file where a table goes": (["sapnet", "reproduce", "table=controls", "scale=smoke", "root=out"], "out/controls"),
    "a photo's place": (["sapnet", "deblur", "p.png", "-o", "/proc/x/o.png", "-c", "none.ckpt"], "/proc"),
    "a file in a photo's way": (["sapnet", "deblur", "p.png", "-o", "file/o.png", "-c", "none.ckpt"], "file is a file"),
}


@pytest.mark.parametrize("case", CASES)
def test_the_command_ends_with_a_message_and_leaves_nothing(case, tmp_path):
    arguments, message = CASES[case]
    (tmp_path / "file").touch()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "controls").touch()
    photo(tmp_path / "p.png")
    done = run(*arguments, cwd=tmp_path)
    lines = done.stderr.strip().splitlines()
    assert done.returncode == 1 and len(lines) == 1, done.stderr
    assert message in lines[0] and "Traceback" not in done.stderr
    files = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert files <= {"file", "controls", "p.png", "config.yaml", "hydra.yaml", "overrides.yaml", f"{arguments[1]}.log"}


LIMITED = """
import resource, runpy, sys
limit = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
sys.argv = sys.argv[2:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


def run_limited(limit: int, *arguments: str, cwd: Path) -> subprocess.CompletedProcess:
    """Run `python -m ARGUMENTS` with a maximum file size in bytes, which simulates a full disk."""
    # Python would write truncated bytecode files.
    variables = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", LIMITED, str(limit), *arguments]
    return subprocess.run(command, cwd=cwd, env=os.environ | variables, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("limit", [3000, 100_000])
def test_a_full_disk_ends_a_training_with_a_message(limit, tmp_path):
    """The limits stop Hydra's configs and the checkpoint."""
    done = run_limited(limit, "sapnet", "train", *TINY, "network.stages=1", "hydra.run.dir=run", cwd=tmp_path)
    lines = [line for line in done.stderr.strip().splitlines() if not line.startswith("step ")]
    assert done.returncode == 1 and len(lines) == 1, done.stderr
    assert "File too large" in lines[0] and "Traceback" not in done.stderr
    assert not list(tmp_path.rglob("*.ckpt")) and not list(tmp_path.rglob("*.partial"))


def test_a_full_disk_ends_a_restoration_with_a_message(trained, tmp_path):
    photo(tmp_path / "p.png")
    command_line = ["sapnet", "deblur", "p.png", "-o", "o.png", "-c", f"{trained}/checkpoints/last.ckpt"]
    done = run_limited(100, *command_line, cwd=tmp_path)
    assert done.returncode == 1 and len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert "o.png" in done.stderr and {path.name for path in tmp_path.iterdir()} == {"p.png"}
