"""Effect recovery: do synthesised scans show the difference between two diagnoses that real scans show?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pdsynth.statistics.contrast import AD_LESS_NC, Contrast, Groups, contrasted, slope
from pdsynth.statistics.resampling import RESAMPLES, Estimate, bootstrap_weights, paired, ratio

STRONG = 0.3  # |g| of a region whose sign is compared


@dataclass(frozen=True, eq=False)
class EffectRecovery:
    """What `effect_recovery` finds; effects (R,), figures over the regions with 95 % intervals over participants.

    g_real, g_synthesised: Hedges' g, each by its own SD. g_synthesised_by_real_sd: the synthesised scans' difference
    by the real scans' SD. slope, r and sign_agreement compare the last with g_real; slope_own_sd compares
    g_synthesised. sign_agreement: share of the n_strong regions where |g_real| > 0.3. reliability: share of the sum
    of g_real^2 over regions that the sampling of participants doesn't explain. The slopes on the truth are None where
    it is not known.
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
    slope_real_on_truth: Estimate | None
    slope_synthesised_on_truth: Estimate | None


def hedges_g(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Hedges' g of a - b per region, (R,): standardised by the pooled SD, corrected for small samples (Hedges 1981).

    a (N_a, R); b (N_b, R). The correction is 1 - 3 / (4 df - 1), df = N_a + N_b - 2. nan where a region does not vary
    within the groups or a group has fewer than two participants.

    >>> hedges_g(np.array([[2.0], [4.0]]), np.array([[1.0], [3.0]])).round(3).tolist()
    [0.404]
    """
    values = np.concatenate([a, b]).astype(np.float64)
    first = np.arange(len(values)) < len(a)
    return Contrast(np.ones((1, len(values))), first, np.zeros(len(values), int)).g(values, values)[0]


def effect_recovery(
    real: np.ndarray,
    synthesised: np.ndarray,
    groups: Sequence[str],
    contrast: Groups = AD_LESS_NC,
    sites: Sequence[str] | None = None,
    truth: np.ndarray | None = None,
    seed: int = 0,
    n: int = RESAMPLES,
) -> EffectRecovery:
    """Effects of the contrast in synthesised against real scans of the same participants.

    real, synthesised (N, R), a row a participant; groups, sites (N,); truth (R,): the known effects of simulated
    data, as g. Participants of other groups are left out; the contrast's are resampled n times within their group.

    With sites, the difference is taken within each site and averaged with weights n_a n_b / (n_a + n_b), that is, a
    linear model with a term for each site, and the SD is the one within groups and sites. Subtracting the sites'
    means first would also take part of the effect wherever a site has more of one group. Call it with and without
    sites: what only the call without them shows may be scanners.

    How to read the slopes (through the origin, of the synthesised effect on the real one; 1 = no attenuation):

    - The headline divides both differences by the real scans' SD. An ideal estimate, E[target | source], varies less
      within a group than real scans do; by its own small SD the same difference looks larger, and slope_own_sd may
      exceed 1 without any better knowledge.
    - The same image for everyone has slope and sign agreement 0 (no effect has no sign), and no r or slope_own_sd
      (nan): it does not vary.
    - g_real holds the sampling error of these very participants. A method that knows the disease but not the person
      cannot reproduce that part, and its expected slope is not 1 but the reliability; a method that follows the
      person reproduces it, with slope 1 even where the disease does nothing. Low reliability: the slope tells of
      persons, not of the disease. Only slopes on a known truth are free of this: no sampling error stands on their x.

    Figures are nan where a group has fewer than two participants (at one site, where sites are given, none to compare
    with). Raises ValueError where shapes or lengths differ.
    """
    real, synthesised = paired(real, synthesised)
    kept, first, places = contrasted(len(real), groups, sites, contrast)
    if truth is not None and np.shape(truth) != real.shape[1:]:
        raise ValueError(f"the truth has shape {np.shape(truth)}; give one effect for each of {real.shape[1]} regions.")
    compared = Contrast(bootstrap_weights(~first, seed, n), first, places)
    of_real, of_synthesised = real[kept], synthesised[kept]
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
        slope_real_on_truth=None if truth is None else Estimate.of(slope(g_real, truth)),
        slope_synthesised_on_truth=None if truth is None else Estimate.of(slope(by_real, truth)),
    )


def _correlation(y: np.ndarray, x: np.ndarray) -> np.ndarray:
    known = np.isfinite(x) & np.isfinite(y)
    number = np.maximum(known.sum(1, keepdims=True), 1)
    y, x = (v - np.sum(v, axis=1, where=known, keepdims=True) / number for v in (y, x))
    both, of_y, of_x = (np.sum(product, axis=1, where=known) for product in (x * y, y * y, x * x))
    return ratio(both, np.sqrt(of_y * of_x))
