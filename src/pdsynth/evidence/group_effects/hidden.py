"""Worth of synthesised scans in a comparison of groups: effects of disease if half of the real scans are hidden."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from pdsynth.evidence.group_effects.files import AS_IF_REAL, COMPLETE, RECTIFIED, CompletedEffect
from pdsynth.results.patterns import REAL, Patterns
from pdsynth.statistics.contrast import AD_LESS_NC, Contrast, contrasted, slope
from pdsynth.statistics.rectified import Rectified, rectify
from pdsynth.statistics.resampling import UNKNOWN, Estimate, bootstrap_weights, paired, ratio
from pdsynth.types import Direction

RESAMPLES = 500
Gain = tuple[Estimate, Estimate]  # width of the interval, worth of a synthesised scan
NO_GAIN: Gain = (UNKNOWN, UNKNOWN)


def completed_effects(patterns: Patterns, seed: int = 0) -> list[CompletedEffect]:
    """The difference AD minus NC within sites if half of the real scans are hidden, for every method and direction.

    patterns: region means, real and synthesised, one row per participant. seed: of the random choice of the hidden
    scans and of the bootstrap. Returns, for each direction of synthesis in turn, a row for the remaining real scans
    alone, and two rows per method: with its synthesised scans as if they were real, and with a correction (see
    `complete_effects`).
    """
    groups, sites = (patterns.people[name].astype(str).tolist() for name in ("diagnosis", "site"))
    found: list[CompletedEffect] = []
    for direction in Direction:
        synthesised = {method: patterns.pair(method, direction)[1] for method in patterns.methods}
        real = patterns.values[direction.target, REAL]
        found += complete_effects(direction, real, synthesised, groups, sites=sites, seed=seed)
    return found


def complete_effects(
    direction: Direction,
    real: np.ndarray,
    synthesised: Mapping[str, np.ndarray],
    groups: Sequence[str],
    *,
    sites: Sequence[str] | None = None,
    masks: int = 10,
    seed: int = 0,
    n: int = RESAMPLES,
) -> list[CompletedEffect]:
    """The difference AD minus NC if half of the real scans are hidden, compared with that of all scans.

    real: means of R regions (N, R), one row per participant; synthesised: (N, R) by method; groups, sites (N,):
    diagnosis and site of each participant (None: all at one site). Participants of other groups than AD and NC are left
    out. Within each site and group a random half of the real scans, rounded down, is hidden, `masks` times. Results are
    averages over these choices; all but rmse have 95 % intervals over participants (n resamples). seed: of the choices
    and of the resamples.

    There is one row per use of the scans (arm): first "complete-cases", which uses the remaining real scans only and
    has the method "". Then follow two rows per method: "as if real" replaces each hidden scan by the synthesised one
    and counts it as real, and "rectified" corrects the synthesised scans by their error in participants who have both
    scans (see `rectified_difference`). Without a method there is no row.

    Fields: n_left, n_hidden: numbers of real scans that remain and that are hidden; slope: of the arm's differences on
    those of all scans, over regions (1: kept in full); rmse: root mean square difference between the two, in SD of real
    scans within groups and sites. For "rectified" only, else nan: width: of the interval, relative to complete-cases
    (below 1: narrower); worth: number of real scans that one synthesised scan replaces. Both are medians over the
    regions whose real scans vary.

    All four are nan if a group has fewer than two participants, or if no site has both groups. If fewer than two real
    scans of a group remain, slope, rmse and width are nan for "complete-cases" and "rectified". worth is 0 if too few
    participants have both scans to estimate it. Raises ValueError if shapes differ.
    """
    in_contrast, first, site_labels = contrasted(len(real), groups, sites, AD_LESS_NC)
    by_method = {name: paired(real, values)[1][in_contrast] for name, values in synthesised.items()}
    real = np.asarray(real, np.float64)[in_contrast]
    generator = np.random.default_rng(seed)
    halves = [half_left(first, site_labels, generator) for _ in range(masks)]
    weights = bootstrap_weights(np.char.add(np.where(first, "a", "b"), site_labels), seed, n)
    everyone = np.ones(len(first), bool)
    whole = Contrast(weights, first, site_labels)
    sd = np.sqrt(whole.covariance(real, real))
    effects = ratio(whole.difference(real), sd)
    known = np.isfinite(effects[0])

    def row(arm: str, method: str, estimates: Sequence[np.ndarray], gain: Gain = NO_GAIN) -> CompletedEffect:
        scaled = [ratio(estimate, sd) for estimate in estimates]
        slopes = np.mean([slope(estimate, effects) for estimate in scaled], axis=0)
        errors = [np.square(estimate[0] - effects[0])[known] for estimate in scaled]
        rmse = float(np.sqrt(np.mean(errors))) if known.any() else float("nan")
        left = int(halves[0].sum())
        width, worth = gain
        return CompletedEffect(direction, arm, method, left, len(first) - left, Estimate.of(slopes), rmse, width, worth)

    rows: list[CompletedEffect] = []
    for name, values in by_method.items():
        found = [rectify(weights, real, values, has, everyone, first, site_labels) for has in halves]
        if not rows:
            rows.append(row(COMPLETE, "", [one.complete_cases for one in found]))
        filled = [whole.difference(np.where(has[:, None], real, values)) for has in halves]
        rows.append(row(AS_IF_REAL, name, filled))
        rows.append(row(RECTIFIED, name, [one.difference for one in found], _gain(found, known)))
    return rows


def half_left(first: np.ndarray, sites: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Random choice of the real scans that are not hidden, (N,) bool: half of each group at each site, rounded up.

    first (N,) bool: whether a participant is in the first of the two groups; sites (N,): their sites. generator: the
    source of the random choice.
    """
    left = np.ones(len(first), bool)
    cells = 2 * np.unique(sites, return_inverse=True)[1] + first
    for cell in np.unique(cells):
        members = generator.permutation(np.flatnonzero(cells == cell))
        left[members[: len(members) // 2]] = False
    return left


def _gain(found: Sequence[Rectified], known: np.ndarray) -> Gain:
    """Width of the interval relative to complete cases, and worth of a synthesised scan in real scans.

    found: the results of each random choice of the hidden scans, over which both are averaged. known (R,) bool: the
    regions in which a difference of real scans is known, over which the medians are taken.
    """
    if not known.any():
        return NO_GAIN
    widths = [np.sqrt(ratio(one.variance, one.variance_complete_cases)) for one in found]
    width, worth = (
        np.mean([np.median(each[:, known], axis=1) for each in values], axis=0)
        for values in (widths, [one.worth for one in found])
    )
    return Estimate.of(width, 0), Estimate.of(worth)
