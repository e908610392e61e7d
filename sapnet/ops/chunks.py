"""Sizes of the chunks in which points are processed where the taps of a chunk are stored."""

import functools

import torch
from torch import Tensor

CPU_CHUNK = 1 << 20
"""Maximum number of elements in the taps of a chunk (points x taps x channels) on the CPU: 4 MiB in float32."""

DEVICE_SHARE = 128
"""On other devices the taps of a chunk take at most this fraction of the memory: 640 MiB of 80 GiB."""


def chunk_elements(canvas: Tensor) -> int:
    """Return the maximum number of elements in the taps of a chunk."""
    if canvas.device.type == "cpu":
        return CPU_CHUNK
    return _memory(canvas.device) // DEVICE_SHARE // canvas.element_size()


@functools.cache
def _memory(device: torch.device) -> int:
    # Other devices do not report their memory.
    return torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else 4 << 30
