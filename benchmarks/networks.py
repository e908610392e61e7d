"""Networks side by side: operations and bytes, then the machine's floor, then times, ratios and peak memory.

    python -m benchmarks.networks
    python -m benchmarks.networks --models U NU --sizes 256x256 --rounds 15

All networks see the same image and take turns within each round; a plain convolution, the fastest that was found here,
runs before and after every sample, and its best rate is the arithmetic floor. A sample taken while the machine ran at
another speed than usual is repeated. Everything is float32. Goals are printed beside the figures, for 2 cores; nothing
fails that misses one. Progress and the time left go to standard error. With the defaults about 10 minutes on 2 cores.
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
#: A training step is taken to be as much work as so many forward passes, for the time left.
STEP = 4
_SMALL, _LARGE = "256x256", "1280x720"
#: On 2 cores, by what and by network and size: times the floor, times the forward pass, times U, bytes.
GOALS = {
    "floor": {("U", _SMALL): 1.4, ("NU", _SMALL): 1.6, ("U", _LARGE): 1.6, ("NU", _LARGE): 1.6},
    "step": {("U", _SMALL): 4.0, ("NU", _SMALL): 4.0},
    "ratio": {("NU", _SMALL): 1.1, ("NU", _LARGE): 1.1},
    "memory": {("U", _LARGE): 4 * 2**30, ("NU", _LARGE): 4 * 2**30},
}


@dataclass
class Bench:
    """One run of the benchmark: what is measured, with what, and what came out.

    Attributes:
        configs: The networks by name.
        sizes: (width, height); training steps are timed at the first alone.
        rounds: Rounds of forward passes at the first size; steps get half as many, further sizes a third.
        device: Where to run.
        quick: Whether the networks are not the real ones, which alone have goals.
        gmacs: Multiply-adds in 1e9 by network and size.
        record: What is written in the end.
    """

    configs: dict[str, DictConfig]
    sizes: list[Size]
    rounds: int
    device: torch.device
    quick: bool = False
    gmacs: dict[tuple[str, Size], float] = field(default_factory=dict)
    record: dict[str, Any] = field(default_factory=dict)

    def run(self) -> dict[str, Any]:
        """Count, measure memory, then time."""
        self.record["counts"] = [self._count(name, size) for size in self.sizes for name in self.configs]
        first = sum(self.gmacs[name, self.sizes[0]] for name in self.configs)
        later = sum(self.gmacs.values()) - first
        total = first * (2 + self.rounds + STEP * (1 + self._steps)) + later * (1 + self._later)
        form = "{percentage:3.0f}%|{bar:20}| {elapsed} gone, {remaining} left: {desc}"
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
        found = footprint(builder(self.configs[name]), size[1], size[0], str(self.device), passes=0)
        self.bar.update(self.gmacs[name, size])
        bytes_ = {key: getattr(found, key) for key in ("peak_bytes", "parameter_bytes", "total_bytes")}
        return _row(name, size) | bytes_ | {"goal_bytes": self._goal("memory", name, size)}

    def _time(self) -> None:
        kernel = fastest_convolution(self.device)
        copying = bandwidth(self.device)
        stopwatch = Stopwatch(kernel.run)
        stopwatch.warm_up()
        subjects = {name: Subject(config, self.device) for name, config in self.configs.items()}
        found: dict[tuple[str, Size], dict[str, list[Round]]] = {}
        for number, size in enumerate(self.sizes):
            blurred = image(*size, self.device)
            runs = {name: subject.forward(blurred) for name, subject in subjects.items()}
            rounds = self._later if number else self.rounds
            found["forward", size] = self._group(stopwatch, "forward", size, runs, rounds)
            if number:
                continue
            with ExitStack() as open_:
                runs = {name: open_.enter_context(subject.training(blurred)) for name, subject in subjects.items()}
                found["step", size] = self._group(stopwatch, "step", size, runs, self._steps)
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
            for (way, size), group in found.items()
            for name, rounds in group.items()
        ]
        self._steps_beside_forwards()
        self.record["ratios"] = [
            self._ratio(stopwatch, way, size, name, group)
            for (way, size), group in found.items()
            for name in group
            if PAIRS.get(name) in group
        ]

    def _group(
        self, stopwatch: Stopwatch, way: str, size: Size, runs: Mapping[str, Any], rounds: int
    ) -> dict[str, list[Round]]:
        def done(name: str, attempts: Round | None) -> None:
            said = "warmed up" if attempts is None else f"{attempts.attempts[-1].seconds:.3g} s"
            self.bar.set_description_str(f"{way} of {name} at {_text(size)}: {said}")
            self.bar.update(self.gmacs[name, size] * (STEP if way == "step" else 1))

        # A large image is warm enough after a small one, where no kernels are chosen by the size.
        if size == self.sizes[0] or self.device.type == "cuda":
            for name, run in runs.items():
                run()
                if size == self.sizes[0]:
                    done(name, None)
        return interleave(stopwatch, runs, rounds, done)

    def _timing(
        self, stopwatch: Stopwatch, best: float, way: str, size: Size, name: str, rounds: Sequence[Round]
    ) -> dict[str, Any]:
        found, gmacs = summarise(rounds, stopwatch.usual, stopwatch.tolerance), self.gmacs[name, size]
        line = _row(name, size) | {"way": way} | asdict(found)
        if way == "forward":
            middle = found.seconds.middle
            line |= {"gmacs_per_s": gmacs / middle, "floor_seconds": gmacs / best, "times_floor": middle * best / gmacs}
            # Seconds of the convolution for as many multiply-adds, at the moment of each sample.
            line["times_convolution"] = found.calibrated.middle * best * stopwatch.best / gmacs
            line["goal"] = self._goal("floor", name, size)
        line["samples"] = [[asdict(sample) for sample in each.attempts] for each in rounds]
        return line

    def _steps_beside_forwards(self) -> None:
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


def size_of(word: str) -> Size:
    """Return (width, height) from a word of the command line."""
    width, cross, height = word.partition("x")
    if not (cross and width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f"{word!r} is no size: write WIDTHxHEIGHT, such as 1280x720")
    return int(width), int(height)


def positive(word: str) -> int:
    """Return a number above 0 from a word of the command line."""
    if not word.isdecimal() or not int(word):
        raise argparse.ArgumentTypeError(f"{word!r} is no whole number above 0")
    return int(word)


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    words = argparse.ArgumentParser(
        prog="python -m benchmarks.networks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = [name for name in MODELS if name != "DMPHN_stack4"]
    known = f"which of {', '.join(MODELS)} (all but the last)"
    words.add_argument("--models", nargs="+", choices=MODELS, default=default, metavar="NAME", help=known)
    words.add_argument(
        "--sizes",
        nargs="+",
        type=size_of,
        default=[(256, 256), (1280, 720)],
        metavar="WxH",
        help="widths and heights (256x256 1280x720); training steps are timed at the first alone",
    )
    words.add_argument(
        "--rounds",
        type=positive,
        default=6,
        help="samples of each forward pass at the first size (6); steps get half as many, further sizes a third",
    )
    words.add_argument("--quick", action="store_true", help="the smallest widths: to see that it works, no more")
    words.add_argument("--device", choices=("cpu", "cuda"), help="where to run (a GPU where there is one)")
    words.add_argument("--out", type=Path, default=Path("outputs/bench/bench.json"), help="every figure and raw sample")
    return words


def main() -> None:
    """Parse the command line, measure, print, write."""
    given = parser().parse_args()
    device = torch.device(given.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    # The floor is float32's, and so is everything else.
    torch.backends.cudnn.allow_tf32 = False
    origin = {"provenance": provenance(), "quick": given.quick, "environment": environment(device)}
    configs = {name: compose(name, given.quick) for name in dict.fromkeys(given.models)}
    bench = Bench(configs, list(dict.fromkeys(given.sizes)), given.rounds, device, given.quick)
    try:
        record = origin | bench.run()
    except UserError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        print("Interrupted; nothing was written.", file=sys.stderr)
        sys.exit(130)
    text = tables.report(record)
    print(text)
    write_json(given.out, record)
    write_atomically(given.out.with_suffix(".md"), f"{text}\n".encode())
    print(f"\nEvery sample: {given.out}; as printed: {given.out.with_suffix('.md')}", file=sys.stderr)


if __name__ == "__main__":
    main()
