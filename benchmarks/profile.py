"""Where the time of a forward pass goes: by place, by layer and by operator, beside the shares of multiply-adds.

    python -m benchmarks.profile
    python -m benchmarks.profile --models U NU DMPHN_NU --size 256x256

A module's time is its own: that of its children stands at them. A line whose share of the time is larger than its share
of the multiply-adds stands out by its excess: the seconds that it would save, were it as fast per multiply-add as the
whole network is. On a GPU every module waits for the device, which takes time too.
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
from benchmarks.tables import origin_line, table
from sapnet.evaluation.complexity import Cost, InnermostModuleHook, layer_pattern, restore
from sapnet.evaluation.network_costs import count_config, network_prefix
from sapnet.evaluation.runner import environment
from sapnet.files import write_atomically
from sapnet.provenance import provenance

#: Shares of the time below this are left out of the tables by place and layer, and summed up.
SMALL = 0.002


@torch.no_grad()
def module_seconds(network: nn.Module, blurred: Tensor, rounds: int) -> dict[str, float]:
    """Return each module's own seconds of a forward pass by its path: the median over passes, after one to warm up.

    Args:
        network: In evaluation mode.
        blurred: ``[1, 3, h, w]``.
        rounds: Number of passes.
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


def beside_macs(seconds: Mapping[str, float], cost: Cost, key: Callable[[str], str], title: str) -> str:
    """Return seconds and multiply-adds of groups of modules as Markdown, the largest share of the time first.

    Args:
        seconds: By the module's path.
        cost: The count of the same network at the same size.
        key: The group of a path.
        title: Of the first column.
    """
    total = sum(seconds.values())
    spent: dict[str, float] = defaultdict(float)
    for path, value in seconds.items():
        spent[key(path)] += value
    macs: dict[str, int] = defaultdict(int)
    for path, operators in cost.flops.items():
        macs[key(path)] += sum(operators.values()) // 2
    shown = {name: value for name, value in spent.items() if value >= SMALL * total}
    lines = [(name, shown[name], macs[name]) for name in sorted(shown, key=lambda name: -shown[name])]
    if len(shown) < len(spent):
        rest = [name for name in spent if name not in shown]
        lines.append((f"{len(rest)} smaller ones", sum(spent[n] for n in rest), sum(macs[n] for n in rest)))
    rows = []
    for name, value, number in lines:
        share = 2 * number / max(cost.total_flops, 1)
        cells = f"{1e3 * value:.1f}", f"{value / total:.1%}", f"{number / 1e9:.3f}", f"{share:.1%}"
        rows.append([name, *cells, f"{1e3 * (value - share * total):+.1f}"])
    return table([title, "ms", "share", "GMACs", "share", "excess, ms"], rows)


@torch.no_grad()
def operators(network: nn.Module, blurred: Tensor, most: int = 15) -> str:
    """Return the operators that one forward pass spends most time in as Markdown, by PyTorch's profiler."""
    gpu = blurred.is_cuda
    restore(network, blurred)
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if gpu else [])]) as found:
        restore(network, blurred)
        synchronise(blurred.device)

    def own(event: Any) -> float:
        return event.self_device_time_total if gpu else event.self_cpu_time_total

    events = sorted(found.key_averages(), key=own, reverse=True)
    total = sum(map(own, events))
    rows = ([e.key, str(e.count), f"{own(e) / 1e3:.1f}", f"{own(e) / max(total, 1e-9):.1%}"] for e in events[:most])
    return table(["operator", "calls", "ms", "share"], rows)


def report(name: str, width: int, height: int, rounds: int, device: torch.device, quick: bool = False) -> str:
    """Profile one network and return its tables as Markdown.

    Args:
        name: A key of :data:`benchmarks.cases.MODELS`.
        width: Columns of the image.
        height: Rows of the image.
        rounds: Number of passes.
        device: Where to run.
        quick: The smallest widths.
    """
    config = compose(name, quick)
    config.width, config.height = width, height
    cost = count_config(config)
    network, blurred = Subject(config, device).network.eval(), image(width, height, device)
    seconds = module_seconds(network, blurred, rounds)
    total = sum(seconds.values())
    heads = (
        (lambda path: network_prefix(path, 2), "part"),
        (lambda path: network_prefix(path, 4), "place"),
        (lambda path: layer_pattern(path.removeprefix("generator.")), "layer, over all places"),
    )
    return "\n\n".join(
        [
            f"## {name} at {width}x{height}",
            f"{1e3 * total:.1f} ms, {cost.gmacs:.2f} GMACs: {cost.gmacs / total:.1f} GMAC/s, hooks included.",
            *(beside_macs(seconds, cost, key, title) for key, title in heads),
            operators(network, blurred),
        ]
    )


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    words = argparse.ArgumentParser(
        prog="python -m benchmarks.profile", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = f"which of {', '.join(MODELS)} (U and NU)"
    words.add_argument("--models", nargs="+", choices=MODELS, default=["U", "NU"], metavar="NAME", help=known)
    words.add_argument("--size", type=size_of, default=(256, 256), metavar="WxH", help="width and height (256x256)")
    words.add_argument("--rounds", type=positive, default=5, help="forward passes that medians are taken over (5)")
    words.add_argument("--quick", action="store_true", help="the smallest widths: to see that it works, no more")
    words.add_argument("--device", choices=("cpu", "cuda"), help="where to run (a GPU where there is one)")
    words.add_argument("--out", type=Path, default=Path("outputs/bench/profile.md"), help="the same as printed")
    return words


def main() -> None:
    """Parse the command line, profile, print, write."""
    given = parser().parse_args()
    device = torch.device(given.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    torch.backends.cudnn.allow_tf32 = False
    said = ", ".join(f"{key} {value}" for key, value in environment(device).items())
    parts = [f"{origin_line(provenance())}; {said}; medians of {given.rounds} passes with random weights."]
    for number, name in enumerate(dict.fromkeys(given.models), start=1):
        print(f"{number} of {len(given.models)}: {name}", file=sys.stderr, flush=True)
        parts.append(report(name, *given.size, given.rounds, device, given.quick))
    text = "\n\n".join(parts)
    print(text)
    write_atomically(given.out, f"{text}\n".encode())


if __name__ == "__main__":
    main()
