"""Profile a forward pass by part, layer and operator, and compare the shares of time and multiply-adds.

    python -m benchmarks.profile
    python -m benchmarks.profile --models U NU DMPHN_NU --size 256x256

The time of a module excludes its children. The excess of a line is the time that would be saved if it were as fast per
multiply-add as the whole network. On a GPU the device is synchronised after every module, which takes time.
"""

import argparse
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from benchmarks.cases import MODELS, Subject, compose, image, synchronise
from benchmarks.networks import positive, size_of
from benchmarks.tables import origin_line
from sapnet.evaluation.complexity import Cost, InnermostModuleHook, layer_pattern, restore
from sapnet.evaluation.network_costs import count_config, network_prefix
from sapnet.evaluation.runner import environment
from sapnet.files import write_atomically
from sapnet.markdown import markdown_table
from sapnet.provenance import provenance

#: Smallest share of the time of a line in the tables by part and layer; smaller ones are summed up.
SMALL = 0.002


@torch.no_grad()
def module_seconds(network: nn.Module, blurred: Tensor, rounds: int) -> dict[str, float]:
    """Measure the time of each module in a forward pass without its children.

    Args:
        network: Network in evaluation mode.
        blurred: Image `[1, 3, h, w]`.
        rounds: Number of passes, after a warm-up pass.

    Returns:
        Median time in seconds by the path of the module.
    """
    passes: list[dict[str, float]] = []
    last = 0.0

    def ended(path: str) -> None:
        nonlocal last
        synchronise(blurred.device)
        now = time.perf_counter()
        passes[-1][path] += now - last
        last = now

    with InnermostModuleHook(network, ended):
        for _ in range(rounds + 1):
            passes.append(defaultdict(float))
            last = time.perf_counter()
            restore(network, blurred)
    paths = dict.fromkeys(path for each in passes[1:] for path in each)
    return {path: statistics.median(each[path] for each in passes[1:]) for path in paths}


def compare_with_macs(seconds: Mapping[str, float], cost: Cost, key: Callable[[str], str], title: str) -> str:
    """Return time and multiply-adds of groups of modules as Markdown, sorted by time.

    Args:
        seconds: Time in seconds by the path of the module.
        cost: Counted operations of the same network at the same size.
        key: Returns the group of a path.
        title: Heading of the first column.
    """
    total = sum(seconds.values())
    grouped: dict[str, float] = defaultdict(float)
    for path, value in seconds.items():
        grouped[key(path)] += value
    macs: dict[str, int] = defaultdict(int)
    for path, operators in cost.flops.items():
        macs[key(path)] += sum(operators.values()) // 2
    shown = {name: value for name, value in grouped.items() if value >= SMALL * total}
    lines = [(name, shown[name], macs[name]) for name in sorted(shown, key=lambda name: -shown[name])]
    if len(shown) < len(grouped):
        others = [name for name in grouped if name not in shown]
        lines.append((f"{len(others)} smaller ones", sum(grouped[n] for n in others), sum(macs[n] for n in others)))
    rows = []
    for name, value, number in lines:
        share = 2 * number / max(cost.total_flops, 1)
        cells = f"{1e3 * value:.1f}", f"{value / total:.1%}", f"{number / 1e9:.3f}", f"{share:.1%}"
        rows.append([name, *cells, f"{1e3 * (value - share * total):+.1f}"])
    return markdown_table([title, "ms", "share", "GMACs", "share", "excess, ms"], rows, 1)


@torch.no_grad()
def operators(network: nn.Module, blurred: Tensor, most: int = 15) -> str:
    """Return the slowest operators of a forward pass as Markdown, measured by PyTorch's profiler."""
    gpu = blurred.is_cuda
    restore(network, blurred)
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if gpu else [])]) as profiler:
        restore(network, blurred)
        synchronise(blurred.device)

    def own_time(event: Any) -> float:
        return event.self_device_time_total if gpu else event.self_cpu_time_total

    events = sorted(profiler.key_averages(), key=own_time, reverse=True)
    total = sum(map(own_time, events))
    rows = (
        [e.key, str(e.count), f"{own_time(e) / 1e3:.1f}", f"{own_time(e) / max(total, 1e-9):.1%}"]
        for e in events[:most]
    )
    return markdown_table(["operator", "calls", "ms", "share"], rows, 1)


def report(name: str, width: int, height: int, rounds: int, device: torch.device, quick: bool = False) -> str:
    """Profile one network and return its tables as Markdown.

    Args:
        name: A key of `benchmarks.cases.MODELS`.
        width: Width of the image.
        height: Height of the image.
        rounds: Number of passes.
        device: Device of the network.
        quick: Whether to use the smallest widths.
    """
    config = compose(name, quick)
    config.width, config.height = width, height
    cost = count_config(config)
    network, blurred = Subject(config, device).network.eval(), image(width, height, device)
    seconds = module_seconds(network, blurred, rounds)
    total = sum(seconds.values())
    groupings = (
        (lambda path: network_prefix(path, 2), "part"),
        (lambda path: network_prefix(path, 4), "place"),
        (lambda path: layer_pattern(path.removeprefix("generator.")), "layer, over all places"),
    )
    return "\n\n".join(
        [
            f"## {name} at {width}x{height}",
            f"{1e3 * total:.1f} ms, {cost.gmacs:.2f} GMACs: {cost.gmacs / total:.1f} GMAC/s, including hooks.",
            *(compare_with_macs(seconds, cost, key, title) for key, title in groupings),
            operators(network, blurred),
        ]
    )


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    arguments = argparse.ArgumentParser(
        prog="python -m benchmarks.profile", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = f"any of {', '.join(MODELS)} (U and NU)"
    arguments.add_argument("--models", nargs="+", choices=MODELS, default=["U", "NU"], metavar="NAME", help=known)
    arguments.add_argument("--size", type=size_of, default=(256, 256), metavar="WxH", help="width and height (256x256)")
    arguments.add_argument("--rounds", type=positive, default=5, help="forward passes per median (5)")
    arguments.add_argument("--quick", action="store_true", help="the smallest widths, to test the benchmark")
    arguments.add_argument("--device", choices=("cpu", "cuda"), help="device (default: a GPU if available)")
    arguments.add_argument("--out", type=Path, default=Path("outputs/bench/profile.md"), help="output file")
    return arguments


def main() -> None:
    """Run the command line."""
    args = parser().parse_args()
    device = torch.device(args.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    torch.backends.cudnn.allow_tf32 = False
    settings = ", ".join(f"{key} {value}" for key, value in environment(device).items())
    parts = [f"{origin_line(provenance())}; {settings}; medians of {args.rounds} passes with random weights."]
    for number, name in enumerate(dict.fromkeys(args.models), start=1):
        print(f"{number} of {len(args.models)}: {name}", file=sys.stderr, flush=True)
        parts.append(report(name, *args.size, args.rounds, device, args.quick))
    text = "\n\n".join(parts)
    print(text)
    write_atomically(args.out, f"{text}\n".encode())


if __name__ == "__main__":
    main()
