"""A group difference where only some have the scan: synthesised scans of the others count, and are put right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from pdsynth.evaluation.contrast import AD_LESS_NC, Contrast, Groups, contrasted
from pdsynth.evaluation.resampling import paired, ratio

LEVEL = 0.95
FREEDOM = 10  # within groups and sites, to learn the trust from; with less, a wrong trust costs more than scans give
NOTHING = 1e-6  # of a real scan's SD: what is synthesised and varies less does not vary


@dataclass(frozen=True, eq=False)
class RectifiedDifference:
    """What `rectified_difference` finds, a figure a region, (R,).

    difference: between the groups, in the units of the scans; low, high: its 95 % interval; p: two-sided t test.
    complete_cases: the same of real scans alone; trust: the weight given to synthesised scans, 0 where they know
    nothing; worth: how many real scans one synthesised scan replaces; sd: of real scans within groups and sites.
    """

    difference: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p: np.ndarray
    complete_cases: np.ndarray
    trust: np.ndarray
    worth: np.ndarray
    sd: np.ndarray


def rectified_difference(
    real: np.ndarray,
    synthesised: np.ndarray,
    groups: Sequence[str],
    contrast: Groups = AD_LESS_NC,
    sites: Sequence[str] | None = None,
) -> RectifiedDifference:
    """Difference between two groups within sites, from real scans of some and synthesised scans of others.

    real, synthesised (N, R): a row a participant, nan where there is none; groups, sites (N,). What is synthesised must
    come from a model that was not trained on that participant. Other groups than the contrast's are left out.

    d = d(real) + trust (d(synthesised | missing) - d(synthesised | both)). A synthesised scan shrinks and may be biased
    by group: both cancel between the two last terms, whatever the model, so d is unbiased where scans are missing at
    random within group and site. Where all have a synthesised scan, trust = cov(real, synthesised) / var(synthesised)
    n_missing / (n_missing + n_both), both within groups and sites; the variance of d is then the least, and never above
    that of the complete cases (but for the estimate of trust). Where some real scans have no synthesised one beside
    them, d(real | both) - d(real | without) is weighed in too, as the covariances say.
    This is the regression estimator of double sampling (Cochran 1977, chapter 12), in the words of today a
    prediction-powered estimate with power tuning (Angelopoulos et al. 2023).

    Synthesised scans count for nothing where fewer than 10 participants with both scans remain after one is taken for
    each group and site. Raises ValueError where shapes or lengths differ, or fewer than two participants of a group
    have a real scan.

    >>> real = np.repeat([[3.0, 5.0, np.nan, np.nan], [0.0, 2.0, np.nan, np.nan]], 3)[:, None]
    >>> synthesised = np.repeat([[2.0, 3.0, 4.0, 3.0], [1.0, 2.0, 1.0, 1.0]], 3)[:, None]
    >>> found = rectified_difference(real, synthesised, ["AD"] * 12 + ["NC"] * 12)
    >>> found.complete_cases.round(3).tolist(), found.trust.round(3).tolist(), found.difference.round(3).tolist()
    ([3.0], [1.0], [4.5])
    """
    real, synthesised = paired(real, synthesised)
    kept, first, places = contrasted(len(real), groups, sites, contrast)
    real, synthesised = real[kept], synthesised[kept]
    has, made = np.isfinite(real).all(1), np.isfinite(synthesised).all(1)
    if min(np.sum(has & first), np.sum(has & ~first)) < 2:
        raise ValueError(f"two participants of {contrast[0]} and two of {contrast[1]} must have a real scan, or more.")
    found = rectify(np.ones((1, len(real))), real, synthesised, has, made, first, places)
    difference, error = found.difference[0], np.sqrt(found.variance[0])
    half = stats.t.ppf((1 + LEVEL) / 2, found.freedom[0]) * error
    return RectifiedDifference(
        difference=difference,
        low=difference - half,
        high=difference + half,
        p=2 * stats.t.sf(np.abs(ratio(difference, error)), found.freedom[0]),
        complete_cases=found.complete_cases[0],
        trust=found.trust[0],
        worth=found.worth[0],
        sd=np.sqrt(found.of_real[0]),
    )


@dataclass(frozen=True, eq=False)
class Rectified:
    """`rectify`'s figures for each row of weights and region, (B, R); freedom: of the variance; of_real: variance."""

    difference: np.ndarray
    variance: np.ndarray
    complete_cases: np.ndarray
    variance_complete_cases: np.ndarray
    trust: np.ndarray
    worth: np.ndarray
    of_real: np.ndarray
    freedom: np.ndarray


