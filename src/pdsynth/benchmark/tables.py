"""The paper's tables: the recipes in their rows, and their numbers from the scores of a benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from pdsynth import manifest
from pdsynth.evaluation.metrics import METRICS
from pdsynth.evaluation.summary import comparisons
from pdsynth.evidence.effects.compute import EffectRecovery, effect_recovery
from pdsynth.recipes import CONTROLS, RECIPES
from pdsynth.results import patterns
from pdsynth.results.archive import METRICS_TSV, SECONDS
from pdsynth.results.entries import recipe_of, run_folder, scores_folder
from pdsynth.results.folder import read_metrics, scores_and_times
from pdsynth.results.tables import read_by_site, write_table
from pdsynth.statistics.inference import bca_interval
from pdsynth.types import Direction

TESTED = "pds"
SCORES = (*(metric.name for metric in METRICS if metric.label), "shuffled_source_psnr_brain")
COSTS = (
    "parameters",
    "gflop_per_volume",
    "peak_memory_mb",
    "fit_seconds",
    "loss_features",
    "loss_weights",
    "loss_gflop",
    "loss_seconds",
)
Effects = dict[tuple[str, Direction], EffectRecovery]  # by entry
CODE_DIGITS = 12  # printed digits of the digests of the code behind a row


def rows_of(*tables: int) -> tuple[str, ...]:
    """The names of the recipes that name any of these tables of the paper in `Recipe.tables`; tables: their numbers.

    Most controls (simple methods for comparison) and the oracle name none, although every table has rows for them.
    """
    return tuple(name for name, recipe in RECIPES.items() if set(tables) & set(recipe.tables))


@dataclass(frozen=True)
class Table:
    """A table of the paper, by its number. Its rows are the controls, the oracle, and the recipes that name it.

    Controls are simple methods for comparison. The oracle is an upper limit, for simulated cohorts only. A recipe names
    its tables in `Recipe.tables`. by_site: whether the scores of each site have their own rows.
    """

    number: int
    title: str
    by_site: bool = False

    @property
    def rows(self) -> tuple[str, ...]:
        """Names of the recipes in the rows: controls (simple methods), the oracle (upper limit), then the others."""
        return tuple(dict.fromkeys((*CONTROLS, *rows_of(self.number))))


TABLES = (
    Table(2, "All methods"),
    Table(3, "All methods, by site", by_site=True),
    Table(4, "Ablation: noise estimator, + pattern loss, + tissue refiner, + microstructure loss (pds); no diffusion"),
    Table(6, "Losses on features: none, 3D ResNet, slices, projections by VGG of 11 to 19 layers, and as in pds"),
    Table(7, "Against pure diffusion"),
    Table(8, "With and without the diffusion draft"),
)
FIGURES = {
    4: ("all methods", ("population-mean", *rows_of(2))),
    8: ("with and without the parts of pds", rows_of(4, 8)),
}
ALL = tuple(dict.fromkeys(name for table in TABLES for name in table.rows))


def write_tables(out: Path, entries: Sequence[str], seed: int) -> dict[int, str]:
    """Write the paper's tables 2, 3, 4, 6, 7 and 8 of scores as table<number>.tsv; returns the titles by number.

    out: folder of the benchmark, with the joint scores of all recipes, into which the tables are written. entries: the
    finished recipes, "recipe" or "recipe:small" for the small size. There is one row per recipe and direction (and
    site), with the mean and 95 % interval of each score over participants; PSNR in the brain (dB) of `pds` minus that
    of this recipe, with interval and paired permutation test, Holm-corrected over the table, and empty if `pds` was not
    run and in the rows of `pds` and of the oracle; the slope of synthesised on real effects of disease (see
    `EffectRecovery`); and costs. In the table by site (3), the correction is over each site, and effects and costs are
    left out. seed: of intervals and tests. A recipe that was not run has no row, and a table without rows is neither
    written nor returned.
    """
    run = {recipe_of(entry)[0]: entry for entry in entries}
    scores = {entry: read_by_site(scores_folder(out, entry) / METRICS_TSV) for entry in entries}
    simulated = manifest.read(out)["simulated"]
    effects = _effects(out, entries, seed)
    written = {}
    for table in TABLES:
        present = [run[name] for name in table.rows if name in run]
        if not present:
            continue
        people = pd.concat([scores[entry] for entry in present], ignore_index=True)
        groups = people.groupby("site", sort=True) if table.by_site else [("all", people)]
        parts = [
            _rows(out, present, group, seed, None if table.by_site else effects).assign(site=str(site))
            for site, group in groups
        ]
        content = pd.concat(parts, ignore_index=True).assign(data="SIMULATED" if simulated else "real")
        leading = ["data", "site", "direction", "method", "n_participants"]
        path = out / f"table{table.number}.tsv"
        write_table(path, content[[*leading, *content.columns.drop(leading)]])
        written[table.number] = table.title
    return written


def tested_of(entries: Sequence[str]) -> str | None:
    """The recipe with which all others are compared, "pds" or, in its small size, "pds:small"; None if it was not run.

    entries: the recipes of the benchmark, "recipe" or "recipe:small".
    """
    return next((entry for entry in entries if recipe_of(entry)[0] == TESTED), None)


def _effects(out: Path, entries: Sequence[str], seed: int) -> Effects:
    """The secondary endpoint by entry and direction of synthesis: effect recovery, AD minus NC within sites.

    Effect recovery is the slope over regions of synthesised on real effects (see `effect_recovery`).
    """
    found = patterns.read(out).one_per_participant()
    groups, sites = (found.people[name].astype(str).tolist() for name in ("diagnosis", "site"))
    return {
        (entry, direction): effect_recovery(*found.pair(entry, direction), groups, sites=sites, seed=seed)
        for entry in entries
        for direction in Direction
    }


def _rows(out: Path, entries: list[str], people: pd.DataFrame, seed: int, effects: Effects | None) -> pd.DataFrame:
    """The rows of one table, or of one site in the table by site: one row per direction of synthesis and entry.

    entries: "recipe", or "recipe:small" for its small size. people: scores of all scans of these rows, with the columns
    of metrics.tsv. Without `effects`, the columns of effects and costs are left out.
    """
    against = {}
    tested = tested_of(entries)
    if tested is not None:
        ordered = [tested, *(entry for entry in entries if entry != tested)]
        against = {(row["direction"], row["against"]): row for row in comparisons(people, ordered, seed)}
    rows = []
    for direction in Direction:
        for entry in entries:
            chosen = people[(people["method"] == entry) & (people["direction"] == direction.value)]
            each = chosen.groupby("participant_id")[list(SCORES)].mean()
            row: dict[str, Any] = {"direction": direction.value, "method": entry, "n_participants": len(each)}
            for metric in SCORES:
                row[metric] = each[metric].mean()
                row[f"{metric}_low"], row[f"{metric}_high"] = bca_interval(each[metric].to_numpy(), seed=seed)
            row |= _compared(against.get((direction.value, entry)))
            if effects is not None:
                found = effects[entry, direction]
                row |= found.slope.columns("effect_slope") | {"effect_reliability": found.reliability}
                row |= _costs(out, entry, direction)
            rows.append(row)
    return pd.DataFrame(rows)


def _compared(row: dict[str, Any] | None) -> dict[str, Any]:
    """The columns of a comparison of `comparisons`: PSNR of `pds` minus that of the entry, dB, and its test.

    They are None if there is no comparison.
    """
    row = row or {"psnr_brain_difference": None, "ci95": (None, None), "p": None, "p_holm": None}
    low, high = row["ci95"]
    return {"pds_less_this": row["psnr_brain_difference"], "pds_less_this_low": low, "pds_less_this_high": high} | {
        name: row[name] for name in ("p", "p_holm")
    }


def _costs(out: Path, entry: str, direction: Direction) -> dict[str, Any]:
    """The columns of costs of an entry ("recipe" or "recipe:small"), with its identification rate and code digests."""
    run = manifest.read(run_folder(out, entry))
    cost, code = run.get("cost", {}), run["parameters"]["begun_as"]["code"]
    scored = scores_and_times(read_metrics(scores_folder(out, entry)), entry, direction)
    stages = cost.get("stages", {}).values()
    return {
        **{name: scored[name] for name in ("identification_rate", SECONDS)},
        "train_steps": sum(stage["steps"] for stage in stages),
        "train_seconds": sum(stage["seconds"] for stage in stages),
        "train_tflop": sum(stage["steps"] * stage["gflop_per_step"] for stage in stages) / 1e3,
        **{f"{part}_code": digest[:CODE_DIGITS] for part, digest in code.items()},
        **{name: cost.get(name) for name in COSTS},
    }
