"""Compare networks: operations and bytes, the arithmetic floor of the machine, times, ratios and peak memory.

    python -m benchmarks.networks
    python -m benchmarks.networks --models U NU --sizes 256x256 --rounds 15

All networks process the same image and alternate within each round. The fastest plain convolution runs before and after
every sample, and its best rate is the arithmetic floor. A sample is repeated if the speed of the machine differed from
the usual one. Everything is float32. The goals in the tables are for 2 cores and are not enforced. Progress goes to
standard error. With the defaults it takes about 10 minutes on 2 cores.
"""

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from tqdm import tqdm

from benchmarks import tables
from benchmarks.cases import MODELS, PAIRS, Subject, builder, compose, image
from benchmarks.timing import Round, Stopwatch, interleave, ratio, summarise
from benchmarks.traffic import bandwidth, fastest_convolution, traffic
from sapnet.errors import UserError
from sapnet.evaluation.footprint import footprint
from sapnet.evaluation.network_costs import count_config
from sapnet.evaluation.runner import environment
from sapnet.files import write_atomically
from sapnet.provenance import provenance, write_json

Size = tuple[int, int]
#: Assumed duration of a training step in forward passes, for the estimate of the remaining time.
STEP = 4
_SMALL, _LARGE = "256x256", "1280x720"
#: Goals for 2 cores by network and size: times the floor, times the forward pass, times U, bytes.
GOALS = {
    "floor": {("U", _SMALL): 1.4, ("NU", _SMALL): 1.6, ("U", _LARGE): 1.6, ("NU", _LARGE): 1.6},
    "step": {("U", _SMALL): 4.0, ("NU", _SMALL): 4.0},
    "ratio": {("NU", _SMALL): 1.1, ("NU", _LARGE): 1.1},
    "memory": {("U", _LARGE): 4 * 2**30, ("NU", _LARGE): 4 * 2**30},
}


@dataclass
class Bench:
    """A run of the benchmark.

    Attributes:
        configs: Configs of the networks by name.
        sizes: Image sizes (width, height). Training steps are timed at the first size only.
        rounds: Rounds of forward passes at the first size; half as many for steps, a third for further sizes.
        device: Device of the networks.
        quick: Whether the networks have the smallest widths, for which there are no goals.
        gmacs: Multiply-adds in 1e9 by network and size.
        record: The results.
    """

    configs: dict[str, DictConfig]
    sizes: list[Size]
    rounds: int
    device: torch.device
    quick: bool = False
    gmacs: dict[tuple[str, Size], float] = field(default_factory=dict)
    record: dict[str, Any] = field(default_factory=dict)

    def run(self) -> dict[str, Any]:
        """Count operations, measure memory and times, and return the results."""
        self.record["counts"] = [self._count(name, size) for size in self.sizes for name in self.configs]
        first = sum(self.gmacs[name, self.sizes[0]] for name in self.configs)
        later = sum(self.gmacs.values()) - first
        total = first * (2 + self.rounds + STEP * (1 + self._steps)) + later * (1 + self._later)
        form = "{percentage:3.0f}%|{bar:20}| {elapsed} elapsed, {remaining} left: {desc}"
        with tqdm(total=total, bar_format=form, smoothing=0, mininterval=1, file=sys.stderr) as self.bar:
            self.record["memory"] = [self._memory(name, size) for size in self.sizes for name in self.configs]
            self._time()
        return self.record

    @property
    def _steps(self) -> int:
        return math.ceil(self.rounds / 2)

    @property
    def _later(self) -> int:
        return math.ceil(self.rounds / 3)

    def _count(self, name: str, size: Size) -> dict[str, Any]:
        config = self.configs[name]
        config.width, config.height = size
        cost, moved = count_config(config), traffic(builder(config), config.height, config.width)
        self.gmacs[name, size] = cost.gmacs
        counted = {"gmacs": cost.gmacs, "parameters": cost.total_parameters}
        return _row(name, size) | counted | {"read_bytes": moved.read, "written_bytes": moved.written}

    def _memory(self, name: str, size: Size) -> dict[str, Any]:
        self.bar.set_description_str(f"memory of {name} at {_text(size)}")
        measured = footprint(builder(self.configs[name]), size[1], size[0], str(self.device), passes=0)
        self.bar.update(self.gmacs[name, size])
        bytes_ = {key: getattr(measured, key) for key in ("peak_bytes", "parameter_bytes", "total_bytes")}
        return _row(name, size) | bytes_ | {"goal_bytes": self._goal("memory", name, size)}

    def _time(self) -> None:
        kernel = fastest_convolution(self.device)
        copying = bandwidth(self.device)
        stopwatch = Stopwatch(kernel.run)
        stopwatch.warm_up()
        subjects = {name: Subject(config, self.device) for name, config in self.configs.items()}
        groups: dict[tuple[str, Size], dict[str, list[Round]]] = {}
        for number, size in enumerate(self.sizes):
            blurred = image(*size, self.device)
            runs = {name: subject.forward(blurred) for name, subject in subjects.items()}
            rounds = self._later if number else self.rounds
            groups["forward", size] = self._group(stopwatch, "forward", size, runs, rounds)
            if number:
                continue
            with ExitStack() as stack:
                runs = {name: stack.enter_context(subject.training(blurred)) for name, subject in subjects.items()}
                groups["step", size] = self._group(stopwatch, "step", size, runs, self._steps)
        best = kernel.macs / stopwatch.best / 1e9
        self.record["floor"] = {
            "convolution": kernel.name,
            "gmacs_per_s": best,
            "gmacs": kernel.macs / 1e9,
            "calibrations": stopwatch.calibrations,
            "tolerance": stopwatch.tolerance,
            "copied_bytes_per_s": copying,
        }
        self.record["timings"] = [
            self._timing(stopwatch, best, way, size, name, rounds)
            for (way, size), group in groups.items()
            for name, rounds in group.items()
        ]
        self._compare_steps_with_forwards()
        self.record["ratios"] = [
            self._ratio(stopwatch, way, size, name, group)
            for (way, size), group in groups.items()
            for name in group
            if PAIRS.get(name) in group
        ]

    def _group(
        self, stopwatch: Stopwatch, way: str, size: Size, runs: Mapping[str, Any], rounds: int
    ) -> dict[str, list[Round]]:
        def done(name: str, attempts: Round | None) -> None:
            outcome = "warmed up" if attempts is None else f"{attempts.attempts[-1].seconds:.3g} s"
            self.bar.set_description_str(f"{way} of {name} at {_text(size)}: {outcome}")
            self.bar.update(self.gmacs[name, size] * (STEP if way == "step" else 1))

        # On a CPU no kernel is selected by size, so the first size warms up the others.
        if size == self.sizes[0] or self.device.type == "cuda":
            for name, run in runs.items():
                run()
                if size == self.sizes[0]:
                    done(name, None)
        return interleave(stopwatch, runs, rounds, done)

    def _timing(
        self, stopwatch: Stopwatch, best: float, way: str, size: Size, name: str, rounds: Sequence[Round]
    ) -> dict[str, Any]:
        summary, gmacs = summarise(rounds, stopwatch.usual, stopwatch.tolerance), self.gmacs[name, size]
        line = _row(name, size) | {"way": way} | asdict(summary)
        if way == "forward":
            middle = summary.seconds.middle
            line |= {"gmacs_per_s": gmacs / middle, "floor_seconds": gmacs / best, "times_floor": middle * best / gmacs}
            # Relative to the time of the convolution for as many multiply-adds around each sample.
            line["times_convolution"] = summary.calibrated.middle * best * stopwatch.best / gmacs
            line["goal"] = self._goal("floor", name, size)
        line["samples"] = [[asdict(sample) for sample in each.attempts] for each in rounds]
        return line

    def _compare_steps_with_forwards(self) -> None:
        forward = {
            (line["model"], line["size"]): line["seconds"]["middle"]
            for line in self.record["timings"]
            if line["way"] == "forward"
        }
        for line in self.record["timings"]:
            if line["way"] == "step":
                line["times_forward"] = line["seconds"]["middle"] / forward[line["model"], line["size"]]
                line["goal"] = self._goal("step", line["model"], self.sizes[0])

    def _goal(self, what: str, name: str, size: Size) -> float | None:
        return GOALS[what].get((name, _text(size))) if self.device.type == "cpu" and not self.quick else None

    def _ratio(self, stopwatch: Stopwatch, way: str, size: Size, name: str, group: Mapping[str, Any]) -> dict[str, Any]:
        other = PAIRS[name]
        seconds = ratio(group[name], group[other], stopwatch.usual)
        counted = self.gmacs[name, size] / self.gmacs[other, size]
        goal = self._goal("ratio", name, size) if way == "forward" else None
        return _row(name, size) | {"to": other, "way": way, "gmacs": counted, "seconds": asdict(seconds), "goal": goal}


