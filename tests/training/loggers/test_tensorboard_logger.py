"""TensorBoard event files."""

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sapnet.errors import UserError
from sapnet.training.loggers.run import create_loggers, open_loggers
from tests.training.loggers.options import logger_config
from tests.training.two_optimizers import TwoOptimizers, fit


def test_events_contain_metrics_config_and_pictures(tmp_path):
    with open_loggers(logger_config("tensorboard"), tmp_path) as loggers:
        loggers[0].log_hyperparams()
        loggers[0].log_picture("validation", np.full((4, 6, 3), 200, np.uint8), 5)
        fit(TwoOptimizers(), logger=loggers)
    events = EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"tensors": 0})
    events.Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2, 3, 4]
    assert "generator_steps" not in events.Tags()["scalars"]
    (image,) = events.Images("validation")
    assert (image.step, image.width, image.height) == (5, 6, 4)
    (text,) = events.Tensors("config/text_summary")
    assert b"width: 3" in text.tensor_proto.string_val[0]


def test_a_missing_package_is_a_user_error(tmp_path, monkeypatch):
    for package in ("_TENSORBOARD_AVAILABLE", "_TENSORBOARDX_AVAILABLE"):
        monkeypatch.setattr(f"lightning_fabric.loggers.tensorboard.{package}", False)
    with pytest.raises(UserError, match=r"pip install 'sapnet\[tensorboard\]'"):
        create_loggers(logger_config("tensorboard"), tmp_path)
