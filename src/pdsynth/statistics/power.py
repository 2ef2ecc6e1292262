"""Comparison of the accuracies of two classifiers: McNemar's test, its power and sample size, and intervals."""

from __future__ import annotations

import math

import numpy as np
from scipy import special, stats


def discordant_share(p_a: float, p_b: float, shared: float = 0.0) -> float:
    """Share of participants whom exactly one of two classifiers predicts correctly, from their accuracies p_a and p_b.

    p_a, p_b: 0 to 1. shared: 0 if the errors are independent, 1 if both make errors on the same people as far as the
    accuracies allow; values between are interpolated linearly.

    >>> round(discordant_share(0.6, 0.7), 3), round(discordant_share(0.6, 0.7, shared=1), 3)
    (0.46, 0.1)
    """
    independent = p_a * (1 - p_b) + p_b * (1 - p_a)
    return (1 - shared) * independent + shared * abs(p_a - p_b)


def mcnemar_participants(p_a: float, p_b: float, discordant: float, alpha: float = 0.05, power: float = 0.8) -> int:
    """Number of participants that McNemar's two-sided test needs to show a difference between two classifiers.

    p_a, p_b: their accuracies on the same people, 0 to 1. discordant: share of people whom exactly one of the
    classifiers predicts correctly (see `discordant_share`). alpha: significance level. power: probability that the test
    shows the difference. By Connor 1987, from Miettinen 1968, n = (z_{1 - alpha/2} sqrt(psi) + z_power sqrt(psi -
    d^2))^2 / d^2, with the discordant share psi and the difference d of the accuracies. The exact test is more
    conservative and needs a few more. Raises ValueError if the accuracies are equal or are not possible with this
    discordant share.

    >>> mcnemar_participants(0.6, 0.7, discordant_share(0.6, 0.7))
    359
    """
    d = _difference(p_a, p_b, discordant)
    reach = special.ndtri(1 - alpha / 2) * math.sqrt(discordant)
    return math.ceil(((reach + special.ndtri(power) * math.sqrt(discordant - d * d)) / d) ** 2)


def mcnemar_power(n: int, p_a: float, p_b: float, discordant: float, alpha: float = 0.05) -> float:
    """Probability that McNemar's two-sided test with n participants shows a difference between two classifiers (power).

    p_a, p_b: their accuracies on the same people, 0 to 1. discordant: share of people whom exactly one of the
    classifiers predicts correctly. alpha: significance level. It is the formula of `mcnemar_participants`, solved for
    the power. Raises ValueError if the accuracies are equal or are not possible with this discordant share.

    >>> round(mcnemar_power(359, 0.6, 0.7, 0.46), 2)
    0.8
    """
    d = _difference(p_a, p_b, discordant)
    reach = special.ndtri(1 - alpha / 2) * math.sqrt(discordant)
    return float(special.ndtr((d * math.sqrt(n) - reach) / math.sqrt(discordant - d * d)))


def wilson_interval(correct: int, n: int) -> tuple[float, float]:
    """95 % interval of an accuracy of `correct` out of n participants (Wilson 1927).

    Raises ValueError if n is 0 or `correct` is not between 0 and n.

    >>> [round(end, 2) for end in wilson_interval(36, 53)]
    [0.55, 0.79]
    """
    if not 0 <= correct <= n or n == 0:
        raise ValueError(f"{correct} of {n} participants can't be correct; give 0 to n of at least one participant.")
    interval = stats.binomtest(int(correct), int(n)).proportion_ci(method="wilson")
    return (float(interval.low), float(interval.high))


def mcnemar_exact(correct_a: np.ndarray, correct_b: np.ndarray) -> float:
    """Two-sided p value of the exact (binomial) McNemar test that two classifiers are equally accurate.

    correct_a, correct_b (N,) bool: whether each prediction for the same participants is correct. 1 if they never
    differ. Raises ValueError if the lengths differ.

    >>> mcnemar_exact(np.array([True] * 6), np.array([False] * 6))
    0.03125
    """
    a, b = np.asarray(correct_a, bool), np.asarray(correct_b, bool)
    if a.shape != b.shape:
        raise ValueError(f"{a.shape} and {b.shape} answers can't be compared; test both on the same participants.")
    only_a, only_b = int(np.sum(a & ~b)), int(np.sum(b & ~a))
    return float(stats.binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def _difference(p_a: float, p_b: float, discordant: float) -> float:
    """|p_a - p_b|. Raises ValueError if it is 0, or if the accuracies are not possible with this discordant share."""
    d = abs(p_a - p_b)
    if d == 0:
        raise ValueError(f"accuracies of {p_a} and {p_b} are equal; give two different accuracies.")
    most = min(p_a + p_b, 2 - p_a - p_b)
    if not d - 1e-9 <= discordant <= most + 1e-9:
        raise ValueError(
            f"accuracies of {p_a} and {p_b} can't have a discordant share of {discordant}; give {d:.3g} to {most:.3g}."
        )
    return d
