"""From a composed config to a module and a trainer."""

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path

import hydra
import pytorch_lightning as pl
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import Logger

from sapnet.configs import network_config
from sapnet.errors import UserError
from sapnet.models.adaptive_network import AdaptiveNetwork
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
    description = network_config(config)
    network = hydra.utils.instantiate(description)
    loss = hydra.utils.instantiate(config.loss)
    parts = (network, loss, optim.optimizer, optim.scheduler, optim.clip_norm, description)
    parts = (*parts, config.steps, config.stagewise)
    if not isinstance(network, AdaptiveNetwork):
        return RestorationModule(*parts, network_name=network_name(config))
    if not config.loss.progressive and config.sampling.sampler == "learned":
        raise UserError("loss.progressive=false leaves the policy without a reward: supervise every stage, or use U.")
    policy = hydra.utils.instantiate(config.policy)
    return AdaptiveModule(*parts, policy=policy, network_name=network_name(config))


def network_name(config: DictConfig) -> str | None:
    """Return what a user chose the network by, such as `network=mini sampling=nu policy=gate`; None without Hydra.

    Single settings of the network follow the choices. A policy is named only where it is what chooses the points.
    """
    groups = ["network", "sampling"]
    if config.sampling.sampled and config.sampling.sampler == "learned":
        groups.append("policy")
    if not HydraConfig.initialized():
        return None
    hydra_config = HydraConfig.get()
    if any(group not in hydra_config.runtime.choices for group in groups):
        # A configuration composed apart from the running command.
        return None
    words = [f"{group}={hydra_config.runtime.choices[group]}" for group in groups]
    overrides = [word.lstrip("+") for word in hydra_config.overrides.task]
    return " ".join([*words, *(word for word in overrides if word.startswith(tuple(f"{group}." for group in groups)))])


def check_precision(config: DictConfig) -> None:
    """Check that gradients are not clipped under a precision that scales them.

    Raises:
        UserError: They are: float16 multiplies the loss by a large factor, and the bound would apply to the product.
    """
    precision = config.trainer.get("precision")
    if str(precision) in ("16", "16-mixed") and config.optim.clip_norm is not None:
        raise UserError(
            f"trainer.precision={precision} scales the gradients, and optim.clip_norm={config.optim.clip_norm} would"
            " clip the scaled ones: use trainer.precision=bf16-mixed, or optim.clip_norm=null."
        )


def quieten() -> None:
    """Keep to ourselves what Lightning tells of its own affairs: they are nothing a user can act on."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    data = (".*smaller than the logging interval.*", ".*does not have many workers.*")
    # Of resumed trainings, in their run folder or from another's checkpoint.
    folders = (".*Checkpoint directory .* exists and is not empty.*", ".*dirpath has changed from.*")
    # Of checkpoints of earlier versions, which saved the last one by another callback.
    earlier = ".*callbacks used to create the checkpoint need to be provided.*"
    for message in (".*LeafSpec.*", *data, *folders, earlier):
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
    best = {"filename": "best", "monitor": "val/psnr", "mode": "max", "save_on_train_epoch_end": False}
    return [
        StepRandomness(config.seed),
        StepProgress(config.steps),
        StopAtSteps(config.steps),
        NonFiniteGuard(checkpoints),
        PanelCallback(folder / "panels"),
        # The best one first: the last one then knows of it.
        BestCheckpoint(checkpoints, auto_insert_metric_name=False, enable_version_counter=False, **best),
        SaveLast(checkpoints / "last.ckpt", every, minutes),
    ]
