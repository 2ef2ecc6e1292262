"""The difference between two groups of a cohort, from real scans and, if one is missing, synthesised scans."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy import stats

from pdsynth import api
from pdsynth.atlas import Atlas, evidence_regions, region_means
from pdsynth.data.pairs import Pairs
from pdsynth.evaluation.estimates import predictions
from pdsynth.evidence.group_effects.files import BY_REGION, SUMMARY, RegionEffect, TargetSummary
from pdsynth.methods.base import Method
from pdsynth.recipes import RECIPES
from pdsynth.results.patterns import describe_regions
from pdsynth.results.tables import records
from pdsynth.statistics.contrast import AD_LESS_NC, Groups
from pdsynth.statistics.rectified import RectifiedDifference, rectified_difference
from pdsynth.statistics.resampling import Estimate, ratio
from pdsynth.types import Available, Direction, InputError, Modality
from pdsynth.workers import Workers

FOLDS = 5
FOUND = 0.05  # largest false discovery rate of a region that counts as different
Means = dict[Direction, np.ndarray]  # region means (N, R) of synthesised scans; nan for participants without one
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class GroupEffects:
    """Differences between two groups of participants in every region, with and without synthesised scans.

    regions: one row per target modality and region, with both differences. summary: one row per target modality.
    real_alone_d: by target modality, the differences from real scans alone, (R,) for R regions, in SD of real scans
    within groups and sites.
    """

    regions: list[RegionEffect]
    summary: list[TargetSummary]
    real_alone_d: dict[Modality, np.ndarray]

    def write(self, out: Path) -> None:
        """Write group_effects.tsv (by region) and group_effects_summary.tsv (by modality) into a folder."""
        BY_REGION.write(out, self.regions)
        SUMMARY.write(out, self.summary)


def group_effects(
    people: Pairs, synthesised: Means, contrast: Groups = AD_LESS_NC, atlas: Atlas | None = None
) -> GroupEffects:
    """Differences between two groups in each region, with synthesised scans and from real scans alone.

    people: one row per participant, from `one_row_each`. synthesised: by direction of synthesis, region means (N, R) of
    their synthesised scans, nan for participants without one, from `cross_fitted` or `by_model`. contrast: the two
    groups; a difference is the first minus the second, within sites. The synthesised scans are corrected by their error
    in participants who have both scans (see `rectified_difference`). atlas: the R regions, the same as for
    `synthesised`; None means those of the paper with hippocampi and amygdalae. Raises ValueError if a group has fewer
    than two real scans of a modality, if no site has real scans of both groups, or if the shapes differ.
    """
    atlas = atlas or evidence_regions(people.grid)
    regions = describe_regions(atlas, people.grid)
    groups, sites = (people.table[name].astype(str).tolist() for name in ("diagnosis", "site"))
    found = GroupEffects([], [], {})
    for direction in Direction:
        real = _real_means(people, direction, atlas)
        nothing = np.where(np.isfinite(real), 0.0, np.nan)
        alone = rectified_difference(real, nothing, groups, contrast, sites)
        both = rectified_difference(real, synthesised[direction], groups, contrast, sites)
        rows = _by_region(direction.target, regions, both, alone)
        found.regions.extend(rows)
        found.summary.append(_summary(direction.target, real, synthesised[direction], both, alone, rows))
        found.real_alone_d[direction.target] = ratio(alone.difference, alone.sd)
    return found


def one_row_each(pairs: Pairs, contrast: Groups) -> Pairs:
    """Choose one session of each participant of two groups: the first with both scans, or else the first.

    contrast: the two groups (diagnoses). Sessions with another diagnosis are left out, and so are rows of `pairs` that
    are a segment of a scan and not the whole. Sessions are sorted by name. Raises InputError if a group has fewer than
    two participants, or if, for one modality, no site has real scans of both groups.
    """
    whole = pairs.whole_scans()
    table = whole.table.assign(unpaired=whole.table["available"] != Available.BOTH)
    table = table[table["diagnosis"].isin([str(group) for group in contrast])]
    chosen = table.sort_values(["participant_id", "unpaired", "session_id"]).drop_duplicates("participant_id").index
    people = whole.where(whole.table.index.isin(chosen))
    numbers = {group: int((people.table["diagnosis"] == group).sum()) for group in contrast}
    if min(numbers.values()) < 2:
        found = " and ".join(f"{number} participants of {group}" for group, number in numbers.items())
        raise InputError(pairs.root, f"has {found}", "name groups of two participants or more in --groups")
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
    jobs: int | Workers = 1,
    progress: Progress = lambda done, total: None,
) -> Means:
    """Region means of the scans that a recipe synthesises for `people`, by models not trained on these people.

    people: one row per participant (N rows), from `one_row_each`. The participants of `pairs` who have both scans,
    whatever their diagnosis and split, are divided at random into folds, and one model is trained without each fold.
    budget: seconds of the training steps of each model; None for the recipe's own number of steps. atlas: the R
    regions; None means those of the paper with hippocampi and amygdalae. seed: of the folds and of the training.
    jobs: number of processes that train, each without one of the folds, or the workers of a cluster. Each has one
    thread, or an equal share of the threads for a recipe with training steps; the number changes no result of a recipe
    that is fitted in closed form. progress(done, folds) is called at the start and after each training.

    The scan of a participant with both scans is synthesised by the model whose training set does not contain this
    participant. For a participant with one scan, the average over all models is used. From the region means of each
    model, their mean over the participants who have the source scan only is subtracted, at the same site (at all sites
    if the site has no such participant), because models differ by an offset. Values are therefore differences from this
    mean.

    Returns (N, R) by direction of synthesis: nan for participants without the source scan, and for all if none of them
    has the source and lacks the target. Raises ValueError if there are fewer participants with both scans than folds.
    """
    paired = pairs.where(pairs.table["available"] == Available.BOTH)
    names = np.sort(paired.table["participant_id"].unique())
    if len(names) < folds:
        remedy = f"--folds {len(names)} or fewer" if len(names) > 1 else "--model, with a model that is trained already"
        raise ValueError(f"{len(names)} participants have both scans, too few for {folds} folds. Take {remedy}.")
    fold = dict(zip(names, np.random.default_rng(seed).permutation(len(names)) % folds, strict=True))
    of_person = people.table["participant_id"].map(fold).fillna(-1).to_numpy(int)
    atlas = atlas or evidence_regions(people.grid)
    totals = {d: np.zeros((len(people), len(atlas))) for d in Direction}
    workers = Workers.of(jobs)
    if getattr(RECIPES.get(recipe), "steps", 0):
        workers = replace(workers, threads=max(1, torch.get_num_threads() // workers.jobs))
    fit = partial(api.fit, recipe, budget=budget, seed=seed, device=device)
    work = partial(_of_fold, fit, paired, people, fold, of_person, atlas)
    unpaired, sites = of_person == -1, people.table["site"].to_numpy(str)
    progress(0, folds)
    for k, means in enumerate(workers.in_order(work, range(folds), name=lambda k: f"fold {k + 1}")):
        for direction, (theirs, others) in means.items():
            in_fold, offsets = of_person == k, _offsets(others, sites[unpaired], sites)
            totals[direction][in_fold] = theirs - offsets[in_fold]
            totals[direction][unpaired] += (others - offsets[unpaired]) / folds
        progress(k + 1, folds)
    return {direction: _where_needed(total, people, direction) for direction, total in totals.items()}


def _of_fold(
    fit: Callable[..., api.Model],
    paired: Pairs,
    people: Pairs,
    fold: Mapping[str, int],
    of_person: np.ndarray,
    atlas: Atlas,
    k: int,
) -> dict[Direction, list[np.ndarray]]:
    """Region means by a model that is trained without fold k: those of its people, and of people with one scan.

    fit: function that trains on pairs. paired: rows with both scans. fold: that of each participant who has both.
    of_person (N,): the fold of each of the people, -1 for people with one scan.
    """
    with tempfile.TemporaryDirectory() as run:
        train = paired.where(paired.table["participant_id"].map(fold) != k)
        method = fit(train, run=Path(run)).method
    rows = of_person == k, of_person == -1
    return {
        direction: [_synthesised_means(method, people.where(each), direction, atlas) for each in rows]
        for direction in Direction
    }


def by_model(model: api.Model, pairs: Pairs, people: Pairs, atlas: Atlas | None = None) -> Means:
    """Region means of the scans that a trained model synthesises for `people`, except for those in its training set.

    people: one row per participant (N rows), from `one_row_each`. pairs: all pairs, by which participants with any
    session in the model's training set are found. A model that does not record its training scans counts as trained on
    none of them. atlas: the R regions; None means those of the paper with hippocampi and amygdalae. Returns (N, R) by
    direction of synthesis: nan for participants without the source scan or in the training set, and for all if no
    participant has the source and lacks the target. Raises ValueError if the model was trained on all participants who
    have both scans, or if there are none.
    """
    training_scans = set(model.card.get("scans_sha256", []))
    trained_on = {person for digest, person in pairs.scan_digests().items() if digest in training_scans}
    unseen = ~people.table["participant_id"].isin(trained_on).to_numpy()
    if not (unseen & (people.table["available"] == Available.BOTH)).any():
        raise ValueError(
            "the model was trained on all participants who have both scans. Leave out --model to cross-fit a recipe."
        )
    atlas = atlas or evidence_regions(people.grid)
    found = {}
    for direction in Direction:
        means = np.full((len(people), len(atlas)), np.nan)
        means[unseen] = _synthesised_means(model.method, people.where(unseen), direction, atlas)
        found[direction] = _where_needed(means, people, direction)
    return found


def _offsets(means: np.ndarray, sites: np.ndarray, of: np.ndarray) -> np.ndarray:
    """Mean (N, R) of `means` (M, R) over those participants who are at the site of each of N participants.

    sites (M,): site of each row of means; of (N,): sites of the N participants. A site without known means gets the
    mean over all sites. Each fold's model has its own site-wise bias; these means estimate it on participants outside
    all folds.
    """
    known = np.isfinite(means).all(1)
    found = np.zeros((len(of), means.shape[1]))
    for site in np.unique(of):
        at_site = known & (sites == site)
        at_site = at_site if at_site.any() else known
        if at_site.any():
            found[of == site] = means[at_site].mean(0)
    return found


def _synthesised_means(method: Method, people: Pairs, direction: Direction, atlas: Atlas) -> np.ndarray:
    """Region means (N, R) of synthesised scans; nan for participants without the source."""
    means = np.full((len(people), len(atlas)), np.nan)
    has_source = _has(people, direction.source)
    if has_source.any():
        means[has_source] = region_means(predictions(method, people.where(has_source), direction), atlas)
    return means


def _where_needed(means: np.ndarray, people: Pairs, direction: Direction) -> np.ndarray:
    """The means, or nan for all participants if none of them has the source and lacks the target."""
    lacking = _has(people, direction.source) & ~_has(people, direction.target)
    return means if lacking.any() else np.full_like(means, np.nan)


def _real_means(people: Pairs, direction: Direction, atlas: Atlas) -> np.ndarray:
    volumes = np.stack([people.volume(direction.target, row) for row in range(len(people))])
    return np.where(_has(people, direction.target)[:, None], region_means(volumes, atlas), np.nan)


def _has(people: Pairs, modality: str) -> np.ndarray:
    return people.table["available"].isin([Available.BOTH, modality]).to_numpy()


def _by_region(
    target: Modality, regions: pd.DataFrame, both: RectifiedDifference, alone: RectifiedDifference
) -> list[RegionEffect]:
    q, alone_q, d = _false_discovery_rate(both.p), _false_discovery_rate(alone.p), ratio(both.difference, both.sd)
    return [
        RegionEffect(
            target=target,
            **region,
            difference=Estimate(both.difference[i], both.low[i], both.high[i]),
            p=both.p[i],
            q=q[i],
            d=d[i],
            real_alone=Estimate(alone.difference[i], alone.low[i], alone.high[i]),
            real_alone_p=alone.p[i],
            real_alone_q=alone_q[i],
            trust=both.trust[i],
            worth=both.worth[i],
        )
        for i, region in enumerate(records(regions))
    ]


def _summary(
    target: Modality,
    real: np.ndarray,
    synthesised: np.ndarray,
    both: RectifiedDifference,
    alone: RectifiedDifference,
    rows: Sequence[RegionEffect],
) -> TargetSummary:
    has_real, has_synthesised = np.isfinite(real).all(1), np.isfinite(synthesised).all(1)
    varies = both.sd > 0
    return TargetSummary(
        target=target,
        n_real=int(has_real.sum()),
        n_both=int((has_real & has_synthesised).sum()),
        n_synthesised=int((~has_real & has_synthesised).sum()),
        used=bool(both.trust.any()),
        worth=float(np.median(both.worth[varies])),
        width=float(np.median(ratio(both.high - both.low, alone.high - alone.low)[varies])),
        regions_real_alone=sum(row.real_alone_q < FOUND for row in rows),
        regions=sum(row.q < FOUND for row in rows),
    )


def _false_discovery_rate(p: np.ndarray) -> np.ndarray:
    """False discovery rates (R,): p values (R,), adjusted by Benjamini and Hochberg over the finite ones; else nan."""
    q, known = np.full(p.shape, np.nan), np.isfinite(p)
    q[known] = stats.false_discovery_control(p[known])
    return q
