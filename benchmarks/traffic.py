"""What a forward pass has to do, and what the machine could do at best: operations, bytes, and the rates of both."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.cases import synchronise
from sapnet.evaluation.complexity import restore

aten = torch.ops.aten
_EMPTY = {aten.empty, aten.empty_like, aten.new_empty, aten.empty_strided, aten.new_empty_strided}


class Traffic(TorchDispatchMode):
    """While this context is open, adds up the bytes that operators read and write; views move none.

    Every operator is taken to fetch each of its inputs once and to store its results: what caches save is not known.

    Attributes:
        read: Bytes of the operators' inputs.
        written: Bytes of their results: of all activations together.
    """

    def __init__(self):
        super().__init__()
        self.read = self.written = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator and note its tensors."""
        result = func(*args, **(kwargs or {}))
        returns = func._schema.returns
        is_view = all(one.alias_info is not None and not one.alias_info.is_write for one in returns)
        if is_view or func.overloadpacket in _EMPTY:
            return result
        self.read += sum(_bytes(t) for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor))
        self.written += sum(_bytes(t) for t in tree_leaves(result) if isinstance(t, Tensor))
        return result


def _bytes(tensor: Tensor) -> int:
    # What was expanded lies in memory once.
    return min(tensor.nbytes, tensor.untyped_storage().nbytes())


@torch.no_grad()
def traffic(build: Callable[[], nn.Module], height: int, width: int) -> Traffic:
    """Count the bytes of a forward pass of a network from its shapes alone."""
    with torch.device("meta"):
        network = build().eval()
    image = torch.empty(1, 3, height, width, device="meta")
    with Traffic() as counted:
        restore(network, image)
    return counted


@dataclass(frozen=True)
class Kernel:
    """A plain convolution: its run, what it is, and its multiply-adds."""

    run: Callable[[], None]
    name: str
    macs: int


def fastest_convolution(device: torch.device, side: int = 256) -> Kernel:
    """Return the plain convolution that this machine computes at the highest rate: nothing it does is faster.

    Several widths, kernel sizes and memory layouts are tried; all are large, dense, stride 1.

    Args:
        device: Where to run.
        side: Rows and columns of its image.
    """
    kernels = [
        _convolution(device, side, channels, size, layout)
        for channels, size in ((64, 5), (128, 3))
        for layout in (torch.contiguous_format, torch.channels_last)
    ]
    return max(kernels, key=lambda kernel: kernel.macs / min(_seconds(kernel.run) for _ in range(5)))


def _convolution(device: torch.device, side: int, channels: int, size: int, layout: torch.memory_format) -> Kernel:
    rng = torch.Generator().manual_seed(0)
    image = torch.randn(1, channels, side, side, generator=rng).to(device, memory_format=layout)
    weight = torch.randn(channels, channels, size, size, generator=rng).to(device, memory_format=layout)

    @torch.no_grad()
    def run() -> None:
        F.conv2d(image, weight, padding=size // 2)
        synchronise(device)

    order = "channels last" if layout == torch.channels_last else "channels first"
    return Kernel(run, f"{size}x{size}, {channels} channels, {side}x{side}, {order}", (side * channels * size) ** 2)


def bandwidth(device: torch.device, values: int = 1 << 24) -> float:
    """Return bytes per second of a large copy, read and written counted."""
    source = torch.randn(values, device=device)
    target = torch.empty_like(source)

    def run() -> None:
        target.copy_(source)
        synchronise(device)

    return 2 * source.nbytes / min(_seconds(run) for _ in range(10))


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
