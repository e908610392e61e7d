"""Import of the weights that the authors of a network distribute."""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sapnet.errors import UserError
from sapnet.models.dmphn import DMPHN, StackedDMPHN
from sapnet.models.dmphn_weights import load_folder
from sapnet.models.inputs import InputRequirements
from sapnet.models.weight_files import files_of, read_weights

#: Number of names that a message lists.
_LISTED = 3


def load_published(network: nn.Module, path: str | Path) -> str:
    """Load the authors' weights into a network; the network is not changed unless all weights fit.

    Only tensors and plain values are read, so a file cannot execute code. Wrappers such as `state_dict` and the prefix
    `module.` of parallel training are removed.

    Args:
        network: A network with `InputRequirements`, whose modules are named as in the file; or DMPHN, whose authors
            distribute a folder.
        path: The file, one of the two files of a checkpoint of TensorFlow, or DMPHN's folder.

    Returns:
        The first 12 hexadecimal digits of a SHA-256 over all files, which identifies the weights in results.

    Raises:
        UserError: The network has no published weights, a file is missing, damaged or unsafe, or weights do not fit.
    """
    path = Path(path)
    if isinstance(network, DMPHN | StackedDMPHN):
        return load_folder(network, path)
    if not isinstance(getattr(network, "requirements", None), InputRequirements):
        raise UserError(
            f"weights: no weights are published for this {type(network).__name__}; use the network of a publication,"
            " such as network=restormer or network=dmphn_1_2_4."
        )
    if path.is_dir():
        raise UserError(f"weights={path}: a folder; give the file with the weights of {type(network).__name__}.")
    network.load_state_dict(_fitting(path, read_weights(path), network))
    digest = hashlib.sha256()
    for part in files_of(path):
        with open(part, "rb") as file:
            hashlib.file_digest(file, lambda: digest)
    return digest.hexdigest()[:12]


def _fitting(path: Path, stored: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    expected: dict[str, Tensor] = network.state_dict()
    # Files of early versions of PyTorch do not contain this counter, which no result depends on.
    counters = {name: value for name, value in expected.items() if name.endswith(".num_batches_tracked")}
    missing = [name for name in expected if name not in stored and name not in counters]
    superfluous = [name for name in stored if name not in expected]
    faults = [f"the file lacks {len(missing)} of the network's tensors, {_listed(missing)}"] if missing else []
    if superfluous:
        faults.append(f"the network lacks {len(superfluous)} of the file's tensors, {_listed(superfluous)}")
    if faults:
        raise UserError(f"{path}: not the weights of this {type(network).__name__}: {', and '.join(faults)}.")
    for name, value in stored.items():
        if value.shape != expected[name].shape:
            shapes = f"{tuple(value.shape)} but {tuple(expected[name].shape)} in the network"
            raise UserError(f"{path}: {name} is {shapes}; set the sizes in the network's config to the published ones.")
    weights = counters | dict(stored)
    for names in _shared(network):
        different = [name for name in names if not torch.equal(weights[names[0]], weights[name])]
        if different:
            raise UserError(f"{path}: {names[0]} and {different[0]} differ, but the network has one value for both.")
    return weights


def _shared(network: nn.Module) -> list[list[str]]:
    # Names of one and the same tensor.
    names: dict[Any, list[str]] = defaultdict(list)
    for name, value in network.state_dict(keep_vars=True).items():
        names[id(value)].append(name)
    return [each for each in names.values() if len(each) > 1]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_LISTED]) + (", ..." if len(names) > _LISTED else "")
