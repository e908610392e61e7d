"""From a composed config to a module and a trainer."""

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path

import hydra
import pytorch_lightning as pl
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import Logger

from sapnet.errors import UserError
from sapnet.models.adaptive import AdaptiveNetwork
from sapnet.training.adaptive import AdaptiveModule
from sapnet.training.checkpoints import AtomicCheckpointIO
from sapnet.training.panels import PanelCallback
from sapnet.training.progress import NonFiniteGuard, StepProgress, StopAtSteps
from sapnet.training.restoration import RestorationModule
from sapnet.training.resuming import StepRandomness
from sapnet.training.saving import BestCheckpoint, SaveLast


def build_module(config: DictConfig) -> RestorationModule:
    """Build the network and the module that trains it: with a policy where the sampling asks for one."""
    optim = hydra.utils.instantiate(config.optim)
    description = OmegaConf.to_container(config.sampling.network, resolve=True)
    network = hydra.utils.instantiate(description)
    loss = hydra.utils.instantiate(config.loss)
    parts = (network, loss, optim.optimizer, optim.scheduler, optim.clip_norm, description)
    parts = (*parts, config.steps, config.stagewise)
    if not isinstance(network, AdaptiveNetwork):
        return RestorationModule(*parts)
    if not config.loss.progressive and config.sampling.sampler == "learned":
        raise UserError("loss.progressive=false leaves the policy without a reward: supervise every stage, or use U.")
    return AdaptiveModule(*parts, policy=hydra.utils.instantiate(config.policy))


def quieten() -> None:
    """Keep to ourselves what Lightning tells of its own affairs: they are nothing a user can act on."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    for message in (
        ".*LeafSpec.*",
        ".*smaller than the logging interval.*",
        ".*does not have many workers.*",
        ".*Checkpoint directory.*exists and is not empty.*",
        # Of checkpoints of earlier versions, which saved the last one by another callback.
        ".*callbacks used to create the checkpoint need to be provided.*",
    ):
        warnings.filterwarnings("ignore", message)


def build_trainer(config: DictConfig, folder: Path, loggers: Sequence[Logger]) -> pl.Trainer:
    """Build the trainer with its callbacks and checkpoints that survive a crash."""
    quieten()
    return hydra.utils.instantiate(
        config.trainer,
        default_root_dir=folder,
        logger=list(loggers) or False,
        callbacks=_callbacks(config, folder),
        plugins=[AtomicCheckpointIO()],
    )


def _callbacks(config: DictConfig, folder: Path) -> list[Callback]:
    checkpoints, every, minutes = folder / "checkpoints", config.checkpoint_every, config.checkpoint_minutes
    if every is not None and every < 1:
        raise UserError(f"checkpoint_every={every}: give a number of steps, or null for none.")
    if minutes is not None and minutes <= 0:
        raise UserError(f"checkpoint_minutes={minutes}: give a number of minutes, or null for none.")
    best = {"filename": "best", "monitor": "val/psnr", "mode": "max", "save_on_train_epoch_end": False}
    return [
        StepRandomness(config.seed),
        StepProgress(config.steps),
        StopAtSteps(config.steps),
        NonFiniteGuard(),
        PanelCallback(folder / "panels"),
        # The best one first: the last one then knows of it.
        BestCheckpoint(checkpoints, auto_insert_metric_name=False, enable_version_counter=False, **best),
        SaveLast(checkpoints / "last.ckpt", every, minutes),
    ]
