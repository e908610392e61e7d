"""Curves lie where they are looked for, against generator steps, whatever the logger."""

import csv
import os
from pathlib import Path

import hydra
import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sapnet.configs import CONFIG_DIR
from sapnet.errors import UserError
from sapnet.training.tracking import CsvLogger, Labels, WandbLogger, finish_runs, labels, run_id, start_run, tracked
from tests.training.two_optimizers import TwoOptimizers, fit


def option(name: str) -> dict:
    return OmegaConf.create({"logger": OmegaConf.load(CONFIG_DIR / "logger" / f"{name}.yaml"), "model": {"width": 3}})


def rows(folder: Path) -> list[dict[str, str]]:
    with open(folder / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def hydra_job():
    """Hydra's state as inside a job, for the given choices and mode."""

    def start(tmp_path: Path, *overrides: str):
        (tmp_path / "experiment").mkdir()
        (tmp_path / "data").mkdir()
        (tmp_path / "experiment" / "table3.yaml").write_text("# @package _global_\nx: 1\n")
        (tmp_path / "data" / "noise.yaml").write_text("y: 1\n")
        (tmp_path / "job.yaml").write_text(
            "defaults: [{data: noise}, {experiment: null}, _self_]\nx: 0\nname: null\ngroup: null\ntags: [free]\n"
        )
        with initialize_config_dir(str(tmp_path), version_base="1.3"):
            config = compose("job", list(overrides), return_hydra_config=True)
        HydraConfig.instance().set_config(config)
        return config

    yield start
    HydraConfig.instance().cfg = None
    GlobalHydra.instance().clear()


# --- which logger


def test_csv_counts_generator_steps_and_holds_training_and_validation(tmp_path):
    with tracked(option("csv"), tmp_path) as loggers:
        trainer = fit(TwoOptimizers(), logger=loggers, max_epochs=2)
    assert trainer.global_step == 16
    lines = rows(tmp_path)
    assert [line["generator_steps"] for line in lines if line["train/loss"]] == [str(step) for step in range(1, 9)]
    assert [line["generator_steps"] for line in lines if line["val/psnr"]] == ["4", "8"]
    assert float(lines[0]["train/loss"]) > 0


def test_tensorboard_counts_generator_steps_and_shows_config_and_pictures(tmp_path):
    with tracked(option("tensorboard"), tmp_path) as loggers:
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


def test_tensorboard_that_is_not_installed_is_named(tmp_path, monkeypatch):
    for package in ("_TENSORBOARD_AVAILABLE", "_TENSORBOARDX_AVAILABLE"):
        monkeypatch.setattr(f"lightning_fabric.loggers.tensorboard.{package}", False)
    with pytest.raises(UserError, match=r"pip install 'sapnet\[tensorboard\]'"):
        start_run(option("tensorboard"), tmp_path)


def test_the_option_none_is_no_logger(tmp_path):
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        config = compose(overrides=["+logger=none"])
    assert start_run(config, tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_wandb_is_offline_unless_asked_otherwise(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    (logger,) = start_run(option("wandb"), tmp_path)
    assert logger._wandb_init["mode"] == "offline"
    # An environment left behind would keep a later job offline that wants to send.
    assert "WANDB_MODE" not in os.environ
    config = option("wandb")
    config.logger.offline = False
    (logger,) = start_run(config, tmp_path)
    assert logger._wandb_init["mode"] is None
    assert list(tmp_path.iterdir()) == []


def test_a_wandb_that_refuses_is_one_sentence(tmp_path, monkeypatch):
    import wandb

    def refuse(**settings):
        raise wandb.errors.CommError("no\nroute")

    monkeypatch.setattr(wandb, "init", refuse)
    logger = WandbLogger(tmp_path, {}, Labels(), offline=False)
    with pytest.raises(UserError, match=r"W&B could not start: no route \(logger.offline=true works without it\)"):
        logger.log_metrics({"x": 1.0}, 1)
    logger.finish(1)


# --- the file of curves


def test_a_resumed_run_keeps_its_rows_and_drops_those_of_the_lost_part(tmp_path):
    first = CsvLogger(tmp_path)
    for step in (1, 2, 3, 4):
        first.log_metrics({"loss": float(step)}, step)
    second = CsvLogger(tmp_path)
    second.log_metrics({"loss": 30.0}, 3)
    second.log_metrics({"psnr": 25.0}, 3)
    lines = rows(tmp_path)
    assert [(line["generator_steps"], line["loss"], line["psnr"]) for line in lines] == [
        ("1", "1", ""),
        ("2", "2", ""),
        ("3", "30", ""),
        ("3", "", "25"),
    ]


def test_a_torn_last_row_is_dropped(tmp_path):
    CsvLogger(tmp_path).log_metrics({"loss": 1.0}, 1)
    with open(tmp_path / "metrics.csv", "a") as file:
        file.write("2,0.")
    CsvLogger(tmp_path).log_metrics({"loss": 3.0}, 3)
    assert [line["generator_steps"] for line in rows(tmp_path)] == ["1", "3"]


# --- labels


def test_labels_come_from_the_choices(tmp_path, hydra_job):
    config = hydra_job(tmp_path, "experiment=table3")
    assert labels(config) == Labels(None, "table3", ("table3", "noise", "free"))


def test_a_sweep_is_a_group_and_the_config_has_the_last_word(tmp_path, hydra_job):
    config = hydra_job(tmp_path, "hydra.mode=MULTIRUN", "hydra.sweep.dir=outputs/sweeps/monday", "experiment=table3")
    assert labels(config).group == "monday"
    config.group, config.name = "mine", "first"
    assert labels(config) == Labels("first", "mine", ("table3", "noise", "free"))


def test_without_hydra_only_the_config_speaks():
    config = OmegaConf.create({"tags": ["b", "a", "b"]})
    assert labels(config) == Labels(None, None, ("b", "a"))


def test_the_id_is_that_of_the_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_id("run") == run_id(tmp_path / "x" / ".." / "run") != run_id("run2")


# --- the end


def test_all_loggers_are_finished_even_if_one_cannot_be(tmp_path, caplog):
    ends = []

    class Recorder(CsvLogger):
        def finish(self, exit_code):
            ends.append(exit_code)
            raise OSError("gone")

    finish_runs([Recorder(tmp_path), Recorder(tmp_path)], 1)
    assert ends == [1, 1]
    assert "Recorder could not be finished: gone" in caplog.text


@pytest.mark.parametrize(("error", "code"), [(None, 0), (UserError("x"), 1), (KeyboardInterrupt(), 1)])
def test_the_end_of_a_job_is_its_exit_code(tmp_path, monkeypatch, error, code):
    ends = []
    monkeypatch.setattr(CsvLogger, "finish", lambda self, exit_code: ends.append(exit_code))
    try:
        with tracked(option("csv"), tmp_path):
            if error:
                raise error
    except (UserError, KeyboardInterrupt):
        pass
    assert ends == [code]


@pytest.mark.parametrize("name", ["csv", "tensorboard", "wandb"])
def test_every_option_builds(tmp_path, name):
    (logger,) = start_run(option(name), tmp_path)
    assert Path(logger.save_dir) == tmp_path
    assert type(logger) is hydra.utils.get_class(option(name).logger._target_)
