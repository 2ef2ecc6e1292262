"""Builds report.html from the result files: one page that loads nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import escape

from pdsynth.cohorts.cohort import by_action
from pdsynth.evaluation.metrics import PRIMARY
from pdsynth.report import brains, shown, viewer, words
from pdsynth.report.boilerplate import of_evaluation
from pdsynth.report.cells import p_value
from pdsynth.report.charts import Bar, forest
from pdsynth.report.facts import Group, facts, groups_of
from pdsynth.report.filled import MOST_FILLED, filled
from pdsynth.report.pictures import colour_bar
from pdsynth.report.rendering import render, scripts
from pdsynth.report.sections import Claim
from pdsynth.report.sharing import FEWEST, released, shareable, short_names, without_cohort
from pdsynth.results.folder import Results, scores_and_times
from pdsynth.statistics.inference import SIGNIFICANT
from pdsynth.types import Direction, InputError, Modality

PAGE, PAGE_FOR_SHARING = "report.html", "report_for_sharing.html"
SCRIPTS = ("viewer.js", "tables.js", "script.js", "copy.js")


def write_report(
    results_dir: str | Path, claims: Sequence[Claim], participants: Sequence[str] = (), for_sharing: bool = False
) -> Path:
    """Write report.html from the result files of a folder, into this folder; returns its path.

    claims: modules, each of which reads its own result files of the folder and returns sections of the report. The page
    contains its volumes, images, styles and scripts, and loads nothing. participants: whom the page shows, see
    `shown.chosen`. for_sharing: write report_for_sharing.html instead, without images, identifiers, and anything about
    fewer than five people. Raises InputError if metrics.json, metrics.tsv, or predictions/participants.tsv or grid.json
    is missing or damaged, if participants are not in the folder, and if fewer than five people are to be shared.
    """
    results = Results.read(results_dir)
    context = _context(results, claims) | scripts(*SCRIPTS) | {"number": words.number, "sharing": for_sharing}
    if for_sharing:
        short = {str(escape(name)): str(escape(new)) for name, new in short_names(results.methods).items()}
        return render(results.root / PAGE_FOR_SHARING, "report.html.j2", True, context | _shared(context), short)
    return render(results.root / PAGE, "report.html.j2", True, context | _pictures(results, participants))


def _context(results: Results, claims: Sequence[Claim]) -> dict[str, Any]:
    """The values that every report needs, by the names that the template uses."""
    metrics, manifest = results.metrics, results.manifest
    sections = sorted((part for claim in claims for part in claim.sections(results)), key=lambda part: part.position)
    refused, noted = by_action(results.rejected.to_dict("records"), lambda row: str(row["remedy"]))
    addressed = {part.key for part in sections if part.tables}
    return {
        "simulated": results.simulated,
        "synthetic": words.synthetic(results.simulated),
        "root": results.root,
        "tested": results.tested,
        "people": metrics["n_participants"],
        "split": metrics["split"],
        "sites": _counts(results, "site"),
        "diagnoses": _counts(results, "diagnosis"),
        "directions": [_direction(results, d) for d in Direction],
        "n_synthesised": len(results.synthesised),
        "unit": words.unit((results.data.get("prepared") or {}).get("parameters") or {}),
        "comparisons": _comparisons(results),
        "tones": words.TONES,
        "quality": words.QUALITY,
        "audit": words.AUDIT,
        "rejected": refused,
        "noted": noted,
        "manifest": manifest,
        "notes": manifest.get("notes", []),
        "oracle": words.CEILING in results.methods,
        "scored_controls": any(words.group_of(name, results.tested) == "control" for name in results.methods),
        "controls": {n: t for n, t in words.CONTROLS.items() if n in results.methods},
        "seed": metrics.get("seed"),
        "sections": sections,
        "boilerplate": of_evaluation(manifest, results.model, facts(results, claims)),
        "not_addressed": [topic for c in claims for key, topic in c.ADDRESSES.items() if key not in addressed],
    }


def _pictures(results: Results, participants: Sequence[str]) -> dict[str, Any]:
    """The part of the context with volumes, pictures and names of participants."""
    limits, scans, missing = (
        shown.limits(results),
        shown.chosen(results, participants),
        filled(results.synthesised, results.root),
    )
    coverage = any("coverage_90" in scores[d.value] for scores in results.methods.values() for d in Direction)
    return {
        "named": bool(participants),
        "imaged": len(results.imaged),
        "volumes": viewer.contents(results, scans, missing, limits),
        "has_real": True,
        "participants": brains.participants(results, scans, limits),
        "gallery": brains.gallery(results, limits),
        "missing": brains.missing_scans(missing, limits),
        "most_shown": MOST_FILLED,
        "fmri_missing": any(each.target is Modality.FMRI for each in results.synthesised),
        "round_trips": any(each.round_trip is not None for each in missing),
        "limits": limits,
        "colour_bar": colour_bar,
        "states_sd": coverage,
        "spread": words.spread(results.tested, results.metrics),
        "provenance": json.dumps(results.manifest, indent=2),
    }


def _shared(context: dict[str, Any]) -> dict[str, Any]:
    """The part of the context that differs in a report for sharing. Raises InputError for fewer than five people."""
    if context["people"] < FEWEST:
        problem = f"holds results of {context['people']} participants, who could be recognised"
        raise InputError(context["root"], problem, f"share results of {FEWEST} participants or more")
    sections, left_out = shareable(context["sections"])
    return {
        "sections": sections,
        "notes": [without_cohort(note) for note in context["notes"]],
        "left_out": left_out,
        "diagnoses": _large_counts(context["diagnoses"]),
        "directions": [d | {"groups": _large_groups(d["groups"])} for d in context["directions"]],
    }


def _large_counts(counts: dict[str, int]) -> dict[str, int]:
    shared = released(list(counts.values()), [""] * len(counts))
    return dict(compress(counts.items(), shared))


def _large_groups(groups: list[Group]) -> list[Group]:
    return list(compress(groups, released([group.n for group in groups], [group.by for group in groups])))


def _counts(results: Results, column: str) -> dict[str, int]:
    people = results.table.drop_duplicates("participant_id")[column].astype(str)
    counts = people[~people.isin(["", "nan"])].value_counts(sort=False).sort_index()
    return {str(name): int(n) for name, n in counts.items()}


def _direction(results: Results, direction: Direction) -> dict[str, Any]:
    """Headline, chart and tables of one direction of synthesis, by the names that the template uses."""
    methods, tested = results.methods, results.tested
    mean, low, high = words.value_of(methods[tested][direction.value], PRIMARY)
    ordered = _ordered(results, direction)
    bars = []
    for name in ordered:
        scores = methods[name][direction.value]
        value, *ends = words.value_of(scores, PRIMARY)
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
        "ceiling": words.number(_ceiling(methods, direction), 1),
        "verdicts": words.verdicts(results.metrics, tested, direction),
        "chart": forest(bars, "PSNR inside the brain, dB"),
        "quality": _rows(results, direction, ordered, words.QUALITY),
        "audit": _rows(results, direction, ordered, words.AUDIT),
        "groups": list(groups_of(results, direction)),
    }


def _ceiling(methods: dict[str, Any], direction: Direction) -> float | None:
    """PSNR in the brain (dB) of the oracle; None if it was not scored."""
    return words.value_of(methods[words.CEILING][direction.value], PRIMARY)[0] if words.CEILING in methods else None


def _ordered(results: Results, direction: Direction) -> list[str]:
    """Methods sorted by group, then by descending PSNR in the brain.

    The groups are the tested method, other models, controls (simple methods), and the ceiling (the oracle).
    """
    groups = list(words.GROUPS)

    def sort_key(name: str) -> tuple[int, float]:
        score = words.value_of(results.methods[name][direction.value], PRIMARY)[0]
        return groups.index(words.group_of(name, results.tested)), -(score if score is not None else -np.inf)

    return sorted(results.methods, key=sort_key)


def _rows(
    results: Results, direction: Direction, ordered: list[str], columns: list[words.Column]
) -> list[dict[str, Any]]:
    """Table rows; the best value of each column is marked.

    The ceiling (the oracle, which knows the simulated truth) takes no part in this comparison.
    """
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
    """Names of the methods whose score is the best of the column after rounding; none if no value is better."""
    key = {"high": lambda v: -v, "low": lambda v: v, "one": lambda v: abs(v - 1)}.get(column.better)
    known = [(name, round(value, column.decimals)) for name, value in scores if value is not None]
    if key is None or not known:
        return set()
    top = min(key(value) for _, value in known)
    return {name for name, value in known if abs(key(value) - top) < 1e-9}


def _comparisons(results: Results) -> list[dict[str, Any]]:
    """The paired tests of the method under test against each other method, as text."""
    return [
        {
            "direction": words.DIRECTIONS[Direction(row["direction"])],
            "against": row["against"],
            "difference": words.number(row["psnr_brain_difference"], 2),
            "interval": words.interval(row["ci95"][0], row["ci95"][1], 2),
            "p": p_value(row["p"]),
            "p_holm": p_value(row["p_holm"]),
            "significant": row["p_holm"] < SIGNIFICANT,
            "lower": row["psnr_brain_difference"] < 0,
        }
        for row in results.metrics.get("comparisons", [])
    ]
