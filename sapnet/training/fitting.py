"""Run the training of a composed config in a run folder."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, cast

import hydra
import pytorch_lightning as pl
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only
from pytorch_lightning.utilities.exceptions import (
    MisconfigurationException,  # pyright: ignore[reportPrivateImportUsage]
)

from sapnet.checkpoints.architecture import check_same_architecture, transfer_weights
from sapnet.checkpoints.files import load_checkpoint
from sapnet.errors import UserError
from sapnet.files import write_atomically
from sapnet.training.assemble import build_module, build_trainer, check_precision, silence_lightning
from sapnet.training.callbacks.saving import interruptible
from sapnet.training.loggers.run import open_loggers
from sapnet.training.restoration_module import RestorationModule
from sapnet.training.resuming.config_changes import Change, changes_since
from sapnet.training.resuming.start import Start, choose_start
from sapnet.training.run_lock import lock_run_folder
from sapnet.training.trainer_flags import check_trainer_flags

log = logging.getLogger(__name__)


def fit(config: DictConfig, folder: Path, loggers: Sequence[Logger] | None = None) -> Path:
    """Run the training of a config.

    Args:
        config: Composed config of `sapnet train`.
        folder: Folder of the run.
        loggers: Open loggers, which stay open; None to open those of the config for the training alone.

    Returns:
        Path of the last checkpoint, in `folder/checkpoints`.

    Raises:
        UserError: The data, the checkpoint to resume from, or a value of the config cannot be used; or another process
            is training in this folder.
        Interrupted: A signal was received. The last checkpoint is saved.
    """
    silence_lightning()
    check_precision(config)
    check_trainer_flags(config.trainer)
    opening = open_loggers(config, folder) if loggers is None else nullcontext(loggers)
    with lock_run_folder(folder), opening as opened:
        return _fit(config, folder, opened)


def _read_start(config: DictConfig, folder: Path) -> tuple[Start, dict[str, Any] | None, list[Change] | None]:
    start = choose_start(folder / "checkpoints", config.resume, config.ckpt_path, config.init_from)
    if start.checkpoint is None:
        return start, None, []
    checkpoint = load_checkpoint(start.checkpoint)
    return start, checkpoint, changes_since(checkpoint, config, start.checkpoint)


def _fit(config: DictConfig, folder: Path, loggers: Sequence[Logger]) -> Path:
    # First, so that an error leaves nothing behind.
    start, checkpoint, changes = _read_start(config, folder)
    pl.seed_everything(config.seed, workers=True, verbose=False)
    data = hydra.utils.instantiate(config.data)
    # Before building the network, since missing data is the most frequent error.
    data.setup("fit")
    module = build_module(config)
    module.run_config = cast(dict[str, Any], OmegaConf.to_container(config, resolve=True))
    if checkpoint is not None and start.checkpoint is not None:
        check_same_architecture(module.network, module.network_config, checkpoint, start.checkpoint)
        data.check_position(checkpoint.get(type(data).__qualname__, {}))
    notes = [] if start.weights is None else _transfer_weights(module, start.weights)
    _report(start, folder, changes, notes, checkpoint)
    # Frees the memory of the weights and the optimizer states.
    del checkpoint
    if rank_zero_only.rank == 0:
        write_atomically(folder / "config.yaml", OmegaConf.to_yaml(config, resolve=True).encode())
    trainer = build_trainer(config, folder, loggers)
    with interruptible(trainer), _lightning_errors():
        trainer.fit(module, datamodule=data, ckpt_path=start.checkpoint)
    last = folder / "checkpoints" / "last.ckpt"
    if not last.is_file():
        raise UserError(f"{folder}: the training ended before its first step, see trainer.max_time: nothing is saved.")
    return last


@contextmanager
def _lightning_errors() -> Iterator[None]:
    # Settings that Lightning checks only when it uses them, such as the metric that a callback monitors.
    try:
        yield
    except MisconfigurationException as error:
        raise UserError(f"Lightning refuses these settings: {' '.join(str(error).split())}") from error


def _transfer_weights(module: RestorationModule, path: Path) -> list[str]:
    source = load_checkpoint(path)
    module.chosen_on_test = bool(source["sapnet"].get("chosen_on_test"))
    return transfer_weights(module.network, module.network_config, source, path)


@rank_zero_only
def _report(
    start: Start,
    folder: Path,
    changes: Sequence[Change] | None,
    notes: Sequence[str],
    checkpoint: Mapping[str, Any] | None,
) -> None:
    if start.note is not None:
        log.warning("%s", start.note)
    if checkpoint is not None:
        log.info("resuming %s at step %d (from %s)", folder, checkpoint["sapnet"]["generator_steps"], start.checkpoint)
    if changes is None:
        log.warning("%s does not contain its configuration: changed settings are not detected", start.checkpoint)
    for change in changes or ():
        log.info("%s", change)
    if start.weights is not None:
        log.info("starting %s at step 0 with the weights of %s", folder, start.weights)
    for note in notes:
        log.warning("%s", note)
