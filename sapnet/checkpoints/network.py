"""Rebuild the network of a checkpoint."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
from torch import nn

from sapnet import __version__
from sapnet.checkpoints.architecture import averaged_weights, first_difference, network_weights
from sapnet.checkpoints.files import METADATA, load_checkpoint, short_hash
from sapnet.checkpoints.network_config import check_network_config
from sapnet.errors import UserError


@dataclass(frozen=True)
class CheckpointInfo:
    """Metadata of a checkpoint.

    Attributes:
        path: File of the checkpoint.
        sha256: First 12 hexadecimal digits of the file's SHA-256.
        network_config: Hydra configuration of the network, as plain dicts.
        generator_steps: Generator steps of the training so far.
        version: Version of sapnet that wrote the checkpoint.
        network_name: Name of the network in results, such as `network=mini sampling=nu policy=gate`.
        chosen_on_test: Whether its run validated on test images.
    """

    path: Path
    sha256: str
    network_config: dict[str, Any]
    generator_steps: int
    version: str
    network_name: str
    chosen_on_test: bool = False


def network_from_checkpoint(path: str | Path, ema: bool = False) -> tuple[nn.Module, CheckpointInfo]:
    """Build the network of a checkpoint and load its weights (on the CPU, in evaluation mode).

    Args:
        path: File of the checkpoint.
        ema: Whether to load the moving average of the generator's weights instead of the last ones.

    Raises:
        UserError: The file is not a checkpoint of sapnet (`load_checkpoint`); its configuration names a class outside
            `sapnet.models`, `sapnet.layers` and `sapnet.sampling`; its weights do not fit the network; or it has no
            moving average.
    """
    checkpoint = load_checkpoint(path)
    metadata = checkpoint[METADATA]
    network = _build(path, metadata)
    weights = averaged_weights(checkpoint) if ema else network_weights(checkpoint)
    if weights is None:
        raise UserError(f"{path} has no moving average of its weights: train with callbacks=[default,ema].")
    difference = first_difference(network.state_dict(), weights)
    if difference:
        raise UserError(
            f"{path}: the weights do not fit the network of the checkpoint: {difference}; "
            f"it was written by sapnet {metadata.get('version')}, this is {__version__}."
        )
    network.load_state_dict(weights)
    return network.eval(), _info(Path(path), metadata)


def _build(path: str | Path, metadata: Mapping[str, Any]) -> nn.Module:
    try:
        check_network_config(metadata["model"])
        network = hydra.utils.instantiate(metadata["model"])
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except Exception as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{path}: sapnet {__version__} cannot build the network of this checkpoint "
            f"(written by sapnet {metadata.get('version')}): {reason}"
        ) from error
    if not isinstance(network, nn.Module):
        raise UserError(f"{path}: the configuration builds a {type(network).__name__}, which is not a network.")
    return network


def _info(path: Path, metadata: Mapping[str, Any]) -> CheckpointInfo:
    network_config = metadata["model"]
    return CheckpointInfo(
        path,
        short_hash(path),
        network_config,
        metadata["generator_steps"],
        version=str(metadata.get("version")),
        network_name=str(metadata.get("network") or _class_names(network_config)),
        chosen_on_test=bool(metadata.get("chosen_on_test")),
    )


def _class_names(network_config: Mapping[str, Any]) -> str:
    # For checkpoints without a name: of earlier versions, and of trainings outside Hydra.
    name = str(network_config.get("generator", network_config)["_target_"]).rpartition(".")[2]
    return f"{name}, sampler={network_config.get('sampler', 'learned')}" if "generator" in network_config else name
