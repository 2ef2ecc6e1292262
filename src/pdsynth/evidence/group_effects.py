"""The difference between two groups of a cohort, from its real scans and what is synthesised where one is missing."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from pdsynth import api
from pdsynth.atlas import Atlas, evidence_regions, region_means
from pdsynth.data.pairs import Pairs
from pdsynth.evaluation import evaluate as scoring
from pdsynth.methods.base import Method
from pdsynth.report import words
from pdsynth.report.pattern_figures import brain_figure
from pdsynth.results.patterns import describe_regions
from pdsynth.results.tables import write_table
from pdsynth.statistics.contrast import AD_LESS_NC, Groups
from pdsynth.statistics.rectified import RectifiedDifference, rectified_difference
from pdsynth.statistics.resampling import ratio
from pdsynth.types import Direction, InputError, Modality

NAME, SUMMARY = "group_effects.tsv", "group_effects_summary.tsv"
FOLDS = 5
FOUND = 0.05  # false discovery rate
Means = dict[Direction, np.ndarray]  # of regions, (N, R), nan where nothing is synthesised
Told = Callable[[int, int], None]


def write_group_effects(
    out: Path,
    people: Pairs,
    synthesised: Means,
    contrast: Groups = AD_LESS_NC,
    atlas: Atlas | None = None,
) -> pd.DataFrame:
    """Write group_effects.tsv, a row a target and region, its summary and a figure a target; returns the summary.

    people: a row a participant, as `one_row_each` gives them; synthesised: as `cross_fitted` or `by_model` give it.
    Effects are within sites and rectified (`rectified_difference`), beside those of real scans alone. q: Benjamini and
    Hochberg's false discovery rate over the regions of a target. Raises ValueError where a group has fewer than two
    real scans of a target.
    """
    atlas = atlas or evidence_regions(people.grid)
    regions = describe_regions(atlas, people.grid)
    groups, sites = (people.table[name].astype(str).tolist() for name in ("diagnosis", "site"))
    tables, rows = [], []
    for direction in Direction:
        real = _real_means(people, direction, atlas)
        nothing = np.where(np.isfinite(real), 0.0, np.nan)
        alone = rectified_difference(real, nothing, groups, contrast, sites)
        found = rectified_difference(real, synthesised[direction], groups, contrast, sites)
        table = _table(direction, regions, found, alone)
        tables.append(table)
        rows.append(_summary(direction, real, synthesised[direction], found, alone, table))
        names = ("real scans alone", "with synthesised scans")
        effects = {name: each.difference / each.sd for name, each in zip(names, (alone, found), strict=True)}
        told = {name: (table[q] < FOUND).to_numpy() for name, q in zip(names, ("real_alone_q", "q"), strict=True)}
        first, second = contrast
        title = (
            f"{'SIMULATED. ' if people.simulated else ''}{first} less {second}, {words.MODALITIES[direction.target]}"
        )
        path = out / f"group_effects_{direction.target}.png"
        unit = "difference in the real scans' SD within groups and sites; ringed: false discovery rate below .05"
        brain_figure(regions, effects, title, unit, path, ringed=told)
    write_table(out / NAME, pd.concat(tables, ignore_index=True))
    summary = pd.DataFrame(rows)
    write_table(out / SUMMARY, summary)
    return summary


def one_row_each(pairs: Pairs, contrast: Groups) -> Pairs:
    """A whole scan of each participant of the contrast: the first session, but with both scans where there is one.

    Raises InputError where a group has fewer than two participants, or no site has real scans of both groups.
    """
    whole = pairs.whole_scans()
    table = whole.table.assign(unpaired=whole.table["available"] != "both")
    table = table[table["diagnosis"].isin([str(group) for group in contrast])]
    kept = table.sort_values(["participant_id", "unpaired", "session_id"]).drop_duplicates("participant_id").index
    people = whole.where(whole.table.index.isin(kept))
    numbers = {group: int((people.table["diagnosis"] == group).sum()) for group in contrast}
    if min(numbers.values()) < 2:
        found = " and ".join(f"{number} participants of {group}" for group, number in numbers.items())
        raise InputError(pairs.root, f"holds {found}", "name groups of two participants or more in --groups")
    for modality in Modality:
        sites = [set(people.table["site"][_has(people, modality) & (people.table["diagnosis"] == g)]) for g in contrast]
        if not set.intersection(*sites):
            problem = f"has no site with real {modality} scans of both {contrast[0]} and {contrast[1]}"
            raise InputError(pairs.root, problem, "effects are taken within sites: name other groups in --groups")
    return people


def cross_fitted(
    recipe: str,
    pairs: Pairs,
    people: Pairs,
    *,
    folds: int = FOLDS,
    budget: float | None = None,
    atlas: Atlas | None = None,
    seed: int = 0,
    device: str = "auto",
    progress: Told = lambda done, total: None,
) -> Means:
    """Region means of what a recipe synthesises of people (N rows), never by a model that was trained on them.

    The participants of `pairs` who have both scans, whatever their diagnosis, are dealt into folds; a model is trained
    without each fold, for `budget` seconds where the recipe needs a budget. Who has both scans is synthesised by the
    model that never saw them, who lacks a scan by all models, averaged (cross-fitting); the mean over the latter at
    the same site is taken from what each model synthesises. Raises ValueError where there are fewer paired participants
    than folds.
    """
    paired = pairs.where(pairs.table["available"] == "both")
    names = np.sort(paired.table["participant_id"].unique())
    if len(names) < folds:
        remedy = f"--folds {len(names)} or fewer" if len(names) > 1 else "--model, with a model that is trained already"
        raise ValueError(f"{len(names)} participants have both scans, too few for {folds} folds. Take {remedy}.")
    fold = dict(zip(names, np.random.default_rng(seed).permutation(len(names)) % folds, strict=True))
    of_person = people.table["participant_id"].map(fold).fillna(-1).to_numpy(int)
    atlas = atlas or evidence_regions(people.grid)
    totals = {d: np.zeros((len(people), len(atlas))) for d in Direction}
    with tempfile.TemporaryDirectory() as folder:
        for k in range(folds):
            progress(k, folds)
            train = paired.where(paired.table["participant_id"].map(fold) != k)
            run = Path(folder) / f"{k}"
            method = api.fit(recipe, train, run=run, budget=budget, seed=seed, device=device).method
            for direction, total in totals.items():
                here, elsewhere = of_person == k, of_person == -1
                theirs, others = (
                    _synthesised_means(method, people.where(rows), direction, atlas) for rows in (here, elsewhere)
                )
                places = people.table["site"].to_numpy(str)
                offsets = _offsets(others, places[elsewhere], places)
                total[here] = theirs - offsets[here]
                total[elsewhere] += (others - offsets[elsewhere]) / folds
    progress(folds, folds)
    return {direction: _where_needed(total, people, direction) for direction, total in totals.items()}


def by_model(model: api.Model, pairs: Pairs, people: Pairs, atlas: Atlas | None = None) -> Means:
    """The same by a model that is there; nothing of participants whom it was trained on, in any session of `pairs`.

    Raises ValueError where it was trained on everybody who has both scans.
    """
    seen = set(model.card.get("scans_sha256", []))
    trained_on = {person for digest, person in pairs.scan_digests().items() if digest in seen}
    unseen = ~people.table["participant_id"].isin(trained_on).to_numpy()
    if not (unseen & (people.table["available"] == "both")).any():
        raise ValueError(
            "the model was trained on all who have both scans. Leave out --model: a recipe is cross-fitted."
        )
    atlas = atlas or evidence_regions(people.grid)
    found = {}
    for direction in Direction:
        means = np.full((len(people), len(atlas)), np.nan)
        means[unseen] = _synthesised_means(model.method, people.where(unseen), direction, atlas)
        found[direction] = _where_needed(means, people, direction)
    return found


def _offsets(means: np.ndarray, sites: np.ndarray, of: np.ndarray) -> np.ndarray:
    """Of means (M, R) at sites (M,), the mean at each site `of` (N,), or where it has none the mean of all: (N, R).

    A model without a fold is off by what it lacks, at each site, which is the fold's and not the person's.
    """
    known = np.isfinite(means).all(1)
    found = np.zeros((len(of), means.shape[1]))
    for site in np.unique(of):
        there = known & (sites == site)
        there = there if there.any() else known
        if there.any():
            found[of == site] = means[there].mean(0)
    return found


def _synthesised_means(method: Method, people: Pairs, direction: Direction, atlas: Atlas) -> np.ndarray:
    """(N, R), nan where the source is missing."""
    means = np.full((len(people), len(atlas)), np.nan)
    there = _has(people, direction.source)
    if there.any():
        means[there] = region_means(scoring.predictions(method, people.where(there), direction), atlas)
    return means


def _where_needed(means: np.ndarray, people: Pairs, direction: Direction) -> np.ndarray:
    """nan for everybody where nobody lacks the target but has the source: there is nothing to fill in."""
    lacking = _has(people, direction.source) & ~_has(people, direction.target)
    return means if lacking.any() else np.full_like(means, np.nan)


def _real_means(people: Pairs, direction: Direction, atlas: Atlas) -> np.ndarray:
    volumes = np.stack([people.volume(direction.target, row) for row in range(len(people))])
    return np.where(_has(people, direction.target)[:, None], region_means(volumes, atlas), np.nan)


def _has(people: Pairs, modality: str) -> np.ndarray:
    return people.table["available"].isin(["both", str(modality)]).to_numpy()


def _table(
    direction: Direction, regions: pd.DataFrame, found: RectifiedDifference, alone: RectifiedDifference
) -> pd.DataFrame:
    table = regions.assign(
        difference=found.difference,
        difference_low=found.low,
        difference_high=found.high,
        p=found.p,
        q=_false_discovery_rate(found.p),
        d=found.difference / found.sd,
        real_alone=alone.difference,
        real_alone_low=alone.low,
        real_alone_high=alone.high,
        real_alone_p=alone.p,
        real_alone_q=_false_discovery_rate(alone.p),
        trust=found.trust,
        worth=found.worth,
    )
    table.insert(0, "target", direction.target.value)
    return table


def _summary(
    direction: Direction,
    real: np.ndarray,
    synthesised: np.ndarray,
    found: RectifiedDifference,
    alone: RectifiedDifference,
    table: pd.DataFrame,
) -> dict[str, object]:
    has, made = np.isfinite(real).all(1), np.isfinite(synthesised).all(1)
    varies = found.sd > 0
    return {
        "target": direction.target.value,
        "n_real": int(has.sum()),
        "n_both": int((has & made).sum()),
        "n_synthesised": int((~has & made).sum()),
        "used": bool(found.trust.any()),
        "worth": float(np.median(found.worth[varies])),
        "width": float(np.median(ratio(found.high - found.low, alone.high - alone.low)[varies])),
        "regions_real_alone": int((table["real_alone_q"] < FOUND).sum()),
        "regions": int((table["q"] < FOUND).sum()),
    }


def _false_discovery_rate(p: np.ndarray) -> np.ndarray:
    """Benjamini and Hochberg's, over those that are known."""
    q, known = np.full(p.shape, np.nan), np.isfinite(p)
    q[known] = stats.false_discovery_control(p[known])
    return q
