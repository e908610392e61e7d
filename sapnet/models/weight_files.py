"""Safe reading of the files in which authors distribute weights."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sapnet.errors import UserError
from sapnet.models.weight_formats import BUNDLE, FormatError, files_of_bundle, read_bundle, read_caffe_model

#: Entries of a file that contain the weights, the preferred one first: moving averages, names in training programs, and
#: the generator of an adversarial training.
WRAPPERS = ("params_ema", "params", "state_dict", "model", "net", "G")
#: Prefix that parallel training adds to all names.
PREFIX = "module."


def files_of(path: Path) -> list[Path]:
    """Return the files that contain the weights, given one of them: two for a checkpoint of TensorFlow."""
    return list(files_of_bundle(path)) if path.name.endswith(BUNDLE) else [path]


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the weights of a file by name, without the wrappers and the prefix of the authors' programs.

    The file is one of PyTorch, or by its ending a Caffe model or a checkpoint of TensorFlow 1.

    Raises:
        UserError: The file is missing, is damaged, contains objects other than tensors and plain values, or contains no
            weights.
    """
    if path.suffix == ".caffemodel":
        return _read_foreign(path, read_caffe_model)
    if path.name.endswith(BUNDLE):
        return _read_foreign(path, read_bundle)
    stored = _read(path)
    if isinstance(stored, Mapping) and "sapnet" in stored:
        raise UserError(f"{path}: a checkpoint of sapnet train; use checkpoint={path} without network and weights.")
    while isinstance(stored, Mapping):
        wrapped = next((stored[name] for name in WRAPPERS if isinstance(stored.get(name), Mapping)), None)
        if wrapped is None:
            break
        stored = wrapped
    if not isinstance(stored, Mapping) or not stored or not all(isinstance(value, Tensor) for value in stored.values()):
        raise UserError(f"{path}: not the weights of a network (a mapping of names to tensors).")
    return {str(name).removeprefix(PREFIX): value for name, value in stored.items()}


def _read_foreign(path: Path, reader: Callable[[Path], dict[str, Tensor]]) -> dict[str, Tensor]:
    try:
        return reader(path)
    except FileNotFoundError as error:
        raise UserError(f"{error.filename}: no such file; give the files that the authors distribute.") from error
    except FormatError as error:
        raise UserError(f"{path}: not loaded: {error}.") from error


def _read(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; give a file of the weights that the authors distribute.") from error
    except Exception as error:  # torch has no specific error class for a broken or unsafe file
        raise UserError(
            f"{path}: not loaded, because it is damaged or contains objects other than tensors and plain values, which"
            " could execute code."
        ) from error
