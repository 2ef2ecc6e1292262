"""The report's sections beyond image quality, each made from its result files where these are there."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from pdsynth.evaluation.completion import verdict
from pdsynth.evaluation.effect_completion import RECTIFIED
from pdsynth.files import read_json
from pdsynth.report import words
from pdsynth.report.tables import (
    COMPLETED_EFFECTS,
    COMPLETION,
    DIAGNOSIS,
    EFFECTS,
    GROUPS,
    PATTERN_LOSS,
    POWER,
    PROBES,
    SEPARATION,
    SITES,
    direction_of,
    number,
    p_value,
    rows_of,
    spread,
)
from pdsynth.results.folder import Results
from pdsynth.statistics.inference import SIGNIFICANT
from pdsynth.types import Direction, Modality

RELIABLE = 0.7  # share of the real effects' sum of squares that is not the sampling of these people
ADDRESSED = {  # by the key of the section
    "effects": "effect recovery between diagnoses",
    "diagnosis": "diagnosis from synthesised scans",
    "lesions": "inserted lesions",
    "memorisation": "memorisation",
    "sites": "leave-one-site-out",
}


@dataclass(frozen=True)
class Table:
    """A table in words: a heading a column, then rows of as many cells; a marked row stands out."""

    caption: str
    head: list[str]
    rows: list[list[str]]
    marked: list[bool] = field(default_factory=list)


@dataclass(frozen=True)
class Figure:
    """A picture of the results folder, within the page."""

    alt: str
    address: str


@dataclass(frozen=True)
class Section:
    """A part of the page: what was asked, what was found in sentences, tables and figures."""

    key: str
    title: str
    lead: str
    found: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)


def sections(results: Results) -> list[Section]:
    """Every section whose files are there."""
    made = (
        _effects(results),
        _completed(results),
        _patterns(results),
        _diagnosis(results),
        _completion(results),
        _embedding(results),
    )
    return [section for section in (*made, _sites(results), *_probes(results)) if section is not None]


def _effects(results: Results) -> Section | None:
    table = rows_of(results.root / EFFECTS)
    if table is None:
        return None
    head = ["Method", "Direction", "slope", "slope, own SD", "r", "sign agrees", "regions", "variance kept",
            "person's slope", "reliability"]  # fmt: skip
    rows = [
        [
            row["method"],
            direction_of(row),
            spread(row, "slope"),
            spread(row, "slope_own_sd"),
            spread(row, "r"),
            spread(row, "sign_agreement"),
            number(row, "n_strong", 0),
            number(row, "variance_ratio"),
            spread(row, "shrinkage"),
            number(row, "reliability"),
        ]
        for row in table
    ]
    marked = [row["method"] == results.tested for row in table]
    first = table[0]
    lead = (
        "Is the difference between the groups that real scans show found in synthesised ones? Each region's mean is "
        f"compared between AD ({number(first, 'n_AD', 0)}) and NC ({number(first, 'n_NC', 0)}) within sites (Hedges' "
        "g); the slope of synthesised on real over regions is 1 where nothing is lost, 0 where the group cannot be "
        "seen. Both are divided by the real scans' SD: by its own smaller SD a smooth estimate's effect looks larger "
        "than it is (the column beside it). Part of what real scans show is the sampling of these very people: a "
        "method that knew the disease, and nothing of the person, would have the slope named as reliability. "
        "Signs are compared in regions where the real g is above 0.3. Intervals: bootstrap over participants."
    )
    probe = read_json(results.root / PROBES).get("counterfactual", {})
    known_change = {row[0]: row[1] for row in probe.get("rows", [])}
    found = [_effect_sentence(row, known_change) for row in table if row["method"] == results.tested]
    files = [f"figure_effects_{d}.png" for d in Direction]
    return Section("effects", "Effects of disease", lead, found, [Table("Effect recovery", head, rows, marked)],
                   _figures(results, files, "Effects in real and synthesised scans"))  # fmt: skip


def _effect_sentence(row: dict[str, Any], known_change: dict[str, str]) -> str:
    slope, low, high, reliability = (row.get(name) for name in ("slope", "slope_low", "slope_high", "reliability"))
    if slope is None or low is None or high is None or reliability is None:
        return f"{direction_of(row)}: no effect could be estimated."
    if low <= 0 and high >= 1:
        judged = "these participants tell neither that the effect is kept nor that it is lost"
    elif reliability < RELIABLE:
        judged = (
            f"with a reliability of {words.number(reliability, 2)} much of what their real scans show is who these "
            "people are, so the slope tells of persons as much as of the disease"
        )
    elif high < reliability:
        judged = (
            f"the disease is understated: one that knew it, and nobody's person, would have "
            f"{words.number(reliability, 2)}"
        )
    elif high < 1:
        judged = (
            f"no loss of the disease can be told, as one that knew it, and nobody's person, would have "
            f"{words.number(reliability, 2)}"
        )
    else:
        judged = "no loss can be told" if low <= 1 else "the disease is overstated"
    change = known_change.get(direction_of(row))
    known = f" Of the known change of one person, below: {change}." if change else ""
    return f"{direction_of(row)}: {row['method']} has a slope of {spread(row, 'slope')}; {judged}.{known}"


def _completed(results: Results) -> Section | None:
    table = rows_of(results.root / COMPLETED_EFFECTS)
    if table is None:
        return None
    head = ["Direction", "Missing scans", "by", "slope", "error, SD", "interval's width", "worth in real scans"]
    rows = [
        [
            direction_of(row),
            row["arm"],
            row.get("method") or "",
            spread(row, "slope"),
            number(row, "rmse", 3),
            spread(row, "width"),
            spread(row, "worth"),
        ]
        for row in table
    ]
    lead = (
        f"Half of the AD and NC participants ({number(table[0], 'n_hidden', 0)}) lack the target scan, hidden at "
        "random and repeatedly. How near do a study's effects come to those of all scans? The missing are left out "
        "(complete-cases), filled in and counted as scans (as if real), or filled in and put right by those who have "
        "both (rectified). The slope over regions is 1 where nothing is lost; the error is the root mean square "
        "distance in the real scans' SD; the width is that of the 95 % interval, 1 in complete cases. The worth is how "
        "many real scans one synthesised scan replaces: 0 for a method that knows nothing of the person, and where "
        "too few have both scans to tell."
    )
    found = [
        f"{direction_of(row)}: a scan by {row['method']} is worth {spread(row, 'worth')} of a real one to a study of "
        "groups, where those who have both scans put it right."
        for row in table
        if row["arm"] == RECTIFIED and row["method"] == results.tested and row.get("worth") is not None
    ]
    marked = [row.get("method") == results.tested for row in table]
    tables = [Table("Effects where half of the scans are missing", head, rows, marked)]
    return Section("completed-effects", "Effects where scans are missing", lead, found, tables)


def _patterns(results: Results) -> Section | None:
    table = rows_of(results.root / EFFECTS)
    if table is None:
        return None
    columns = {"icc": "ICC(2,1)", "ccc": "CCC", "within_site_r": "r within site", "pattern_r": "pattern r",
               "own_pattern_r": "pattern r, less the mean"}  # fmt: skip
    rows = [[row["method"], direction_of(row), *(spread(row, name) for name in columns)] for row in table]
    lead = (
        "Region means of each participant, real against synthesised: medians over regions (the last two: over "
        "participants). A correlation over all sites is high for a site's mean that never saw the participant; r "
        "within site is not. So is the correlation of two people's patterns, until the mean of all real scans is "
        "taken away."
    )
    marked = [row["method"] == results.tested for row in table]
    files = [f"figure{n}_{d}.png" for n in (5, 6) for d in Direction]
    tables = [Table("Agreement", ["Method", "Direction", *columns.values()], rows, marked), *_fairness(results)]
    figures = _figures(results, files, "Region patterns, real and synthesised")
    return Section("patterns", "Region patterns", lead, [], tables, figures)


def _fairness(results: Results) -> list[Table]:
    table = rows_of(results.root / GROUPS)
    if table is None:
        return []
    head = ["By", "Group", "Direction", "Participants", "PSNR in the brain, dB", "p, Holm"]
    rows = [
        [
            row["by"],
            row["group"],
            direction_of(row),
            f"{int(row['n'])}",
            spread(row, "mean", 1),
            p_value(row.get("p_holm")),
        ]
        for row in table
    ]
    marked = [bool(row["worst"]) and (row.get("p_holm") or 1) < SIGNIFICANT for row in table]
    caption = f"PSNR of {results.tested} by group; the lowest is marked where groups differ"
    return [Table(caption, head, rows, marked)]


def _diagnosis(results: Results) -> Section | None:
    table = rows_of(results.root / DIAGNOSIS)
    if table is None:
        return None
    lead = (
        f"Nested, grouped cross-validation on {int(table[0]['n'])} participants (split: {results.metrics['split']}): "
        "an elastic-net logistic regression on region means, every fit inside the fold. Each scheme stands beside its "
        "control: for synthesised test scans what the same classifier reaches from the scans that they were made from, "
        "for synthesised training scans what it reaches when trained on real ones. A synthesised scan adds no "
        "information that its source lacks. The paper's accuracies come from 53 test cases: their 95 % intervals, "
        "printed beside them, overlap each other."
    )
    tables = [_schemes("Schemes and controls (Table V)", table, results.tested)]
    pattern_loss = rows_of(results.root / PATTERN_LOSS)
    if pattern_loss is not None:
        tables.append(
            _schemes("With the pattern loss (pds-ne-pa) and without it (pds-ne) (Table IX)", pattern_loss, "pds-ne-pa")
        )
    power = rows_of(results.root / POWER)
    if power is not None:
        tables.append(_power(power, int(table[0]["n"])))
    seen = "Where the generator was trained on these participants, with others its scans would serve less."
    return Section("diagnosis", "Diagnosis", lead, [seen] if results.metrics["split"] == "train" else [], tables)


def _schemes(caption: str, table: Sequence[dict[str, Any]], marked: str) -> Table:
    head = ["Scheme", "Scans by", "balanced accuracy", "by linear SVM", "accuracy", "AUC", "macro F1", "Brier",
            "control", "accuracy less the control's", "p, Holm", "accuracy in the paper"]  # fmt: skip
    paired = "gain" in table[0]
    head += ["less without the loss", "p, Holm"] * paired
    rows = [
        [
            ": ".join(part for part in (row["scheme"], row.get("asks")) if part),
            row.get("method") or "",
            spread(row, "balanced_accuracy"),
            number(row, "svm_balanced_accuracy"),
            spread(row, "accuracy"),
            number(row, "auc"),
            number(row, "f1"),
            number(row, "brier", 3),
            row.get("against") or "",
            spread(row, "difference"),
            p_value(row.get("p_holm")),
            spread(row, "paper"),
            *[spread(row, "gain"), p_value(row.get("gain_p_holm"))] * paired,
        ]
        for row in table
    ]
    return Table(caption, head, rows, [row.get("method") == marked for row in table])


def _power(table: Sequence[dict[str, Any]], n: int) -> Table:
    head = ["Difference, points", "participants needed, errors independent", "errors half shared",
            f"power of these {n}, independent", "half shared"]  # fmt: skip
    rows = [
        [
            words.number(100 * row["difference"], 0),
            number(row, "needed_independent", 0),
            number(row, "needed_half_shared", 0),
            number(row, "power_independent"),
            number(row, "power_half_shared"),
        ]
        for row in table
    ]
    return Table("How many participants a difference of accuracy needs (McNemar, about 66 %, power 80 %)", head, rows)


def _completion(results: Results) -> Section | None:
    table = rows_of(results.root / COMPLETION)
    if table is None:
        return None
    head = ["Missing scans", "by", "balanced accuracy", "accuracy", "less the mean's", "p, Holm",
            "less complete cases'", "p, Holm", "less one-scan's", "p, Holm"]  # fmt: skip
    rows = [
        [
            row["arm"],
            row.get("method") or "",
            spread(row, "balanced_accuracy"),
            spread(row, "accuracy"),
            spread(row, "over_mean"),
            p_value(row.get("over_mean_p_holm")),
            spread(row, "over_complete_cases"),
            p_value(row.get("over_complete_cases_p_holm")),
            spread(row, "over_one_scan"),
            p_value(row.get("over_one_scan_p_holm")),
        ]
        for row in table
    ]
    lead = (
        "A third of the participants lack the fMRI and a third the dMRI, at random and repeatedly. Is a classifier "
        "that needs both better served by synthesised scans than by the average scan (mean), by leaving people out of "
        "the training (complete-cases), or by one classifier a scan (one-scan)? Above all stands what it reaches where "
        "nothing is missing (real)."
    )
    found = [verdict(pd.DataFrame(table))]
    return Section("completion", "Filling in what is missing", lead, found, [Table("Completion", head, rows)])


def _embedding(results: Results) -> Section | None:
    table = rows_of(results.root / SEPARATION)
    if table is None:
        return None
    head = ["Target", "Grouped by", "scans", "silhouette", "nearest-neighbour accuracy", "chance"]
    rows = [
        [
            words.MODALITIES[Modality(row["modality"])],
            row["by"],
            number(row, "n", 0),
            number(row, "silhouette"),
            number(row, "knn_accuracy"),
            number(row, "chance"),
        ]
        for row in table
    ]
    lead = (
        "t-SNE of region patterns, real and synthesised embedded together. The pictures change with seed and "
        "perplexity and prove nothing; the table holds what can be measured in the original space, beside chance. "
        "Synthesised scans that cannot be told from real ones leave provenance at chance."
    )
    figures = _figures(results, ["figure7.png"], "t-SNE of region patterns")
    tables = [Table("In the original space", head, rows)]
    return Section("embedding", "Do real and synthesised scans mix?", lead, [], tables, figures)


def _sites(results: Results) -> Section | None:
    table = rows_of(results.root / SITES)
    if table is None:
        return None
    head = ["Site", "Direction", "Participants", "trained with it, dB", "trained without it, dB", "difference, dB",
            "p, Holm"]  # fmt: skip
    rows = [
        [str(row["site"]), direction_of(row), f"{int(row['n_participants'])}", number(row, "psnr_seen"),
         number(row, "psnr_unseen"), spread(row, "difference"), p_value(row.get("p_holm"))]
        for row in table
    ]  # fmt: skip
    lead = (
        "Trained without a site, against trained on as many people of all sites: what a scanner never seen costs. One "
        "training each: that another training would differ is not in the interval."
    )
    return Section("sites", "A site that was never seen", lead, [], [Table("Leave one site out", head, rows)])


def _probes(results: Results) -> list[Section]:
    """A section a probe, as `evidence` wrote it."""
    return [
        Section(
            key,
            probe["title"],
            probe["lead"],
            probe.get("found", []),
            [Table(probe["caption"], probe["head"], probe["rows"])] if probe.get("rows") else [],
        )
        for key, probe in read_json(results.root / PROBES).items()
    ]


def _figures(results: Results, names: Sequence[str], alt: str) -> list[Figure]:
    there = [results.root / name for name in names if (results.root / name).exists()]
    coded = [base64.b64encode(path.read_bytes()).decode() for path in there]
    return [
        Figure(f"{alt} ({path.stem})", f"data:image/png;base64,{code}") for path, code in zip(there, coded, strict=True)
    ]
