"""Small runs of the real commands, shared by several tests."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.command_server import ROOT, TIMEOUT, CommandServer

_server = CommandServer()

#: Overrides of a training that takes seconds.
TINY = [
    "steps=3",
    "validate_every=2",
    "network.stem=4",
    "network.channels=[4,4,6]",
    "data.train=6",
    "data.val=2",
    "data.test=2",
    "data.size=48",
    "data.crop=32",
    "data.batch=2",
    "trainer.accelerator=cpu",
]


def run(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess:
    """Run `python -m ARGUMENTS` in a folder, with one thread because tests run in parallel.

    Commands of sapnet run in forks of a process that has imported it (`CommandServer`).
    """
    variables = {"OMP_NUM_THREADS": "1", "NO_ALBUMENTATIONS_UPDATE": "1", "PYTHONPATH": str(ROOT)}
    env = os.environ | variables | environment
    if arguments[0] == "sapnet":
        return _server.run(list(arguments[1:]), cwd, env)
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=TIMEOUT)


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Path:
    """Return the run folder of a small uniform network."""
    folder = tmp_path_factory.mktemp("trained")
    done = run("sapnet", "train", *TINY, f"hydra.run.dir={folder}/run", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "run"


@pytest.fixture(scope="session")
def trained_nu(tmp_path_factory) -> Path:
    """Return the run folder of a small network with a policy."""
    folder = tmp_path_factory.mktemp("trained_nu")
    done = run("sapnet", "train", *TINY, "sampling=nu", f"hydra.run.dir={folder}/run", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "run"
