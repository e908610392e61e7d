"""What the loggers receive after a training."""

import csv

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sapnet.training.loggers.csv_logger import CsvLogger
from sapnet.training.loggers.results import log_checkpoint, log_results, summary_values
from sapnet.training.loggers.run import create_loggers
from tests.training.loggers.options import logger_config

TEST = {
    "stage_psnr": [20.0, 21.0],
    "stage_ssim": [0.7, 0.8],
    "input_psnr": 19.0,
    "input_ssim": 0.6,
    "gain_db": 2.0,
    "gain_ci95": [1.5, 2.5],
}


def rows(folder) -> list[dict[str, str]]:
    with open(folder / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_values_are_named_like_those_of_the_validation():
    assert summary_values(TEST) == {
        **{"test/psnr": 21.0, "test/psnr_input": 19.0, "test/psnr_1": 20.0, "test/psnr_2": 21.0},
        **{"test/ssim": 0.8, "test/ssim_input": 0.6, "test/ssim_1": 0.7, "test/ssim_2": 0.8},
        **{"test/gain_db": 2.0, "test/gain_low": 1.5, "test/gain_high": 2.5},
    }


def test_a_repeated_command_replaces_the_results_of_the_same_step(tmp_path):
    logger = CsvLogger(tmp_path)
    for step in (1, 2):
        logger.log_metrics({"val/psnr": 20.0}, step)
    log_results([logger], TEST, {"psnr": 20.0, "psnr_best": 20.0}, 2)
    log_results([CsvLogger(tmp_path)], {**TEST, "input_psnr": 18.0}, None, 2)
    assert [(row["generator_steps"], row["val/psnr"], row["test/psnr_input"]) for row in rows(tmp_path)] == [
        ("1", "20", ""),
        ("2", "20", ""),
        ("2", "", "18"),
    ]


def test_tensorboard_receives_scalars(tmp_path):
    (logger,) = create_loggers(logger_config("tensorboard"), tmp_path)
    log_results([logger], TEST, None, 7)
    logger.finish(0)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    (event,) = events.Scalars("test/psnr")
    assert (event.step, event.value) == (7, 21.0)


def test_a_training_without_a_test_logs_no_results(tmp_path):
    log_results([CsvLogger(tmp_path)], None, {"psnr": 20.0, "psnr_best": 21.0}, 2)
    assert not (tmp_path / "metrics.csv").exists()


@pytest.mark.parametrize("accepts", [True, False])
def test_an_error_of_a_logger_is_only_reported(tmp_path, caplog, accepts):
    class Full(CsvLogger):
        logs_checkpoint = accepts

        def log_checkpoint(self, path, metadata):
            raise OSError("No space left on device")

    log_checkpoint([Full(tmp_path)], tmp_path / "best.ckpt", None)
    assert ("Full.log_checkpoint: No space left on device" in caplog.text) == accepts
