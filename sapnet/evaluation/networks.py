"""Trained networks from checkpoints or published weights, in evaluation mode."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig
from torch import nn

from sapnet.checkpoints.network import network_from_checkpoint
from sapnet.configs import CONFIG_DIR
from sapnet.errors import UserError
from sapnet.evaluation.checkpoints import checkpoint_kind
from sapnet.evaluation.result_contexts import WEIGHTS
from sapnet.evaluation.runner import Restore
from sapnet.models.adaptive_network import AdaptiveNetwork, use_window
from sapnet.models.weights import load_published


def open_checkpoint(
    checkpoint: Path,
    sampler: str | None = None,
    budget: float | None = None,
    window: int | None = None,
    inference: str | None = None,
    ema: bool = False,
) -> tuple[nn.Module, dict[str, Any]]:
    """Load the network of a checkpoint for evaluation.

    Args:
        checkpoint: Path of the checkpoint.
        sampler: Sampler to use instead of the trained one.
        budget: Budget to use instead of the trained one.
        window: Side in pixels of the windows for attention and sampling; None for whole images.
        inference: Inference of the learned sampler to use instead of the trained one.
        ema: Whether to use the moving average of the generator's weights.

    Returns:
        The network, and the entries of result lines that describe it.

    Raises:
        UserError: The checkpoint cannot be used, the network does not sample, or it does not support the window.
    """
    network, info = network_from_checkpoint(checkpoint, ema)
    if (sampler, budget, inference) != (None, None, None):
        resample(network, sampler, budget, inference)
    use_window(network, window)
    origin = {
        "model": info.network_name,
        "checkpoint": info.sha256,
        "checkpoint_kind": checkpoint_kind(checkpoint),
        "generator_steps": info.generator_steps,
        "window": window,
    }
    if ema:
        origin[WEIGHTS] = "ema"
    if info.chosen_on_test:
        origin["validated_on"] = "test"
    if isinstance(network, AdaptiveNetwork):
        origin |= {"sampler": network.sampler, "budget": float(network.budget), "inference": network.inference}
    return network, origin


def open_published(model: DictConfig, weights: Path, name: str | None = None) -> tuple[nn.Module, dict[str, Any]]:
    """Build a network with the weights published by its authors.

    Args:
        model: Config of the network.
        weights: Folder or file of the weights.
        name: Name of the network in result lines; None for its class.

    Returns:
        The network, and the entries of result lines that describe it.

    Raises:
        UserError: The weights do not fit the network.
    """
    network = hydra.utils.instantiate(model).eval()
    return network, {"model": name or type(network).__name__, "published_weights": load_published(network, weights)}


def published_config(name: str) -> DictConfig:
    """Return the config of a published network by its name in `conf/network`.

    Raises:
        UserError: There is no such network, or no weights are published for it.
    """
    names = sorted(path.stem for path in (CONFIG_DIR / "network").glob("*.yaml"))
    if name not in names:
        raise UserError(f"network {name}: there is no such network; use {', '.join(names)}.")
    # Within a command Hydra is initialised already.
    in_command = GlobalHydra.instance().is_initialized()
    with nullcontext() if in_command else hydra.initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        model = hydra.compose("evaluate", [f"network={name}"]).network
    _check_published(model)
    return model


def _check_published(model: DictConfig) -> None:
    if "sampled" in model.keys():  # noqa: SIM118 - `in` without keys() resolves the value
        raise UserError(
            "weights: none are published for this network; use the network of a publication, such as network=restormer"
            " or network=dmphn_1_2_4."
        )


def resample(
    network: nn.Module, sampler: str | None = None, budget: float | None = None, inference: str | None = None
) -> None:
    """Change the sampler, the budget or the inference of a trained network.

    Raises:
        UserError: The network does not sample, or the combination is not possible.
    """
    if not isinstance(network, AdaptiveNetwork):
        raise UserError("sampling.sampler, budget and inference: this checkpoint does not sample; leave them out.")
    if sampler is not None and sampler != network.sampler:
        network.use_sampler(sampler, inference=inference)
    elif inference is not None:
        network.use_inference(inference)
    if budget is not None:
        network.use_budget(budget)


def as_restore(network: nn.Module) -> Restore:
    """Return a function that calls the network with ground truth, which only control samplers use."""
    return network if isinstance(network, AdaptiveNetwork) else lambda blurred, *truth: network(blurred)


def check_choice(config: DictConfig) -> None:
    """Check that a composed config names one network to evaluate and no options that do not apply to it.

    Raises:
        UserError: The config names no network or several, or an option does not apply.
    """
    if config.weights is None:
        if config.checkpoint is None:
            raise UserError("checkpoint is not given: add checkpoint=PATH, a file that sapnet train wrote.")
        if config.get("network") is not None:
            raise UserError("network goes with weights=FILE alone: a checkpoint carries its own network.")
        return
    if config.checkpoint is not None:
        raise UserError("weights and checkpoint are both given: choose one of them.")
    if config.get("network") is None:
        raise UserError("weights needs the network they belong to: add for example network=restormer.")
    _check_published(config.network)
    if config.study or any(value is not None for value in config.sampling.values()):
        raise UserError("published networks sample nothing: leave out study and sampling.")
    if config.ema:
        raise UserError("ema=true: published weights have no moving average; leave it out.")
    if config.window is not None:
        raise UserError(f"window={config.window}: published networks restore whole images; leave it out.")
