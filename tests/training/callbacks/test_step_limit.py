"""The step limit of a training with two optimizers."""

import pytest

from sapnet.checkpoints.lightning_io import AtomicCheckpointIO
from sapnet.training.callbacks.step_limit import StepLimit
from tests.training.two_optimizers import TwoOptimizers, fit


@pytest.mark.parametrize("steps", [1, 5, 8])
def test_a_training_stops_after_its_generator_steps(steps):
    module = TwoOptimizers()
    trainer = fit(module, callbacks=[StepLimit(steps)], max_epochs=-1, enable_progress_bar=False)
    assert (module.generator_steps, trainer.global_step) == (steps, 2 * steps)


def test_a_completed_training_takes_no_step_when_resumed(tmp_path):
    fit(TwoOptimizers(), callbacks=[StepLimit(3)], enable_progress_bar=False).save_checkpoint(tmp_path / "a.ckpt")
    module = TwoOptimizers()
    options = {"max_epochs": -1, "enable_progress_bar": False, "plugins": [AtomicCheckpointIO()]}
    fit(module, checkpoint=str(tmp_path / "a.ckpt"), callbacks=[StepLimit(3)], **options)
    assert module.generator_steps == 3
