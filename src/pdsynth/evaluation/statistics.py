"""Uncertainty of a result over participants: bootstrap intervals, paired tests, correction for several tests."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
from scipy import stats

SIGNIFICANT = 0.05  # p values below, corrected over their family, are called a difference
BATCH = 200  # resamples in memory at a time; their number changes no result


def bca_interval(
    values: Sequence[float] | np.ndarray,
    statistic: Callable[..., np.ndarray] = np.mean,
    seed: int = 0,
    n: int = 10_000,
    level: float = 0.95,
) -> tuple[float, float]:
    """Bias-corrected and accelerated bootstrap interval of a statistic over participants (Efron 1987).

    values (participants,); statistic takes `axis`. Values that do not vary give (v, v); fewer than two participants
    give (nan, nan): one person says nothing about the next.

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
    """Two-sided p value of the mean difference a - b over participants, signs flipped; exact where 2^N <= n.

    a, b (participants,). With N participants p can't be below 2 / 2^N.

    >>> paired_permutation(np.array([1.0, 2.0, 3.0]), np.zeros(3))
    0.25
    """
    difference = np.asarray(a, np.float64) - np.asarray(b, np.float64)
    if difference.size == 0:
        raise ValueError("a paired test needs participants; got none.")
    observed = abs(difference.mean()) - 1e-12  # ties by rounding count as ties
    if 2.0**difference.size <= n:
        signs = np.array(list(itertools.product((1, -1), repeat=difference.size)))
        return float(np.mean(np.abs(signs @ difference) / difference.size >= observed))
    generator, extreme = np.random.default_rng(seed), 0
    for start in range(0, n, BATCH):
        signs = generator.choice((1, -1), size=(min(BATCH, n - start), difference.size))
        extreme += int(np.sum(np.abs(signs @ difference) / difference.size >= observed))
    return (1 + extreme) / (n + 1)


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Holm's step-down adjusted p values of one declared family, in the order given (Holm 1979).

    >>> holm([0.01, 0.04, 0.03]).tolist()
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    return adjusted
