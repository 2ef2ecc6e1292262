"""Builds report.html: result files in, one page that needs nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from pdsynth.evaluation.archive import scores_and_times
from pdsynth.report import brains, evidence, words
from pdsynth.report.charts import Bar, forest
from pdsynth.report.pictures import colour_bar
from pdsynth.report.rendering import render
from pdsynth.report.results import Results
from pdsynth.types import Direction

PAGE = "report.html"


def write_report(results_dir: str | Path) -> Path:
    """Write `results_dir`/report.html from the result files in that folder; returns its path.

    The page holds its images, styles and script; it loads nothing. Raises InputError where a result file is missing.
    """
    results = Results.read(Path(results_dir))
    context = _context(results) | {"colour_bar": colour_bar, "number": words.number}
    return render(results.root / PAGE, "report.html.j2", True, context)


def _context(results: Results) -> dict[str, Any]:
    metrics, manifest = results.metrics, results.manifest
    limits = brains.limits(results)
    return {
        "simulated": results.simulated,
        "tested": results.tested,
        "people": metrics["n_participants"],
        "split": metrics["split"],
        "sites": _counts(results, "site"),
        "diagnoses": _counts(results, "diagnosis"),
        "directions": [_direction(results, d) for d in Direction],
        "participants": brains.participants(results, limits),
        "gallery": brains.gallery(results, limits),
        "missing": brains.missing_scans(results, limits),
        "n_synthesised": len(results.synthesised),
        "limits": limits,
        "comparisons": _comparisons(results),
        "quality": words.QUALITY,
        "audit": words.AUDIT,
        "uncertainty": _uncertainty(results),
        "uncertainty_columns": words.UNCERTAINTY,
        "rejected": results.rejected.to_dict("records"),
        "manifest": manifest,
        "notes": manifest.get("notes", []),
        "provenance": json.dumps(manifest, indent=2),
        "controls": {n: t for n, t in words.CONTROLS.items() if n in results.methods},
        "spread": words.spread(results.tested, metrics),
        "seed": metrics.get("seed"),
        "evidence": (parts := evidence.sections(results)),
        "not_addressed": [
            what for key, what in evidence.ADDRESSED.items() if key not in {part.key for part in parts if part.tables}
        ],
    }


def _counts(results: Results, column: str) -> dict[str, int]:
    people = results.table.drop_duplicates("participant_id")[column].astype(str)
    counts = people[~people.isin(["", "nan"])].value_counts(sort=False).sort_index()
    return {str(name): int(n) for name, n in counts.items()}


def _direction(results: Results, direction: Direction) -> dict[str, Any]:
    """One direction's headline, chart and tables."""
    methods, tested = results.methods, results.tested
    mean, low, high = words.value_of(methods[tested][direction.value], "psnr_brain")
    ordered = _ordered(results, direction)
    bars = []
    for name in ordered:
        scores = methods[name][direction.value]
        value, *ends = words.value_of(scores, "psnr_brain")
        shuffled = words.value_of(scores, "shuffled_source_psnr_brain")[0]
        if value is not None:
            bars.append(Bar(name, words.group_of(name, tested), value, ends[0], ends[1], shuffled))
    return {
        "key": direction.value,
        "name": words.DIRECTIONS[direction],
        "psnr": words.number(mean, 1),
        "interval": words.interval(low, high, 1),
        "ssim": words.number(words.value_of(methods[tested][direction.value], "ssim_brain")[0], 3),
        "skill": words.skill(methods, tested, direction),
        "verdicts": words.verdicts(results.metrics, tested, direction),
        "chart": forest(bars, "PSNR inside the brain, dB"),
        "quality": _rows(results, direction, ordered, words.QUALITY),
        "audit": _rows(results, direction, ordered, words.AUDIT),
        "groups": _groups(results, direction),
    }


def _ordered(results: Results, direction: Direction) -> list[str]:
    """Methods by group, then by falling primary score."""
    groups = list(words.GROUPS)

    def place(name: str) -> tuple[int, float]:
        score = words.value_of(results.methods[name][direction.value], "psnr_brain")[0]
        return groups.index(words.group_of(name, results.tested)), -(score if score is not None else -np.inf)

    return sorted(results.methods, key=place)


def _rows(
    results: Results, direction: Direction, ordered: list[str], columns: list[words.Column]
) -> list[dict[str, Any]]:
    """Table rows; the best of each column, the ceiling left out, is marked."""
    scores = {name: scores_and_times(results.metrics, name, direction) for name in ordered}
    values = {name: [words.value_of(scores[name], column.key) for column in columns] for name in ordered}
    rows, previous = [], ""
    best = [_best([(n, values[n][i][0]) for n in ordered if n != words.CEILING], c) for i, c in enumerate(columns)]
    for name in ordered:
        group = words.group_of(name, results.tested)
        cells = [
            {
                "value": words.number(mean, column.decimals),
                "interval": words.interval(low, high, column.decimals),
                "best": name in best[i],
            }
            for i, (column, (mean, low, high)) in enumerate(zip(columns, values[name], strict=True))
        ]
        rows.append(
            {"name": name, "group": group, "heading": words.GROUPS[group] if group != previous else "", "cells": cells}
        )
        previous = group
    return rows


def _best(scores: list[tuple[str, float | None]], column: words.Column) -> set[str]:
    """Names whose score, as printed, is the column's best."""
    key = {"high": lambda v: -v, "low": lambda v: v, "one": lambda v: abs(v - 1)}.get(column.better)
    known = [(name, round(value, column.decimals)) for name, value in scores if value is not None]
    if key is None or not known:
        return set()
    top = min(key(value) for _, value in known)
    return {name for name, value in known if abs(key(value) - top) < 1e-9}


def _groups(results: Results, direction: Direction) -> list[dict[str, Any]]:
    """Mean primary score of the method under test by site and diagnosis; the worst of each is marked."""
    scores = results.scan_scores(results.tested, direction)
    rows = []
    for column in ("site", "diagnosis"):
        people = (
            scores[scores[column].fillna("").astype(str) != ""].groupby([column, "participant_id"])["psnr_brain"].mean()
        )
        means = people.groupby(level=0).agg(["mean", "count"])
        for name, row in means.iterrows():
            worst = len(means) > 1 and row["mean"] == means["mean"].min()
            rows.append({"by": column, "name": name, "mean": row["mean"], "n": int(row["count"]), "worst": worst})
    return rows


def _comparisons(results: Results) -> list[dict[str, Any]]:
    """The paired tests against each other method, as text."""
    return [
        {
            "direction": words.DIRECTIONS[Direction(row["direction"])],
            "against": row["against"],
            "difference": words.number(row["psnr_brain_difference"], 2),
            "interval": words.interval(row["ci95"][0], row["ci95"][1], 2),
            "p": _p(row["p"]),
            "p_holm": _p(row["p_holm"]),
            "significant": row["p_holm"] < 0.05,
            "lower": row["psnr_brain_difference"] < 0,
        }
        for row in results.metrics.get("comparisons", [])
    ]


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _uncertainty(results: Results) -> list[dict[str, Any]]:
    """A row a direction and method that gives an uncertainty."""
    rows = []
    for name, entry in results.methods.items():
        for direction in Direction:
            scores = entry[direction.value]
            if "coverage_90" in scores:
                means = [words.number(words.value_of(scores, c.key)[0], c.decimals) for c in words.UNCERTAINTY]
                origin = words.spread(name, results.metrics)
                rows.append({"name": name, "from": origin, "direction": words.DIRECTIONS[direction], "cells": means})
    return rows
