"""The CSV file of metrics."""

import csv
from pathlib import Path

from sapnet.training.loggers.csv_logger import CsvLogger
from sapnet.training.loggers.run import open_loggers
from tests.training.loggers.options import logger_config
from tests.training.two_optimizers import TwoOptimizers, fit


def rows(folder: Path) -> list[dict[str, str]]:
    with open(folder / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_rows_of_training_and_validation_are_at_generator_steps(tmp_path):
    with open_loggers(logger_config("csv"), tmp_path) as loggers:
        trainer = fit(TwoOptimizers(), logger=loggers, max_epochs=2)
    assert trainer.global_step == 16
    lines = rows(tmp_path)
    assert [line["generator_steps"] for line in lines if line["train/loss"]] == [str(step) for step in range(1, 9)]
    assert [line["generator_steps"] for line in lines if line["val/psnr"]] == ["4", "8"]
    assert float(lines[0]["train/loss"]) > 0


def test_a_resumed_run_drops_the_rows_of_lost_steps(tmp_path):
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


def test_an_incomplete_last_row_is_dropped(tmp_path):
    CsvLogger(tmp_path).log_metrics({"loss": 1.0}, 1)
    with open(tmp_path / "metrics.csv", "a") as file:
        file.write("2,0.")
    CsvLogger(tmp_path).log_metrics({"loss": 3.0}, 3)
    assert [line["generator_steps"] for line in rows(tmp_path)] == ["1", "3"]
