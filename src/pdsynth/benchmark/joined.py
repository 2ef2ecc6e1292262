"""The scores of all entries as one results folder, so that `roi`, `diagnose` and `report` read a benchmark too."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from pdsynth.evaluation import patterns
from pdsynth.evaluation.archive import METRICS, read_metrics, read_table, scores_folder, write_table
from pdsynth.evaluation.evaluate import comparisons
from pdsynth.files import linked, write_json
from pdsynth.report.benchmark import PAGE as BENCHMARK
from pdsynth.report.cards import CARDS, CHECKLISTS
from pdsynth.report.page import PAGE as REPORT
from pdsynth.report.tables import BY_DIAGNOSE, BY_ROI
from pdsynth.types import InputError

IMAGES = "predictions"
TABLE = "metrics.tsv"


def join_scores(out: Path, entries: Sequence[str], seed: int) -> None:
    """Write metrics.json, metrics.tsv, patterns.tsv, regions.tsv and predictions/ of all entries into `out`.

    Entries are in the order of the results: the first is the one under test, which the others are compared with, and a
    family of its own. All were scored on the same scans, as `benchmark` sees to; raises InputError where they were not.
    """
    folders = [scores_folder(out, entry) for entry in entries]
    table = pd.concat([read_table(folder / TABLE, patterns.TEXT) for folder in folders], ignore_index=True)
    each = [read_metrics(folder) for folder in folders]
    metrics = each[0]
    for block in ("methods", "times"):
        metrics[block] = {name: values for one in each for name, values in one[block].items()}
    metrics["comparisons"] = comparisons(table, list(entries), seed)
    patterns.save(_joined_patterns(folders), out)
    _link_images(folders, out / IMAGES)
    write_table(out / TABLE, table)
    write_json(out / METRICS, metrics)


def clear_joined(out: Path) -> None:
    """Remove scores, tables, figures and pages of all entries, of `roi`, `diagnose` and `report` too."""
    cards = [f"{name}.md" for name in (*CHECKLISTS, *CARDS)]
    scores = [METRICS, TABLE, patterns.NAME, patterns.REGIONS]
    made = [*scores, *BY_ROI, *BY_DIAGNOSE, REPORT, BENCHMARK, *cards]
    for stale in [*(out / name for name in made), *out.glob("table*.tsv"), *out.glob("figure*.png")]:
        stale.unlink(missing_ok=True)
    shutil.rmtree(out / IMAGES, ignore_errors=True)


def _joined_patterns(folders: Sequence[Path]) -> patterns.Patterns:
    each = [patterns.read(folder) for folder in folders]
    for folder, other in zip(folders, each, strict=True):
        if not other.people.equals(each[0].people) or not other.regions.equals(each[0].regions):
            raise InputError(folder, f"was scored on other scans or regions than {folders[0]}", "remove it, run again")
    values = {key: value for one in each for key, value in one.values.items()}
    return patterns.Patterns(each[0].people, each[0].regions, values)


def _link_images(folders: Sequence[Path], images: Path) -> None:
    """The images of all entries in one folder, as hard links where the file system has them."""
    made = images.with_name(f".{images.name}")
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir()
    for folder in folders:
        for path in sorted((folder / IMAGES).iterdir()):
            if not (made / path.name).exists():
                linked(path, made / path.name)
    shutil.rmtree(images, ignore_errors=True)
    made.rename(images)
