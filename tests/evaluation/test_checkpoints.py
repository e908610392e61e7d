"""The value by which a sweeper compares trainings that are not evaluated."""

import math

import pytest
import torch

from sapnet.checkpoints.files import METADATA
from sapnet.evaluation.checkpoints import best_validation


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ({"best_model_path": "best.ckpt", "best_model_score": torch.tensor(31.5)}, 31.5),
        ({"best_model_path": "step_4.ckpt", "best_model_score": torch.tensor(33.0)}, math.nan),
        ({"best_model_path": "", "best_model_score": None}, math.nan),
    ],
)
def test_the_best_validation_is_that_of_the_best_checkpoint(tmp_path, state, expected):
    metadata = {"format": 1, "model": {}, "generator_steps": 4}
    states = {"SaveLast": {"validated": 4}, "ModelCheckpoint": state}
    torch.save({METADATA: metadata, "state_dict": {}, "callbacks": states}, tmp_path / "last.ckpt")
    assert best_validation(tmp_path / "last.ckpt") == pytest.approx(expected, nan_ok=True)
