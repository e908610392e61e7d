"""Calibrated timing with a simulated clock."""

import pytest

from benchmarks.timing import Round, Sample, Spread, Stopwatch, interleave, ratio, summarise


class Machine:
    """A simulated machine that is slower by a factor during an interval."""

    def __init__(self, slow_from: float = float("inf"), slow_to: float = float("inf"), slowness: float = 2.0):
        self.now, self.runs = 0.0, []
        self.slow_from, self.slow_to, self.slowness = slow_from, slow_to, slowness

    def run(self, name: str, work: float):
        def task():
            self.runs.append(name)
            self.now += work * (self.slowness if self.slow_from <= self.now < self.slow_to else 1)

        return task

    def stopwatch(self, **settings) -> Stopwatch:
        watch = Stopwatch(self.run("calibration", 1.0), clock=lambda: self.now, **settings)
        watch.warm_up(5)
        return watch


def test_sample_is_taken_once_between_two_calibrations():
    machine = Machine()
    watch = machine.stopwatch()
    assert watch.measure(machine.run("case", 10.0)) == Round((Sample(10.0, 1.0, 1.0),))
    assert machine.runs[-3:] == ["calibration", "case", "calibration"]
    assert watch.usual == watch.best == 1.0


def test_first_run_is_discarded():
    """It includes loading and would be the slowest."""
    machine = Machine(slow_from=0.0, slow_to=0.5, slowness=50)
    assert machine.stopwatch().calibrations == [1.0] * 5


def test_noisy_sample_is_repeated():
    """The machine is slow after the case, which is visible in the calibration after the sample."""
    machine = Machine(slow_from=16.5, slow_to=18.5)
    result = machine.stopwatch().measure(machine.run("case", 10.0))
    assert result.attempts == (Sample(10.0, 1.0, 2.0), Sample(10.0, 1.0, 1.0))
    assert result.best(usual=1.0) == result.attempts[1]


def test_sample_is_noisy_if_too_fast():
    watch = Machine().stopwatch(tolerance=0.25)
    assert watch.noisy(Sample(20.0, 1.0, 2.0)) and watch.noisy(Sample(20.0, 2.0, 1.0))
    assert watch.noisy(Sample(5.0, 0.5, 1.0)) and not watch.noisy(Sample(5.0, 0.8, 1.2))


def test_repeats_are_bounded():
    """A machine that stays slow must not block the benchmark."""
    machine = Machine(slow_from=6.0)
    watch = machine.stopwatch(repeats=2)
    result = watch.measure(machine.run("case", 10.0))
    assert result.attempts == (Sample(20.0, 2.0, 2.0),) * 3


def test_repeats_are_bounded_in_time():
    """A slow network is not repeated many times."""
    machine = Machine(slow_from=6.0)
    watch = machine.stopwatch(repeats=2, patience=30.0)
    watch.calibrations *= 10
    assert [len(watch.measure(machine.run("case", 10.0)).attempts) for _ in range(3)] == [3, 1, 1]


def test_cases_alternate_in_every_round():
    machine = Machine()
    calls = []
    cases = {name: machine.run(name, 1.0) for name in "abc"}
    result = interleave(machine.stopwatch(), cases, 3, lambda name, _: calls.append(name))
    ran = [name for name in machine.runs if name != "calibration"]
    assert ran == calls == [*"abc", *"cba", *"abc"]
    assert {name: len(rounds) for name, rounds in result.items()} == {"a": 3, "b": 3, "c": 3}


def test_noisy_samples_are_excluded_from_the_summary():
    """Of three rounds, one has only noisy attempts and is excluded."""
    calm, slow = Sample(10.0, 1.0, 1.0), Sample(30.0, 3.0, 3.0)
    rounds = [Round((calm,)), Round((slow, slow, slow)), Round((slow, Sample(12.0, 1.0, 1.1)))]
    result = summarise(rounds, usual=1.0, tolerance=0.25)
    assert result.seconds == Spread(10.0, 11.0, 12.0) and result.calibrated.low == 10.0
    assert (result.rounds, result.noisy, result.repeated) == (3, 1, 3)


def test_noisy_samples_are_used_if_there_are_no_others():
    slow = Round((Sample(30.0, 3.0, 3.0),))
    result = summarise([slow, slow], usual=1.0, tolerance=0.25)
    assert result.seconds.middle == 30.0 and result.calibrated.middle == 10.0 and result.noisy == 2


def test_ratio_is_computed_within_the_round():
    """If both cases are slower in a round, their ratio does not change."""
    a = [Round((Sample(s, 1.0, 1.0),)) for s in (1.1, 11.0)]
    b = [Round((Sample(s, 1.0, 1.0),)) for s in (1.0, 10.0)]
    result = ratio(a, b, usual=1.0)
    assert (result.low, result.middle, result.high) == pytest.approx((1.1, 1.1, 1.1))
