"""Saving of `best.ckpt` and `last.ckpt`."""

import shutil
import time
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch

from sapnet.checkpoints.lightning_io import AtomicCheckpointIO
from sapnet.errors import UserError
from sapnet.training.callbacks.saving import BestCheckpoint, SaveLast
from sapnet.training.callbacks.step_limit import StepLimit
from tests.training.two_optimizers import TwoOptimizers, fit

OPTIONS = {"enable_checkpointing": True, "enable_progress_bar": False, "num_sanity_val_steps": 0}
OPTIONS |= {"plugins": [AtomicCheckpointIO()]}
NO_VALIDATION = OPTIONS | {"limit_val_batches": 0}


class SavedSteps(pl.Callback):
    """Records the generator steps at which a checkpoint is saved."""

    def __init__(self):
        self.steps: list[int] = []

    def on_save_checkpoint(self, trainer, pl_module, checkpoint):
        self.steps.append(pl_module.generator_steps)


class Slow(TwoOptimizers):
    """Each step takes 0.1 s."""

    def training_step(self, batch, batch_idx):
        time.sleep(0.1)
        super().training_step(batch, batch_idx)


def steps_in(path: Path) -> int:
    return torch.load(path, weights_only=True)["sapnet"]["generator_steps"]


def saved_at(*callbacks: pl.Callback, module: TwoOptimizers | None = None, **options) -> list[int]:
    saved = SavedSteps()
    fit(module or TwoOptimizers(), callbacks=[saved, *callbacks], **(NO_VALIDATION | options))
    return saved.steps


def test_it_is_saved_at_intervals_of_steps_and_at_the_end(tmp_path: Path) -> None:
    """In generator steps; Lightning counts one step per optimizer."""
    path = tmp_path / "deep" / "last.ckpt"
    assert saved_at(SaveLast(path, steps=3), max_epochs=2) == [3, 6, 8]
    assert steps_in(path) == 8


def test_it_is_saved_at_intervals_of_minutes(tmp_path: Path) -> None:
    steps = saved_at(SaveLast(tmp_path / "last.ckpt", minutes=0.25 / 60), module=Slow(), max_epochs=2)
    assert 2 <= len(steps) <= 4 and steps[-1] == 8, "about every third step, and the last one"
    assert saved_at(SaveLast(tmp_path / "last.ckpt", minutes=10), module=Slow(), max_epochs=2) == [8]


def test_a_step_is_saved_once_and_after_its_validation(tmp_path: Path) -> None:
    save_last = SaveLast(tmp_path / "last.ckpt", steps=2, minutes=0)
    assert saved_at(StepLimit(7), save_last, max_epochs=-1, limit_val_batches=1.0) == [1, 2, 3, 4, 5, 6, 7]
    state = torch.load(tmp_path / "last.ckpt", weights_only=True)["callbacks"]["SaveLast"]
    assert state == {"validated": 7}


