"""Loggers of a run."""

from pathlib import Path

import hydra
import pytest
from hydra import compose, initialize_config_dir

from sapnet.configs import CONFIG_DIR
from sapnet.errors import UserError
from sapnet.training.loggers.csv_logger import CsvLogger
from sapnet.training.loggers.run import create_loggers, finish_loggers, open_loggers
from tests.training.loggers.options import logger_config


def test_the_option_none_creates_no_logger(tmp_path):
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        config = compose(overrides=["+logger=none"])
    assert create_loggers(config, tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_a_logger_does_not_affect_the_others(tmp_path, caplog):
    exit_codes = []

    class Recorder(CsvLogger):
        def finish(self, exit_code):
            exit_codes.append(exit_code)
            raise OSError("gone")

    finish_loggers([Recorder(tmp_path), Recorder(tmp_path)], 1)
    assert exit_codes == [1, 1]
    assert "Recorder could not be finished: gone" in caplog.text


@pytest.mark.parametrize(("error", "code"), [(None, 0), (UserError("x"), 1), (KeyboardInterrupt(), 1)])
def test_loggers_are_finished_with_an_exit_code(tmp_path, monkeypatch, error, code):
    exit_codes = []
    monkeypatch.setattr(CsvLogger, "finish", lambda self, exit_code: exit_codes.append(exit_code))
    try:
        with open_loggers(logger_config("csv"), tmp_path):
            if error:
                raise error
    except (UserError, KeyboardInterrupt):
        pass
    assert exit_codes == [code]


@pytest.mark.parametrize("name", ["csv", "tensorboard", "wandb"])
def test_every_option_creates_its_logger(tmp_path, name):
    (logger,) = create_loggers(logger_config(name), tmp_path)
    assert Path(logger.save_dir) == tmp_path
    assert type(logger) is hydra.utils.get_class(logger_config(name).logger[name]._target_)


def test_several_options_create_their_loggers(tmp_path):
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        config = compose("train", ["logger=[csv,wandb]", "logger.wandb.project=mine", "hydra/job_logging=none"])
    loggers = create_loggers(config, tmp_path)
    assert [type(logger).__name__ for logger in loggers] == ["CsvLogger", "WandbLogger"]
    assert loggers[1].name == "mine"
