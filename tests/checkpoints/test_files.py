"""Atomic writing and safe reading of checkpoint files."""

import errno
import os
import pickle
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import sapnet.files
from sapnet.checkpoints.files import load_checkpoint, short_hash
from sapnet.checkpoints.lightning_io import AtomicCheckpointIO
from sapnet.checkpoints.network import network_from_checkpoint
from sapnet.errors import UserError
from tests.training.two_optimizers import TwoOptimizers, fit

# Child processes overwrite a good checkpoint repeatedly; each is killed at another moment of a write.
KILL_WHILE_WRITING = """
import os, signal, sys, time, torch
from pathlib import Path
from sapnet.checkpoints.lightning_io import AtomicCheckpointIO
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
print(mid_write, "killed during a write;", os.listdir(path.parent))
"""
# The system limits the size of the file, like a full disk.
LIMIT_FILE_SIZE = """
import resource, signal, sys, torch
from sapnet.checkpoints.lightning_io import AtomicCheckpointIO
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
AtomicCheckpointIO().save_checkpoint({"weights": torch.zeros(1_000_000)}, sys.argv[1])
"""


@pytest.mark.slow
def test_a_kill_during_a_write_leaves_a_complete_checkpoint(tmp_path):
    script = [sys.executable, "-c", KILL_WHILE_WRITING, str(tmp_path / "last.ckpt")]
    writer = subprocess.run(script, capture_output=True, text=True, timeout=120)
    assert writer.returncode == 0, writer.stderr
    killed, _, rest = writer.stdout.partition(" ")
    assert int(killed) > 0, "no kill hit a write, so nothing was tested"
    # Partial files of the killed process are removed.
    assert rest == "killed during a write; ['last.ckpt']\n"


def test_the_target_is_only_changed_by_a_rename(tmp_path, monkeypatch):
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"step": 1}, path)
    before = path.read_bytes()

    def interrupt(descriptor):
        assert path.read_bytes() == before
        raise KeyboardInterrupt

    monkeypatch.setattr(sapnet.files.os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        AtomicCheckpointIO().save_checkpoint({"step": 2}, path)
    assert path.read_bytes() == before


def test_a_full_disk_keeps_the_previous_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"step": 1}, path)

    def fail(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(sapnet.files.os, "fsync", fail)
    with pytest.raises(UserError, match=r"last.ckpt: .*No space left on device.*is kept"):
        AtomicCheckpointIO().save_checkpoint({"step": 2}, path)
    assert AtomicCheckpointIO().load_checkpoint(path) == {"step": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="the system cannot limit the size of a file")
def test_a_write_beyond_the_size_limit_keeps_the_previous_checkpoint(tmp_path):
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"step": 1}, path)
    writer = subprocess.run([sys.executable, "-c", LIMIT_FILE_SIZE, str(path)], capture_output=True, text=True)
    assert "UserError" in writer.stderr and "File too large" in writer.stderr
    assert AtomicCheckpointIO().load_checkpoint(path) == {"step": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


def test_the_trainer_saves_and_resumes_with_it(tmp_path):
    uninterrupted = TwoOptimizers()
    start = {name: value.clone() for name, value in uninterrupted.state_dict().items()}
    fit(uninterrupted, max_epochs=3)

    first = TwoOptimizers()
    first.load_state_dict(start)
    trainer = fit(first, max_epochs=1, plugins=[AtomicCheckpointIO()])
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    assert trainer.global_step == 8
    assert load_checkpoint(tmp_path / "last.ckpt")["sapnet"]["generator_steps"] == 4

    second = TwoOptimizers()
    fit(second, checkpoint=str(tmp_path / "last.ckpt"), max_epochs=3, plugins=[AtomicCheckpointIO()])
    assert second.generator_steps == uninterrupted.generator_steps == 12
    for name, value in uninterrupted.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


# --- reading


class Malicious:
    """A pickle that creates a file when it is loaded without `weights_only`."""

    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self):
        return os.system, (f"touch {self.trace}",)


@pytest.mark.parametrize("io", [AtomicCheckpointIO().load_checkpoint, load_checkpoint, network_from_checkpoint])
@pytest.mark.parametrize("save", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
def test_a_malicious_file_runs_no_code(tmp_path, io, save):
    trace, path = tmp_path / "trace", tmp_path / "malicious.ckpt"
    save({"state_dict": {}, "sapnet": Malicious(trace)}, path)
    with pytest.raises(UserError, match=r"malicious.ckpt: (not loaded.* could run code|the file is damaged)"):
        io(path)
    assert not trace.exists()
    torch.load(path, weights_only=False) if save is torch.save else pickle.loads(path.read_bytes())
    assert trace.exists(), "the file was harmless, so nothing was tested"


def test_weights_only_cannot_be_switched_off(tmp_path):
    trace, path = tmp_path / "trace", tmp_path / "malicious.ckpt"
    torch.save({"x": Malicious(trace)}, path)
    with pytest.raises(UserError):
        AtomicCheckpointIO().load_checkpoint(path, weights_only=False)
    assert not trace.exists()


def test_damaged_files_are_user_errors(tmp_path, checkpoint):
    complete = checkpoint.read_bytes()
    (tmp_path / "folder").mkdir()
    cases = {
        "missing.ckpt": (None, "there is no such checkpoint"),
        "empty.ckpt": (b"", "damaged"),
        "text.ckpt": (b"not a checkpoint\n", "damaged"),
        "half.ckpt": (complete[: len(complete) // 2], "damaged"),
        "tail.ckpt": (complete[:-10], "damaged"),
        "folder": (None, r"is a folder: give the checkpoint file in it"),
    }
    for name, (content, message) in cases.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=message) as caught:
            load_checkpoint(tmp_path / name)
        assert name in str(caught.value) and "\n" not in str(caught.value), name


def test_a_truncated_checkpoint_is_refused(tmp_path, checkpoint):
    complete, path = checkpoint.read_bytes(), tmp_path / "truncated.ckpt"
    for length in range(1, len(complete), len(complete) // 23):
        path.write_bytes(complete[:length])
        with pytest.raises(UserError, match="damaged"):
            load_checkpoint(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "not a checkpoint but a list"),
        ({"epoch": 1}, "not a checkpoint of sapnet"),
        ({"state_dict": {}}, "no network configuration"),
        ({"state_dict": [], "sapnet": {"format": 1, "model": {}, "generator_steps": 1}}, "not a checkpoint of sapnet"),
        ({"state_dict": {}, "sapnet": {"format": 2, "version": "9.1"}}, r"format 2 \(sapnet 9.1\)"),
        (
            {"state_dict": {}, "sapnet": {"format": 1, "model": "x", "generator_steps": 1}},
            "metadata .* damaged",
        ),
        ({"state_dict": {}, "sapnet": {"format": 1, "model": {}}}, "metadata .* damaged"),
    ],
)
def test_a_file_that_sapnet_did_not_write_is_a_user_error(tmp_path, content, message):
    torch.save(content, tmp_path / "other.ckpt")
    with pytest.raises(UserError, match=rf"other.ckpt: .*{message}"):
        load_checkpoint(tmp_path / "other.ckpt")


def test_short_hash_is_the_sha256_of_the_file(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    assert short_hash(tmp_path / "file") == "ba7816bf8f01"
