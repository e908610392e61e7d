"""Peak memory and time of a forward pass, measured in a fresh process.

In a used process a pass may reuse memory of earlier work, which would not be counted. The peak is the kernel's
high-water mark of the resident memory on Linux and the peak of PyTorch's allocator on CUDA; it is not available on
other systems.
"""

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from sapnet.errors import UserError
from sapnet.evaluation.complexity import restore

T = TypeVar("T")
#: No further pass is timed after this number of seconds.
MAX_SECONDS = 10.0
#: Side in pixels of the image for the warm-up, which excludes one-time costs from the measurement.
WARM_UP_SIDE = 32


@dataclass(frozen=True)
class Footprint:
    """Memory and time of a forward pass over one image.

    Attributes:
        height: Rows of the image.
        width: Columns of the image.
        parameter_bytes: Bytes of the parameters and buffers.
        peak_bytes: Peak bytes of the pass without parameters and image; None if they cannot be measured.
        times: Seconds of each timed pass.
    """

    height: int
    width: int
    parameter_bytes: int
    peak_bytes: int | None
    times: tuple[float, ...]

    @property
    def seconds(self) -> float | None:
        """Median time of the timed passes; None if there are none."""
        return statistics.median(self.times) if self.times else None

    @property
    def total_bytes(self) -> int | None:
        """Peak bytes including parameters; None if the peak was not measured."""
        return None if self.peak_bytes is None else self.peak_bytes + self.parameter_bytes


def footprint(
    build: Callable[[], nn.Module], height: int = 256, width: int = 256, device: str = "cpu", passes: int = 3
) -> Footprint:
    """Measure a network without gradients on one random image of 3 x height x width, in a fresh process.

    The process uses as many threads as this one. The weights are random, see `draw_zeros`.

    Args:
        build: Builds the network. It must be picklable (no lambda).
        height: Rows of the image.
        width: Columns of the image.
        device: Device of the network.
        passes: Number of timed passes after the one whose memory is measured; fewer if they exceed `MAX_SECONDS`.

    Raises:
        UserError: There is not enough memory.
    """
    out_of_memory = UserError(f"{width}x{height} pixels take more memory than {device} has: choose a smaller image.")
    try:
        return in_fresh_process(_measure, build, height, width, device, passes, torch.get_num_threads())
    except BrokenProcessPool as error:
        # The kernel kills a process that uses too much memory.
        raise out_of_memory from error
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
            raise out_of_memory from error
        raise


def in_fresh_process(function: Callable[..., T], *arguments: Any) -> T:
    """Return `function(*arguments)`, run in a new process; function, arguments and result must be picklable."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def peak_memory(run: Callable[[], T], device: torch.device | str = "cpu") -> tuple[T, int | None]:
    """Run a function and measure the peak increase of memory meanwhile.

    On the CPU this is the memory of the whole process, in which nothing else should run.

    Args:
        run: The function.
        device: Device whose memory is measured.

    Returns:
        The result of the function and the increase in bytes, or None if the system does not provide it.
    """
    device = torch.device(device)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        result = run()
        torch.cuda.synchronize(device)
        return result, torch.cuda.max_memory_allocated(device) - before
    try:
        if device.type != "cpu":
            raise OSError(f"no peak memory is available for {device.type}")
        # Resets the high-water mark to the memory that is resident now.
        Path("/proc/self/clear_refs").write_text("5")
        before = _status("VmRSS")
    except OSError:
        return run(), None
    result = run()
    return result, max(_status("VmHWM") - before, 0)


@torch.no_grad()
def draw_zeros(network: nn.Module, seed: int = 0) -> None:
    """Draw the zero-initialised weights of a network at random.

    In a new network all offsets are zero and the points are evenly spaced. Its memory accesses are more regular than
    those of a trained network, and measured times would be too short.
    """
    rng = torch.Generator().manual_seed(seed)
    for weight in network.parameters():
        if weight.ndim > 1 and not weight.any():
            fan_in = max(weight.shape[1:].numel(), 1)
            weight.copy_(torch.randn(weight.shape, generator=rng) / fan_in**0.5)


def _measure(
    build: Callable[[], nn.Module], height: int, width: int, device: str, passes: int, threads: int
) -> Footprint:
    torch.set_num_threads(threads)
    network = build().eval()
    draw_zeros(network)
    network.to(device)
    sizes = [(min(height, WARM_UP_SIDE), min(width, WARM_UP_SIDE)), (height, width)]
    warm_up, image = (torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0)).to(device) for size in sizes)
    parameters = sum(t.nbytes for t in (*network.parameters(), *network.buffers()))
    times: list[float] = []
    with torch.no_grad():
        restore(network, warm_up)
        _, peak = peak_memory(lambda: restore(network, image), device)
        while len(times) < passes and sum(times) < MAX_SECONDS:
            start = time.perf_counter()
            restore(network, image)
            if image.is_cuda:
                torch.cuda.synchronize(image.device)
            times.append(time.perf_counter() - start)
    return Footprint(height, width, parameters, peak, tuple(times))


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"no {field} in /proc/self/status")
