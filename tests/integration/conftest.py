"""Small real runs that several tests look at."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

#: A training run of seconds: everything is real but the sizes.
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


def run(*words: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess:
    """Run `python -m WORDS` in a folder as a user would; one thread, since tests run side by side."""
    variables = {"OMP_NUM_THREADS": "1", "NO_ALBUMENTATIONS_UPDATE": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", *words],
        cwd=cwd,
        env=os.environ | variables | environment,
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Path:
    """The run folder of a tiny U network, trained through the command line."""
    folder = tmp_path_factory.mktemp("trained")
    done = run("sapnet", "train", *TINY, f"hydra.run.dir={folder}/run", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "run"


@pytest.fixture(scope="session")
def trained_nu(tmp_path_factory) -> Path:
    """The same with a policy that samples."""
    folder = tmp_path_factory.mktemp("trained_nu")
    done = run("sapnet", "train", *TINY, "sampling=nu", f"hydra.run.dir={folder}/run", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "run"
