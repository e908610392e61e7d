"""Measure time and memory of the filter operator relative to a plain convolution and to the arithmetic floor.

Run `python -m benchmarks.ops`. The speed of shared machines varies, so the convolution runs before and after every
sample, and the table shows the median of the ratios. Results are not asserted.
"""

import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from sapnet.evaluation.footprint import in_fresh_process, peak_memory
from sapnet.ops import adaptive_filter, backend

SIDE, CHANNELS, SIZE, SHARE, ROUNDS = 256, 64, 5, 4, 15
GOALS = {"forward, dense": 1.3, "both, dense": 2.0}
GOAL_MIB = 64


def main() -> None:
    """Run all measurements."""
    threads, served = torch.get_num_threads(), backend.get_backend("cpu").__name__
    print(f"{SIDE} x {SIDE} positions, {CHANNELS} channels in and out, {SIZE} x {SIZE} taps with V and offsets")
    print(f"torch {torch.__version__}, {threads} threads, backend {served}")
    floors = print_floor()
    print_times(floors)
    print_memory()


def inputs(points: bool) -> list[Tensor | None]:
    """Return the arguments of the operator for all positions, or for a random sorted quarter of them."""
    rng = torch.Generator().manual_seed(0)
    positions, taps = SIDE * SIDE, SIZE * SIZE
    index = None
    if points:
        index = torch.randperm(positions, generator=rng)[: positions // SHARE].sort().values[None]
        positions //= SHARE
    canvas = torch.randn(1, SIDE, SIDE, CHANNELS, generator=rng)
    weight = torch.randn(CHANNELS, CHANNELS, SIZE, SIZE, generator=rng) / SIZE
    kernel = torch.randn(1, positions, taps, generator=rng)
    # Offsets of a trained network are several pixels, bounded by 8.
    offsets = 8 * torch.tanh(torch.randn(1, positions, taps, 2, generator=rng) / 4)
    return [*(t.requires_grad_() for t in (canvas, weight, kernel, offsets)), index]


def print_floor() -> dict[str, float]:
    """Print operations and bytes, and return the lower bound of the time in seconds by row of the table."""
    positions, taps, c = SIDE * SIDE, SIZE * SIZE, CHANNELS
    a = torch.randn(1024, 1024)
    rate = 2 * 1024**3 / min(_time(lambda: a @ a) for _ in range(100))
    source, target = torch.randn(1 << 24), torch.empty(1 << 24)
    bandwidth = 2 * source.nbytes / min(_time(lambda: target.copy_(source)) for _ in range(10))
    print(f"\nmeasured: matrix products {rate / 1e9:.0f} GFLOP/s, copying {bandwidth / 1e9:.0f} GB/s")
    floors = {}
    for kind, share in (("dense", 1), ("points", SHARE)):
        n = positions // share
        mixing, reading = 2 * n * taps * c * c, 2 * n * taps * 5 * c
        # Each array is read or written once; V, offsets and output have one entry per point.
        sizes = positions * c, taps * c * c, n * taps, 2 * n * taps, n * c
        moved = {"forward": 4 * sum(sizes), "both": 4 * (sum(sizes) * 2 + sum(sizes[:4]))}
        # Backward: two products of the same size, two gathers, one scatter, four dot products per tap.
        work = {"forward": mixing + reading, "both": 3 * mixing + reading * 3 + 2 * n * taps * 4 * c}
        for way in ("forward", "both"):
            floors[f"{way}, {kind}"] = max(work[way] / rate, moved[way] / bandwidth)
            print(f"{way + ', ' + kind:16} {work[way] / 1e9:6.1f} GFLOP  {moved[way] / 2**20:6.1f} MiB", end="")
            print(f"  at best {1e3 * floors[f'{way}, {kind}']:6.1f} ms")
    return floors


def print_times(floors: dict[str, float]) -> None:
    """Print the median times, the median ratios, and the best time relative to the floor."""
    conv = _fastest_convolution()
    print(f"\n{'':18}{'ms':>8}{'convolution':>13}{'ratio':>8}{'goal':>8}{'x floor':>9}")
    for kind in ("dense", "points"):
        arguments = inputs(kind == "points")
        for way in ("forward", "both"):
            run = _runner(lambda: adaptive_filter(*arguments), way)  # noqa: B023
            calibrate = _runner(conv, way)
            run(), calibrate()
            times, ratios, calibrations = [], [], []
            for _ in range(ROUNDS):
                before, t, after = _time(calibrate), _time(run), _time(calibrate)
                times.append(t)
                calibrations.append((before + after) / 2)
                ratios.append(t / calibrations[-1])
            name, middle = f"{way}, {kind}", statistics.median(times)
            goal = f"{GOALS[name]:.1f}" if name in GOALS else "-"
            print(f"{name:18}{1e3 * middle:8.1f}{1e3 * statistics.median(calibrations):13.1f}", end="")
            print(f"{statistics.median(ratios):8.2f}{goal:>8}{min(times) / floors[name]:9.2f}")


def print_memory() -> None:
    """Print the memory of a call beyond its arguments and results, measured in a new process."""
    print(f"\n{'':18}{'extra MiB':>10}{'goal':>8}")
    for way in ("forward", "both"):
        extra = in_fresh_process(measure_memory, way)
        value = "not measured here" if extra is None else f"{extra / 2**20:.1f}"
        print(f"{way + ', dense':18}{value:>10}{GOAL_MIB:>8}")


def measure_memory(way: str) -> int | None:
    """Return the peak memory in bytes beyond arguments and results, or None if it cannot be measured."""
    arguments = inputs(points=False)
    small = [torch.randn(1, 8, 8, CHANNELS, requires_grad=True), arguments[1]]
    _runner(lambda: adaptive_filter(*small), "both")()
    for tensor in arguments[:4]:
        tensor.grad = None
    out = torch.ones(1, SIDE * SIDE, CHANNELS)

    def forward() -> list[Tensor]:
        with torch.no_grad():
            return [adaptive_filter(*arguments)]

    def both() -> list[Tensor]:
        result = adaptive_filter(*arguments)
        result.backward(out)
        return [result, *(t.grad for t in arguments[:4])]

    kept, peak = peak_memory(forward if way == "forward" else both)
    return None if peak is None else peak - sum(t.nbytes for t in kept)


def _fastest_convolution() -> Callable[[], Tensor]:
    ways = []
    for layout in (torch.contiguous_format, torch.channels_last):
        image = torch.randn(1, CHANNELS, SIDE, SIDE).contiguous(memory_format=layout).requires_grad_()
        weight = torch.randn(CHANNELS, CHANNELS, SIZE, SIZE).contiguous(memory_format=layout).requires_grad_()
        ways.append(lambda image=image, weight=weight: F.conv2d(image, weight, padding=SIZE // 2))
    return min(ways, key=lambda way: min(_time(_runner(way, "forward")) for _ in range(6)))


def _runner(call: Callable[[], Tensor], way: str) -> Callable[[], None]:
    grad = torch.randn_like(call().detach())

    def run() -> None:
        if way == "forward":
            with torch.no_grad():
                call()
        else:
            call().backward(grad)

    return run


def _time(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
