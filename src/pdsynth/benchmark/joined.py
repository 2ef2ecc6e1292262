"""Joins the scores of all entries into one results folder, so that `roi`, `diagnose` and `report` can read it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from pdsynth.evaluation.summary import comparisons
from pdsynth.evidence.verbs import BY_DIAGNOSE, BY_ROI
from pdsynth.files import link_or_copy, write_json
from pdsynth.report.benchmark import PAGE as BENCHMARK
from pdsynth.report.cards import CARDS, CHECKLISTS
from pdsynth.report.page import PAGE as REPORT
from pdsynth.results import patterns
from pdsynth.results.archive import IMAGES, METRICS_JSON, METRICS_TSV
from pdsynth.results.entries import scores_folder
from pdsynth.results.folder import TEXT, read_metrics
from pdsynth.results.tables import read_table, write_table
from pdsynth.types import InputError


def join_scores(out: Path, entries: Sequence[str], seed: int) -> None:
    """Join the scores of all recipes of a benchmark into one results folder, as if they were evaluated together.

    Writes metrics.json, metrics.tsv, patterns.tsv (region means), regions.tsv and predictions/ into `out`, the folder
    of the benchmark. entries: the recipes, "recipe" or "recipe:small" for the small size, in the order of the results;
    the first is under test and is compared with each other one except the oracle. The p values of these comparisons are
    one family of Holm's correction. seed: of their permutations and resampling. Raises InputError if the recipes were
    scored on different scans or regions, or if scores are missing.
    """
    folders = [scores_folder(out, entry) for entry in entries]
    table = pd.concat([read_table(folder / METRICS_TSV, TEXT) for folder in folders], ignore_index=True)
    each = [read_metrics(folder) for folder in folders]
    metrics = each[0]
    for block in ("methods", "times"):
        metrics[block] = {name: values for one in each for name, values in one[block].items()}
    metrics["comparisons"] = comparisons(table, list(entries), seed)
    patterns.save(_joined_patterns(folders), out)
    _link_images(folders, out / IMAGES)
    write_table(out / METRICS_TSV, table)
    write_json(out / METRICS_JSON, metrics)


def clear_joined(out: Path) -> None:
    """Remove the joint results from the folder `out` of a benchmark: scores, tables, figures, saved volumes and pages.

    Those that `pdsynth roi`, `diagnose` and `report` added are removed too. The results of the single recipes remain.
    """
    cards = [f"{name}.md" for name in (*CHECKLISTS, *CARDS)]
    scores = [METRICS_JSON, METRICS_TSV, patterns.NAME, patterns.REGIONS]
    names = [*scores, *BY_ROI, *BY_DIAGNOSE, REPORT, BENCHMARK, *cards]
    for stale in [*(out / name for name in names), *out.glob("table*.tsv"), *out.glob("figure*.png")]:
        stale.unlink(missing_ok=True)
    shutil.rmtree(out / IMAGES, ignore_errors=True)


def _joined_patterns(folders: Sequence[Path]) -> patterns.Patterns:
    each = [patterns.read(folder) for folder in folders]
    for folder, other in zip(folders, each, strict=True):
        if not other.people.equals(each[0].people) or not other.regions.equals(each[0].regions):
            problem = f"was scored on other scans or regions than {folders[0]}"
            raise InputError(folder, problem, "remove it, and run the benchmark again")
    values = {key: value for one in each for key, value in one.values.items()}
    return patterns.Patterns(each[0].people, each[0].regions, values)


def _link_images(folders: Sequence[Path], images: Path) -> None:
    """Put the images of all entries of the benchmark into one folder, as hard links.

    They are copies on a file system without hard links.
    """
    new = images.with_name(f".{images.name}")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    for folder in folders:
        for path in sorted((folder / IMAGES).iterdir()):
            if not (new / path.name).exists():
                link_or_copy(path, new / path.name)
    shutil.rmtree(images, ignore_errors=True)
    new.rename(images)
