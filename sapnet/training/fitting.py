"""Train what a composed config describes, in a run's folder."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import hydra
import pytorch_lightning as pl
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.utilities import rank_zero_only

from sapnet.files import write_atomically
from sapnet.training.architecture import check_same_architecture, take_weights
from sapnet.training.assemble import build_module, build_trainer, check_precision
from sapnet.training.checkpoints import load_checkpoint
from sapnet.training.comparison import Change, changes_since
from sapnet.training.restoration import RestorationModule
from sapnet.training.saving import interruptible, only_training
from sapnet.training.starting import Start, choose_start
from sapnet.training.tracking import tracked

log = logging.getLogger(__name__)


def fit(config: DictConfig, folder: Path) -> Path:
    """Train what the config describes and return the last checkpoint, below ``folder/checkpoints``.

    Raises:
        UserError: The data, the checkpoint to resume from, or a value of the config cannot be used; or another process
            trains in this folder.
        Interrupted: A signal came; the last checkpoint is saved.
    """
    check_precision(config)
    with only_training(folder):
        return _fit(config, folder)


def _read_start(config: DictConfig, folder: Path) -> tuple[Start, dict[str, Any] | None, list[Change] | None]:
    start = choose_start(folder / "checkpoints", config.resume, config.ckpt_path, config.init_from)
    if start.checkpoint is None:
        return start, None, []
    checkpoint = load_checkpoint(start.checkpoint)
    return start, checkpoint, changes_since(checkpoint, config, start.checkpoint)


def _fit(config: DictConfig, folder: Path) -> Path:
    # Before anything is built or written.
    start, checkpoint, changes = _read_start(config, folder)
    pl.seed_everything(config.seed, workers=True, verbose=False)
    data = hydra.utils.instantiate(config.data)
    # Before the network, since missing or broken data is the most likely mistake.
    data.setup("fit")
    module = build_module(config)
    module.run_config = cast(dict[str, Any], OmegaConf.to_container(config, resolve=True))
    if checkpoint is not None and start.checkpoint is not None:
        check_same_architecture(module.network, module.model, checkpoint, start.checkpoint)
        data.check_position(checkpoint.get(type(data).__qualname__, {}))
    notes = [] if start.weights is None else _take_weights(module, start.weights)
    _report(start, folder, changes, notes, checkpoint)
    # It is as large as the network and its optimizers' state.
    del checkpoint
    if rank_zero_only.rank == 0:
        write_atomically(folder / "config.yaml", OmegaConf.to_yaml(config, resolve=True).encode())
    with tracked(config, folder) as loggers:
        trainer = build_trainer(config, folder, loggers)
        with interruptible(trainer):
            trainer.fit(module, datamodule=data, ckpt_path=start.checkpoint)
    return folder / "checkpoints" / "last.ckpt"


def _take_weights(module: RestorationModule, path: Path) -> list[str]:
    source = load_checkpoint(path)
    module.chosen_on_test = bool(source["sapnet"].get("chosen_on_test"))
    return take_weights(module.network, module.model, source, path)


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
        log.warning("%s does not hold its configuration: whether a setting has changed is unknown", start.checkpoint)
    for change in changes or ():
        log.info("%s", change)
    if start.weights is not None:
        log.info("starting %s at step 0 with the weights of %s", folder, start.weights)
    for note in notes:
        log.warning("%s", note)
