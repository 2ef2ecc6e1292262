"""The report on effects of disease and on region patterns, and the facts for the cards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import isnan

from pdsynth.evidence.effects.files import EFFECTS, EFFECTS_FIGURE, GROUP_FIGURE, GROUPS, PERSON_FIGURE, Effect
from pdsynth.evidence.probes.files import Probes
from pdsynth.report import words
from pdsynth.report.cells import by_direction, number, p_value, spread
from pdsynth.report.sections import Section, Table, figures
from pdsynth.results.folder import Results
from pdsynth.statistics.inference import SIGNIFICANT
from pdsynth.statistics.resampling import Estimate
from pdsynth.types import Direction

ADDRESSES = {"effects": "effects of disease in synthesised scans"}
RELIABLE = 0.7  # lowest reliability: share of the real effects' sum of squares that is not sampling error
KNOWING = (
    "a predictor that knew the true group difference but nothing about individuals would have, on average, a slope of "
    "synthesised on real effects equal to the reliability"
)
PATTERNS = {
    "icc": "ICC(2,1)",
    "ccc": "CCC",
    "within_site_r": "r within site",
    "pattern_r": "pattern r",
    "own_pattern_r": "pattern r, mean subtracted",
}


def sections(results: Results) -> Iterator[Section]:
    """Two sections of the report, on the effects of disease and on region means; none without effects.tsv."""
    rows = EFFECTS.read(results.root)
    if rows:
        yield _effects(results, rows)
        yield _patterns(results, rows)


def facts(results: Results) -> Mapping[str, str]:
    """Facts for the cards on the effects of disease in scans of the method under test, as text by name.

    "effects": slope of the synthesised on the real effects, with its interval, by direction of synthesis.
    "reliability": share of the real effects' sum of squares that is not sampling error, by direction. "effect_people":
    numbers of AD and NC participants. A fact is "" if it is not known.
    """
    own = [row for row in EFFECTS.read(results.root) if row.method == results.tested]
    return {
        "effects": by_direction(own, lambda row: "" if isnan(row.slope.value) else spread(row.slope)),
        "effect_people": "".join(f"{row.n_AD} AD and {row.n_NC} NC" for row in own[:1]),
        "reliability": by_direction(own, lambda row: "" if isnan(row.reliability) else number(row.reliability)),
    }


def _effects(results: Results, rows: list[Effect]) -> Section:
    head = ["Method", "Direction", "slope", "slope, own SD", "r", "sign agrees", "regions", "variance ratio",
            "individual slope", "reliability"]  # fmt: skip
    cells = [
        [
            row.method,
            words.DIRECTIONS[row.direction],
            spread(row.slope),
            spread(row.slope_own_sd),
            spread(row.r),
            spread(row.sign_agreement),
            f"{row.n_strong}",
            number(row.variance_ratio),
            spread(row.shrinkage),
            number(row.reliability),
        ]
        for row in rows
    ]
    lead = (
        "Do synthesised scans show the difference between the groups that real scans show? The mean signal of each "
        f"region is compared between AD ({rows[0].n_AD} participants) and NC ({rows[0].n_NC}) within sites (Hedges' "
        "g). The slope of synthesised on real effects over regions is 1 if the difference is kept in full, and 0 if "
        "it is lost; r is their correlation over regions. Both effects are divided by the SD of the real scans. "
        "Synthesised scans vary less than real ones; divided by their own smaller SD, the effect looks larger than it "
        "is (slope, own SD). Part of the effect in real scans is sampling error of these participants. For this "
        f"reason, {KNOWING} (last column) instead of 1. "
        "Sign agrees is the share of the regions with a real |g| above 0.3 in which both effects have the same sign; "
        "the number of these regions is in the next column. The variance ratio (variance over participants, "
        "synthesised divided by real, median over regions) and the individual slope (of the synthesised on the real "
        "deviations of participants from the average pattern: that of population-mean, or that of the real scans if it "
        "was not scored) are 1 if the differences between people are kept in full; noise also raises the variance "
        "ratio. Intervals: 95 %, bootstrap over participants."
    )
    probes = Probes.read(results.root)
    counterfactual = probes and probes.counterfactual
    changes = {row.direction: row.slope for row in counterfactual.rows} if counterfactual else {}
    found = [effect_sentence(row, changes.get(row.direction)) for row in rows if row.method == results.tested]
    table = Table(
        "Difference AD minus NC in synthesised scans, compared with real scans",
        head,
        cells,
        [row.method == results.tested for row in rows],
    )
    names = [EFFECTS_FIGURE.format(direction) for direction in Direction]
    drawn = figures(results, names, "Effects in real and synthesised scans")
    fewest = min(rows[0].n_AD, rows[0].n_NC)
    return Section("effects", "Effects of disease", 10, lead, found, [table], drawn, people=fewest)


def effect_sentence(row: Effect, known_change: Estimate | None) -> str:
    """The conclusion that the effects of a method in one direction of synthesis support, as one or two sentences.

    row: its slope over regions of the synthesised on the real effects (AD minus NC), with a 95 % interval, and its
    reliability (share of the real effects that is not sampling error) decide. known_change: the slope for SIMULATED
    people with a known change of the disease, which the second sentence reports; None if it was not measured.

    The first of these conclusions that applies is drawn: no effect could be estimated (slope, interval or reliability
    is nan; then there is no second sentence); too few participants (the interval contains 0 and 1); mostly sampling
    error (reliability below 0.7); attenuated (the interval is below the reliability); no attenuation is shown (it
    reaches the reliability and is not above 1); overstated (it is above 1).
    """
    name, slope = words.DIRECTIONS[row.direction], row.slope
    if any(isnan(value) for value in (slope.value, slope.low, slope.high, row.reliability)):
        return f"{name}: no effect could be estimated."
    reached = f"{KNOWING}, {number(row.reliability)}"
    if slope.low <= 0 and slope.high >= 1:
        verdict = "there are too few participants to show whether the effect is kept or lost"
    elif row.reliability < RELIABLE:
        verdict = (
            f"the reliability of the real effects is only {number(row.reliability)}: a large part of them is sampling "
            "error of these participants, so the slope reflects individuals as much as the disease"
        )
    elif slope.high < row.reliability:
        verdict = f"the effect is attenuated: {reached}"
    elif slope.high < 1:
        verdict = f"no attenuation is shown: {reached}"
    else:
        verdict = "no attenuation is shown" if slope.low <= 1 else "the effect is overstated"
    change = "For SIMULATED people with a known change, the slope of the synthesised on the real change is"
    known = f" {change} {spread(known_change)}." if known_change else ""
    return f"{name}: the slope of {row.method} is {spread(slope)}; {verdict}.{known}"


def _patterns(results: Results, rows: list[Effect]) -> Section:
    cells = [
        [row.method, words.DIRECTIONS[row.direction], *(spread(getattr(row, name)) for name in PATTERNS)]
        for row in rows
    ]
    lead = (
        "Do the region means of a participant's synthesised scan agree with those of the real scan? ICC(2,1) "
        "(intraclass correlation), CCC (concordance correlation) and the correlation within sites compare "
        "participants in each region; values are medians over regions, and 1 is ideal. The last two columns are "
        "correlations over regions of the real and the synthesised pattern (all region means) of each participant, "
        "medians over participants. Over all sites, agreement can be high even if each participant gets the average "
        "of their site; the correlation within sites does not reward this. In the same way, the patterns of any two "
        "people correlate until the average pattern is subtracted. In the figures of groups, bands are 95 % intervals "
        "of the mean."
    )
    head = ["Method", "Direction", *PATTERNS.values()]
    tables = [Table("Agreement", head, cells, [row.method == results.tested for row in rows]), *_groups(results)]
    names = [name.format(direction) for name in (GROUP_FIGURE, PERSON_FIGURE) for direction in Direction]
    drawn = figures(results, names, "Region patterns, real and synthesised")
    return Section("patterns", "Region patterns", 30, lead, [], tables, drawn)


def _groups(results: Results) -> list[Table]:
    rows = GROUPS.read(results.root)
    if not rows:
        return []
    head = ["By", "Group", "Direction", "Participants", "PSNR in the brain, dB", "p, Holm"]
    cells = [
        [row.by, row.group, words.DIRECTIONS[row.direction], f"{row.n}", spread(row.mean, 1), p_value(row.p_holm)]
        for row in rows
    ]
    marked = [row.worst and row.p_holm < SIGNIFICANT for row in rows]
    caption = (
        f"PSNR of {results.tested} by group of participants; if the groups differ (Kruskal-Wallis test, corrected "
        f"p < {SIGNIFICANT:g}), the lowest is marked"
    )
    people, within = [row.n for row in rows], [f"{row.by} {row.direction}" for row in rows]
    return [Table(caption, head, cells, marked, people=people, within=within)]
