"""A group difference where only some have the scan: synthesised scans of the others count, and are put right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from pdsynth.statistics.contrast import AD_LESS_NC, Contrast, Groups, contrasted, gap
from pdsynth.statistics.resampling import paired, ratio

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

    d = d(real) + trust (d(synthesised | missing) - d(synthesised | both)), the bracket taken within sites too, and the
    weights of sites are the same in both its parts. A synthesised scan shrinks and may be biased by group: that stands
    in both and cancels, whatever the model, so d is unbiased where scans are missing at random within group and site.
    Where all have a synthesised scan at one site, trust = cov(real, synthesised) / var(synthesised) n_missing /
    (n_missing + n_both), both within groups; the variance of d is then the least. What it costs to learn the trust is
    in the interval, and where synthesised scans know nothing the worth is below 0. Where some real scans have no
    synthesised one beside them, d(real | both) - d(real | without) is weighed in too, as the covariances say.
    This is the regression estimator of double sampling (Cochran 1977, chapter 12), in the words of today a
    prediction-powered estimate with power tuning (Angelopoulos et al. 2023).

    Intervals take the variance of both groups to be one, as those of a linear model do: where patients are fewer and
    vary more than controls, they are too short, those of real scans alone no less. Synthesised scans count for nothing
    where fewer than 10 participants with both scans remain after one is taken for each group and site. Raises
    ValueError where shapes or lengths differ, a row is nan in a part of the regions, or a group has fewer than two real
    scans or no site has real scans of both groups.

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
    if not np.array_equal(has, np.isfinite(real).any(1)) or not np.array_equal(made, np.isfinite(synthesised).any(1)):
        raise ValueError("a participant has some regions and lacks others; leave the regions out, or the participant.")
    if min(np.sum(has & first), np.sum(has & ~first)) < 2:
        raise ValueError(f"two participants of {contrast[0]} and two of {contrast[1]} must have a real scan, or more.")
    if not set(places[has & first]) & set(places[has & ~first]):
        raise ValueError(f"no site has real scans of both {contrast[0]} and {contrast[1]}; effects are within sites.")
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
    pair = has & made
    every, both, missing = (Contrast(weights[:, part], first[part], sites[part]) for part in (has, pair, ~has & made))
    y, f = np.where(has[:, None], real, 0.0), np.where(made[:, None], synthesised, 0.0)
    c = np.zeros_like(weights)
    c[:, has] = every.coefficients()
    # both differ from 0 by chance alone, whatever a model does to a group at a site
    z = gap(weights, first, sites, ~has & made, pair)  # of synthesised scans
    w = gap(weights, first, sites, pair, has & ~made)  # of real ones

    def shared(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Covariance (B, 1) of two differences with these coefficients, of values with SD 1."""
        return np.sum(a * b / np.maximum(weights, 1), axis=1, keepdims=True)

    of_y, of_f, of_both = (both.covariance(one[pair], two[pair]) for one, two in ((y, y), (f, f), (y, f)))
    varies = (of_f > np.square(NOTHING) * of_y) & (both.df >= FREEDOM)
    explained = varies * np.nan_to_num(ratio(np.square(of_both), of_y * of_f))
    unbiased = varies * (1 - (1 - explained) * both.df / np.maximum(both.df - 1, 1))
    # d = c y + trust z f - mix w y, of least variance: the normal equations, in SD of the values
    var_c, c_z, c_w, z_w = shared(c, c), shared(c, z), shared(c, w), shared(z, w)
    var_z, var_w = (np.where(v > 0, v, 1) for v in (shared(z, z), shared(w, w)))
    steepness = (c_w * z_w - c_z * var_w) / (var_z * var_w - explained * np.square(z_w))  # of trust on cov / var
    mix = (c_w * var_z - explained * c_z * z_w) / (var_z * var_w - explained * np.square(z_w))
    trust = np.nan_to_num(varies * steepness * ratio(of_both, of_f))

    def left(explained: np.ndarray) -> np.ndarray:
        """Variance of d where the trust is known."""
        saved = explained * (np.square(c_z) * var_w - 2 * c_z * c_w * z_w) + np.square(c_w) * var_z
        return var_c - saved / (var_z * var_w - explained * np.square(z_w))

    learning = varies * (1 - explained) * np.square(steepness) * var_z / np.maximum(both.df - 2, 1)
    variance, ignorant = left(unbiased) + learning, left(np.zeros_like(unbiased))
    complete_cases, of_real = c @ y, every.covariance(real[has], real[has])
    return Rectified(
        difference=np.where(var_c > 0, complete_cases + trust * (z @ f) - mix * (w @ y), np.nan),
        variance=of_real * variance,
        complete_cases=complete_cases,
        variance_complete_cases=of_real * var_c,
        trust=trust,
        worth=np.nan_to_num(ratio(ignorant - variance, ignorant * variance * missing.pairs)),
        of_real=of_real,
        freedom=np.maximum(every.df - varies, 1),
    )
