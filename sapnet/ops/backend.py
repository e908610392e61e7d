"""Selection of the implementation of the operators: the compiled CPU kernel or plain PyTorch."""

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
def get_backend(device: str) -> ModuleType:
    """Return the module with the `forward` and `backward` for a device type; selected once per process.

    The environment variable `SAPNET_OPS` forces `reference` (plain PyTorch) or `cpu` (compiled). By default the
    compiled kernel is used on the CPU. If it cannot be built, plain PyTorch is used with one warning that states the
    reason. Plain PyTorch is used on all other devices.

    Raises:
        UserError: `SAPNET_OPS` has another value, or requires a compiled kernel that is not available.
    """
    forced = os.environ.get("SAPNET_OPS", "")
    if forced not in ("", "reference", "cpu"):
        raise UserError(f"SAPNET_OPS is {forced!r}: set it to 'reference' or 'cpu', or unset it")
    if forced == "cpu" and device != "cpu":
        raise UserError(f"SAPNET_OPS is 'cpu', the tensors are on {device}: unset it")
    if forced == "reference" or device != "cpu":
        return reference
    try:
        cpu.load()
    except BuildError as error:
        if forced:
            raise UserError(f"SAPNET_OPS is 'cpu', but the kernel cannot be built: {error}") from error
        warnings.warn(
            f"the filter runs in plain PyTorch, several times slower, because its kernel cannot be built: {error}",
            stacklevel=2,
        )
        return reference
    return cpu


def can_fuse(features: Tensor) -> bool:
    """Return whether the compiled kernel can replace several standard operators on these features.

    It can in float32 and float64 on the CPU. It is not used under autocast, or while operators are counted or traced,
    so that counts and traces show the standard operators in their own layers.
    """
    if features.device.type != "cpu" or features.dtype not in (torch.float32, torch.float64):
        return False
    if torch.is_autocast_enabled("cpu") or is_in_torch_dispatch_mode():
        return False
    return get_backend("cpu") is cpu
