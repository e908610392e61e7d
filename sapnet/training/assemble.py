"""Build the Lightning module and the trainer from a composed config."""

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
import pytorch_lightning as pl
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import Logger

from sapnet.configs import compose_network
from sapnet.errors import UserError
from sapnet.models.adaptive_network import AdaptiveNetwork
from sapnet.training.callbacks.nan_guard import NanGuard
from sapnet.training.callbacks.panels import PanelCallback
from sapnet.training.callbacks.progress import StepProgress
from sapnet.training.callbacks.saving import SaveLast
from sapnet.training.callbacks.step_limit import StepLimit
from sapnet.training.callbacks.step_seeds import StepSeeds
from sapnet.training.policy_gradient_module import PolicyGradientModule
from sapnet.training.restoration_module import RestorationModule
from sapnet.training.trainer_flags import trainer_arguments


def build_module(config: DictConfig) -> RestorationModule:
    """Build the network and its module: a `PolicyGradientModule` if the network has samplers."""
    optim = hydra.utils.instantiate(config.optim)
    network_config = compose_network(config)
    network = hydra.utils.instantiate(network_config)
    settings: dict[str, Any] = {
        "network": network,
        "loss": hydra.utils.instantiate(config.loss),
        "optimizer": optim.optimizer,
        "scheduler": optim.scheduler,
        "clip_norm": optim.clip_norm,
        "network_config": network_config,
        "steps": config.steps,
        "stagewise": config.stagewise,
        "network_name": network_name(config),
    }
    if not isinstance(network, AdaptiveNetwork):
        return RestorationModule(**settings)
    if not config.loss.progressive and config.sampling.sampler == "learned":
        raise UserError("loss.progressive=false leaves the policy without a reward: supervise every stage, or use U.")
    policy = hydra.utils.instantiate(config.policy)
    return PolicyGradientModule(**settings, policy=policy)


def network_name(config: DictConfig) -> str | None:
    """Return the overrides that choose the network, such as `network=mini sampling=nu policy=gate`; None without Hydra.

    Overrides of single settings follow the chosen options. The policy is included only with the learned sampler.
    """
    groups = ["network", "sampling"]
    if config.sampling.sampled and config.sampling.sampler == "learned":
        groups.append("policy")
    if not HydraConfig.initialized():
        return None
    hydra_config = HydraConfig.get()
    if any(group not in hydra_config.runtime.choices for group in groups):
        # The config was composed separately from the running command.
        return None
    choices = [f"{group}={hydra_config.runtime.choices[group]}" for group in groups]
    overrides = [override.lstrip("+") for override in hydra_config.overrides.task]
    prefixes = tuple(f"{group}." for group in groups)
    return " ".join([*choices, *(override for override in overrides if override.startswith(prefixes))])


def check_precision(config: DictConfig) -> None:
    """Check that gradient clipping is not combined with a precision that scales the gradients.

    Raises:
        UserError: It is. float16 scales the loss, and the norm would be that of the scaled gradients.
    """
    precision = config.trainer.get("precision")
    if str(precision) in ("16", "16-mixed") and config.optim.clip_norm is not None:
        raise UserError(
            f"trainer.precision={precision} scales the gradients, and optim.clip_norm={config.optim.clip_norm} would"
            " clip the scaled ones: use trainer.precision=bf16-mixed, or optim.clip_norm=null."
        )


def silence_lightning() -> None:
    """Silence irrelevant Lightning warnings."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    small_data = (".*smaller than the logging interval.*", ".*does not have many workers.*")
    # Resumed trainings.
    folders = (".*Checkpoint directory .* exists and is not empty.*", ".*dirpath has changed from.*")
    # Checkpoints of earlier versions, which used another callback for `last.ckpt`.
    callbacks = ".*callbacks used to create the checkpoint need to be provided.*"
    for message in (".*LeafSpec.*", *small_data, *folders, callbacks):
        warnings.filterwarnings("ignore", message)


def build_trainer(config: DictConfig, folder: Path, loggers: Sequence[Logger]) -> pl.Trainer:
    """Build the trainer with its callbacks and atomic checkpoint writing."""
    silence_lightning()
    return hydra.utils.instantiate(
        config.trainer,
        default_root_dir=folder,
        logger=list(loggers) or False,
        callbacks=_callbacks(config, folder),
        **trainer_arguments(config.trainer, folder),
    )


def _callbacks(config: DictConfig, folder: Path) -> list[Callback]:
    """Return the callbacks of every training, and those of the group `callbacks`.

    Lightning moves checkpoint callbacks to the end and keeps their order: `SaveLast` comes after all others, so that
    `last.ckpt` contains their state, for example the new best checkpoint.
    """
    checkpoints, every, minutes = folder / "checkpoints", config.checkpoint_every, config.checkpoint_minutes
    progress = [] if config.trainer.get("enable_progress_bar") is False else [StepProgress(config.steps)]
    return [
        StepSeeds(config.seed),
        *progress,
        StepLimit(config.steps),
        NanGuard(checkpoints),
        PanelCallback(folder / "panels"),
        *(hydra.utils.instantiate(node, _convert_="all") for node in (config.get("callbacks") or {}).values() if node),
        SaveLast(checkpoints / "last.ckpt", every, minutes),
    ]
