"""Training killed by SIGKILL at the worst moments, and resumed: the same weights to the bit."""

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
# Three batches in an epoch, validation after every fourth step, a checkpoint after every second.
WORDS = [
    *(word for word in TINY if not word.startswith(("steps=", "validate_every="))),
    *("sampling=nu", f"steps={STEPS}", "validate_every=4", "checkpoint_every=2", "evaluate=false"),
    *("resume=auto", "trainer.log_every_n_steps=1"),
]


def start(folder: Path, *how: str) -> subprocess.Popen:
    """A real training process in its own folder; `how` names the moment of its death."""
    command = [sys.executable, *([str(KILLED), *how] if how else ["-m", "sapnet", "train"]), *WORDS]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "NO_ALBUMENTATIONS_UPDATE": "1", "PYTHONPATH": str(ROOT)}
    words = [*command, f"hydra.run.dir={folder}"]
    return subprocess.Popen(words, env=environment, cwd=folder.parent, stderr=subprocess.PIPE, text=True)


def end(process: subprocess.Popen) -> int:
    _, said = process.communicate(timeout=300)
    assert process.returncode in (0, -signal.SIGKILL), said
    return process.returncode


def content(folder: Path, name: str = "last") -> dict[str, Any]:
    return torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)


def assert_equal(one: Any, other: Any, where: str = "checkpoint") -> None:
    """Tensors equal to the bit, everything else equal."""
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
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unbroken") / "run"
    assert end(start(folder)) == 0
    return folder


def test_killed_again_and_again_a_run_ends_with_the_weights_of_an_unbroken_one(unbroken: Path, tmp_path: Path) -> None:
    """Generator and policy, both optimizers, the schedules, the position in the data and the curves."""
    folder = tmp_path / "run"
    deaths = [
        ("write", "2", None),  # half of the very first checkpoint: it starts afresh
        ("step", "3", 2),  # in the middle of the work, at the last batch of the first epoch
        ("renamed", "6", 4),  # the checkpoint of the second epoch's last batch is not in its place yet
        ("step", "9", 8),  # after a validation, which made two checkpoints of its own
        ("step", str(STEPS), 10),  # all steps done, the last of them not saved
    ]
    for moment, step, kept in deaths:
        assert end(start(folder, moment, step)) == -signal.SIGKILL, f"{moment} {step} never came"
        last = folder / "checkpoints" / "last.ckpt"
        assert last.is_file() == (kept is not None)
        if kept is not None:
            assert content(folder)["sapnet"]["generator_steps"] == kept
    assert end(start(folder)) == 0
    ours, theirs = content(folder), content(unbroken)
    assert theirs["sapnet"]["generator_steps"] == STEPS and len(theirs["optimizer_states"]) == 2
    for key in ("state_dict", "optimizer_states", "lr_schedulers", "sapnet", "SyntheticData"):
        assert_equal(ours[key], theirs[key], key)
    assert (folder / "metrics.csv").read_text() == (unbroken / "metrics.csv").read_text()


def test_killed_from_outside_at_no_chosen_moment(unbroken: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = start(folder)
    deadline = time.monotonic() + 120
    while not (folder / "checkpoints" / "last.ckpt").is_file() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    assert end(process) == -signal.SIGKILL
    assert end(start(folder)) == 0
    assert_equal(content(folder)["state_dict"], content(unbroken)["state_dict"])
