"""When `best.ckpt` and `last.ckpt` are written, and the lock on a run folder."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch

from sapnet.errors import UserError
from sapnet.training.checkpoints import AtomicCheckpointIO
from sapnet.training.progress import StopAtSteps
from sapnet.training.saving import BestCheckpoint, SaveLast, only_training
from tests.training.two_optimizers import TwoOptimizers, fit

OPTIONS = {"enable_checkpointing": True, "enable_progress_bar": False, "num_sanity_val_steps": 0}
OPTIONS |= {"plugins": [AtomicCheckpointIO()]}
NO_VALIDATION = OPTIONS | {"limit_val_batches": 0}


class Note(pl.Callback):
    """The generator steps at which a checkpoint was written."""

    def __init__(self):
        self.steps: list[int] = []

    def on_save_checkpoint(self, trainer, pl_module, checkpoint):
        self.steps.append(pl_module.generator_steps)


class Slow(TwoOptimizers):
    """Takes a while for each step."""

    def training_step(self, batch, batch_idx):
        time.sleep(0.1)
        super().training_step(batch, batch_idx)


def steps_in(path: Path) -> int:
    return torch.load(path, weights_only=True)["sapnet"]["generator_steps"]


def saved_at(*callbacks: pl.Callback, module: TwoOptimizers | None = None, **options) -> list[int]:
    note = Note()
    fit(module or TwoOptimizers(), callbacks=[note, *callbacks], **(NO_VALIDATION | options))
    return note.steps


def test_without_validations_it_is_saved_every_so_many_generator_steps_and_at_the_end(tmp_path: Path) -> None:
    """Lightning's own count would be twice as high: one step for each optimizer."""
    path = tmp_path / "deep" / "last.ckpt"
    assert saved_at(SaveLast(path, steps=3), max_epochs=2) == [3, 6, 8]
    assert steps_in(path) == 8


def test_without_validations_it_is_saved_every_so_many_minutes(tmp_path: Path) -> None:
    steps = saved_at(SaveLast(tmp_path / "last.ckpt", minutes=0.25 / 60), module=Slow(), max_epochs=2)
    assert 2 <= len(steps) <= 4 and steps[-1] == 8, "every third step or so, and the last one"
    assert saved_at(SaveLast(tmp_path / "last.ckpt", minutes=10), module=Slow(), max_epochs=2) == [8]


def test_a_step_is_saved_once_after_its_validation(tmp_path: Path) -> None:
    saving = SaveLast(tmp_path / "last.ckpt", steps=2, minutes=0)
    assert saved_at(StopAtSteps(7), saving, max_epochs=-1, limit_val_batches=1.0) == [1, 2, 3, 4, 5, 6, 7]
    state = torch.load(tmp_path / "last.ckpt", weights_only=True)["callbacks"]["SaveLast"]
    assert state == {"validated": 7}


def test_a_run_that_is_done_already_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    fit(TwoOptimizers(), callbacks=[StopAtSteps(6), SaveLast(path)], max_epochs=-1, **OPTIONS)
    before = path.read_bytes()
    note, more = Note(), {"checkpoint": str(path), "max_epochs": -1, **OPTIONS}
    fit(TwoOptimizers(), callbacks=[StopAtSteps(6), SaveLast(path), note], **more)
    assert note.steps == [] and path.read_bytes() == before


def test_a_run_that_goes_on_from_another_runs_last_step_has_a_checkpoint_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "a" / "last.ckpt"
    fit(TwoOptimizers(), callbacks=[StopAtSteps(6), SaveLast(path)], max_epochs=-1, **OPTIONS)
    more = {"checkpoint": str(path), "max_epochs": -1, **OPTIONS}
    fit(TwoOptimizers(), callbacks=[StopAtSteps(6), SaveLast(tmp_path / "b" / "last.ckpt")], **more)
    assert steps_in(tmp_path / "b" / "last.ckpt") == 6


# --- the best checkpoint


