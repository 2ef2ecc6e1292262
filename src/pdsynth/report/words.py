"""Names, labels and explanations that the report prints, and the sentences that it derives from the scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pdsynth.data.preprocessing import UNRECORDED
from pdsynth.evaluation.metrics import METRICS, PRIMARY
from pdsynth.methods.controls import Oracle, PopulationMean
from pdsynth.methods.recipe import Role
from pdsynth.recipes import CONTROLS as CONTROL_NAMES
from pdsynth.recipes import RECIPES
from pdsynth.report.boilerplate import UNITS
from pdsynth.results.entries import LABEL, recipe_of
from pdsynth.statistics.inference import SIGNIFICANT
from pdsynth.types import Direction, Modality, counted

MODALITIES = {Modality.FMRI: "fMRI", Modality.DMRI: "dMRI"}
DIRECTIONS = {d: f"{MODALITIES[d.source]} \N{RIGHTWARDS ARROW} {MODALITIES[d.target]}" for d in Direction}
GROUPS = {
    "tested": "Under test",
    "baseline": "Other models",
    "control": "Controls",
    "ceiling": "Ceiling (upper limit)",
}
GROUP = {  # of one method
    "tested": "under test",
    "baseline": "other model",
    "control": "control",
    "ceiling": "best possible",
}
GROUP_OF = {Role.CONTROL: "control", Role.CEILING: "ceiling"}  # recipes of every other role are "baseline"
CEILING = Oracle.name
FINE_DETAIL = "spectrum_high"  # score of the power in the finest third of spatial frequencies
TONES = {
    "good": "in favour of the model",
    "warn": "against it, or to be careful with",
    "plain": "neither; the sentence says why",
}  # of sentences
AVERAGE = PopulationMean.name
CONTROLS = {name: RECIPES[name].summary for name in CONTROL_NAMES}


def synthetic(simulated: bool) -> str:
    """The mark of every picture of a synthesised scan. simulated: whether its source is of a simulated person."""
    return "SIMULATED \N{MIDDLE DOT} SYNTHETIC" if simulated else "SYNTHETIC"


def unit(parameters: Mapping[str, Any]) -> str:
    """The unit of the volumes in a prepared folder, by the parameters in its manifest.

    >>> unit({"grid_mm": 4.0})  # of an earlier version
    'the 99.5th percentile in the brain'
    """
    return UNITS[(UNRECORDED | dict(parameters))["intensity"]]


@dataclass(frozen=True)
class Column:
    """A column of a table in the report that has one row per method: one score, such as PSNR.

    key: name of the score in metrics.json. label: heading. decimals: of the printed values. better: the best value is
    the "high", the "low" or the "one" nearest to 1; "" if no value is better. meaning: explanation for the reader.
    """

    key: str
    label: str
    decimals: int
    better: str
    meaning: str


QUALITY = [Column(m.name, m.heading, m.decimals, m.better, m.meaning) for m in METRICS if m.label]
AUDIT = [
    Column(PRIMARY, "own source", 1, "high", "PSNR inside the brain from the participant's own source, dB."),
    Column(
        "shuffled_source_psnr_brain", "shuffled", 1, "", "PSNR inside the brain from another participant's source, dB."
    ),
    Column("drop", "drop", 1, "high", "Own source minus shuffled, dB. About 0: the method ignores the source."),
    Column(
        "identification_rate",
        "identified",
        2,
        "high",
        "Share of outputs that are closer to their own participant's real scan than to that of any other participant.",
    ),
    Column(
        "within_site_r",
        "within-site r",
        2,
        "high",
        "Correlation of the synthesised and the real differences of participants from their site's average, over "
        "voxels; 1 is ideal.",
    ),
    Column(
        "within_site_slope",
        "slope",
        2,
        "one",
        "Slope of the synthesised on the real differences of participants from their site's average, over voxels: 1 if "
        "individual differences are kept in full.",
    ),
    Column("seconds_per_volume", "s / volume", 2, "", "Median time of one prediction, seconds."),
]
UNCERTAINTY = [
    Column(
        "coverage_50",
        "within 50 % interval",
        2,
        "",
        "Share of voxels inside the brain whose real value is inside the 50 % interval; ideal 0.50.",
    ),
    Column(
        "coverage_90",
        "within 90 % interval",
        2,
        "",
        "Share of voxels inside the brain whose real value is inside the 90 % interval; ideal 0.90.",
    ),
    Column(
        "crps",
        "CRPS",
        4,
        "low",
        "Continuous ranked probability score: the error of the predicted distribution, in the unit of the images (0 to "
        "1); lower is better.",
    ),
    Column(
        "error_sd_rank_r",
        "error-SD rank r",
        2,
        "high",
        "Rank correlation over voxels of the absolute error and the SD; higher is better.",
    ),
    Column("mean_sd", "mean SD", 3, "", "Mean SD inside the brain, in the unit of the images (0 to 1)."),
]


def group_of(name: str, tested: str) -> str:
    """The group of methods to which the method `name` belongs: "tested", "control", "ceiling" or "baseline".

    tested: the name of the method under test. Controls are simple methods for comparison, the ceiling is the oracle,
    and every other method is a baseline.
    """
    if name == tested:
        return "tested"
    recipe = None if LABEL.fullmatch(name) else RECIPES.get(recipe_of(name)[0])  # a trained model is not a control
    return "baseline" if recipe is None else GROUP_OF.get(recipe.role, "baseline")


def value_of(scores: dict[str, Any], key: str) -> tuple[float | None, float | None, float | None]:
    """Mean and limits (mean, low, high) of the 95 % interval of a score; each is None if it was not measured.

    scores: those of one method and direction of synthesis, from metrics.json. key: the name of the score, or "drop" for
    the PSNR in the brain (dB) from the own source minus that from another participant's source.
    """
    if key == "drop":
        own, shuffled = value_of(scores, PRIMARY)[0], value_of(scores, "shuffled_source_psnr_brain")[0]
        return (None if own is None or shuffled is None else own - shuffled), None, None
    found = scores.get(key)
    if isinstance(found, dict):
        low, high = found.get("ci95") or (None, None)
        return found.get("mean"), low, high
    return found, None, None


def spread(name: str, metrics: dict[str, Any]) -> str:
    """The origin of the SD of the method `name`, as text: samples that were drawn, or the method itself.

    metrics: the content of metrics.json.
    """
    drawn = name in metrics.get("uncertainty_from_samples", [])
    return f"SD of {metrics['samples']} samples" if drawn else "SD stated by the method"


def number(value: float | None, decimals: int) -> str:
    """A number as text with a fixed number of decimals and a typographic minus sign; a dash for None."""
    if value is None:
        return "\N{EN DASH}"
    text = f"{value:.{decimals}f}"
    return (text.removeprefix("-") if float(text) == 0 else text).replace("-", "\N{MINUS SIGN}")


def interval(low: float | None, high: float | None, decimals: int) -> str:
    """The limits of an interval as text, such as "0.41 to 0.60"; "" if one of them is None."""
    return "" if low is None or high is None else f"{number(low, decimals)} to {number(high, decimals)}"


def skill(methods: dict[str, Any], name: str, direction: Direction) -> float | None:
    """How close the PSNR of a method is to the upper limit: 0 is the population mean, 1 the oracle.

    methods: scores by method and direction, from metrics.json; name: the method. PSNR is that in the brain, and the
    scale is linear. None if one of the three was not evaluated, or if the oracle's PSNR is not above that of the
    population mean.
    """
    if AVERAGE not in methods or CEILING not in methods:
        return None
    own, floor, top = (value_of(methods[m][direction.value], PRIMARY)[0] for m in (name, AVERAGE, CEILING))
    return None if own is None or floor is None or top is None or top <= floor else (own - floor) / (top - floor)


def verdicts(metrics: dict[str, Any], name: str, direction: Direction) -> list[tuple[str, str]]:
    """Sentences that judge the method under test in one direction of synthesis, each as (tone, sentence).

    A tone is "good", "warn" or "plain". metrics: the content of metrics.json; name: the method under test. The
    sentences are on its PSNR beside other methods, its use of the source, and the individual differences and the fine
    detail that it keeps.
    Empty if its PSNR was not measured.
    """
    methods, people = metrics["methods"], metrics["n_participants"]
    scores = methods[name][direction.value]
    drop, own = value_of(scores, "drop")[0], value_of(scores, PRIMARY)[0]
    if own is None:
        return []
    sentences = _comparisons([row for row in metrics.get("comparisons", []) if row["direction"] == direction.value])
    if drop is not None:
        source = "with another participant's source"
        unused = "the output is hardly closer to the person than an average brain is"
        if drop < 0.5:
            sentences.append(("warn", f"PSNR falls by less than 0.5 dB {source}: {unused}."))
        else:
            sentences.append(("good", f"PSNR falls by {number(drop, 1)} dB {source}: the method follows its source."))
    identified = value_of(scores, "identification_rate")[0]
    if identified is not None:
        closer = f"{identified:.0%} of the outputs are closer (mean squared error) to the real scan of their own"
        text = f"{closer} participant than to any other participant's (by chance: {1 / people:.0%})"
        beyond_chance = identified > 2 / people
        text += _best_control(methods, name, direction, identified) if beyond_chance else ""
        sentences.append(("plain" if beyond_chance else "warn", f"{text}."))
    slope = value_of(scores, "within_site_slope")[0]
    if slope is not None:
        beginning = f"The outputs keep {slope:.0%} of the differences between participants of the same site"
        text = f"{beginning} (slope of the synthesised on the real differences)"
        shrunk = f"{text}: differences between people are too small."
        unsure = f"{text}; this does not show that they are the right ones, see within-site r."
        sentences.append(("warn", shrunk) if slope < 0.8 else ("plain", unsure))
    detail = value_of(scores, FINE_DETAIL)[0]
    if detail is not None and detail < 0.8:
        amount = "is mostly missing" if detail < 0.5 else "is partly missing"
        text = f"Fine detail {amount}: the outputs have {detail:.0%} of the power of the real scans in the finest third"
        sentences.append(("warn", f"{text} of spatial frequencies."))
    return sentences


def _best_control(methods: dict[str, Any], tested: str, direction: Direction, identified: float) -> str:
    """Why the share of outputs that are identified is not in favour of the method under test, as the end of a text."""
    controls = [name for name in methods if group_of(name, tested) == "control"]
    rates = {name: value_of(methods[name][direction.value], "identification_rate")[0] for name in controls}
    known = {name: rate for name, rate in rates.items() if rate is not None}
    if not known:
        return "; no control was scored to compare with"
    best = max(known, key=known.__getitem__)
    if known[best] < identified:
        return f"; the best control, {best}, reaches {known[best]:.0%}, but the difference was not tested"
    return f", but the control {best} reaches {known[best]:.0%}"


def _comparisons(rows: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """(tone, sentence) on the methods with significantly higher, similar and lower PSNR than the method under test.

    rows: the comparisons of one direction in metrics.json, the method under test minus the other. Each sentence names
    the methods with the smallest differences first; the methods with higher PSNR begin with the highest.
    """
    lower: list[str] = []
    higher: list[str] = []
    level: list[str] = []
    for row in sorted(rows, key=lambda row: abs(row["psnr_brain_difference"])):
        difference = row["psnr_brain_difference"]
        amount = f"by {number(abs(difference), 2)} dB"
        if row["p_holm"] >= SIGNIFICANT:
            level.append(f"{row['against']} ({'lower' if difference < 0 else 'higher'} {amount})")
        else:
            (lower if difference < 0 else higher).append(f"{row['against']} ({amount})")
    sentences = []
    if lower:
        lower.reverse()  # the largest difference matters most
        others = f" and {counted(len(lower) - 3, 'other method')}" if len(lower) > 3 else ""
        sentences.append(("warn", f"PSNR is lower than that of {', '.join(lower[:3])}{others}."))
    if level:
        sentences.append(("warn", f"PSNR does not differ significantly from that of {', '.join(level)}."))
    if higher:
        tests = "other methods in the paired tests"
        if lower or level:
            some = f"{len(higher)} of {len(rows)} {tests}, not of all; the closest of these is {higher[0]}"
            sentences.append(("plain", f"PSNR is higher than that of {some}."))
        else:
            sentences.append(("good", f"PSNR is higher than that of all {tests}; the closest is {higher[0]}."))
    return sentences
