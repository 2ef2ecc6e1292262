"""A group difference where only some have the scan: synthesised scans of the others count, and are put right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from pdsynth.evaluation.contrast import Contrast
from pdsynth.evaluation.resampling import paired, ratio
from pdsynth.types import Diagnosis

LEVEL = 0.95


@dataclass(frozen=True, eq=False)
class RectifiedDifference:
    """What `rectified_difference` finds, a figure a region, (R,).

    difference: between the groups, in the units of the scans; low, high: its 95 % interval; complete_cases: of real
    scans alone; trust: the weight given to synthesised scans, 0 where they know nothing; worth: how many real scans
    one synthesised scan replaces.
    """

    difference: np.ndarray
    low: np.ndarray
    high: np.ndarray
    complete_cases: np.ndarray
    trust: np.ndarray
    worth: np.ndarray


def rectified_difference(
    real: np.ndarray,
    synthesised: np.ndarray,
    groups: Sequence[str],
    contrast: tuple[Diagnosis, Diagnosis] = (Diagnosis.AD, Diagnosis.NC),
    sites: Sequence[str] | None = None,
) -> RectifiedDifference:
    """Difference between two groups within sites, from real scans of some and synthesised scans of all.

    real (N, R): a row a participant, nan where the scan is missing; synthesised (N, R): of every participant, by a
    model that was trained on none of them; groups, sites (N,). Other groups than the contrast's are left out.

    d = d(real | both) + trust (d(synthesised | missing) - d(synthesised | both)). A synthesised scan shrinks and may be
    biased by group: both cancel between the two last terms, whatever the model, so d is unbiased where scans are
    missing at random within group and site. trust = cov(real, synthesised) / var(synthesised), both within groups and
    sites, times n_missing / (n_missing + n_both), which makes the variance of d least. It never exceeds that of the
    complete cases (but for the estimate of trust), and equals it where synthesised scans know nothing of the person.
    This is the regression estimator of double sampling (Cochran 1977, chapter 12), in the words of today a
    prediction-powered estimate with power tuning (Angelopoulos et al. 2023).

    Raises ValueError where shapes or lengths differ, or fewer than two participants of a group have both scans.

    >>> real = np.array([3.0, 5.0, np.nan, np.nan, 0.0, 2.0, np.nan, np.nan])[:, None]
    >>> synthesised = np.array([2.0, 3.0, 4.0, 3.0, 1.0, 2.0, 1.0, 1.0])[:, None]
    >>> found = rectified_difference(real, synthesised, ["AD"] * 4 + ["NC"] * 4)
    >>> found.complete_cases.tolist(), found.trust.tolist(), found.difference.tolist()
    ([3.0], [1.0], [4.5])
    """
    real, synthesised = paired(real, synthesised)
    labels = np.asarray(groups, str)
    places = np.zeros(len(real), str) if sites is None else np.asarray(sites, str)
    if not len(labels) == len(places) == len(real):
        raise ValueError(
            f"{len(real)} participants have {len(labels)} groups and {len(places)} sites; give each participant one."
        )
    kept = np.isin(labels, [str(group) for group in contrast])
    real, synthesised, first, places = real[kept], synthesised[kept], labels[kept] == contrast[0], places[kept]
    has = np.isfinite(real).all(1)
    if min(np.sum(has & first), np.sum(has & ~first)) < 2:
        raise ValueError(f"two participants of {contrast[0]} and two of {contrast[1]} must have both scans, or more.")
    found = rectify(np.ones((1, len(real))), real, synthesised, has, first, places)
    half = stats.t.ppf((1 + LEVEL) / 2, found.freedom[0]) * np.sqrt(found.variance[0])
    difference = found.difference[0]
    return RectifiedDifference(
        difference, difference - half, difference + half, found.complete_cases[0], found.trust[0], found.worth[0]
    )


@dataclass(frozen=True, eq=False)
class Rectified:
    """`rectify`'s figures for each row of weights and region, (B, R); freedom: of the variance."""

    difference: np.ndarray
    variance: np.ndarray
    complete_cases: np.ndarray
    variance_complete_cases: np.ndarray
    trust: np.ndarray
    worth: np.ndarray
    freedom: np.ndarray


def rectify(
    weights: np.ndarray,
    real: np.ndarray,
    synthesised: np.ndarray,
    has: np.ndarray,
    first: np.ndarray,
    sites: np.ndarray,
) -> Rectified:
    """The estimate of `rectified_difference` for each row of weights (B, N); has, first, sites (N,).

    real is not read where `has` is false.
    """
    both = Contrast(weights[:, has], first[has], sites[has])
    missing = Contrast(weights[:, ~has], first[~has], sites[~has])
    y, f = real[has], synthesised[has]
    of_y, of_f, shared = both.covariance(y, y), both.covariance(f, f), both.covariance(y, f)
    part = np.nan_to_num(ratio(missing.pairs, missing.pairs + both.pairs))
    trust = np.nan_to_num(ratio(shared, of_f)) * part
    complete_cases = both.difference(y)
    correction = np.nan_to_num(missing.difference(synthesised[~has]) - both.difference(f))
    variance_complete_cases = ratio(of_y, both.pairs)
    # var d = var(y | both) (1 - explained part) is the least over trust. The slope takes a degree of freedom of `both`.
    varies = of_f > 0
    freedom = np.maximum(both.df - varies, 1)
    explained = varies * (1 - (1 - np.nan_to_num(ratio(np.square(shared), of_y * of_f))) * both.df / freedom)
    left = 1 - explained * part
    return Rectified(
        difference=complete_cases + trust * correction,
        variance=variance_complete_cases * left,
        complete_cases=complete_cases,
        variance_complete_cases=variance_complete_cases,
        trust=trust,
        worth=np.nan_to_num(ratio(both.pairs / left - both.pairs, missing.pairs)),
        freedom=freedom,
    )
