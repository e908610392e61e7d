"""Checkpoints: a crash keeps the last good one, no file can run code, and each rebuilds its own network.

Beside what Lightning stores, a checkpoint carries under the key "sapnet" the network's configuration as plain dicts and
the count of generator steps. So a checkpoint alone is enough to deblur with, whatever the command line says.
"""

import hashlib
import importlib
import io
import pickle
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import hydra
import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO
from torch import Tensor, nn

from sapnet import __version__
from sapnet.errors import UserError
from sapnet.files import write_atomically

FORMAT = 1
_KEY = "sapnet"
_WEIGHTS = "network."
_BUILDABLE = ("sapnet.models.", "sapnet.layers.", "sapnet.sampling.")
#: Classes that have moved to another module, by their path in earlier checkpoints.
_MOVED_TARGETS = {"sapnet.models.adaptive.AdaptiveNetwork": "sapnet.models.adaptive_network.AdaptiveNetwork"}
_HYDRA_KEYS = frozenset({"_target_", "_args_", "_partial_", "_recursive_", "_convert_"})


@dataclass(frozen=True)
class CheckpointInfo:
    """What a checkpoint tells of itself."""

    path: Path
    sha256: str
    """The first 12 hexadecimal digits of the file's SHA-256."""
    model: dict[str, Any]
    """The network's configuration, a Hydra node of plain dicts."""
    generator_steps: int
    version: str
    """The version of sapnet that wrote it."""
    network: str
    """The network as a user names it, such as `network=mini sampling=nu policy=gate`."""
    chosen_on_test: bool = False
    """Whether its run validated on test images."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's reading and writing of checkpoints, made safe against crashes, full disks and hostile files.

    A checkpoint is written beside its target, flushed to the disk and renamed over it: whatever happens meanwhile, the
    target is the last good one or the new one. Reading takes tensors and plain values alone (`weights_only=True`).
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write `checkpoint` to `path`.

        Raises:
            UserError: the file cannot be written (full disk, no permission); what was at `path` is untouched.
        """
        data = io.BytesIO()
        torch.save(checkpoint, data)
        try:
            write_atomically(path, data.getbuffer())
        except OSError as error:
            raise UserError(
                f"{path}: the checkpoint cannot be written ({error.strerror or error}); "
                "the one before it is kept: make room there and resume."
            ) from error

    def load_checkpoint(
        self, path: str | Path, map_location: Any = "cpu", weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read the checkpoint at `path`; `weights_only` is taken as True, always.

        Raises:
            UserError: as `load_checkpoint` of this file, save that any checkpoint of Lightning's is taken.
        """
        return _read(Path(path), map_location)


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint of sapnet, on the CPU, in a way that cannot run code from it.

    Raises:
        UserError: nothing at `path`, a folder, a damaged file, a file that holds more than tensors and plain values,
            or one that sapnet did not write.
    """
    path = Path(path)
    checkpoint = _read(path, "cpu")
    own = checkpoint.get(_KEY)
    if not isinstance(own, dict) or not isinstance(checkpoint.get("state_dict"), dict):
        raise UserError(f"{path}: not a checkpoint of sapnet (it carries no network configuration); give one it wrote.")
    if own.get("format") != FORMAT:
        raise UserError(
            f"{path}: this checkpoint has format {own.get('format')} (sapnet {own.get('version')}), "
            f"and this is sapnet {__version__}, which reads format {FORMAT}: use the version that wrote it."
        )
    if not isinstance(own.get("model"), dict) or not isinstance(own.get("generator_steps"), int):
        raise UserError(f"{path}: the checkpoint's own description is damaged; take another checkpoint.")
    return checkpoint


def stamp(
    checkpoint: dict[str, Any],
    model: Mapping[str, Any],
    generator_steps: int,
    chosen_on_test: bool = False,
    network: str | None = None,
    config: Mapping[str, Any] | None = None,
) -> None:
    """Write into `checkpoint` what rebuilds its network: for `LightningModule.on_save_checkpoint`.

    `model` is the Hydra node that built the network, as plain dicts (`OmegaConf.to_container(node, resolve=True)`).
    `network` is what a user calls it, for the lines of results.
    `chosen_on_test` says that the run validates on test images, so that every result of the checkpoint can tell.
    `config` is the run's whole configuration, resolved, which a resumed training is compared with
    (`sapnet.training.comparison`).

    Raises:
        UserError: `model` could not be rebuilt from, because it names a class outside sapnet's networks or holds
            something other than plain values.
    """
    check_buildable(model)
    checkpoint[_KEY] = {
        "format": FORMAT,
        "model": _plain(model),
        "generator_steps": int(generator_steps),
        "version": __version__,
        "chosen_on_test": chosen_on_test,
        **({} if network is None else {"network": network}),
        "config": None if config is None else _plain(config),
    }


def network_from_checkpoint(path: str | Path) -> tuple[nn.Module, CheckpointInfo]:
    """Build the network a checkpoint describes and give it the checkpoint's weights (CPU, evaluation mode).

    Raises:
        UserError: as `load_checkpoint`; or its configuration names a class outside `sapnet.models`, `sapnet.layers` and
            `sapnet.sampling`; or its weights do not fit the network it describes.
    """
    checkpoint = load_checkpoint(path)
    own = checkpoint[_KEY]
    try:
        check_buildable(own["model"])
        network = hydra.utils.instantiate(own["model"])
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except Exception as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{path}: sapnet {__version__} cannot build the network of this checkpoint "
            f"(written by sapnet {own.get('version')}): {reason}"
        ) from error
    if not isinstance(network, nn.Module):
        raise UserError(f"{path}: the checkpoint describes no network but a {type(network).__name__}.")
    weights = network_weights(checkpoint)
    difference = first_difference(network.state_dict(), weights)
    if difference:
        raise UserError(
            f"{path}: its weights do not fit the network it describes: {difference}; "
            f"it was written by sapnet {own.get('version')}, this is {__version__}."
        )
    network.load_state_dict(weights)
    return network.eval(), _info(Path(path), own)