def best(folder: Path) -> BestCheckpoint:
    options = {"auto_insert_metric_name": False, "enable_version_counter": False, "save_on_train_epoch_end": False}
    return BestCheckpoint(folder, filename="best", monitor="val/psnr", mode="max", **options)


def go_on(folder: Path, epochs: int) -> BestCheckpoint:
    """Train with a rate of 0 from a folder's last checkpoint: no validation is better than the one before."""

    class Still(TwoOptimizers):
        def configure_optimizers(self):
            return [torch.optim.SGD(self.network.parameters(), 0.0), torch.optim.SGD([self.policy], 0.0)]

    callback, last = best(folder), folder / "last.ckpt"
    checkpoint = str(last) if last.is_file() else None
    fit(Still(), checkpoint, callbacks=[callback, SaveLast(last)], max_epochs=epochs, **OPTIONS)
    return callback


@pytest.mark.parametrize("how", [shutil.move, shutil.copytree])
def test_a_renamed_or_copied_folder_keeps_its_best_checkpoint(tmp_path: Path, how, recwarn) -> None:
    score = go_on(tmp_path / "old", 1).best_model_score
    stamp = (tmp_path / "old" / "best.ckpt").stat().st_mtime_ns
    assert str(tmp_path).encode() not in (tmp_path / "old" / "last.ckpt").read_bytes()
    how(tmp_path / "old", tmp_path / "new")
    before = (tmp_path / "new" / "best.ckpt").read_bytes()
    callback = go_on(tmp_path / "new", 2)
    assert callback.best_model_score == score
    assert callback.best_model_path == str(tmp_path / "new" / "best.ckpt")
    assert (tmp_path / "new" / "best.ckpt").read_bytes() == before, "no validation was better"
    assert how is shutil.move or (tmp_path / "old" / "best.ckpt").stat().st_mtime_ns == stamp
    assert not [warning for warning in recwarn if "dirpath" in str(warning.message)]


def test_a_checkpoint_of_an_earlier_version_with_absolute_paths_is_understood(tmp_path: Path) -> None:
    score = go_on(tmp_path / "old", 1).best_model_score
    checkpoint = torch.load(tmp_path / "old" / "last.ckpt", weights_only=True)
    (key,) = (key for key in checkpoint["callbacks"] if key.startswith("ModelCheckpoint"))
    path = "/elsewhere/checkpoints/best.ckpt"
    checkpoint["callbacks"][key] |= {"dirpath": "/elsewhere/checkpoints", "best_model_path": path}
    checkpoint["callbacks"][key] |= {"kth_best_model_path": path, "best_k_models": {path: score}}
    torch.save(checkpoint, tmp_path / "old" / "last.ckpt")
    assert go_on(tmp_path / "old", 2).best_model_path == str(tmp_path / "old" / "best.ckpt")


def test_without_the_best_checkpoint_the_next_one_is_the_best(tmp_path: Path) -> None:
    go_on(tmp_path / "run", 1)
    (tmp_path / "run" / "best.ckpt").unlink()
    go_on(tmp_path / "run", 2)
    assert steps_in(tmp_path / "run" / "best.ckpt") == 8


# --- the lock

HOLD = """
import sys
from sapnet.training.saving import only_training
with only_training(sys.argv[1]):
    print("held", flush=True)
    input()
"""


def test_a_second_training_in_a_folder_is_refused_until_the_first_has_ended(tmp_path: Path, monkeypatch) -> None:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", HOLD, tmp_path / "run"], **pipes) as holder:
        assert holder.stdout.readline() == b"held\n"
        sentence = r"run: another process is training in this folder: .*hydra\.run\.dir=FOLDER"
        with pytest.raises(UserError, match=sentence), only_training(tmp_path / "run"):
            pass
        with only_training(tmp_path / "other"):
            pass
        with monkeypatch.context() as patch:
            # Of processes that train together the first holds the lock.
            patch.setattr("sapnet.training.saving.rank_zero_only.rank", 1)
            with only_training(tmp_path / "run"):
                pass
        holder.kill()
    for _ in range(2):  # also twice in one process
        with only_training(tmp_path / "run"):
            pass
