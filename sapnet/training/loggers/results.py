"""What the loggers receive after a training: results of the test, test images and the best checkpoint."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only
from torch import nn

from sapnet.evaluation.restored_images import restored_images

log = logging.getLogger(__name__)


def summary_values(summary: Mapping[str, Any]) -> dict[str, float]:
    """Return the means of a summary by the names of logged metrics, such as `test/psnr`, `test/psnr_1`."""
    values = {}
    for metric in ("psnr", "ssim"):
        stages = summary[f"stage_{metric}"]
        values |= {f"test/{metric}": stages[-1], f"test/{metric}_input": summary[f"input_{metric}"]}
        values |= {f"test/{metric}_{k}": value for k, value in enumerate(stages, 1)}
    low, high = summary["gain_ci95"]
    return values | {"test/gain_db": summary["gain_db"], "test/gain_low": low, "test/gain_high": high}


def validation_values(scores: Mapping[str, Any] | None) -> dict[str, float]:
    """Return the last and the best PSNR of a training's validations by the names of logged metrics."""
    return {} if scores is None else {"val/psnr": scores["psnr"], "val/psnr_best": scores["psnr_best"]}


@rank_zero_only
def log_results(
    loggers: Sequence[Logger], test: Mapping[str, Any] | None, validation: Mapping[str, Any] | None, step: int
) -> None:
    """Log the results of a training: as summary values if the logger has a summary, else as metrics of the last step.

    Args:
        loggers: The loggers.
        test: Summary of the test; None if there was none.
        validation: `validation_scores` of the module, which loggers without a summary have in their curves.
        step: Generator steps of the training.
    """
    tested = {} if test is None else summary_values(test)
    for logger in loggers:
        if hasattr(logger, "log_summary"):
            _call(logger, "log_summary", validation_values(validation) | tested)
        elif tested:
            _call(logger, "log_metrics", tested, step)


@rank_zero_only
def log_checkpoint(loggers: Sequence[Logger], checkpoint: Path, validation: Mapping[str, Any] | None) -> None:
    """Log a checkpoint, with the best validation PSNR, to the loggers that accept them."""
    score = None if validation is None else validation["psnr_best"]
    metadata = {"score": score, "monitor": "val/psnr", "mode": "max", "original_filename": checkpoint.name}
    for logger in loggers:
        if getattr(logger, "logs_checkpoint", False):
            _call(logger, "log_checkpoint", checkpoint, metadata)


@rank_zero_only
def log_test_images(loggers: Sequence[Logger], network: nn.Module, data: DictConfig, step: int) -> None:
    """Log the first test images with their restored images and sampled points to the loggers that accept them."""
    for logger in loggers:
        limit = getattr(logger, "test_images", 0)
        if limit:
            _call(logger, "log_test_images", restored_images(network, data, limit), step)


def _call(logger: Logger, method: str, *arguments: Any) -> None:
    """Call a method of a logger. An error is only reported in the log, since the results are complete without it."""
    try:
        getattr(logger, method)(*arguments)
    except Exception as error:
        log.warning("%s.%s: %s", type(logger).__name__, method, error)
