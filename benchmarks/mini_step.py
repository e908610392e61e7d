"""Time a training step of the small network on one thread and compare it with the arithmetic floor of the machine.

    python -m benchmarks.mini_step
    python -m benchmarks.mini_step --rounds 20

The network is `network=mini` and the batch 8 crops of 64x64. A step counts as three times the multiply-adds of a
forward pass, two of which are the backward pass. The floor is the rate of the fastest plain convolution on one thread.
The convolution also runs before and after every sample; a sample is repeated if the speed of the machine differed from
the usual one. Everything is float32. It takes about 2 minutes.
"""

import argparse
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks.cases import Subject, compose_overrides
from benchmarks.networks import positive
from benchmarks.timing import Stopwatch, interleave, summarise
from benchmarks.traffic import fastest_convolution
from sapnet.evaluation.network_costs import count_config
from sapnet.evaluation.runner import environment
from sapnet.markdown import markdown_table
from sapnet.provenance import provenance, write_json

#: Overrides by the name in the table.
NETWORKS = {"U": "sampling=uniform_network", "NU": "sampling=nu", "NU, random points": "sampling=random"}
#: Multiply-adds of a step relative to a forward pass: the pass itself, and one product each for inputs and weights.
PASSES = 3
_CPU = torch.device("cpu")


def measure(rounds: int, batch: int = 8, side: int = 64, model: str = "mini") -> dict[str, Any]:
    """Time the steps of the networks alternately on one thread.

    Args:
        rounds: Samples per network.
        batch: Crops per step.
        side: Rows and columns of a crop.
        model: A file of `conf/model`.

    Returns:
        The floor in GMAC/s; for each network `gmacs`, `floor_seconds`, `seconds` (low, middle, high), `times_floor`.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        kernel = fastest_convolution(_CPU)
        stopwatch = Stopwatch(kernel.run)
        stopwatch.warm_up()
        configs = {name: compose_overrides([f"network={model}", override]) for name, override in NETWORKS.items()}
        crops = torch.rand(batch, 3, side, side, generator=torch.Generator().manual_seed(0))
        with ExitStack() as stack:
            steps = {name: stack.enter_context(Subject(c, _CPU).training(crops)) for name, c in configs.items()}
            for step in steps.values():
                step()
            samples = interleave(stopwatch, steps, rounds)
    finally:
        torch.set_num_threads(threads)
    best = kernel.macs / stopwatch.best / 1e9
    lines = []
    for name, config in configs.items():
        config.width = config.height = side
        gmacs = PASSES * batch * count_config(config).gmacs
        summary = asdict(summarise(samples[name], stopwatch.usual, stopwatch.tolerance))
        floor = {"floor_seconds": gmacs / best, "times_floor": summary["seconds"]["middle"] * best / gmacs}
        lines.append({"model": name, "gmacs": gmacs, **floor, **summary})
    return {"convolution": kernel.name, "gmacs_per_s": best, "batch": batch, "side": side, "steps": lines}


def report(record: Mapping[str, Any]) -> str:
    """Return the steps as a Markdown table."""
    head = ["mini step", "GMACs", "seconds", "floor", "x floor", "rounds", "noisy"]
    rows = (
        [
            *(line["model"], f"{line['gmacs']:.2f}"),
            "{middle:.3f} [{low:.3f}, {high:.3f}]".format(**line["seconds"]),
            *(f"{line['floor_seconds']:.3f}", f"{line['times_floor']:.2f}", str(line["rounds"]), str(line["noisy"])),
        ]
        for line in record["steps"]
    )
    return (
        f"### A training step of `network=mini`: {record['batch']} crops of {record['side']}x{record['side']}, one"
        f" thread\n\nArithmetic floor: {record['gmacs_per_s']:.1f} GMAC/s, {record['convolution']}. Seconds are"
        f" medians, in brackets the smallest and largest.\n\n{markdown_table(head, rows, 1)}"
    )


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.mini_step", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=positive, default=12, help="samples per network (12)")
    parser.add_argument("--out", type=Path, default=Path("outputs/bench/mini_step.json"), help="output file")
    args = parser.parse_args()
    record = {"provenance": provenance(), "environment": environment(_CPU), **measure(args.rounds)}
    print(report(record))
    write_json(args.out, record)
    print(f"\nAll values: {args.out}", file=sys.stderr)


if __name__ == "__main__":
    main()
