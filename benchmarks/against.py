"""Compare a training step of the small network in this checkout with the same step in another checkout.

    git worktree add ../602514f 602514f
    python -m benchmarks.against ../602514f

Two processes, one per checkout, take single steps alternately on one thread, so that they run under the same
conditions. A ratio is that of two consecutive steps. Processor time is less affected by other processes than wall-clock
time. It takes about 2 minutes.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from benchmarks.mini_step import NETWORKS
from benchmarks.networks import positive
from sapnet.errors import UserError
from sapnet.evaluation.runner import environment
from sapnet.files import write_atomically
from sapnet.markdown import markdown_table
from sapnet.reporting.runs import commit

_HERE = Path(__file__).parent.parent

# Takes one step per input line. It runs in both checkouts, so it uses only names that older versions have.
_WORKER = """
import sys, time, torch
from benchmarks import cases
torch.set_num_threads(1)
group = "network" if (cases.CONFIG_DIR / "network").is_dir() else "model"  # its earlier name
cases.MODELS["mini"] = [f"{group}=mini", sys.argv[1]]
subject = cases.Subject(cases.compose("mini"), torch.device("cpu"))
with subject.training(torch.rand(8, 3, 64, 64, generator=torch.Generator().manual_seed(0))) as step:
    for _ in sys.stdin:
        wall, processor = time.perf_counter(), time.process_time()
        step()
        print(time.perf_counter() - wall, time.process_time() - processor, flush=True)
"""


class Worker:
    """A process that takes training steps of a network in a checkout.

    Args:
        checkout: Root of the checkout.
        sampling: Override that selects the network.
    """

    def __init__(self, checkout: Path, sampling: str):
        self.checkout = checkout
        self.process = subprocess.Popen(
            [sys.executable, "-c", _WORKER, sampling],
            cwd=checkout,
            env={**os.environ, "PYTHONPATH": str(checkout.resolve()), "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.stdin.close()
        self.process.wait()

    def step(self) -> tuple[float, float]:
        """Take a step and return its wall-clock and processor time in seconds.

        Raises:
            UserError: The step failed.
        """
        try:
            print(file=self.process.stdin, flush=True)
            wall, processor = self.process.stdout.readline().split()
        except (BrokenPipeError, ValueError) as error:
            raise UserError(f"{self.checkout}: the step failed, see its message above") from error
        return float(wall), float(processor)


def measure(other: Path, sampling: str, rounds: int) -> dict[str, Any]:
    """Measure the median times of a step in both checkouts and the ratios of consecutive steps.

    Args:
        other: Root of the other checkout.
        sampling: Override that selects the network.
        rounds: Steps per checkout, after two warm-up steps.
    """
    with ExitStack() as stack:
        workers = [stack.enter_context(Worker(checkout, sampling)) for checkout in (_HERE, other)]
        pairs = [[worker.step() for worker in workers] for _ in range(rounds + 2)][2:]
    times: dict[str, Any] = {"rounds": rounds}
    for i, clock in enumerate(("wall", "processor")):
        here, there = ([pair[k][i] for pair in pairs] for k in (0, 1))
        ratios = sorted(b / a for a, b in zip(here, there, strict=True))
        times[clock] = {
            "here": statistics.median(here),
            "other": statistics.median(there),
            "ratio": statistics.median(ratios),
            "quartiles": [ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]],
        }
    return times


def report(record: Mapping[str, Any]) -> str:
    """Return the ratios as a Markdown table."""
    head = ["mini step", "clock", f"{record['commit']}, ms", f"{record['other']}, ms", "times as fast"]
    rows = [
        [
            line["model"],
            clock,
            *(f"{1e3 * line[clock][which]:.0f}" for which in ("here", "other")),
            "{:.2f} [{:.2f}, {:.2f}]".format(line[clock]["ratio"], *line[clock]["quartiles"]),
        ]
        for line in record["steps"]
        for clock in ("processor", "wall")
    ]
    return (
        "### A training step of `network=mini` compared with another commit: 8 crops of 64x64, one thread\n\nAlternate"
        f" steps, medians of {record['steps'][0]['rounds']} rounds, in brackets the quartiles of the ratios.\n\n"
        f"{markdown_table(head, rows, 1)}"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.against", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("other", type=Path, help="root of the other checkout")
    parser.add_argument("--name", help="its name in the table (default: name of its folder)")
    parser.add_argument("--rounds", type=positive, default=14, help="steps per network and checkout (14)")
    parser.add_argument("--out", type=Path, default=Path("outputs/bench/against.json"), help="output file")
    args = parser.parse_args(arguments)
    if not (args.other / "benchmarks" / "cases.py").is_file():
        parser.error(f"{args.other} is not a checkout of this project: benchmarks/cases.py is missing")
    lines = [{"model": name, **measure(args.other, override, args.rounds)} for name, override in NETWORKS.items()]
    record = {
        "commit": commit(),
        "other": args.name or args.other.resolve().name,
        "environment": environment(torch.device("cpu")),
        "steps": lines,
    }
    print(report(record))
    write_atomically(args.out, (json.dumps(record, indent=1) + "\n").encode())
    print(f"\nAll values: {args.out}", file=sys.stderr)


if __name__ == "__main__":
    main()
