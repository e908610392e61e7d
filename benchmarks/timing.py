"""Timing on machines of varying speed: cases alternate, and a calibration kernel runs before and after every sample.

If a calibration deviates from the median of all calibrations so far, the machine was slower or faster than usual. The
sample is then repeated immediately, so that the samples of a round stay close in time.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

Run = Callable[[], object]


@dataclass(frozen=True)
class Sample:
    """A timing with its calibrations.

    Attributes:
        seconds: Time of the case in seconds.
        before: Time of the calibration before it in seconds.
        after: Time of the calibration after it in seconds.
    """

    seconds: float
    before: float
    after: float

    def deviation(self, usual: float) -> float:
        """Return the larger relative deviation of the two calibrations from the usual time."""
        return max(abs(value / usual - 1) for value in (self.before, self.after))

    @property
    def calibrated(self) -> float:
        """Time relative to the mean of the two calibrations."""
        return 2 * self.seconds / (self.before + self.after)


@dataclass(frozen=True)
class Round:
    """Attempts at a case in a round, of which the one with the smallest deviation counts."""

    attempts: tuple[Sample, ...]

    def best(self, usual: float) -> Sample:
        """Return the attempt with the smallest deviation from the usual time of a calibration."""
        return min(self.attempts, key=lambda sample: sample.deviation(usual))


class Stopwatch:
    """Takes samples and keeps the times of all calibrations.

    Args:
        calibrate: Calibration kernel, which synchronises with the device.
        tolerance: Largest relative deviation of a calibration from the median that is not noisy.
        repeats: Number of repetitions of a noisy sample.
        patience: Total time for repetitions in seconds.
        clock: Returns the time in seconds.
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
        """Run the calibration several times to obtain a median; the first run is discarded."""
        self._time(self.calibrate)
        for _ in range(times):
            self._calibrate()

    @property
    def usual(self) -> float:
        """Median time of the calibrations so far in seconds."""
        return statistics.median(self.calibrations)

    @property
    def best(self) -> float:
        """Shortest time of a calibration so far in seconds."""
        return min(self.calibrations)

    def noisy(self, sample: Sample) -> bool:
        """Return whether a calibration of a sample deviates by more than the tolerance."""
        return sample.deviation(self.usual) > self.tolerance

    def measure(self, run: Run) -> Round:
        """Time a case, and repeat it while the sample is noisy and repetitions are left."""
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
    done: Callable[[str, Round], None] = lambda name, attempts: None,
) -> dict[str, list[Round]]:
    """Measure every case once per round; every second round is in reverse order.

    Args:
        stopwatch: The stopwatch.
        cases: Functions to time by name.
        rounds: Number of rounds.
        done: Called after each measurement with the name of the case.
    """
    results: dict[str, list[Round]] = {name: [] for name in cases}
    for number in range(rounds):
        for name in cases if number % 2 == 0 else reversed(cases):
            results[name].append(stopwatch.measure(cases[name]))
            done(name, results[name][-1])
    return results


@dataclass(frozen=True)
class Spread:
    """Smallest value, median and largest value."""

    low: float
    middle: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Return the spread of one or more values."""
        return cls(min(values), statistics.median(values), max(values))


@dataclass(frozen=True)
class Summary:
    """Summary of the rounds of a case.

    Attributes:
        seconds: Time of the samples in seconds.
        calibrated: Time relative to the calibrations of each sample.
        rounds: Number of rounds.
        noisy: Number of rounds whose best attempt is noisy; they are used only if there are no others.
        repeated: Number of repeated attempts.
    """

    seconds: Spread
    calibrated: Spread
    rounds: int
    noisy: int
    repeated: int


def summarise(rounds: Sequence[Round], usual: float, tolerance: float) -> Summary:
    """Summarise the rounds of a case, given the usual time of a calibration and the tolerance."""
    best = [each.best(usual) for each in rounds]
    calm = [sample for sample in best if sample.deviation(usual) <= tolerance]
    counted = calm or best
    return Summary(
        Spread.of([sample.seconds for sample in counted]),
        Spread.of([sample.calibrated for sample in counted]),
        len(rounds),
        len(best) - len(calm),
        sum(len(each.attempts) - 1 for each in rounds),
    )


def ratio(of: Sequence[Round], to: Sequence[Round], usual: float) -> Spread:
    """Return the spread of the ratios of the times of two cases in the same round."""
    return Spread.of([a.best(usual).seconds / b.best(usual).seconds for a, b in zip(of, to, strict=True)])
