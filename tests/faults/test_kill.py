"""A training that is killed and resumed gives bitwise equal weights."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.integration.conftest import ROOT, TINY

pytestmark = pytest.mark.slow

KILLED = Path(__file__).with_name("killed.py")
STEPS = 11
# Three batches per epoch, a validation every four steps, a checkpoint every two steps.
OVERRIDES = [
    *(override for override in TINY if not override.startswith(("steps=", "validate_every="))),
    *("sampling=nu", f"steps={STEPS}", "validate_every=4", "checkpoint_every=2", "evaluate=false"),
    *("resume=auto", "trainer.log_every_n_steps=1"),
]


def start(folder: Path, *moment: str) -> subprocess.Popen:
    """Start a training process; `moment` and step are those of `killed.py`."""
    command = [sys.executable, *([str(KILLED), *moment] if moment else ["-m", "sapnet", "train"]), *OVERRIDES]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "NO_ALBUMENTATIONS_UPDATE": "1", "PYTHONPATH": str(ROOT)}
    command.append(f"hydra.run.dir={folder}")
    return subprocess.Popen(command, env=environment, cwd=folder.parent, stderr=subprocess.PIPE, text=True)


def wait(process: subprocess.Popen) -> int:
    _, error = process.communicate(timeout=300)
    assert process.returncode in (0, -signal.SIGKILL), error
    return process.returncode


def content(folder: Path, name: str = "last") -> dict[str, Any]:
    return torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)


def assert_equal(one: Any, other: Any, where: str = "checkpoint") -> None:
    """Check that tensors are bitwise equal and other values are equal."""
    assert type(one) is type(other), where
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_equal(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for position, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_equal(a, b, f"{where}.{position}")
    else:
        assert one == other, where


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted") / "run"
    assert wait(start(folder)) == 0
    return folder


def test_a_run_killed_repeatedly_equals_an_uninterrupted_one(uninterrupted: Path, tmp_path: Path) -> None:
    """Weights, optimizers, schedules, position in the data, and metrics are equal."""
    folder = tmp_path / "run"
    kills = [
        ("write", "2", None),  # in the middle of the first checkpoint: the run starts again
        ("step", "3", 2),  # at the last batch of the first epoch
        ("rename", "6", 4),  # before the checkpoint of the second epoch is renamed
        ("step", "9", 8),  # after a validation, which saves two checkpoints
        ("step", str(STEPS), 10),  # after all steps, before the last checkpoint
    ]
    for moment, step, saved in kills:
        assert wait(start(folder, moment, step)) == -signal.SIGKILL, f"{moment} {step} was not reached"
        last = folder / "checkpoints" / "last.ckpt"
        assert last.is_file() == (saved is not None)
        if saved is not None:
            assert content(folder)["sapnet"]["generator_steps"] == saved
    assert wait(start(folder)) == 0
    resumed, expected = content(folder), content(uninterrupted)
    assert expected["sapnet"]["generator_steps"] == STEPS and len(expected["optimizer_states"]) == 2
    for key in ("state_dict", "optimizer_states", "lr_schedulers", "sapnet", "SyntheticData"):
        assert_equal(resumed[key], expected[key], key)
    assert (folder / "metrics.csv").read_text() == (uninterrupted / "metrics.csv").read_text()


def test_a_run_killed_at_any_moment_equals_an_uninterrupted_one(uninterrupted: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = start(folder)
    deadline = time.monotonic() + 120
    while not (folder / "checkpoints" / "last.ckpt").is_file() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    assert wait(process) == -signal.SIGKILL
    assert wait(start(folder)) == 0
    assert_equal(content(folder)["state_dict"], content(uninterrupted)["state_dict"])
