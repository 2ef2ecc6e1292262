"""Tables and figures of region patterns from a results folder: agreement, effects, shrinkage, whom a method serves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pdsynth.evaluation.effect_completion import complete_effects
from pdsynth.evaluation.effects import EffectRecovery, effect_recovery
from pdsynth.report import words
from pdsynth.report.pattern_figures import brain_figure, group_figure, person_figure
from pdsynth.report.tables import AGREEMENT, COMPLETED_EFFECTS, EFFECTS, GROUPS
from pdsynth.results.folder import Results
from pdsynth.results.patterns import REAL, Patterns, read
from pdsynth.results.tables import write_table
from pdsynth.statistics.agreement import agreement_summary, agreement_table
from pdsynth.statistics.contrast import AD_LESS_NC
from pdsynth.statistics.inference import holm
from pdsynth.statistics.shrinkage import TRAITS, group_table, shrinkage_slope, variance_ratio
from pdsynth.types import Direction

SCORE = "psnr_brain"


def write_roi(results_dir: str | Path, seed: int = 0) -> None:
    """Write effects, agreement and groups as tables and Figures 5 and 6 into a results folder, from its patterns.tsv.

    effects.tsv: a row a method and direction. completed_effects.tsv: the same where half of the scans are hidden, a row
    an arm. agreement.tsv: a row a direction and region, of the method under test.
    groups.tsv: its scores by group. A participant counts once, with the first session. Raises InputError where a file
    of `evaluate` is missing.
    """
    results, patterns = Results.read(Path(results_dir)), read(results_dir).one_a_person()
    tested = results.tested
    effects, completed, agreement, groups = [], [], [], []
    shown: dict[Direction, EffectRecovery] = {}
    for direction in Direction:
        recovered = {method: _recovered(patterns, method, direction, seed) for method in patterns.methods}
        effects += [_row(patterns, method, direction, found, seed) for method, found in recovered.items()]
        completed.append(_completed(patterns, direction, seed))
        agreement.append(_by_region(patterns, tested, direction, recovered[tested]))
        groups.append(_by_group(results, patterns, direction, seed))
        shown[direction] = recovered[tested]
    write_table(results.root / EFFECTS, pd.DataFrame(effects))
    write_table(results.root / COMPLETED_EFFECTS, pd.concat(completed, ignore_index=True))
    write_table(results.root / AGREEMENT, pd.concat(agreement, ignore_index=True))
    write_table(results.root / GROUPS, _one_family(pd.concat(groups, ignore_index=True)))
    for direction, found in shown.items():
        _figures(patterns, tested, direction, found, results)


def _recovered(patterns: Patterns, method: str, direction: Direction, seed: int) -> EffectRecovery:
    groups, sites = _labels(patterns)
    return effect_recovery(*patterns.pair(method, direction), groups, AD_LESS_NC, sites, seed=seed)


def _completed(patterns: Patterns, direction: Direction, seed: int) -> pd.DataFrame:
    groups, sites = _labels(patterns)
    made = {method: patterns.pair(method, direction)[1] for method in patterns.methods}
    found = complete_effects(patterns.values[direction.target, REAL], made, groups, AD_LESS_NC, sites, seed=seed)
    found.insert(0, "direction", direction.value)
    return found


def _labels(patterns: Patterns) -> tuple[list[str], list[str]]:
    """Diagnoses and sites."""
    return patterns.people["diagnosis"].astype(str).tolist(), patterns.people["site"].astype(str).tolist()


def _row(patterns: Patterns, method: str, direction: Direction, recovered: EffectRecovery, seed: int) -> dict[str, Any]:
    """Each figure of a method and direction with its interval over participants."""
    real, made = patterns.pair(method, direction)
    counts = patterns.people["diagnosis"].value_counts()
    row: dict[str, Any] = {"method": method, "direction": direction.value}
    row |= {f"n_{group}": int(counts.get(group, 0)) for group in AD_LESS_NC}
    row |= {"n_strong": recovered.n_strong, "reliability": recovered.reliability}
    for name in ("slope", "slope_own_sd", "r", "sign_agreement"):
        row |= getattr(recovered, name).columns(name)
    centre = _centre(patterns, direction)
    for name, estimate in agreement_summary(real, made, patterns.people["site"].tolist(), centre, seed).items():
        row |= estimate.columns(name)
    row |= shrinkage_slope(real, made, centre, seed).pooled.columns("shrinkage")
    return row | {"variance_ratio": float(np.nanmedian(variance_ratio(real, made)))}


def _centre(patterns: Patterns, direction: Direction) -> np.ndarray:
    """The training participants' mean pattern, where the population's mean was evaluated; else these participants'."""
    average = patterns.values.get((direction.target, words.AVERAGE))
    return patterns.values[direction.target, REAL].mean(0) if average is None else average.mean(0)


def _one_family(table: pd.DataFrame) -> pd.DataFrame:
    """The p value of each trait and direction, corrected over all of them."""
    tests = table[["by", "direction", "p"]].dropna().drop_duplicates()
    tests["p_holm"] = holm(tests["p"].tolist())
    return table.drop(columns="p_holm").merge(tests.drop(columns="p"), on=["by", "direction"], how="left")


def _by_region(patterns: Patterns, method: str, direction: Direction, recovered: EffectRecovery) -> pd.DataFrame:
    real, made = patterns.pair(method, direction)
    regions = patterns.regions
    table = agreement_table(
        real, made, patterns.people["site"].tolist(), regions["name"].tolist(), regions["network"].tolist()
    )
    table.insert(0, "method", method)
    table.insert(1, "direction", direction.value)
    return table.assign(
        g_real=recovered.g_real,
        g_synthesised=recovered.g_synthesised_by_real_sd,
        variance_ratio=variance_ratio(real, made),
    )


def _by_group(results: Results, patterns: Patterns, direction: Direction, seed: int) -> pd.DataFrame:
    """PSNR of the method under test by site, sex, third of age and diagnosis."""
    scores = results.scan_scores(results.tested, direction).groupby("participant_id")[SCORE].mean()
    people = patterns.people.set_index("participant_id").loc[scores.index]
    table = group_table(scores.to_numpy(), people[list(TRAITS)].reset_index(drop=True), seed)
    return table.assign(direction=direction.value)


def _figures(
    patterns: Patterns, method: str, direction: Direction, recovered: EffectRecovery, results: Results
) -> None:
    root, simulated = results.root, results.simulated
    if patterns.people["diagnosis"].value_counts().max() > 1:
        group_figure(patterns, method, direction, root / f"figure5_{direction}.png", simulated)
    person_figure(patterns, method, direction, root / f"figure6_{direction}.png", simulated)
    if np.isfinite(recovered.g_real).any():
        effects = {"real": recovered.g_real, f"synthesised by {method}": recovered.g_synthesised_by_real_sd}
        title = f"{'SIMULATED. ' if simulated else ''}AD less NC, {words.DIRECTIONS[direction]}"
        unit = "Hedges' g, both by the real scans' SD within groups and sites"
        brain_figure(patterns.regions, effects, title, unit, root / f"figure_effects_{direction}.png")
