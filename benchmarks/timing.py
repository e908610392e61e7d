"""Timing on a machine whose clock swings: cases in turns, every sample between two runs of a calibration kernel.

A sample whose calibrations stray from the median of the whole run so far was taken while the machine was slower or
faster than usual: it is taken again at once, so that the samples of a round still stand side by side.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

Run = Callable[[], object]


@dataclass(frozen=True)
class Sample:
    """One timing.

    Attributes:
        seconds: What it took.
        before: Seconds of the calibration just before.
        after: Seconds of the calibration just after.
    """

    seconds: float
    before: float
    after: float

    def strays(self, usual: float) -> float:
        """Return by which share the worse of the two calibrations is off the usual one."""
        return max(abs(value / usual - 1) for value in (self.before, self.after))

    @property
    def calibrated(self) -> float:
        """Seconds in units of the calibrations around it."""
        return 2 * self.seconds / (self.before + self.after)


@dataclass(frozen=True)
class Round:
    """The attempts at one case in one round; the calmest of them counts."""

    attempts: tuple[Sample, ...]

    def best(self, usual: float) -> Sample:
        """Return the attempt whose calibrations are nearest to the usual one."""
        return min(self.attempts, key=lambda sample: sample.strays(usual))


class Stopwatch:
    """Takes samples, and knows how long the calibration kernel usually takes.

    Args:
        calibrate: A kernel of known work; synchronises.
        tolerance: By which share a calibration may be off the median of all so far.
        repeats: How often a noisy sample is taken again.
        patience: No more is repeated once repeats have taken so many seconds in all.
        clock: Seconds.
    """

    def __init__(
        self,
        calibrate: Run,
        tolerance: float = 0.25,
        repeats: int = 2,
        patience: float = 120.0,
        clock: Callable[[], float] = time.perf_counter,
    ):
        self.calibrate, self.tolerance, self.repeats, self.clock = calibrate, tolerance, repeats, clock
        self.patience = patience
        self.calibrations: list[float] = []

    def warm_up(self, times: int = 10) -> None:
        """Run the calibration alone, so that there is a median to compare with; the first run of all is not kept."""
        self._time(self.calibrate)
        for _ in range(times):
            self._calibrate()

    @property
    def usual(self) -> float:
        """Median of all calibrations so far, seconds."""
        return statistics.median(self.calibrations)

    @property
    def best(self) -> float:
        """The fastest calibration so far, seconds."""
        return min(self.calibrations)

    def noisy(self, sample: Sample) -> bool:
        """Return whether the calibrations around a sample are not the usual ones."""
        return sample.strays(self.usual) > self.tolerance

    def measure(self, run: Run) -> Round:
        """Time a run, and again while that is noisy and repeats are left."""
        attempts: list[Sample] = []
        while not attempts or (self.noisy(attempts[-1]) and len(attempts) <= self.repeats and self.patience > 0):
            before = self._calibrate()
            seconds = self._time(run)
            self.patience -= seconds if attempts else 0
            attempts.append(Sample(seconds, before, self._calibrate()))
        return Round(tuple(attempts))

    def _calibrate(self) -> float:
        self.calibrations.append(self._time(self.calibrate))
        return self.calibrations[-1]

    def _time(self, run: Run) -> float:
        start = self.clock()
        run()
        return self.clock() - start


def interleave(
    stopwatch: Stopwatch,
    cases: Mapping[str, Run],
    rounds: int,
    done: Callable[[str, Round], None] = lambda name, found: None,
) -> dict[str, list[Round]]:
    """Measure every case once a round, the cases in turns; each second round goes backwards.

    Args:
        stopwatch: Measures.
        cases: What to run, by name.
        rounds: How many rounds.
        done: Called after each measurement.
    """
    found: dict[str, list[Round]] = {name: [] for name in cases}
    for number in range(rounds):
        for name in cases if number % 2 == 0 else reversed(cases):
            found[name].append(stopwatch.measure(cases[name]))
            done(name, found[name][-1])
    return found


@dataclass(frozen=True)
class Spread:
    """A median between the smallest and the largest value."""

    low: float
    middle: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Of at least one value."""
        return cls(min(values), statistics.median(values), max(values))


@dataclass(frozen=True)
class Summary:
    """What the rounds of one case say.

    Attributes:
        seconds: Of the samples that count.
        calibrated: The same in units of the calibrations around each.
        rounds: Number of rounds.
        noisy: Rounds whose best attempt was still noisy; they count only where all are.
        repeated: Attempts beyond the first of each round.
    """

    seconds: Spread
    calibrated: Spread
    rounds: int
    noisy: int
    repeated: int


def summarise(rounds: Sequence[Round], usual: float, tolerance: float) -> Summary:
    """Summarise the rounds of one case, judged by the median calibration of the whole run."""
    best = [each.best(usual) for each in rounds]
    calm = [sample for sample in best if sample.strays(usual) <= tolerance]
    counted = calm or best
    return Summary(
        Spread.of([sample.seconds for sample in counted]),
        Spread.of([sample.calibrated for sample in counted]),
        len(rounds),
        len(best) - len(calm),
        sum(len(each.attempts) - 1 for each in rounds),
    )


def ratio(of: Sequence[Round], to: Sequence[Round], usual: float) -> Spread:
    """Ratio of two cases' seconds, round by round: what slows both down at once is in neither."""
    return Spread.of([a.best(usual).seconds / b.best(usual).seconds for a, b in zip(of, to, strict=True)])
