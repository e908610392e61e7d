"""Loggers of a run, from its config.

Every logger of this package has Lightning's interface and a method `finish`; loggers that accept pictures have
`log_picture`. `sapnet.training.loggers.results` calls further methods of a logger after the training, if it has them.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import hydra
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.loggers import Logger

from sapnet.training.loggers.labels import run_labels

log = logging.getLogger(__name__)


@contextmanager
def open_loggers(config: DictConfig, folder: str | Path) -> Iterator[list[Logger]]:
    """Create the loggers of a job, and finish them at its end with exit code 0, or 1 after an exception.

    An unfinished W&B run would receive the data of the next job of a multirun.
    """
    loggers = create_loggers(config, folder)
    exit_code = 1
    try:
        yield loggers
        exit_code = 0
    finally:
        finish_loggers(loggers, exit_code)


def create_loggers(config: DictConfig, folder: str | Path) -> list[Logger]:
    """Return the loggers of `config.logger`, a node per logger, for a run in `folder`; none for `logger=none`.

    Each logger receives the resolved config as plain dicts and the `Labels` of the run.
    """
    nodes = config.get("logger")
    if nodes is None:
        return []
    plain = OmegaConf.to_container(config, resolve=True)
    settings = {"folder": Path(folder), "config": plain, "labels": run_labels(config)}
    return [hydra.utils.instantiate(node, _partial_=True)(**settings) for node in nodes.values()]


def finish_loggers(loggers: list[Logger], exit_code: int) -> None:
    """Finish all loggers. An error of a logger is only reported in the log."""
    for logger in loggers:
        try:
            cast(Any, logger).finish(exit_code)
        except Exception as error:  # must not hide the result of the run
            log.warning("%s could not be finished: %s", type(logger).__name__, error)
