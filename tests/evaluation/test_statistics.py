"""Paired bootstrap intervals: reference values, coverage, determinism."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sapnet.evaluation.statistics import paired_interval


def test_interval_matches_normal_theory_on_many_normal_values() -> None:
    values = np.random.default_rng(0).normal(0.1, 1.0, 1000)
    interval = paired_interval(values)
    half = 1.96 * values.std(ddof=1) / np.sqrt(1000)
    assert interval.mean == pytest.approx(values.mean(), abs=1e-12)
    assert interval.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_coverage_of_the_true_mean() -> None:
    """200 skewed samples of 40 values."""
    rng = np.random.default_rng(1)
    intervals = [paired_interval(rng.gamma(2.0, 0.5, 40), seed=i, resamples=400) for i in range(200)]
    covered = np.mean([low <= 1.0 <= high for _, low, high in intervals])
    assert 0.87 <= covered <= 0.98


@pytest.mark.parametrize("size", [2, 7, 40, 1111])
def test_resamples_are_drawn_one_after_the_other_from_the_seed(size: int) -> None:
    """Published intervals were computed by this loop; batches must not change them."""
    values, rng = np.random.default_rng(2).normal(0.1, 1.0, size), np.random.default_rng(3)
    means = [values[rng.integers(size, size=size)].mean() for _ in range(1000)]
    tail = (1 - 0.95) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    assert paired_interval(values, seed=3, resamples=1000) == (values.mean(), low, high)


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=30), st.integers(0, 3), st.floats(-3, 3), st.floats(0.5, 0.98))
def test_intervals_are_deterministic_nested_and_equivariant_to_shifts(
    values: list[float], seed: int, shift: float, confidence: float
) -> None:
    interval = paired_interval(values, confidence, seed, resamples=200)
    assert interval == paired_interval(np.array(values), confidence, seed, resamples=200)
    assert min(values) - 1e-9 <= interval.low <= interval.high <= max(values) + 1e-9
    wider = paired_interval(values, (1 + confidence) / 2, seed, resamples=200)
    assert wider.low <= interval.low and interval.high <= wider.high
    moved = paired_interval(np.array(values) + shift, confidence, seed, resamples=200)
    np.testing.assert_allclose(moved, np.array(interval) + shift, atol=1e-9)


def test_intervals_of_constant_differences_and_of_a_single_image() -> None:
    assert paired_interval([0.5] * 7) == (0.5, 0.5, 0.5)
    assert paired_interval([0.5]) == (0.5, float("-inf"), float("inf"))


@pytest.mark.parametrize("values", [[], [0.1, float("inf")], [float("nan")], np.ones((2, 2))])
def test_invalid_arguments_are_rejected(values: list[float] | np.ndarray) -> None:
    with pytest.raises(ValueError, match="finite differences"):
        paired_interval(values)
    with pytest.raises(ValueError, match="confidence"):
        paired_interval([0.1, 0.2], confidence=95.0)
