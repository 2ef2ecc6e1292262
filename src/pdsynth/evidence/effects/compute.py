"""Effects of disease in synthesised and real scans of the same participants, and their agreement region by region."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pdsynth.evaluation.metrics import PRIMARY
from pdsynth.evidence.effects.files import Effect, Effects, GroupScore, RegionAgreement
from pdsynth.report import words
from pdsynth.results.folder import Results
from pdsynth.results.patterns import REAL, Patterns
from pdsynth.results.tables import records
from pdsynth.statistics.agreement import agreement_summary, agreement_table
from pdsynth.statistics.contrast import AD_LESS_NC, Contrast, Groups, contrasted, slope
from pdsynth.statistics.inference import holm
from pdsynth.statistics.resampling import RESAMPLES, Estimate, bootstrap_weights, paired, ratio
from pdsynth.statistics.shrinkage import TRAITS, group_table, shrinkage_slope, variance_ratio
from pdsynth.types import Direction

STRONG = 0.3  # signs are compared in regions with a larger |g|


@dataclass(frozen=True, eq=False)
class EffectRecovery:
    """The group difference (effect) in real and in synthesised scans of the same participants, in each of R regions.

    g_real, g_synthesised (R,): Hedges' g (first group minus the second) of the real scans in SD of the real scans, and
    of the synthesised scans in SD of the synthesised scans. g_synthesised_by_real_sd (R,): g of the synthesised scans
    in SD of the real scans. slope (through the origin), r (correlation) and sign_agreement compare
    g_synthesised_by_real_sd with g_real over regions; slope_own_sd is the slope of g_synthesised on g_real. Their
    intervals are 95 %, over participants. sign_agreement: share of the n_strong regions with |g_real| > 0.3 in which
    both effects have the same sign; nan if there are none. reliability: share of the sum of g_real^2 over regions that
    the sampling of participants does not explain, 0 to 1.
    """

    g_real: np.ndarray
    g_synthesised: np.ndarray
    g_synthesised_by_real_sd: np.ndarray
    slope: Estimate
    slope_own_sd: Estimate
    r: Estimate
    sign_agreement: Estimate
    n_strong: int
    reliability: float


def effect_recovery(
    real: np.ndarray,
    synthesised: np.ndarray,
    groups: Sequence[str],
    contrast: Groups = AD_LESS_NC,
    sites: Sequence[str] | None = None,
    seed: int = 0,
    n: int = RESAMPLES,
) -> EffectRecovery:
    """The group difference (effect) in synthesised scans, compared with that in real scans of the same participants.

    real, synthesised (N, R): means of R regions, one row per participant; groups, sites (N,): diagnosis and site of
    each. contrast: the two groups. The effect is the mean of the first group minus that of the second, in SD (Hedges'
    g). Participants of other groups are left out; those of the two groups are resampled n times within their group, for
    the intervals. seed: of the resamples.

    With sites, the difference is taken within each site and averaged with weights n_a n_b / (n_a + n_b), where n_a and
    n_b are the numbers of participants of the two groups; this is a linear model with one term per site. The SD is that
    within groups and sites. Subtracting the mean of each site first would also remove part of the effect, because sites
    have different shares of the groups. Without sites (None), all participants count as one site. An effect that only a
    call without sites shows may be an effect of the scanners.

    How to read the slopes (through the origin, of the synthesised effect on the real one; 1 = no attenuation):

    - `slope` divides both differences by the SD of real scans. The posterior mean E[target | source] varies less within
      a group than real scans do. Divided by its own small SD, the same difference looks larger, so slope_own_sd may
      exceed 1 although the method contains no more information.
    - An image that is the same for everyone has slope 0 and sign agreement 0. Its r and slope_own_sd are nan, because
      it does not vary.
    - g_real contains the sampling error of these participants. A method that knows the disease but nothing about
      individuals cannot reproduce this error, and its expected slope is the reliability (the share of the sum of
      g_real^2 over regions that is not sampling error), not 1. A method that follows individuals reproduces it, with
      slope 1 even if the disease has no effect. If the reliability is low, the slope reflects individuals and not the
      disease.

    All results but n_strong, which is 0, are nan if a group has fewer than two participants, or if no site has both
    groups. Raises ValueError if shapes or lengths differ.
    """
    real, synthesised = paired(real, synthesised)
    in_contrast, first, site_labels = contrasted(len(real), groups, sites, contrast)
    compared = Contrast(bootstrap_weights(~first, seed, n), first, site_labels)
    of_real, of_synthesised = real[in_contrast], synthesised[in_contrast]
    g_real, own, by_real = (
        compared.g(values, spread)
        for values, spread in ((of_real, of_real), (of_synthesised, of_synthesised), (of_synthesised, of_real))
    )
    strong = np.abs(g_real) > STRONG
    agrees = strong & (np.sign(by_real) == np.sign(g_real))
    return EffectRecovery(
        g_real=g_real[0],
        g_synthesised=own[0],
        g_synthesised_by_real_sd=by_real[0],
        slope=Estimate.of(slope(by_real, g_real)),
        slope_own_sd=Estimate.of(slope(own, g_real)),
        r=Estimate.of(_correlation(by_real, g_real), -1, 1),
        sign_agreement=Estimate.of(ratio(agrees.sum(1).astype(float), strong.sum(1)), 0, 1),
        n_strong=int(strong[0].sum()),
        reliability=compared.reliability(g_real),
    )


def _correlation(y: np.ndarray, x: np.ndarray) -> np.ndarray:
    known = np.isfinite(x) & np.isfinite(y)
    number = np.maximum(known.sum(1, keepdims=True), 1)
    y, x = (v - np.sum(v, axis=1, where=known, keepdims=True) / number for v in (y, x))
    both, of_y, of_x = (np.sum(product, axis=1, where=known) for product in (x * y, y * y, x * x))
    return ratio(both, np.sqrt(of_y * of_x))


def recovered_by(patterns: Patterns, method: str, direction: Direction, seed: int) -> EffectRecovery:
    """Difference AD minus NC within sites in the scans of a method, compared with that in the real scans.

    patterns: region means, one row per participant. method: the method that synthesised the scans; direction: of
    synthesis. seed: of the bootstrap. See `effect_recovery`. Raises KeyError if the method has no scans of the target
    modality.
    """
    groups, sites = (patterns.people[name].astype(str).tolist() for name in ("diagnosis", "site"))
    return effect_recovery(*patterns.pair(method, direction), groups, AD_LESS_NC, sites, seed=seed)


def effects_of(results: Results, patterns: Patterns, seed: int = 0) -> tuple[Effects, dict[Direction, EffectRecovery]]:
    """The rows of effects.tsv, agreement.tsv and groups.tsv, and the effects of the method under test by direction.

    results: the results folder, which gives the method under test and its scores. patterns: region means, real and
    synthesised, one row per participant. The effect is the difference AD minus NC within sites. effects.tsv has one row
    per direction of synthesis and method; agreement by region and PSNR by group of participants (mean over the sessions
    of a participant) are those of the method under test. seed: of the bootstrap.
    """
    effects: list[Effect] = []
    agreement: list[RegionAgreement] = []
    groups: list[pd.DataFrame] = []
    tested: dict[Direction, EffectRecovery] = {}
    for direction in Direction:
        recovered = {method: recovered_by(patterns, method, direction, seed) for method in patterns.methods}
        effects += [_effect(patterns, method, direction, found, seed) for method, found in recovered.items()]
        tested[direction] = recovered[results.tested]
        agreement += _by_region(patterns, results.tested, direction, tested[direction])
        groups.append(_by_group(results, patterns, direction, seed))
    return Effects(effects, agreement, _one_family(pd.concat(groups, ignore_index=True))), tested


def _effect(patterns: Patterns, method: str, direction: Direction, recovered: EffectRecovery, seed: int) -> Effect:
    """The row of effects.tsv of one method and direction."""
    real, synthesised = patterns.pair(method, direction)
    counts = patterns.people["diagnosis"].value_counts()
    centre = _centre(patterns, direction)
    first, second = AD_LESS_NC
    return Effect(
        method=method,
        direction=direction,
        n_AD=int(counts.get(first, 0)),
        n_NC=int(counts.get(second, 0)),
        n_strong=recovered.n_strong,
        reliability=recovered.reliability,
        slope=recovered.slope,
        slope_own_sd=recovered.slope_own_sd,
        r=recovered.r,
        sign_agreement=recovered.sign_agreement,
        **agreement_summary(real, synthesised, patterns.people["site"].tolist(), centre, seed),
        shrinkage=shrinkage_slope(real, synthesised, centre, seed),
        variance_ratio=float(np.nanmedian(variance_ratio(real, synthesised))),
    )


def _centre(patterns: Patterns, direction: Direction) -> np.ndarray:
    """Mean pattern (R,) of the training participants if the population mean was evaluated, else of these scans."""
    average = patterns.values.get((direction.target, words.AVERAGE))
    return patterns.values[direction.target, REAL].mean(0) if average is None else average.mean(0)


def _by_region(
    patterns: Patterns, method: str, direction: Direction, recovered: EffectRecovery
) -> list[RegionAgreement]:
    real, synthesised = patterns.pair(method, direction)
    regions = patterns.regions
    table = agreement_table(
        real, synthesised, patterns.people["site"].tolist(), regions["name"].tolist(), regions["network"].tolist()
    ).assign(
        g_real=recovered.g_real,
        g_synthesised=recovered.g_synthesised_by_real_sd,
        variance_ratio=variance_ratio(real, synthesised),
    )
    return [RegionAgreement(method=method, direction=direction, **row) for row in records(table)]


def _by_group(results: Results, patterns: Patterns, direction: Direction, seed: int) -> pd.DataFrame:
    """PSNR in the brain (dB) of the method under test by site, sex, third of age and diagnosis (see `group_table`)."""
    scores = results.scan_scores(results.tested, direction).groupby("participant_id")[PRIMARY].mean()
    people = patterns.people.set_index("participant_id").loc[scores.index]
    table = group_table(scores.to_numpy(), people[list(TRAITS)].reset_index(drop=True), seed)
    return table.assign(direction=direction.value)


def _one_family(table: pd.DataFrame) -> list[GroupScore]:
    """The rows of groups.tsv from the tables of both directions, with p_holm over all traits and directions."""
    tests = table[["by", "direction", "p"]].dropna().drop_duplicates()
    tests["p_holm"] = holm(tests["p"].tolist())
    corrected = table.drop(columns="p_holm").merge(tests.drop(columns="p"), on=["by", "direction"], how="left")
    return [
        GroupScore(
            by=row["by"],
            group=row["group"],
            n=row["n"],
            mean=Estimate(row["mean"], row["mean_low"], row["mean_high"]),
            worst=row["worst"],
            p=row["p"],
            direction=Direction(row["direction"]),
            p_holm=row["p_holm"],
        )
        for row in records(corrected)
    ]
