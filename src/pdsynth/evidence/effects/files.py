"""Files of the claim on effects: effects.tsv, agreement.tsv, groups.tsv and its figures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pdsynth.results.tables import TableFile
from pdsynth.statistics.resampling import Estimate
from pdsynth.types import Direction

COMMAND = "pdsynth roi"
GROUP_FIGURE, PERSON_FIGURE, EFFECTS_FIGURE = "figure5_{}.png", "figure6_{}.png", "figure_effects_{}.png"


@dataclass(frozen=True)
class Effect:
    """Row of effects.tsv: the difference AD minus NC and the agreement with real scans, of one method in one direction.

    method: the method that synthesised the scans; direction: of synthesis. n_AD, n_NC: numbers of participants. slope,
    slope_own_sd, r: slope (through the origin) and correlation over regions of the synthesised on the real differences
    (Hedges' g); both are in SD of the real scans, except in slope_own_sd, where each is in its own SD. sign_agreement:
    share of the n_strong regions with a real |g| above 0.3 in which both have the same sign. reliability: share of the
    real differences' sum of squares that is not sampling error.

    The other fields use participants of all diagnoses. icc (intraclass correlation), ccc (concordance correlation),
    within_site_r (correlation within sites), bias (synthesised - real, in the unit of the images): medians over
    regions. pattern_r, own_pattern_r: correlation over regions of a participant's real and synthesised means, without
    (pattern_r) and with (own_pattern_r) subtraction of the mean pattern; medians over participants. shrinkage: slope of
    the synthesised on the real deviations of participants from the mean pattern. The mean pattern is that of the
    training participants if the method population-mean was scored too, else that of the real scans. variance_ratio:
    variance over participants, synthesised divided by real, median over regions.

    Intervals are 95 %, over participants. A result that cannot be estimated is nan.
    """

    method: str
    direction: Direction
    n_AD: int  # noqa: N815
    n_NC: int  # noqa: N815
    n_strong: int
    reliability: float
    slope: Estimate
    slope_own_sd: Estimate
    r: Estimate
    sign_agreement: Estimate
    icc: Estimate
    ccc: Estimate
    within_site_r: Estimate
    bias: Estimate
    pattern_r: Estimate
    own_pattern_r: Estimate
    shrinkage: Estimate
    variance_ratio: float


@dataclass(frozen=True)
class RegionAgreement:
    """Row of agreement.tsv: agreement of the method under test with real scans in one region and one direction.

    name, network: of the region. All measures are over participants, in the unit of the images (bias, sd_of_difference,
    lower, upper) or without unit. icc: intraclass correlation ICC(2,1). ccc: concordance correlation. within_site_r:
    correlation of the deviations from the mean of each site. bias, sd_of_difference: mean and SD of synthesised - real.
    lower, upper: bias - 1.96 SD and bias + 1.96 SD of this difference. g_real, g_synthesised: Hedges' g of AD minus NC
    within sites, both in SD of the real scans. variance_ratio: variance, synthesised divided by real. A measure that
    cannot be estimated is nan; all but g_real and g_synthesised are nan for fewer than three participants.
    """

    method: str
    direction: Direction
    name: str
    network: str
    icc: float
    ccc: float
    within_site_r: float
    bias: float
    sd_of_difference: float
    lower: float
    upper: float
    g_real: float
    g_synthesised: float
    variance_ratio: float


@dataclass(frozen=True)
class GroupScore:
    """Row of groups.tsv: PSNR in the brain (dB) of the method under test in one group of participants.

    direction: of synthesis. by: the trait that defines the groups: "site", "sex", "age" or "diagnosis". group: its
    value, or the range of ages of a third of the participants, such as "55 to 63". n: number of participants. mean:
    over participants, with a 95 % interval. worst: whether it has the lowest mean among the groups of the trait with
    two participants or more. p: Kruskal-Wallis test for any difference between these groups of the trait, in this
    direction; nan if there are fewer than two of them. p_holm: corrected over all traits and both directions.
    """

    by: str
    group: str
    n: int
    mean: Estimate
    worst: bool
    p: float
    direction: Direction
    p_holm: float


EFFECTS = TableFile("effects.tsv", Effect, COMMAND)
AGREEMENT = TableFile("agreement.tsv", RegionAgreement, COMMAND)
GROUPS = TableFile("groups.tsv", GroupScore, COMMAND)


@dataclass(frozen=True)
class Effects:
    """Results on the effects of disease: the rows of effects.tsv, agreement.tsv and groups.tsv.

    effects: one row per method and direction of synthesis. agreement, groups: of the method under test, one row per
    direction and region, and per direction and group of participants.
    """

    effects: list[Effect]
    agreement: list[RegionAgreement]
    groups: list[GroupScore]

    def write(self, root: Path) -> None:
        """Write effects.tsv, agreement.tsv and groups.tsv into a results folder."""
        EFFECTS.write(root, self.effects)
        AGREEMENT.write(root, self.agreement)
        GROUPS.write(root, self.groups)
