"""Agreement of synthesised and real region patterns: by region over participants, and by participant over regions.

In all functions, `real` and `synthesised` are (N, R): means of R regions (a pattern), one row per participant. Results
by region are nan for fewer than three participants and for a region that varies neither in real nor in synthesised
patterns. A correlation is nan if either side does not vary. ICC and CCC measure equality of values; they are 0 if only
one side varies.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pdsynth.statistics.inference import bca_interval
from pdsynth.statistics.resampling import (
    RESAMPLES,
    ROUNDING,
    UNKNOWN,
    Estimate,
    bootstrap_weights,
    paired,
    ratio,
    scatter,
)

FEWEST = 3


@dataclass(frozen=True, eq=False)
class BlandAltman:
    """Agreement of synthesised with real values in each of R regions, (R,) each, in the units of the values.

    bias: mean over participants of the difference synthesised - real. sd: SD of this difference over participants.
    lower, upper: limits of agreement, bias - 1.96 sd and bias + 1.96 sd.
    """

    bias: np.ndarray
    sd: np.ndarray
    lower: np.ndarray
    upper: np.ndarray


def icc_2_1(real: np.ndarray, synthesised: np.ndarray) -> np.ndarray:
    """Intraclass correlation ICC(2,1) of real and synthesised values per region, (R,): agreement of single measures.

    real, synthesised (N, R): means of R regions, one row per participant. Two-way random effects, absolute agreement:
    Shrout and Fleiss 1979; ICC(A,1) of McGraw and Wong 1996. 1 means equal values; an offset or a scale lowers it. The
    least value is -N / (N - 2), below -1. 0 if only one of the two varies. nan for fewer than three participants, and
    for a region in which neither real nor synthesised values vary. Raises ValueError if the shapes differ.

    >>> real = np.array([[1.0], [2.0], [3.0]])
    >>> icc_2_1(real, real).round(3).tolist(), icc_2_1(real, real + 1).round(3).tolist()
    ([1.0], [0.667])
    """
    return _of_sample(_icc, *paired(real, synthesised))


def ccc(real: np.ndarray, synthesised: np.ndarray) -> np.ndarray:
    """Concordance correlation coefficient of real and synthesised values per region, (R,) (Lin 1989).

    It measures agreement with the line of identity: 1 means equal values. real, synthesised (N, R): means of R regions,
    one row per participant. The result is between -1 and 1, and 0 if only one of the two varies; nan for fewer than
    three participants, and for a region in which neither real nor synthesised values vary. Raises ValueError if the
    shapes differ.

    >>> real = np.array([[1.0], [2.0], [3.0]])
    >>> ccc(real, -real + 4).round(3).tolist()
    [-1.0]
    """
    return _of_sample(_ccc, *paired(real, synthesised))


def within_site_correlation(real: np.ndarray, synthesised: np.ndarray, sites: Sequence[str]) -> np.ndarray:
    """Correlation of real and synthesised values of the participants of the same site, per region (R,).

    real, synthesised (N, R): means of R regions, one row per participant; sites (N,). The mean of each site is
    subtracted from both; the correlation is over the participants of all sites together. A method that gives each
    participant the mean of their site correlates highly without this subtraction; here it gives nan. In general, nan
    for a region in which real or synthesised values do not vary within sites, and for fewer than three participants.
    Raises ValueError if the shapes differ.
    """
    real, synthesised = paired(real, synthesised)
    if len(real) < FEWEST:
        return np.full(real.shape[1], np.nan)
    return _site_r(np.ones((1, len(real))), real, synthesised, np.asarray(sites, str))[0]


def bland_altman(real: np.ndarray, synthesised: np.ndarray) -> BlandAltman:
    """Mean difference (bias) and limits of agreement of synthesised and real values per region (Bland and Altman 1986).

    real, synthesised (N, R): means of R regions, one row per participant; differences are synthesised - real, in the
    units of these means. nan for fewer than three participants. Raises ValueError if the shapes differ.

    >>> found = bland_altman(np.zeros((3, 1)), np.array([[0.0], [1.0], [2.0]]))
    >>> found.bias.tolist(), found.upper.tolist()
    ([1.0], [2.96])
    """
    real, synthesised = paired(real, synthesised)
    if len(real) < FEWEST:
        return BlandAltman(*(np.full(real.shape[1], np.nan) for _ in range(4)))
    difference = synthesised - real
    bias, sd = difference.mean(0), difference.std(0, ddof=1)
    return BlandAltman(bias, sd, bias - 1.96 * sd, bias + 1.96 * sd)


def pattern_correlation(real: np.ndarray, synthesised: np.ndarray, centre: np.ndarray | float = 0.0) -> np.ndarray:
    """Correlation over regions of real and synthesised region means, one value per participant, (N,).

    real, synthesised (N, R): means of R regions, one row per participant; N may be 1. centre (R,): mean values that are
    subtracted from both first; 0 subtracts nothing. Without it, the region means of any two people correlate highly.
    After subtraction of the population's mean, only individual deviations correlate. nan if the real or the synthesised
    values of a participant do not differ from the centre, or differ from it by a constant. Raises ValueError if the
    shapes differ.

    >>> average = np.array([[1.0, 2.0, 4.0]])
    >>> pattern_correlation(average + [[0, 0, 0.1]], average).round(2).tolist()
    [1.0]
    >>> pattern_correlation(average + [[0, 0, 0.1]], average, centre=average[0]).tolist()
    [nan]
    """
    sides = paired(real, synthesised)
    parts = [side - centre for side in sides]
    parts = [part - part.mean(1, keepdims=True) for part in parts]
    sums = [np.sum(part**2, axis=1) for part in parts]
    least = [ROUNDING**2 * np.sum(side**2, axis=1) for side in sides]
    sums = [np.where(total > rounded, total, 0.0) for total, rounded in zip(sums, least, strict=True)]
    return ratio(np.sum(parts[0] * parts[1], axis=1), np.sqrt(sums[0] * sums[1]))


def agreement_table(
    real: np.ndarray, synthesised: np.ndarray, sites: Sequence[str], names: Sequence[str], networks: Sequence[str]
) -> pd.DataFrame:
    """Agreement of synthesised with real values, one row per region.

    real, synthesised (N, R): region means, one row per participant; sites (N,): site of each participant; names,
    networks (R,): name and brain network of each region. Columns: name, network; icc, intraclass correlation ICC(2,1);
    ccc, concordance correlation; within_site_r, correlation of the deviations from the mean of each site; bias, mean
    over participants of synthesised - real; sd_of_difference, SD of this difference; lower and upper, bias -/+ 1.96 SD.
    All measures are nan for fewer than three participants. Raises ValueError if the shapes differ.
    """
    limits = bland_altman(real, synthesised)
    return pd.DataFrame(
        {
            "name": list(names),
            "network": list(networks),
            "icc": icc_2_1(real, synthesised),
            "ccc": ccc(real, synthesised),
            "within_site_r": within_site_correlation(real, synthesised, sites),
            "bias": limits.bias,
            "sd_of_difference": limits.sd,
            "lower": limits.lower,
            "upper": limits.upper,
        }
    )


def agreement_summary(
    real: np.ndarray,
    synthesised: np.ndarray,
    sites: Sequence[str],
    centre: np.ndarray,
    seed: int = 0,
    n: int = RESAMPLES,
) -> dict[str, Estimate]:
    """Agreement of synthesised with real values over all regions or all participants, with 95 % intervals.

    real, synthesised (N, R): means of R regions, one row per participant; sites (N,). Keys with the median over
    regions: icc (intraclass correlation ICC(2,1)), ccc (concordance correlation), within_site_r (correlation of the
    deviations from the mean of each site) and bias (mean of synthesised - real). Keys with the median over
    participants: pattern_r (correlation over regions of a participant's real and synthesised means) and own_pattern_r
    (the same after subtraction of `centre` (R,), the population's mean pattern). Medians leave out regions or
    participants with a nan; a median of none is nan. Intervals are over participants, from n resamples: within each
    site for within_site_r, else among all participants. The same seed gives the same intervals. Values and intervals
    are nan for fewer than three participants. Raises ValueError if the shapes differ.
    """
    real, synthesised = paired(real, synthesised)
    patterns = {"pattern_r": np.zeros(real.shape[1]), "own_pattern_r": centre}
    if len(real) < FEWEST:
        return dict.fromkeys(["icc", "ccc", "within_site_r", "bias", *patterns], UNKNOWN)
    labels, one = np.asarray(sites, str), np.zeros(len(real), str)
    anyone, at_site = bootstrap_weights(one, seed, n), bootstrap_weights(labels, seed, n)
    bias = anyone @ (synthesised - real) / len(real)
    found = {
        "icc": Estimate.of(_median(_icc(anyone, real, synthesised)), -len(real) / (len(real) - 2), 1),
        "ccc": Estimate.of(_median(_ccc(anyone, real, synthesised)), -1, 1),
        "within_site_r": Estimate.of(_median(_site_r(at_site, real, synthesised, labels)), -1, 1),
        "bias": Estimate.of(_median(bias)),
    }
    for name, middle in patterns.items():
        each = pattern_correlation(real, synthesised, middle)
        each = each[np.isfinite(each)]
        value = float(np.median(each)) if len(each) else float("nan")
        found[name] = Estimate(value, *bca_interval(each, np.median, seed, n))
    return found


def _of_sample(index: Callable[..., np.ndarray], real: np.ndarray, synthesised: np.ndarray) -> np.ndarray:
    if len(real) < FEWEST:
        return np.full(real.shape[1], np.nan)
    return index(np.ones((1, len(real))), real, synthesised)[0]


def _icc(weights: np.ndarray, real: np.ndarray, synthesised: np.ndarray) -> np.ndarray:
    """ICC(2,1) of two raters (real and synthesised), (B, R), for each of B resamples: weights (B, N).

    The mean squares of rows, error and raters are, with variances v_r and v_s, covariance c and shift of the mean:
    MSR = (v_r + v_s + 2 c) / 2, MSE = (v_r + v_s - 2 c) / 2, MSC = N shift^2 / 2.
    """
    variances, covariance, shift = _moments(weights, real, synthesised, len(real) - 1)
    rest = (variances - 2 * covariance) / len(real)
    return _varying(2 * covariance, variances + shift**2 - rest, variances)


def _ccc(weights: np.ndarray, real: np.ndarray, synthesised: np.ndarray) -> np.ndarray:
    """Lin's concordance coefficient for B resamples, (B, R), from central moments with the divisor N (Lin 1989)."""
    variances, covariance, shift = _moments(weights, real, synthesised, len(real))
    return _varying(2 * covariance, variances + shift**2, variances)


def _site_r(weights: np.ndarray, real: np.ndarray, synthesised: np.ndarray, sites: np.ndarray) -> np.ndarray:
    both, of_real, of_synthesised = (
        scatter(weights, x, y, sites) for x, y in ((real, synthesised), (real, real), (synthesised, synthesised))
    )
    return ratio(both, np.sqrt(of_real * of_synthesised))


def _moments(
    weights: np.ndarray, real: np.ndarray, synthesised: np.ndarray, divisor: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sum of the two variances, covariance, and difference of the means (synthesised - real), (B, R) each.

    weights: B resamples of the N participants, (B, N). divisor: of variances and covariance, N or N - 1.
    """
    everyone = np.zeros(len(real), int)
    variances = scatter(weights, real, real, everyone) + scatter(weights, synthesised, synthesised, everyone)
    covariance = scatter(weights, real, synthesised, everyone)
    return variances / divisor, covariance / divisor, weights @ (synthesised - real) / len(real)


def _varying(over: np.ndarray, under: np.ndarray, variances: np.ndarray) -> np.ndarray:
    """over / under; nan where the sum of the two variances is 0."""
    return ratio(over, np.where(variances > 0, under, 0.0))


def _median(values: np.ndarray) -> np.ndarray:
    """Median over the finite values of each row of (B, R), (B,); nan if no value is finite."""
    return np.array([np.median(row[np.isfinite(row)]) if np.isfinite(row).any() else np.nan for row in values])
