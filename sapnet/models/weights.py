"""Published weights of DMPHN, read from the files that its authors distribute."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from sapnet.errors import UserError
from sapnet.models.dmphn import DMPHN, StackedDMPHN
from sapnet.sampling.plugin import PointResBlock


def load_published(network: nn.Module, folder: str | Path) -> str:
    """Give a network its authors' weights; nothing is changed unless all of them fit.

    There is one state dict for every encoder and decoder: `encoder_lv1.pkl` is the top level's, and a stack's are
    called `encoder_s1_lv1.pkl`. They are read as tensors and plain values alone, so no file can run code; the prefix
    `module.` of parallel training is taken off.

    Args:
        network: `DMPHN` as published (of 3 or 4 levels), or `StackedDMPHN`.
        folder: Where the files are.

    Returns:
        The first 12 hexadecimal digits of a SHA-256 over all files: which weights a result was made with.

    Raises:
        UserError: The network has no published weights, a file is missing, damaged or unsafe, or weights do not fit.
    """
    folder, digest = Path(folder), hashlib.sha256()
    if not folder.is_dir():
        raise UserError(f"weights={folder}: there is no such folder; give the one that holds encoder_lv1.pkl.")
    found = []
    for name, part, layers in _parts(network):
        path = folder / f"{name}.pkl"
        found.append((part, _fitting(path, _read(path), layers, part)))
        digest.update(path.read_bytes())
    for part, state in found:
        part.load_state_dict(state)
    return digest.hexdigest()[:12]


def _parts(network: nn.Module) -> Iterator[tuple[str, nn.Module, dict[str, nn.Module]]]:
    # Name of the file, what it fills, and that part's layers by their names in the file.
    if isinstance(network, DMPHN) and not network.progressive and network.scales == (2, 4):
        stacks = {"": network}
    elif isinstance(network, StackedDMPHN) and network.typed_stacks[0].scales == (2, 4):
        stacks = {f"s{i}_": stack for i, stack in enumerate(network.typed_stacks, start=1)}
    else:
        raise UserError(
            f"weights: none are published for this {type(network).__name__}; "
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


def _read(path: Path) -> dict[str, Tensor]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(
            f"{path}: there is no such file; the folder must hold one for every encoder and decoder."
        ) from error
    except Exception as error:  # torch has no error class of its own for a broken or unsafe file
        raise UserError(
            f"{path}: not loaded, for it is damaged or holds more than tensors and plain values, which could run code."
        ) from error
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path}: not the weights of an encoder or decoder (a mapping of names to tensors).")
    return {str(name).removeprefix("module."): value for name, value in state.items()}


def _fitting(
    path: Path, state: Mapping[str, Tensor], layers: Mapping[str, nn.Module], part: nn.Module
) -> dict[str, Tensor]:
    ours = {id(module): name for name, module in part.named_modules()}
    fitting = {}
    for theirs, module in layers.items():
        for kind, parameter in module.named_parameters():
            value = state.get(f"{theirs}.{kind}")
            if value is None:
                raise UserError(f"{path}: {theirs}.{kind} is missing, so these are not the weights of this network.")
            if value.shape != parameter.shape:
                shapes = f"{tuple(value.shape)} where the network has {tuple(parameter.shape)}"
                raise UserError(f"{path}: {theirs}.{kind} is {shapes}; set model.channels to the published widths.")
            fitting[f"{ours[id(module)]}.{kind}"] = value
    if len(state) > len(fitting):
        raise UserError(f"{path}: holds {len(state)} tensors where this network has {len(fitting)}.")
    return fitting
