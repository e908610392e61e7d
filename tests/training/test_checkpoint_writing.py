"""A checkpoint is there whole or not at all, whatever happens while it is written."""

import errno
import os
import resource
import subprocess
import sys

import pytest
import torch

import sapnet.files
from sapnet.errors import UserError
from sapnet.training.checkpoints import (
    AtomicCheckpointIO,
    load_checkpoint,
)
from tests.training.two_optimizers import TwoOptimizers, fit

# Children overwrite a good checkpoint with ever new ones until each is killed at another moment of a write.
KILLED = """
import os, signal, sys, time, torch
from pathlib import Path
from sapnet.training.checkpoints import AtomicCheckpointIO
torch.set_num_threads(1)
io, path = AtomicCheckpointIO(), Path(sys.argv[1])
mid_write = 0
def partial():
    return list(path.parent.glob(".last.ckpt.*.partial"))
for attempt in range(12):
    io.save_checkpoint({"step": 0, "weights": torch.zeros(8)}, path)
    child = os.fork()
    if child == 0:
        for step in range(1, 10**6):
            io.save_checkpoint({"step": step, "weights": torch.full((1_000_000,), float(step))}, path)
    while not partial():
        pass
    time.sleep(0.002 * attempt)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    mid_write += bool(partial())
    content = io.load_checkpoint(path)
    assert (content["weights"] == content["step"]).all()
io.save_checkpoint({"step": 1}, path)
print(mid_write, "killed in the middle;", os.listdir(path.parent))
"""
# One that the system stops in the middle of the file, as a full disk would.
LIMITED = """
import resource, signal, sys, torch
from sapnet.training.checkpoints import AtomicCheckpointIO
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
AtomicCheckpointIO().save_checkpoint({"weights": torch.zeros(1_000_000)}, sys.argv[1])
"""


@pytest.mark.slow
def test_a_kill_in_the_middle_of_writing_leaves_a_whole_checkpoint(tmp_path):
    script = [sys.executable, "-c", KILLED, str(tmp_path / "last.ckpt")]
    writer = subprocess.run(script, capture_output=True, text=True, timeout=120)
    assert writer.returncode == 0, writer.stderr
    killed, _, left = writer.stdout.partition(" ")
    assert int(killed) > 0, "no kill hit a write, so the test shows nothing"
    # Leftovers of the killed process do not block the next one.
    assert left == "killed in the middle; ['last.ckpt']\n"


def test_nothing_but_a_rename_ever_touches_the_target(tmp_path, monkeypatch):
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"step": 1}, path)
    before = path.read_bytes()

    def die(descriptor):
        assert path.read_bytes() == before
        raise KeyboardInterrupt

    monkeypatch.setattr(sapnet.files.os, "fsync", die)
    with pytest.raises(KeyboardInterrupt):
        AtomicCheckpointIO().save_checkpoint({"step": 2}, path)
    assert path.read_bytes() == before


def test_a_full_disk_keeps_the_last_good_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"step": 1}, path)

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(sapnet.files.os, "fsync", full)
    with pytest.raises(UserError, match=r"last.ckpt: .*No space left on device.*is kept"):
        AtomicCheckpointIO().save_checkpoint({"step": 2}, path)
    assert AtomicCheckpointIO().load_checkpoint(path) == {"step": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="the system cannot limit the size of a file")
def test_a_write_that_the_system_cuts_short_keeps_the_last_good_checkpoint(tmp_path):
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"step": 1}, path)
    writer = subprocess.run([sys.executable, "-c", LIMITED, str(path)], capture_output=True, text=True)
    assert "UserError" in writer.stderr and "File too large" in writer.stderr
    assert AtomicCheckpointIO().load_checkpoint(path) == {"step": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


def test_the_trainer_saves_and_resumes_through_it(tmp_path):
    whole = TwoOptimizers()
    start = {name: value.clone() for name, value in whole.state_dict().items()}
    fit(whole, max_epochs=3)

    first = TwoOptimizers()
    first.load_state_dict(start)
    trainer = fit(first, max_epochs=1, plugins=[AtomicCheckpointIO()])
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    assert trainer.global_step == 8
    assert load_checkpoint(tmp_path / "last.ckpt")["sapnet"]["generator_steps"] == 4

    second = TwoOptimizers()
    fit(second, checkpoint=str(tmp_path / "last.ckpt"), max_epochs=3, plugins=[AtomicCheckpointIO()])
    assert second.generator_steps == whole.generator_steps == 12
    for name, value in whole.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name
