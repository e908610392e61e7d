"""Memory traffic of a forward pass, and the largest rates of arithmetic and copying on this machine."""

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
    """Context that counts the bytes read and written by operators, except views.

    Every operator is assumed to read each of its inputs once and to write its results; caches are ignored.

    Attributes:
        read: Bytes of the inputs of all operators.
        written: Bytes of the results of all operators.
    """

    def __init__(self):
        super().__init__()
        self.read = self.written = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator and count its tensors."""
        result = func(*args, **(kwargs or {}))
        returns = func._schema.returns
        is_view = all(one.alias_info is not None and not one.alias_info.is_write for one in returns)
        if is_view or func.overloadpacket in _EMPTY:
            return result
        self.read += sum(_bytes(t) for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor))
        self.written += sum(_bytes(t) for t in tree_leaves(result) if isinstance(t, Tensor))
        return result


def _bytes(tensor: Tensor) -> int:
    # An expanded tensor occupies only its storage.
    return min(tensor.nbytes, tensor.untyped_storage().nbytes())


@torch.no_grad()
def traffic(build: Callable[[], nn.Module], height: int, width: int) -> Traffic:
    """Count the bytes of a forward pass of a network on the meta device."""
    with torch.device("meta"):
        network = build().eval()
    image = torch.empty(1, 3, height, width, device="meta")
    with Traffic() as counted:
        restore(network, image)
    return counted


@dataclass(frozen=True)
class Kernel:
    """A plain convolution.

    Attributes:
        run: Runs the convolution.
        name: Description for tables.
        macs: Number of multiply-adds.
    """

    run: Callable[[], None]
    name: str
    macs: int


def fastest_convolution(device: torch.device, side: int = 256) -> Kernel:
    """Return the plain convolution with the highest rate of multiply-adds among several widths, sizes and layouts.

    Args:
        device: Device of the convolution.
        side: Height and width of its image.
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
    """Return the rate of a large copy in bytes read and written per second."""
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
