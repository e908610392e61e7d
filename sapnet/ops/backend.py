"""Selection of the implementation of the operators: the compiled CPU kernel, Triton kernels or plain PyTorch."""

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

BACKENDS = ("reference", "cpu", "triton")


@functools.cache
def get_backend(device: str) -> ModuleType:
    """Return the module with the `forward` and `backward` for a device type; selected once per process.

    By default the compiled kernel is used on the CPU, and the Triton kernels on CUDA devices. If the compiled kernel
    cannot be built, or Triton is missing or its results are wrong on a small case, plain PyTorch is used with one
    warning that states the reason. Plain PyTorch is used on all other devices. The environment variable `SAPNET_OPS`
    forces `reference` (plain PyTorch), `cpu` (compiled) or `triton` (on the CPU only with `TRITON_INTERPRET=1`).

    Raises:
        UserError: `SAPNET_OPS` has another value, or requires kernels that are not available.
    """
    forced = os.environ.get("SAPNET_OPS", "")
    if forced not in ("", *BACKENDS):
        raise UserError(f"SAPNET_OPS is {forced!r}: set it to {', '.join(map(repr, BACKENDS))}, or unset it")
    if forced == "cpu" and device != "cpu":
        raise UserError(f"SAPNET_OPS is 'cpu', the tensors are on {device}: unset it")
    if forced == "triton" and device == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
        raise UserError("SAPNET_OPS is 'triton', the tensors are on cpu: unset it")
    name = forced or {"cpu": "cpu", "cuda": "triton"}.get(device, "reference")
    if name == "reference":
        return reference
    try:
        return _compiled_backend() if name == "cpu" else _triton_backend(device)
    except BuildError as error:
        if forced:
            raise UserError(f"SAPNET_OPS is {forced!r}, but {error}") from error
        warnings.warn(f"the filter runs in plain PyTorch, several times slower: {error}", stacklevel=2)
        return reference


def _compiled_backend() -> ModuleType:
    try:
        cpu.load()
    except BuildError as error:
        raise BuildError(f"its kernel cannot be built: {error}") from error
    return cpu


def _triton_backend(device: str) -> ModuleType:
    try:
        from sapnet.ops import gpu, self_check
    except ImportError as error:
        raise BuildError(f"Triton cannot be imported ({error}): install triton") from error
    difference = self_check.difference(gpu, device)
    if difference is not None:
        raise BuildError(f"the Triton kernels fail on this device: {difference}")
    return gpu


def supports_half_precision(device: str) -> bool:
    """Return whether the filter accepts float16 and bfloat16 features on a device type."""
    return device == "cuda" and get_backend(device).__name__ == "sapnet.ops.gpu"


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
