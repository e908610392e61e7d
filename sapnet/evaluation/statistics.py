"""Paired bootstrap confidence intervals."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

#: Indices drawn at once: 8 MiB.
_BATCH_INDICES = 2**20


class Interval(NamedTuple):
    """A mean and the bounds of its confidence interval, in the unit of the values."""

    mean: float
    low: float
    high: float


def paired_interval(
    differences: Sequence[float] | np.ndarray, confidence: float = 0.95, seed: int = 0, resamples: int = 10_000
) -> Interval:
    """Compute the mean of per-image differences between two methods and its percentile bootstrap interval.

    Pairing removes the variation that the images have in common: a difference of 0.1 dB is detectable although single
    methods vary by 4 dB between images. The bootstrap makes no assumption about the distribution. Images are resampled
    independently; frames of one video are correlated, so the interval is too narrow when there are few sequences.

    Args:
        differences: One value per image, such as the PSNR of A minus the PSNR of B in dB.
        confidence: Share of intervals that cover the true mean.
        seed: Seed of the resampling. Equal inputs give equal intervals.
        resamples: Number of bootstrap samples.

    Returns:
        The mean and its interval. The interval of a single image is infinite.

    Raises:
        ValueError: There is no value, a value is not finite (the PSNR of equal images), or the confidence is outside
            (0, 1).
    """
    values = np.asarray(differences, dtype=np.float64)
    if values.ndim != 1 or values.size == 0 or not np.isfinite(values).all():
        raise ValueError("a paired interval takes a row of finite differences, at least one")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}: give a share between 0 and 1")
    mean = float(values.mean())
    if values.size == 1:
        return Interval(mean, float("-inf"), float("inf"))
    result = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=resamples,
        batch=max(1, _BATCH_INDICES // values.size),
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    # The quantiles of SciPy differ from those of NumPy in the last digit; published intervals are NumPy's.
    tail = (1 - confidence) / 2
    low, high = np.quantile(result.bootstrap_distribution, [tail, 1 - tail])
    return Interval(mean, float(low), float(high))
