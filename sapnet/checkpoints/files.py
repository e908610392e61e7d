"""Safe reading of checkpoint files, and the metadata that sapnet adds to them.

Beside what Lightning stores, a checkpoint has the key "sapnet": metadata with the configuration of the network as plain
dicts and the number of generator steps. A checkpoint is therefore enough to rebuild its network.
"""

import hashlib
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch

from sapnet import __version__
from sapnet.checkpoints.network_config import check_network_config, update_targets
from sapnet.errors import UserError

FORMAT = 1
#: Key of the metadata in a checkpoint.
METADATA = "sapnet"


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint that sapnet wrote, on the CPU, without running code from it.

    Raises:
        UserError: The file is missing, a folder, damaged, contains more than tensors and plain values, or was not
            written by sapnet.
    """
    path = Path(path)
    checkpoint = read_plain(path, "cpu")
    metadata = checkpoint.get(METADATA)
    if not isinstance(metadata, dict) or not isinstance(checkpoint.get("state_dict"), dict):
        raise UserError(f"{path}: not a checkpoint of sapnet (no network configuration); use one that sapnet wrote.")
    if metadata.get("format") != FORMAT:
        raise UserError(
            f"{path}: this checkpoint has format {metadata.get('format')} (sapnet {metadata.get('version')}), "
            f"but sapnet {__version__} reads format {FORMAT}: use the version that wrote it."
        )
    if not isinstance(metadata.get("model"), dict) or not isinstance(metadata.get("generator_steps"), int):
        raise UserError(f"{path}: the metadata of the checkpoint is damaged; use another checkpoint.")
    return checkpoint


def add_metadata(
    checkpoint: dict[str, Any],
    network_config: Mapping[str, Any],
    generator_steps: int,
    chosen_on_test: bool = False,
    network_name: str | None = None,
    run_config: Mapping[str, Any] | None = None,
) -> None:
    """Add the metadata of sapnet to a checkpoint, for `LightningModule.on_save_checkpoint`.

    Args:
        checkpoint: Checkpoint to change.
        network_config: Hydra configuration that built the network, as plain dicts.
        generator_steps: Generator steps so far.
        chosen_on_test: Whether the run validates on test images. Results of the checkpoint report it.
        network_name: Name of the network in results, such as `network=mini sampling=nu`.
        run_config: Resolved configuration of the run, which is compared when the training is resumed.

    Raises:
        UserError: The network cannot be rebuilt from `network_config`, because it names a class outside sapnet's
            networks or contains something other than plain values.
    """
    check_network_config(network_config)
    checkpoint[METADATA] = {
        "format": FORMAT,
        "model": _as_plain(network_config),
        "generator_steps": int(generator_steps),
        "version": __version__,
        "chosen_on_test": chosen_on_test,
        **({} if network_name is None else {"network": network_name}),
        "config": None if run_config is None else _as_plain(run_config),
    }


def short_hash(path: str | Path) -> str:
    """Return the first 12 hexadecimal digits of a file's SHA-256, which identify the weights of a result."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]


def read_plain(path: Path, map_location: Any) -> dict[str, Any]:
    """Read a checkpoint, which may be one that sapnet did not write, without running code from it.

    Raises:
        UserError: The file is missing, a folder, damaged, or contains more than tensors and plain values.
    """
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
        raise UserError(f"{path}: not a checkpoint but a {type(checkpoint).__name__}; use one that sapnet wrote.")
    if isinstance(checkpoint.get(METADATA), dict):
        checkpoint[METADATA] = update_targets(checkpoint[METADATA])
    return checkpoint


def _load(file: BinaryIO, path: Path, map_location: Any) -> Any:
    try:
        with warnings.catch_warnings():
            # For pickles that PyTorch did not write; the error below is enough.
            warnings.filterwarnings("ignore", ".*pickle protocol.*")
            return torch.load(file, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path}: not loaded: the file is damaged, not a checkpoint, or contains more than tensors and plain "
            "values, which could run code; use a checkpoint that sapnet wrote."
        ) from error
    except Exception as error:  # PyTorch has no error class for damaged files
        raise UserError(f"{path}: the file is damaged or not a checkpoint; use a complete one.") from error


def _as_plain(node: Any) -> Any:
    if isinstance(node, Mapping):
        return {key: _as_plain(value) for key, value in node.items()}
    return [_as_plain(value) for value in node] if isinstance(node, list | tuple) else node
