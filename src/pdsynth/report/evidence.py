"""The report's sections beyond image quality, each made from its result files where these are there."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from pdsynth import manifest
from pdsynth.report import words
from pdsynth.report.results import Results
from pdsynth.types import Direction

EFFECTS, AGREEMENT, GROUPS = "effects.tsv", "agreement.tsv", "groups.tsv"
DIAGNOSIS, COMPLETION, EMBEDDING = "table5.tsv", "completion.tsv", "embedding.tsv"
SITES, PROBES = "sites.tsv", "probes.json"
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
    made = (_effects(results), _patterns(results), _diagnosis(results), _completion(results), _embedding(results))
    return [section for section in (*made, _sites(results), *_probes(results)) if section is not None]


def _effects(results: Results) -> Section | None:
    table = _read(results.root / EFFECTS)
    if table is None:
        return None
    head = ["Method", "Direction", "slope", "slope, own SD", "r", "sign agrees", "variance kept", "person's slope"]
    rows = [
        [
            row["method"],
            _direction(row),
            _spread(row, "slope"),
            _spread(row, "slope_own_sd"),
            _spread(row, "r"),
            f"{_spread(row, 'sign_agreement')} of {int(row['n_strong'])}",
            _number(row, "variance_ratio"),
            _spread(row, "shrinkage"),
        ]
        for row in table
    ]
    marked = [row["method"] == results.tested for row in table]
    lead = (
        "Is the difference between the groups that real scans show found in synthesised ones? Each region's mean is "
        "compared between AD and NC (Hedges' g, site means removed); the slope of synthesised on real over regions "
        "is 1 where nothing of the effect is lost, 0 where the group cannot be seen. Both are divided by the real "
        "scans' SD: by its own smaller SD a smooth estimate's effect looks larger than it is (the column beside "
        "it). Signs are compared where the real g is above 0.3. Intervals: bootstrap over participants."
    )
    found = [_effect_sentence(row) for row in table if row["method"] == results.tested]
    files = [f"figure_effects_{d}.png" for d in Direction]
    return Section("effects", "Effects of disease", lead, found, [Table("Effect recovery", head, rows, marked)],
                   _figures(results, files, "Effects in real and synthesised scans"))  # fmt: skip


def _effect_sentence(row: dict[str, Any]) -> str:
    slope, low, high = (row.get(name) for name in ("slope", "slope_low", "slope_high"))
    if slope is None or low is None or high is None:
        return f"{_direction(row)}: no effect could be estimated."
    kept = f"{_direction(row)}: {row['method']} keeps {slope:.0%} of the groups' difference ({low:.0%} to {high:.0%})"
    if low <= 1 <= high:
        return f"{kept}: no loss can be told."
    return f"{kept}: it {'understates' if high < 1 else 'overstates'} the disease."


def _patterns(results: Results) -> Section | None:
    table = _read(results.root / EFFECTS)
    if table is None:
        return None
    columns = {"icc": "ICC(2,1)", "ccc": "CCC", "within_site_r": "r within site", "pattern_r": "pattern r",
               "own_pattern_r": "pattern r, less the mean"}  # fmt: skip
    rows = [[row["method"], _direction(row), *(_spread(row, name) for name in columns)] for row in table]
    lead = (
        "Region means of each participant, real against synthesised: medians over regions (the last two: over "
        "participants). A correlation over all sites is high for a site's mean that never saw the participant; r "
        "within site is not. So is the correlation of two people's patterns, until the mean of all real scans is "
        "taken away."
    )
    marked = [row["method"] == results.tested for row in table]
    files = [f"figure{number}_{d}.png" for number in (5, 6) for d in Direction]
    tables = [Table("Agreement", ["Method", "Direction", *columns.values()], rows, marked), *_fairness(results)]
    figures = _figures(results, files, "Region patterns, real and synthesised")
    return Section("patterns", "Region patterns", lead, [], tables, figures)


def _fairness(results: Results) -> list[Table]:
    table = _read(results.root / GROUPS)
    if table is None:
        return []
    head = ["By", "Group", "Direction", "Participants", "PSNR in the brain, dB", "p, Holm"]
    rows = [
        [row["by"], row["group"], _direction(row), f"{int(row['n'])}", _spread(row, "mean", 1), _p(row.get("p_holm"))]
        for row in table
    ]
    return [Table(f"Whom {results.tested} serves worse (marked: the lowest group)", head, rows,
                  [bool(row["worst"]) for row in table])]  # fmt: skip


def _diagnosis(results: Results) -> Section | None:
    table = _read(results.root / DIAGNOSIS)
    if table is None:
        return None
    head = ["Scheme", "Method", "Train → test", "balanced accuracy", "accuracy", "AUC", "macro F1", "Brier",
            "control", "accuracy less the control's", "p, Holm", "paper"]  # fmt: skip
    rows = [
        [
            row["scheme"],
            row.get("method") or "",
            row["asks"],
            _spread(row, "balanced_accuracy"),
            _spread(row, "accuracy"),
            _number(row, "auc"),
            _number(row, "f1"),
            _number(row, "brier", 3),
            row.get("against") or "",
            _spread(row, "difference"),
            _p(row.get("p_holm")),
            _number(row, "paper"),
        ]
        for row in table
    ]
    n = int(table[0]["n"])
    lead = (
        f"Nested, grouped cross-validation on {n} participants whom the generator was not trained on; an elastic-net "
        "logistic regression on region means, every fit inside the fold. Each scheme stands beside its control: "
        "what the same classifier reaches from the scan that the synthesised one was made from. A synthesised scan "
        "adds no information that its source lacks. With the paper's 53 test cases an accuracy of 67.9 % has a 95 % "
        "interval of 54 to 79 %: schemes a few points apart cannot be told from each other, there or here."
    )
    marked = [bool(row.get("method")) for row in table]
    return Section("diagnosis", "Diagnosis", lead, [], [Table("Schemes and controls", head, rows, marked)])


def _completion(results: Results) -> Section | None:
    table = _read(results.root / COMPLETION)
    if table is None:
        return None
    head = ["Missing scans are", "balanced accuracy", "accuracy", "against", "difference", "p, Holm"]
    rows = [
        [row["arm"], _spread(row, "balanced_accuracy"), _spread(row, "accuracy"), row.get("against") or "",
         _spread(row, "difference"), _p(row.get("p_holm"))]
        for row in table
    ]  # fmt: skip
    lead = (
        "A third of the participants lack the fMRI and a third the dMRI, at random and repeatedly. The classifier "
        "needs both: is it better served by synthesised scans than by the average scan, or by leaving people out? "
        "Above all stands what it reaches where nothing is missing."
    )
    found = [str(row["verdict"]) for row in table if row.get("verdict")]
    return Section("completion", "Filling in what is missing", lead, found, [Table("Completion", head, rows)])


def _embedding(results: Results) -> Section | None:
    table = _read(results.root / EMBEDDING)
    if table is None:
        return None
    head = ["Origin", "By", "silhouette", "k-nearest-neighbour accuracy", "chance"]
    rows = [
        [row["origin"], row["by"], _number(row, "silhouette"), _number(row, "knn_accuracy"), _number(row, "chance")]
        for row in table
    ]
    lead = (
        "t-SNE of region patterns, real and synthesised embedded together. Its pictures change with seed and "
        "perplexity and prove nothing; the table holds what can be measured in the original space, beside chance."
    )
    figures = _figures(results, ["figure7.png"], "t-SNE of region patterns")
    tables = [Table("In the original space", head, rows)]
    return Section("embedding", "Do real and synthesised scans mix?", lead, [], tables, figures)


def _sites(results: Results) -> Section | None:
    table = _read(results.root / SITES)
    if table is None:
        return None
    head = ["Site", "Direction", "Participants", "trained with it, dB", "trained without it, dB", "difference, dB", "p"]
    rows = [
        [str(row["site"]), _direction(row), f"{int(row['n_participants'])}", _number(row, "psnr_seen"),
         _number(row, "psnr_unseen"), _spread(row, "difference"), _p(row.get("p"))]
        for row in table
    ]  # fmt: skip
    lead = "Trained without a site, against trained on as many people of all sites: what a scanner never seen costs."
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
        for key, probe in manifest.read_json(results.root / PROBES).items()
    ]


def _read(path: Path) -> list[dict[str, Any]] | None:
    """Rows of a table, what is n/a or empty as None; None where there is no such file."""
    if not path.exists():
        return None
    table = pd.read_csv(path, sep="\t", keep_default_na=False, na_values=["n/a", ""])
    return table.astype(object).where(table.notna(), None).to_dict("records") or None  # type: ignore[return-value]


def _figures(results: Results, names: Sequence[str], alt: str) -> list[Figure]:
    there = [results.root / name for name in names if (results.root / name).exists()]
    coded = [base64.b64encode(path.read_bytes()).decode() for path in there]
    return [
        Figure(f"{alt} ({path.stem})", f"data:image/png;base64,{code}") for path, code in zip(there, coded, strict=True)
    ]


def _direction(row: dict[str, Any]) -> str:
    return words.DIRECTIONS[Direction(row["direction"])]


def _number(row: dict[str, Any], name: str, decimals: int = 2) -> str:
    return words.number(row.get(name), decimals)


def _spread(row: dict[str, Any], name: str, decimals: int = 2) -> str:
    between = words.interval(row.get(f"{name}_low"), row.get(f"{name}_high"), decimals)
    return f"{_number(row, name, decimals)}{f' ({between})' if between else ''}"


def _p(value: float | None) -> str:
    if value is None:
        return "\N{EN DASH}"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
