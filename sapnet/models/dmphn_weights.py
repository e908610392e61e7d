"""Import of the folder of weights that the authors of DMPHN distribute."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import cast

from torch import Tensor, nn

from sapnet.errors import UserError
from sapnet.models.dmphn import DMPHN, StackedDMPHN
from sapnet.models.weight_files import read_weights
from sapnet.sampling.plugin import PointResBlock


def load_folder(network: DMPHN | StackedDMPHN, folder: Path) -> str:
    """Load the authors' weights into a network; the network is not changed unless all weights fit.

    There is one file with a state dict for every encoder and decoder: `encoder_lv1.pkl` for the top level, and
    `encoder_s1_lv1.pkl` and so on for stacks.

    Args:
        network: `DMPHN` as published (3 or 4 levels), or `StackedDMPHN`.
        folder: Folder with the files.

    Returns:
        The first 12 hexadecimal digits of a SHA-256 over all files, which identifies the weights in results.

    Raises:
        UserError: The network has no published weights, a file is missing, damaged or unsafe, or weights do not fit.
    """
    digest = hashlib.sha256()
    if not folder.is_dir():
        raise UserError(f"weights={folder}: no such folder; use the folder that contains encoder_lv1.pkl.")
    states = []
    for name, part, layers in _parts(network):
        path = folder / f"{name}.pkl"
        states.append((part, _renamed(path, read_weights(path), layers, part)))
        digest.update(path.read_bytes())
    for part, state in states:
        part.load_state_dict(state)
    return digest.hexdigest()[:12]


def _parts(network: nn.Module) -> Iterator[tuple[str, nn.Module, dict[str, nn.Module]]]:
    # Yields the name of each file, the module that it contains, and the module's layers by their names in the file.
    if isinstance(network, DMPHN) and not network.progressive and network.scales == (2, 4):
        stacks = {"": network}
    elif isinstance(network, StackedDMPHN) and network.typed_stacks[0].scales == (2, 4):
        stacks = {f"s{i}_": stack for i, stack in enumerate(network.typed_stacks, start=1)}
    else:
        raise UserError(
            f"weights: no weights are published for this {type(network).__name__}; "
            "use network=dmphn_1_2_4, network=dmphn_1_2_4_8 or network=dmphn_stack4."
        )
    for prefix, stack in stacks.items():
        for number, level in enumerate(reversed(stack.typed_levels), start=1):
            encoder, decoder = level.encoder, level.decoder
            layers = {"layer1": encoder.stem, "layer5": encoder.down[0], "layer9": encoder.down[1]}
            yield f"encoder_{prefix}lv{number}", encoder, layers | _blocks((2, 6, 10), encoder.blocks)
            layers = {"layer16": decoder.up[1], "layer20": decoder.up[0], "layer24": decoder.head}
            yield f"decoder_{prefix}lv{number}", decoder, layers | _blocks((21, 17, 13), decoder.blocks)


def _blocks(numbers: Sequence[int], pairs: nn.ModuleList) -> dict[str, nn.Module]:
    layers: dict[str, nn.Module] = {}
    for number, pair in zip(numbers, pairs, strict=True):
        for j, block in enumerate(cast("list[PointResBlock]", pair)):
            layers |= {f"layer{number + j}.0": block.first, f"layer{number + j}.2": block.second}
    return layers


def _renamed(
    path: Path, state: Mapping[str, Tensor], layers: Mapping[str, nn.Module], part: nn.Module
) -> dict[str, Tensor]:
    names = {id(module): name for name, module in part.named_modules()}
    renamed = {}
    for stored_name, module in layers.items():
        for kind, parameter in module.named_parameters():
            value = state.get(f"{stored_name}.{kind}")
            if value is None:
                raise UserError(f"{path}: {stored_name}.{kind} is missing: these weights belong to another network.")
            if value.shape != parameter.shape:
                shapes = f"{tuple(value.shape)} but {tuple(parameter.shape)} in the network"
                raise UserError(
                    f"{path}: {stored_name}.{kind} is {shapes}; set network.channels to the published widths."
                )
            renamed[f"{names[id(module)]}.{kind}"] = value
    if len(state) > len(renamed):
        raise UserError(f"{path}: contains {len(state)} tensors, but the network has {len(renamed)}.")
    return renamed
