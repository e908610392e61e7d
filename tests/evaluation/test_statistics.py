"""The paired interval: known values, coverage, determinism."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sapnet.evaluation.statistics import paired_interval


def test_the_interval_is_that_of_the_normal_theory_on_many_normal_values() -> None:
    values = np.random.default_rng(0).normal(0.1, 1.0, 1000)
    interval = paired_interval(values)
    half = 1.96 * values.std(ddof=1) / np.sqrt(1000)
    assert interval.mean == pytest.approx(values.mean(), abs=1e-12)
    assert interval.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_most_intervals_cover_the_true_mean() -> None:
    """The check that it is an interval of the mean, not of the values: 200 skewed samples of 40."""
    generator = np.random.default_rng(1)
    intervals = [paired_interval(generator.gamma(2.0, 0.5, 40), seed=i, resamples=400) for i in range(200)]
    covered = np.mean([low <= 1.0 <= high for _, low, high in intervals])
    assert 0.87 <= covered <= 0.98


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=30), st.integers(0, 3), st.floats(-3, 3), st.floats(0.5, 0.98))
def test_intervals_are_deterministic_ordered_and_move_with_the_values(
    values: list[float], seed: int, shift: float, confidence: float
) -> None:
    interval = paired_interval(values, confidence, seed, resamples=200)
    assert interval == paired_interval(np.array(values), confidence, seed, resamples=200)
    assert min(values) - 1e-9 <= interval.low <= interval.high <= max(values) + 1e-9
    wider = paired_interval(values, (1 + confidence) / 2, seed, resamples=200)
    assert wider.low <= interval.low and interval.high <= wider.high
    moved = paired_interval(np.array(values) + shift, confidence, seed, resamples=200)
    np.testing.assert_allclose(moved, np.array(interval) + shift, atol=1e-9)


def test_a_constant_difference_is_certain_and_a_single_image_says_nothing() -> None:
    assert paired_interval([0.5] * 7) == (0.5, 0.5, 0.5)
    assert paired_interval([0.5]) == (0.5, float("-inf"), float("inf"))


@pytest.mark.parametrize("values", [[], [0.1, float("inf")], [float("nan")], np.ones((2, 2))])
def test_what_has_no_mean_is_refused(values: list[float] | np.ndarray) -> None:
    with pytest.raises(ValueError, match="finite differences"):
        paired_interval(values)
    with pytest.raises(ValueError, match="confidence"):
        paired_interval([0.1, 0.2], confidence=95.0)
