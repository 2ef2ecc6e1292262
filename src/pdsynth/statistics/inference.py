"""Uncertainty of a result over participants: bootstrap intervals, paired tests, correction for multiple tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy import stats

SIGNIFICANT = 0.05  # a difference is significant if its p value, corrected over its family of tests, is below this
BATCH = 200  # resamples in memory at a time; their number changes no result


def bca_interval(
    values: Sequence[float] | np.ndarray,
    statistic: Callable[..., np.ndarray] = np.mean,
    seed: int = 0,
    n: int = 10_000,
    level: float = 0.95,
) -> tuple[float, float]:
    """Bias-corrected and accelerated bootstrap interval of a statistic over participants (Efron 1987): (low, high).

    values: one per participant. statistic: a function of the values with an argument `axis`. n: number of resamples;
    level: coverage of the interval. Values that are not finite are left out. Values that do not vary give an interval
    of width 0. Fewer than two participants give (nan, nan), because one person shows no variation between people. So
    does a statistic that varies among resamples but not if any one participant is left out, such as the median of
    values of which all but one are equal.

    >>> bca_interval([2.0, 2.0, 2.0])
    (2.0, 2.0)
    """
    values = np.asarray(values, np.float64)
    values = values[np.isfinite(values)]
    if len(values) < 2:
        return (float("nan"), float("nan"))
    if np.ptp(values) < 1e-12:
        same = float(statistic(values, axis=0))
        return (same, same)
    result = stats.bootstrap(
        (values,),
        statistic,
        n_resamples=n,
        batch=BATCH,
        confidence_level=level,
        method="BCa",
        rng=np.random.default_rng(seed),
    )
    return (float(result.confidence_interval.low), float(result.confidence_interval.high))


def paired_permutation(a: np.ndarray, b: np.ndarray, seed: int = 0, n: int = 10_000) -> float:
    """Two-sided p value of the mean difference a - b over participants, under random signs of each difference.

    a, b (N,): one value per participant. All 2^N sign patterns are used if these are n or fewer, else n random ones. p
    is at least 2 / 2^N, which is 1 for one participant, and at least 1 / (1 + n) with random patterns. nan if a
    difference is nan. Raises ValueError if there are no participants.

    >>> paired_permutation(np.array([1.0, 2.0, 3.0]), np.zeros(3))
    0.25
    """
    difference = np.asarray(a, np.float64) - np.asarray(b, np.float64)
    if difference.size == 0:
        raise ValueError("a paired test needs participants; got none.")
    if difference.size == 1 or np.isnan(difference).any():  # scipy refuses the first and gives 0 for the second
        return float("nan") if np.isnan(difference).any() else 1.0
    # |mean| makes the test two-sided; with random signs, p is (1 + hits) / (1 + n).
    result = stats.permutation_test(
        (difference,),
        lambda signed, axis: np.abs(np.mean(signed, axis=axis)),
        permutation_type="samples",
        vectorized=True,
        n_resamples=n,
        batch=BATCH,
        alternative="greater",
        rng=np.random.default_rng(seed),
    )
    return float(result.pvalue)


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Holm's step-down adjusted p values of one family of tests, in the order of the input (Holm 1979).

    A nan stays nan, and counts as a test of the family.

    >>> holm([0.01, 0.04, 0.03]).tolist()
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    return adjusted
