"""What a network takes when it runs: peak memory and seconds of a forward pass, measured in a process of its own.

A fresh process, since what ran before leaves memory behind that a later pass uses again without it being seen. On Linux
the kernel's high-water mark of the resident memory is read, on CUDA what PyTorch's allocator handed out; elsewhere
there is no peak to read.
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
#: No further pass is timed after so many seconds.
PATIENCE = 10.0
#: Side of the image that is restored before anything is measured: what is set up once is not a pass' cost.
WARM_UP = 32


@dataclass(frozen=True)
class Footprint:
    """What a forward pass over one image took.

    Attributes:
        height: Rows of the image.
        width: Columns of the image.
        parameter_bytes: Size of the parameters and buffers.
        peak_bytes: What the pass held at its peak beside parameters and image; None where that cannot be measured.
        times: Seconds of each timed pass.
    """

    height: int
    width: int
    parameter_bytes: int
    peak_bytes: int | None
    times: tuple[float, ...]

    @property
    def seconds(self) -> float | None:
        """Median of the timed passes; None if there were none."""
        return statistics.median(self.times) if self.times else None

    @property
    def total_bytes(self) -> int | None:
        """Peak and parameters together; None where the peak was not measured."""
        return None if self.peak_bytes is None else self.peak_bytes + self.parameter_bytes


def footprint(
    build: Callable[[], nn.Module], height: int = 256, width: int = 256, device: str = "cpu", passes: int = 3
) -> Footprint:
    """Run a network without gradients over one random image of 3 x height x width, in a fresh process.

    The process takes as many threads as this one. Weights are random, see :func:`draw_zeros`.

    Args:
        build: Makes the network; picklable, so no lambda.
        height: Rows of the image.
        width: Columns of the image.
        device: Where to run.
        passes: How many passes are timed, after the one whose memory is measured; fewer if they take long.

    Raises:
        UserError: The memory does not suffice.
    """
    short = UserError(f"{width}x{height} pixels take more memory than {device} has: choose a smaller image.")
    try:
        return in_fresh_process(_measure, build, height, width, device, passes, torch.get_num_threads())
    except BrokenProcessPool as error:
        # The kernel ends a process that takes too much.
        raise short from error
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
            raise short from error
        raise


def in_fresh_process(function: Callable[..., T], *arguments: Any) -> T:
    """Return `function(*arguments)` from a process that has done nothing else; all must be picklable."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def peak_memory(run: Callable[[], T], device: torch.device | str = "cpu") -> tuple[T, int | None]:
    """Run, and return the result with the bytes by which memory rose meanwhile above what stood before.

    On the CPU it is the memory of the whole process: nothing else should run in it. None where the system does not say.
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
            raise OSError(f"no peak is kept for {device.type}")
        # Resets the high-water mark to what is resident now.
        Path("/proc/self/clear_refs").write_text("5")
        before = _status("VmRSS")
    except OSError:
        return run(), None
    result = run()
    return result, max(_status("VmHWM") - before, 0)


@torch.no_grad()
def draw_zeros(network: nn.Module, seed: int = 0) -> None:
    """Draw at random the weights that start at zero.

    A new network's offsets are zero and its points lie evenly: it reads memory in a better order than a trained one,
    and would be timed too fast.
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
    sizes = [(min(height, WARM_UP), min(width, WARM_UP)), (height, width)]
    warm_up, image = (torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0)).to(device) for size in sizes)
    parameters = sum(t.nbytes for t in (*network.parameters(), *network.buffers()))
    times: list[float] = []
    with torch.no_grad():
        restore(network, warm_up)
        _, peak = peak_memory(lambda: restore(network, image), device)
        while len(times) < passes and sum(times) < PATIENCE:
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
