"""A rectified group difference: real scans of some participants, and synthesised scans of the others with a correction.

The correction is the error of the synthesised group difference among participants who have both scans.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from pdsynth.statistics.contrast import AD_LESS_NC, Contrast, Groups, contrasted, gap
from pdsynth.statistics.resampling import paired, ratio

LEVEL = 0.95
FREEDOM = 10  # least degrees of freedom to estimate the trust; with fewer, its error costs more than the scans gain
NOTHING = 1e-6  # a synthesised SD below this fraction of the real SD counts as 0


@dataclass(frozen=True, eq=False)
class RectifiedDifference:
    """A group difference from real and corrected synthesised scans, one value per region in each array, (R,).

    difference: mean of the first group minus mean of the second within sites, in the units of the scans. low, high: its
    95 % interval. p: two-sided t test of no difference. complete_cases: the difference from real scans alone. trust:
    weight of the synthesised scans, 0 if they are not used. worth: number of real scans that would narrow the interval
    as much as one synthesised scan; below 0 if they widen it, and 0 if nobody has a synthesised scan alone. sd: SD of
    real scans within groups and sites.
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
    """Difference between two groups within sites, from real scans of some and synthesised scans of other participants.

    real, synthesised (N, R): means of R regions, one row per participant, nan if there is no scan; groups, sites (N,):
    group and site of each participant; contrast: the two groups, of which the second is subtracted. A synthesised scan
    must come from a model that was not trained on this participant. Participants of other groups are left out.

        d = d(real) + trust (d(synthesised | missing) - d(synthesised | both))

    - d(...): the group difference within sites. Both terms in the bracket use the same weights of sites.
    - missing, both: participants who have only the synthesised scan, and who have both scans.
    - trust: the weight that minimises the variance of d. If everyone has a synthesised scan at one site, it is
      cov(real, synthesised) / var(synthesised) n_missing / (n_missing + n_both), within groups.

    Synthesised scans may be shrunk or biased by group. This error is in both terms of the bracket and cancels for any
    model, so d is unbiased if scans are missing at random within group and site. The interval of d includes the
    uncertainty of the trust. The result also has the worth of a synthesised scan, the number of real scans that would
    narrow the interval as much; it is 0 if the synthesised scans are not used (trust 0), and can be below 0 if they
    have little information. If some participants have a real scan only, d(real | both) - d(real | real scan only)
    enters with a second weight, chosen in the same way. This is the regression estimator of double sampling (Cochran
    1977, chapter 12), also known as a prediction-powered estimate with power tuning (Angelopoulos et al. 2023).

    Intervals assume one variance for both groups, as a linear model does. If patients are fewer and vary more than
    controls, they are too short; the same is true with real scans alone. The trust is 0 if there are fewer than 10
    degrees of freedom: participants with both scans, minus one for each group at each site. Raises ValueError if shapes
    or lengths differ, if a row is nan in some regions only, if a group has fewer than two real scans, or if no site has
    real scans of both groups.

    >>> real = np.repeat([[3.0, 5.0, np.nan, np.nan], [0.0, 2.0, np.nan, np.nan]], 3)[:, None]
    >>> synthesised = np.repeat([[2.0, 3.0, 4.0, 3.0], [1.0, 2.0, 1.0, 1.0]], 3)[:, None]
    >>> found = rectified_difference(real, synthesised, ["AD"] * 12 + ["NC"] * 12)
    >>> found.complete_cases.round(3).tolist(), found.trust.round(3).tolist(), found.difference.round(3).tolist()
    ([3.0], [1.0], [4.5])
    """
    real, synthesised = paired(real, synthesised)
    in_contrast, first, site_labels = contrasted(len(real), groups, sites, contrast)
    real, synthesised = real[in_contrast], synthesised[in_contrast]
    has, filled = np.isfinite(real).all(1), np.isfinite(synthesised).all(1)
    if not np.array_equal(has, np.isfinite(real).any(1)) or not np.array_equal(filled, np.isfinite(synthesised).any(1)):
        raise ValueError("a participant has some regions and lacks others; leave the regions out, or the participant.")
    if min(np.sum(has & first), np.sum(has & ~first)) < 2:
        raise ValueError(f"two participants of {contrast[0]} and two of {contrast[1]} must have a real scan, or more.")
    if not set(site_labels[has & first]) & set(site_labels[has & ~first]):
        raise ValueError(f"no site has real scans of both {contrast[0]} and {contrast[1]}; effects are within sites.")
    found = rectify(np.ones((1, len(real))), real, synthesised, has, filled, first, site_labels)
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
    """A group difference from real and corrected synthesised scans, for each of B resamples and R regions, (B, R).

    difference: with synthesised scans; complete_cases: from real scans alone; both are nan if a group has fewer than
    two participants with real scans, or if no site has drawn ones of both groups. variance, variance_complete_cases:
    their squared standard errors; the second is 0 then. trust: weight of the synthesised scans. worth: number of real
    scans that would narrow the interval as much as one synthesised scan; below 0 if they widen it, and 0 where it
    cannot be estimated. of_real: variance of real scans within groups and sites. freedom: degrees of freedom of
    `variance`.
    """

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
    filled: np.ndarray,
    first: np.ndarray,
    sites: np.ndarray,
) -> Rectified:
    """Group difference from real and corrected synthesised scans, for each of B resamples of N participants.

    It is the estimate of `rectified_difference`. weights (B, N): number of times that each participant is drawn. real,
    synthesised (N, R): one row per participant. has, filled (N,) bool: whether a participant has a real and a
    synthesised scan; the values of participants without that scan are not read. first (N,) bool: whether a participant
    is in the first group, from which the other is subtracted; sites (N,): their sites.
    """
    pair = has & filled
    every, both, missing = (Contrast(weights[:, part], first[part], sites[part]) for part in (has, pair, ~has & filled))
    y, f = np.where(has[:, None], real, 0.0), np.where(filled[:, None], synthesised, 0.0)
    c = np.zeros_like(weights)
    c[:, has] = every.coefficients()
    # The expectation of both gaps is 0, even if the model is biased for a group at a site.
    z = gap(weights, first, sites, ~has & filled, pair)  # gap of synthesised scans
    w = gap(weights, first, sites, pair, has & ~filled)  # gap of real scans

    def shared(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Covariance (B, 1) of two differences with coefficients a and b, for values with SD 1."""
        return np.sum(a * b / np.maximum(weights, 1), axis=1, keepdims=True)

    of_y, of_f, of_both = (both.covariance(one[pair], two[pair]) for one, two in ((y, y), (f, f), (y, f)))
    varies = (of_f > np.square(NOTHING) * of_y) & (both.df >= FREEDOM)
    explained = varies * np.nan_to_num(ratio(np.square(of_both), of_y * of_f))
    unbiased = varies * (1 - (1 - explained) * both.df / np.maximum(both.df - 1, 1))
    # d = c y + trust z f - mix w y; trust and mix minimise its variance (normal equations, in SD of the values)
    var_c, c_z, c_w, z_w = shared(c, c), shared(c, z), shared(c, w), shared(z, w)
    var_z, var_w = (np.where(v > 0, v, 1) for v in (shared(z, z), shared(w, w)))
    steepness = (c_w * z_w - c_z * var_w) / (var_z * var_w - explained * np.square(z_w))  # trust / (cov / var)
    mix = (c_w * var_z - explained * c_z * z_w) / (var_z * var_w - explained * np.square(z_w))
    trust = np.nan_to_num(varies * steepness * ratio(of_both, of_f))

    def left(explained: np.ndarray) -> np.ndarray:
        """Variance of d, in units of the variance of real scans, for a known trust."""
        saved = explained * (np.square(c_z) * var_w - 2 * c_z * c_w * z_w) + np.square(c_w) * var_z
        return var_c - saved / (var_z * var_w - explained * np.square(z_w))

    learning = varies * (1 - explained) * np.square(steepness) * var_z / np.maximum(both.df - 2, 1)
    variance, ignorant = left(unbiased) + learning, left(np.zeros_like(unbiased))
    complete_cases = np.where(var_c > 0, c @ y, np.nan)
    of_real = every.covariance(real[has], real[has])
    return Rectified(
        difference=complete_cases + trust * (z @ f) - mix * (w @ y),
        variance=of_real * variance,
        complete_cases=complete_cases,
        variance_complete_cases=of_real * var_c,
        trust=trust,
        worth=np.nan_to_num(ratio(ignorant - variance, ignorant * variance * missing.pairs)),
        of_real=of_real,
        freedom=np.maximum(every.df - varies, 1),
    )