def _row(name: str, size: Size) -> dict[str, Any]:
    return {"model": name, "size": _text(size)}


def _text(size: Size) -> str:
    return f"{size[0]}x{size[1]}"


def size_of(text: str) -> Size:
    """Parse WIDTHxHEIGHT and return (width, height)."""
    width, cross, height = text.partition("x")
    if not (cross and width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a size: write WIDTHxHEIGHT, such as 1280x720")
    return int(width), int(height)


def positive(text: str) -> int:
    """Parse a positive integer."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive integer")
    return int(text)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    arguments = argparse.ArgumentParser(
        prog="python -m benchmarks.networks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = [name for name in MODELS if name != "DMPHN_stack4"]
    known = f"any of {', '.join(MODELS)} (all but the last)"
    arguments.add_argument("--models", nargs="+", choices=MODELS, default=default, metavar="NAME", help=known)
    arguments.add_argument(
        "--sizes",
        nargs="+",
        type=size_of,
        default=[(256, 256), (1280, 720)],
        metavar="WxH",
        help="widths and heights (256x256 1280x720); training steps are timed at the first only",
    )
    arguments.add_argument(
        "--rounds",
        type=positive,
        default=6,
        help="samples per forward pass at the first size (6); half as many for steps, a third for further sizes",
    )
    arguments.add_argument("--quick", action="store_true", help="the smallest widths, to test the benchmark")
    arguments.add_argument("--device", choices=("cpu", "cuda"), help="device (default: a GPU if available)")
    arguments.add_argument("--out", type=Path, default=Path("outputs/bench/bench.json"), help="output file")
    return arguments


def main() -> None:
    """Run the command line."""
    args = parser().parse_args()
    device = torch.device(args.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    # The floor is measured in float32.
    torch.backends.cudnn.allow_tf32 = False
    origin = {"provenance": provenance(), "quick": args.quick, "environment": environment(device)}
    configs = {name: compose(name, args.quick) for name in dict.fromkeys(args.models)}
    bench = Bench(configs, list(dict.fromkeys(args.sizes)), args.rounds, device, args.quick)
    try:
        record = origin | bench.run()
    except UserError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        print("Interrupted; no results were written.", file=sys.stderr)
        sys.exit(130)
    text = tables.report(record)
    print(text)
    write_json(args.out, record)
    write_atomically(args.out.with_suffix(".md"), f"{text}\n".encode())
    print(f"\nAll samples: {args.out}; tables: {args.out.with_suffix('.md')}", file=sys.stderr)


if __name__ == "__main__":
    main()
