"""Creation of W&B runs; `tests/integration/test_wandb_offline.py` reads the files of a run."""

import os

import pytest

from sapnet.errors import UserError
from sapnet.training.loggers.labels import Labels
from sapnet.training.loggers.run import create_loggers
from sapnet.training.loggers.wandb_logger import WandbLogger
from tests.training.loggers.options import logger_config


def test_the_default_is_offline(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    (logger,) = create_loggers(logger_config("wandb"), tmp_path)
    assert logger._wandb_init["mode"] == "offline"
    # The variable would affect later jobs of the process.
    assert "WANDB_MODE" not in os.environ
    config = logger_config("wandb")
    config.logger.wandb.offline = False
    (logger,) = create_loggers(config, tmp_path)
    assert logger._wandb_init["mode"] is None
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_wandb_is_a_user_error(tmp_path, monkeypatch):
    import wandb

    def fail(**settings):
        raise wandb.errors.CommError("no\nroute")

    monkeypatch.setattr(wandb, "init", fail)
    logger = WandbLogger(tmp_path, {}, Labels(), offline=False)
    with pytest.raises(
        UserError, match=r"W&B could not start: no route \(logger.wandb.offline=true works without it\)"
    ):
        logger.log_metrics({"x": 1.0}, 1)
    logger.finish(1)


def test_the_agent_of_a_sweep_chooses_id_and_project(tmp_path, monkeypatch):
    """W&B would ignore others with a warning."""
    monkeypatch.setenv("WANDB_SWEEP_ID", "s1")
    logger = WandbLogger(tmp_path, {}, Labels(), project="mine")
    assert [logger._wandb_init[key] for key in ("id", "project", "entity")] == [None, None, None]