def network_weights(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The network's part of a checkpoint's state, under the network's own parameter names."""
    state = checkpoint["state_dict"]
    return {name.removeprefix(_WEIGHTS): value for name, value in state.items() if name.startswith(_WEIGHTS)}


def short_hash(path: str | Path) -> str:
    """The first 12 hexadecimal digits of a file's SHA-256: which weights a result was made with."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]


def _read(path: Path, map_location: Any) -> dict[str, Any]:
    if path.is_dir():
        raise UserError(f"{path} is a folder: give the checkpoint file in it (such as {path / 'last.ckpt'}).")
    try:
        with open(path, "rb") as file:
            checkpoint = _load(file, path, map_location)
    except FileNotFoundError as error:
        raise UserError(f"{path}: there is no such checkpoint.") from error
    except OSError as error:
        raise UserError(f"{path}: the checkpoint cannot be read ({error.strerror or error}).") from error
    if not isinstance(checkpoint, dict):
        raise UserError(f"{path}: not a checkpoint but a {type(checkpoint).__name__}; give one that sapnet wrote.")
    if isinstance(checkpoint.get(_KEY), dict):
        checkpoint[_KEY] = _update_targets(checkpoint[_KEY])
    return checkpoint


def _update_targets(node: Any) -> Any:
    if isinstance(node, dict):
        return {
            key: _MOVED_TARGETS.get(value, value)
            if key == "_target_" and isinstance(value, str)
            else _update_targets(value)
            for key, value in node.items()
        }
    return [_update_targets(value) for value in node] if isinstance(node, list) else node


def _load(file: BinaryIO, path: Path, map_location: Any) -> Any:
    try:
        with warnings.catch_warnings():
            # Of a pickle that torch did not write: the refusal below says what matters.
            warnings.filterwarnings("ignore", ".*pickle protocol.*")
            return torch.load(file, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path}: not loaded, for it is damaged, no checkpoint, or holds more than tensors and plain values, "
            "which could run code; give a checkpoint that sapnet wrote."
        ) from error
    except Exception as error:  # torch has no error class of its own for a broken file
        raise UserError(f"{path}: the file is damaged or no checkpoint; give a complete one.") from error


def check_buildable(node: Any, where: str = "model") -> None:
    """Make sure that a network's configuration (plain dicts, lists and values) builds nothing but sapnet's classes.

    Raises:
        UserError: it names something else, or holds what a checkpoint cannot carry; the key is named after `where`.
    """
    if isinstance(node, Mapping):
        for key, value in node.items():
            if not isinstance(key, str) or (key.startswith("_") and key.endswith("_") and key not in _HYDRA_KEYS):
                raise UserError(f"{where} has the key {key!r}, which a network's configuration cannot have.")
            if key == "_target_":
                _check_target(value, where)
            check_buildable(value, f"{where}.{key}")
    elif isinstance(node, list | tuple):
        for position, value in enumerate(node):
            check_buildable(value, f"{where}.{position}")
    elif isinstance(node, str) and "${" in node:
        raise UserError(f"{where} holds the interpolation {node!r}, which a stored configuration cannot have.")
    elif node is not None and not isinstance(node, str | int | float):
        raise UserError(f"{where} holds a {type(node).__name__}, which a network's configuration cannot have.")


def _check_target(target: Any, where: str) -> None:
    if not isinstance(target, str) or not target.startswith(_BUILDABLE):
        raise UserError(f"{where} names {target!r}: only the networks, layers and samplers of sapnet may be built.")
    module, _, name = target.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name, None)
    except (ImportError, ValueError):
        found = None
    # The second test keeps out what our modules merely import.
    if not isinstance(found, type) or not f"{found.__module__}.".startswith(_BUILDABLE):
        raise UserError(f"{where} names {target!r}, which is no class of sapnet {__version__}.")


def _plain(node: Any) -> Any:
    if isinstance(node, Mapping):
        return {key: _plain(value) for key, value in node.items()}
    return [_plain(value) for value in node] if isinstance(node, list | tuple) else node


def first_difference(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str | None:
    """Describe the first parameter in which a checkpoint's weights do not fit a network's; None where all fit."""
    for name, value in expected.items():
        if name not in found:
            return f"{name} is missing in the checkpoint"
        if found[name].shape != value.shape:
            return f"{name} is {tuple(found[name].shape)} in the checkpoint and {tuple(value.shape)} in the network"
    extra = next((name for name in found if name not in expected), None)
    return None if extra is None else f"{extra} of the checkpoint is not in the network"


def _info(path: Path, own: Mapping[str, Any]) -> CheckpointInfo:
    version, chosen_on_test = str(own.get("version")), bool(own.get("chosen_on_test"))
    name = str(own.get("network") or _class_names(own["model"]))
    return CheckpointInfo(path, short_hash(path), own["model"], own["generator_steps"], version, name, chosen_on_test)


def _class_names(model: Mapping[str, Any]) -> str:
    # Of a network that was not chosen on a command line, or by a version that did not keep its name.
    name = str(model.get("generator", model)["_target_"]).rpartition(".")[2]
    return f"{name}, sampler={model.get('sampler', 'learned')}" if "generator" in model else name
