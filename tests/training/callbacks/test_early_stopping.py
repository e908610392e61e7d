"""Early stopping by a metric of the validation."""

from pathlib import Path

import pytest
import torch

from sapnet.checkpoints.lightning_io import AtomicCheckpointIO
from sapnet.errors import UserError
from sapnet.training.callbacks.early_stopping import StopEarly
from sapnet.training.callbacks.saving import SaveLast
from tests.training.two_optimizers import TwoOptimizers, fit

OPTIONS = {"enable_checkpointing": True, "enable_progress_bar": False, "num_sanity_val_steps": 0, "max_epochs": 50}


class NoBetter(TwoOptimizers):
    """The second validation is the best."""

    def on_validation_epoch_end(self):
        self.log("val/psnr", torch.tensor(20.0 if self.generator_steps == 8 else 10.0))


def train(folder: Path, patience: int, resume: str | None = None) -> int:
    module = NoBetter()
    callbacks = [StopEarly(patience=patience), SaveLast(folder / "last.ckpt")]
    fit(module, resume, callbacks=callbacks, plugins=[AtomicCheckpointIO()], **OPTIONS)
    return module.generator_steps


def test_it_ends_after_the_patience_and_a_repeated_command_takes_no_step(tmp_path: Path):
    last = str(tmp_path / "last.ckpt")
    assert train(tmp_path, patience=3) == 4 * (2 + 3), "four steps to a validation"
    assert train(tmp_path, patience=3, resume=last) == 20
    assert train(tmp_path, patience=5, resume=last) == 28, "more patience continues"


def test_a_metric_that_is_not_measured_is_named(tmp_path: Path):
    with pytest.raises(UserError, match="early stopping: val/x is not measured; the validation has val/psnr"):
        fit(NoBetter(), callbacks=[StopEarly("val/x")], **(OPTIONS | {"enable_checkpointing": False}))