def test_a_completed_run_is_not_saved_again(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    fit(TwoOptimizers(), callbacks=[StepLimit(6), SaveLast(path)], max_epochs=-1, **OPTIONS)
    before = path.read_bytes()
    saved, options = SavedSteps(), {"checkpoint": str(path), "max_epochs": -1, **OPTIONS}
    fit(TwoOptimizers(), callbacks=[StepLimit(6), SaveLast(path), saved], **options)
    assert saved.steps == [] and path.read_bytes() == before


def test_a_run_resumed_from_the_last_step_of_another_run_is_saved(tmp_path: Path) -> None:
    path = tmp_path / "a" / "last.ckpt"
    fit(TwoOptimizers(), callbacks=[StepLimit(6), SaveLast(path)], max_epochs=-1, **OPTIONS)
    options = {"checkpoint": str(path), "max_epochs": -1, **OPTIONS}
    fit(TwoOptimizers(), callbacks=[StepLimit(6), SaveLast(tmp_path / "b" / "last.ckpt")], **options)
    assert steps_in(tmp_path / "b" / "last.ckpt") == 6


# --- the best checkpoint


def best(folder: Path) -> BestCheckpoint:
    options = {"auto_insert_metric_name": False, "enable_version_counter": False, "save_on_train_epoch_end": False}
    return BestCheckpoint(folder, filename="best", monitor="val/psnr", mode="max", **options)


def resume(folder: Path, epochs: int) -> BestCheckpoint:
    """Resume a folder's last checkpoint with a learning rate of 0, so that no validation improves."""

    class Constant(TwoOptimizers):
        def configure_optimizers(self):
            return [torch.optim.SGD(self.network.parameters(), 0.0), torch.optim.SGD([self.policy], 0.0)]

    callback, last = best(folder), folder / "last.ckpt"
    checkpoint = str(last) if last.is_file() else None
    fit(Constant(), checkpoint, callbacks=[callback, SaveLast(last)], max_epochs=epochs, **OPTIONS)
    return callback


@pytest.mark.parametrize("transfer", [shutil.move, shutil.copytree])
def test_a_renamed_or_copied_folder_keeps_its_best_checkpoint(tmp_path: Path, transfer, recwarn) -> None:
    score = resume(tmp_path / "old", 1).best_model_score
    modified = (tmp_path / "old" / "best.ckpt").stat().st_mtime_ns
    assert str(tmp_path).encode() not in (tmp_path / "old" / "last.ckpt").read_bytes()
    transfer(tmp_path / "old", tmp_path / "new")
    before = (tmp_path / "new" / "best.ckpt").read_bytes()
    callback = resume(tmp_path / "new", 2)
    assert callback.best_model_score == score
    assert callback.best_model_path == str(tmp_path / "new" / "best.ckpt")
    assert (tmp_path / "new" / "best.ckpt").read_bytes() == before, "no validation improved"
    assert transfer is shutil.move or (tmp_path / "old" / "best.ckpt").stat().st_mtime_ns == modified
    assert not [warning for warning in recwarn if "dirpath" in str(warning.message)]


def test_absolute_paths_of_earlier_versions_are_resolved(tmp_path: Path) -> None:
    score = resume(tmp_path / "old", 1).best_model_score
    checkpoint = torch.load(tmp_path / "old" / "last.ckpt", weights_only=True)
    (key,) = (key for key in checkpoint["callbacks"] if key.startswith("ModelCheckpoint"))
    path = "/elsewhere/checkpoints/best.ckpt"
    checkpoint["callbacks"][key] |= {"dirpath": "/elsewhere/checkpoints", "best_model_path": path}
    checkpoint["callbacks"][key] |= {"kth_best_model_path": path, "best_k_models": {path: score}}
    torch.save(checkpoint, tmp_path / "old" / "last.ckpt")
    assert resume(tmp_path / "old", 2).best_model_path == str(tmp_path / "old" / "best.ckpt")


def test_without_a_best_checkpoint_the_next_one_is_saved(tmp_path: Path) -> None:
    resume(tmp_path / "run", 1)
    (tmp_path / "run" / "best.ckpt").unlink()
    resume(tmp_path / "run", 2)
    assert steps_in(tmp_path / "run" / "best.ckpt") == 8


def test_the_best_k_are_kept_under_the_names_of_their_steps(tmp_path: Path) -> None:
    """Beside `best.ckpt`, with a state of its own."""

    class Falling(TwoOptimizers):
        def on_validation_epoch_end(self):
            self.log("val/psnr", torch.tensor(30.0 - self.generator_steps))
            self.log("generator_steps", float(self.generator_steps))

    best = BestCheckpoint(tmp_path)
    top = BestCheckpoint(tmp_path, filename="step_{generator_steps:.0f}", save_top_k=2)
    fit(Falling(), callbacks=[best, top, SaveLast(tmp_path / "last.ckpt")], **(OPTIONS | {"max_epochs": 3}))
    assert {path.name for path in tmp_path.glob("*.ckpt")} == {"best.ckpt", "last.ckpt", "step_4.ckpt", "step_8.ckpt"}
    assert steps_in(tmp_path / "best.ckpt") == 4 and best.state_key != top.state_key
    with pytest.raises(UserError, match=r"save_top_k=2 checkpoints cannot all be named best.ckpt: use callbacks="):
        BestCheckpoint(tmp_path, save_top_k=2)
