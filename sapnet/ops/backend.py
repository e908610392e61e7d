"""Which code computes the operators: compiled for this CPU, or plain torch."""

import functools
import os
import warnings
from types import ModuleType

import torch
from torch import Tensor
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from sapnet.errors import UserError
from sapnet.ops import cpu, reference
from sapnet.ops.build import BuildError


@functools.cache
def choose(device: str) -> ModuleType:
    """The module whose `forward` and `backward` serve tensors of a device type, decided once per process.

    The environment variable `SAPNET_OPS` forces one: `reference` (plain torch) or `cpu` (compiled). Without it the
    compiled one serves the CPU; where it cannot be built plain torch takes its place, with one warning that says why.
    Other devices are served by plain torch.

    Raises:
        UserError: `SAPNET_OPS` has another value, or asks for the compiled kernel where it cannot be had.
    """
    forced = os.environ.get("SAPNET_OPS", "")
    if forced not in ("", "reference", "cpu"):
        raise UserError(f"SAPNET_OPS is {forced!r}: set it to 'reference' or 'cpu', or leave it out")
    if forced == "cpu" and device != "cpu":
        raise UserError(f"SAPNET_OPS is 'cpu', the tensors are on {device}: leave it out")
    if forced == "reference" or device != "cpu":
        return reference
    try:
        cpu.load()
    except BuildError as error:
        if forced:
            raise UserError(f"SAPNET_OPS is 'cpu', but the kernel cannot be built: {error}") from error
        warnings.warn(
            f"the filter runs in plain torch, several times slower, as its kernel cannot be built: {error}",
            stacklevel=2,
        )
        return reference
    return cpu


def fuses(features: Tensor) -> bool:
    """Return whether the compiled kernel takes the place of several usual operators on these features.

    It does in float32 and float64 on the CPU, but neither under autocast nor while operators are counted or traced, so
    that counts and traces show the usual operators in the layers they belong to.
    """
    if features.device.type != "cpu" or features.dtype not in (torch.float32, torch.float64):
        return False
    if torch.is_autocast_enabled("cpu") or is_in_torch_dispatch_mode():
        return False
    return choose("cpu") is cpu