def rectify(
    weights: np.ndarray,
    real: np.ndarray,
    synthesised: np.ndarray,
    has: np.ndarray,
    made: np.ndarray,
    first: np.ndarray,
    sites: np.ndarray,
) -> Rectified:
    """The estimate of `rectified_difference` for each row of weights (B, N).

    has, made (N,): who has a real and who a synthesised scan, elsewhere neither is read; first, sites (N,).
    """
    parts = {"every": has, "both": has & made, "missing": ~has & made, "without": has & ~made}
    contrasts = {name: Contrast(weights[:, part], first[part], sites[part]) for name, part in parts.items()}
    c = {name: np.zeros_like(weights) for name in parts}
    for name, part in parts.items():
        c[name][:, part] = contrasts[name].coefficients()
    y, f = np.where(has[:, None], real, 0.0), np.where(made[:, None], synthesised, 0.0)

    def shared(a: str, b: str) -> np.ndarray:
        """Covariance (B, 1) of the differences of two parts, in SD of the values."""
        return np.sum(c[a] * c[b] / np.maximum(weights, 1), axis=1, keepdims=True)

    both, pair = contrasts["both"], parts["both"]
    of_y, of_f, of_both = (both.covariance(one[pair], two[pair]) for one, two in ((y, y), (f, f), (y, f)))
    varies = (of_f > np.square(NOTHING) * of_y) & (both.df >= FREEDOM)
    explained = varies * np.nan_to_num(ratio(np.square(of_both), of_y * of_f))
    unbiased = varies * (1 - (1 - explained) * both.df / np.maximum(both.df - 1, 1))
    alone = shared("every", "every")
    # d = d(real) + trust (d(f | missing) - d(f | both)) - mix (d(real | both) - d(real | without)), of least variance
    var_f = shared("missing", "missing") + shared("both", "both")
    var_mix = shared("both", "both") + shared("without", "without")
    gain_f = shared("every", "both") * _are_there(c["both"], c["missing"])
    gain_mix = (shared("every", "both") - shared("every", "without")) * _are_there(c["both"], c["without"])
    between = shared("both", "both") * _are_there(c["both"], c["missing"]) * _are_there(c["both"], c["without"])

    def determinant(explained: np.ndarray) -> np.ndarray:
        return var_f * var_mix - explained * np.square(between)

    def left(explained: np.ndarray) -> np.ndarray:
        """Variance of d that is left, in SD of the values."""
        saved = explained * (np.square(gain_f) * var_mix - 2 * gain_f * gain_mix * between)
        return alone - np.nan_to_num(ratio(saved + np.square(gain_mix) * var_f, determinant(explained)))

    trust = varies * ratio(gain_f * var_mix - gain_mix * between, determinant(explained)) * ratio(of_both, of_f)
    mix = ratio(gain_mix * var_f - explained * gain_f * between, determinant(explained))
    trust, mix, complete_cases = np.nan_to_num(trust), np.nan_to_num(mix), c["every"] @ y
    correction, mixed = c["missing"] @ f - c["both"] @ f, c["both"] @ y - c["without"] @ y
    variance, ignorant = left(unbiased), left(np.zeros_like(unbiased))
    of_real = contrasts["every"].covariance(real[has], real[has])
    return Rectified(
        difference=np.where(alone > 0, complete_cases + trust * correction - mix * mixed, np.nan),
        variance=of_real * variance,
        complete_cases=complete_cases,
        variance_complete_cases=of_real * alone,
        trust=trust,
        worth=np.nan_to_num(ratio(ignorant - variance, ignorant * variance * contrasts["missing"].pairs)),
        of_real=of_real,
        freedom=np.maximum(contrasts["every"].df - varies, 1),
    )


def _are_there(*coefficients: np.ndarray) -> np.ndarray:
    """Whether each of the parts has both groups, (B, 1)."""
    return np.logical_and.reduce([np.abs(one).sum(1, keepdims=True) > 0 for one in coefficients])
