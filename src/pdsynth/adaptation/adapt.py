"""Adapts a saved model to the scanner of a prepared folder, by pairs if there are enough, or else by single scans."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pdsynth import api
from pdsynth.adaptation import boosted, unpaired
from pdsynth.adaptation.boosted import Left, Remains, voxels_of_each
from pdsynth.adaptation.paired import Scan, fitted
from pdsynth.adaptation.unpaired import carried, mean_error
from pdsynth.data.batch import Source
from pdsynth.data.pairs import Pairs
from pdsynth.evaluation.estimates import predictions, source_only
from pdsynth.evaluation.metrics import dilate
from pdsynth.methods import checkpoint
from pdsynth.methods.base import Method
from pdsynth.methods.correction import (
    COLUMNS,
    NODE,
    local_columns,
    packed,
    packed_sources,
    packed_trees,
    tree_columns,
    unpacked,
)
from pdsynth.types import Available, Direction, Modality

ENTRY = "adaptation"  # key in a model's card
FEWEST = 3  # participants with both scans by whom a gain can be judged
FEWEST_SINGLE = 5  # participants with a scan, of each modality, from whom the mean error is learnt
NAN = float("nan")


@dataclass(frozen=True)
class Adaptation:
    """How one direction of synthesis was adapted.

    participants: number of people with both scans from whom it could learn. gain_db: mean increase of PSNR in the brain
    of people who were left out of the fit, in dB; nan if there were too few people to judge it. error_db: its standard
    error. correction: whether the new correction is part of the model. If not, the direction stays as it was, with the
    correction of an earlier adaptation, if there is one.

    With too few pairs, single scans are used. sources and targets are the numbers of people with such a scan, 0 if
    pairs were used. removed: fraction of the squared mean error that the correction removes in people who were left
    out. removed_error: its standard error. Both are nan if pairs were used.
    """

    participants: int
    gain_db: float = NAN
    error_db: float = NAN
    correction: bool = False
    sources: int = 0
    targets: int = 0
    removed: float = NAN
    removed_error: float = NAN


@dataclass(frozen=True)
class _Learnt:
    """A correction of one direction, as `methods.correction` applies it."""

    weights: np.ndarray
    maps: np.ndarray
    trees: np.ndarray = field(default_factory=lambda: np.zeros((0, 0, NODE), np.float32))
    source: np.ndarray = field(default_factory=lambda: np.zeros((0, 0, 0), np.float32))
    mirror: bool = False


def adapt(
    model: str | Path, pairs: Pairs, out: str | Path, device: str = "auto", unjudged: bool = False
) -> dict[Direction, Adaptation]:
    """Correct a model for the scanner of a prepared folder, and save it in `out`; says how, by direction of synthesis.

    Uses participants of `pairs` who are not in the test split and were not in the model's training set: those who have
    both scans, if there are FEWEST or more. With fewer, the mean error is learnt from all source and target scans, if
    FEWEST_SINGLE people or more have each; the estimates of a scan and of its mirror image are then averaged. A
    correction is kept if people who were left out gain more than its standard error. Otherwise nothing can be judged,
    and the model is saved as it was, unless `unjudged` is true and there is a pair. The scans from which it learnt
    become training scans in the model's card (record of the training), so that `pdsynth evaluate` refuses to score on
    them. Raises InputError if the model has another preprocessing than the pairs, or if its card does not list its
    training scans.
    """
    loaded = api.load(model, device)
    method, new = loaded.method, api.new_people(str(model), loaded, pairs)
    weights = method.correction.cpu().clone()
    maps = unpacked(method.correction_places, method.correction_local, method.config.grid_shape).cpu().float()
    trees, means = (list(each.cpu().numpy()) for each in (method.correction_trees, method.correction_source))
    mirror = method.correction_mirror.cpu().clone()
    method.uncorrect()  # the new one replaces an earlier one, and is learnt without it
    found, learnt = {}, set[str]()
    for direction in Direction:
        both = new.where(new.table["available"] == Available.BOTH)
        sources, targets = (_having(new, m) for m in (direction.source, direction.target))
        used: tuple[Pairs, ...] = ()
        correction: _Learnt | None = None
        if both.participants < FEWEST and min(sources.participants, targets.participants) >= FEWEST_SINGLE:
            used = (sources, targets)
            found[direction], correction = _by_single_scans(method, sources, targets, direction)
        elif both.participants >= FEWEST or (unjudged and both.participants):
            used = (both,)
            found[direction], correction = _by_pairs(method, both, direction, unjudged)
        else:
            found[direction] = Adaptation(both.participants)
        if correction is not None:
            weights[direction.index] = torch.from_numpy(correction.weights)
            maps[direction.index] = torch.from_numpy(correction.maps)
            trees[direction.index], means[direction.index] = correction.trees, correction.source
            mirror[direction.index] = correction.mirror
            learnt |= {digest for each in used for digest in each.scan_digests()}
    method.correction = weights
    method.correction_places, method.correction_local = packed(maps)
    method.correction_trees, method.correction_source = packed_trees(trees), packed_sources(means)
    method.correction_mirror = mirror
    entry = {
        "cohort": pairs.root.name,
        "simulated": pairs.simulated,
        **{d.value: {k: v for k, v in asdict(each).items() if v == v} for d, each in found.items()},
    }
    card: dict[str, Any] = {
        **loaded.card,
        ENTRY: entry,
        "scans_sha256": sorted({*loaded.card["scans_sha256"], *learnt}),
    }
    checkpoint.save(method.cpu(), out, card)
    return found


def _having(pairs: Pairs, modality: Modality) -> Pairs:
    """The rows with a scan of this modality."""
    return pairs.where(pairs.table["available"].isin([Available.BOTH, Available(modality)]))


def _by_pairs(method: Method, people: Pairs, direction: Direction, unjudged: bool) -> tuple[Adaptation, _Learnt | None]:
    """The adaptation of one direction by pairs, and the correction, None if it is not kept."""
    number = people.participants
    found = fitted((_scans(method, each, direction) for each in _each(people)), number)
    if number < FEWEST:
        return Adaptation(number, correction=unjudged), _Learnt(found.weights, found.maps)
    groups = len(frozenset().union(*found.without))
    total = np.zeros(people.grid.shape, np.float32)
    for each in _each(people):
        total += _mean_source(each, direction)
    left = []
    for person, each in enumerate(_each(people)):
        others = (total - _mean_source(each, direction)) / (number - 1)
        without = _with(found.without, person % groups)
        left.append(_remains(method, each, direction, without, others, voxels_of_each(number), person))
    trees, more = boosted.fitted(left, groups)
    gains = found.gains + more
    gain, error = float(gains.mean()), float(gains.std(ddof=1) / np.sqrt(number))
    learnt = _Learnt(found.weights, found.maps)
    if len(trees):
        learnt = replace(learnt, trees=trees, source=total / number)
    return Adaptation(number, gain, error, gain > error), learnt if gain > error else None


def _each(pairs: Pairs) -> Iterator[Pairs]:
    """The pairs of each participant."""
    for person in pairs.table["participant_id"].unique():
        yield pairs.where(pairs.table["participant_id"] == person)


def _mean_source(pairs: Pairs, direction: Direction) -> np.ndarray:
    """The mean of a participant's source scans and of their mirror images, (X, Y, Z)."""
    mean = np.mean([pairs.volume(direction.source, row) for row in range(len(pairs))], 0)
    return np.asarray((mean + mean[::-1]) / 2)


def _scans(method: Method, pairs: Pairs, direction: Direction) -> list[Scan]:
    """The estimates of a participant; the voxels in the dilated brain of the real target count."""
    found = []
    for row in range(len(pairs)):
        estimate, source, target, inside = _estimate(method, pairs, row, direction)
        columns = local_columns(estimate, source)[0].cpu().numpy()
        found.append(Scan(columns, target - estimate[0, 0].cpu().numpy(), inside))
    return found


def _with(without: dict[Left, np.ndarray], group: int) -> dict[Left, np.ndarray]:
    """The weights that were learnt without a group, and perhaps without another one."""
    return {left: weights for left, weights in without.items() if group in left}


def _remains(
    method: Method,
    pairs: Pairs,
    direction: Direction,
    without: dict[Left, np.ndarray],
    others: np.ndarray,
    voxels: int,
    seed: int,
) -> dict[Left, Remains]:
    """Voxels of a participant, after each correction by weights (LOCAL_COLUMNS, X, Y, Z) that others taught.

    others (X, Y, Z): the mean source scan of the other participants.
    """
    parts: dict[Left, list[Remains]] = {left: [] for left in without}
    for row in range(len(pairs)):
        before, source, target, inside = _estimate(method, pairs, row, direction)
        own, mean = local_columns(before, source)[0], torch.from_numpy(others).to(before)
        for left, weights in without.items():
            added = (own * torch.from_numpy(weights).to(before)).sum(0)
            estimate = torch.where(source.near, (before + added).clamp(0, 1), before)
            columns = tree_columns(estimate, before, source, mean)[0].cpu().numpy()
            error = target - estimate[0, 0].cpu().numpy()
            parts[left].append(Remains.drawn(columns, error, inside, -(-voxels // len(pairs)), seed))
    return {left: Remains.joined(of) for left, of in parts.items()}


@torch.inference_mode()
def _estimate(
    method: Method, pairs: Pairs, row: int, direction: Direction
) -> tuple[Tensor, Source, np.ndarray, np.ndarray]:
    """The estimate of a row, its source, the real target, and the voxels that count, (X, Y, Z)."""
    method.eval()
    batch = source_only(pairs.batch(np.array([row]), directions=[direction]), direction, method)
    source = batch.sources[direction]
    inside = dilate(pairs.brain(direction.target, row)) & source.near[0, 0].cpu().numpy()
    return method.estimate(batch, direction)[0], source, pairs.volume(direction.target, row), inside


def _by_single_scans(
    method: Method, sources: Pairs, targets: Pairs, direction: Direction
) -> tuple[Adaptation, _Learnt | None]:
    """As `_by_pairs`, from people with a source scan and people with a target scan."""
    real = np.stack([targets.volume(direction.target, row) for row in range(len(targets))])
    real = _mean_of_people(real, targets)
    brain = np.mean([dilate(targets.brain(direction.target, row)) for row in range(len(targets))], 0) > 0.5
    method.correction_mirror[direction.index] = True
    estimates = predictions(method, sources, direction)
    names, others = (each.table["participant_id"].unique().tolist() for each in (targets, sources))
    both = set(names) & set(others)
    group: dict[str, int] = {}
    for alike in (both, set(names) - both, set(others) - both):  # each group has its share of them
        group |= {person: i % unpaired.GROUPS for i, person in enumerate(sorted(alike))}
    groups = np.array([group[person] for person in names + others])
    found = mean_error(real, _mean_of_people(estimates, sources), brain, groups)
    how = Adaptation(
        participants=len(both),
        correction=found.removed > found.error,
        sources=len(others),
        targets=len(names),
        removed=found.removed,
        removed_error=found.error,
    )
    if not how.correction:
        return how, None
    person = sources.table["participant_id"]
    share = 1 / person.map(person.value_counts()).to_numpy(float)

    def scans() -> Iterator[tuple[np.ndarray, float]]:
        for row, estimate in enumerate(estimates):
            source = sources.batch(np.array([row]), directions=[direction]).sources[direction]
            yield local_columns(torch.from_numpy(estimate)[None, None], source)[0].numpy(), float(share[row])

    return how, _Learnt(np.zeros(COLUMNS, np.float32), carried(found.map, real.mean(0), scans, brain), mirror=True)


def _mean_of_people(volumes: np.ndarray, pairs: Pairs) -> np.ndarray:
    """The mean volume of each participant, in the order of their first rows, from the volumes of the rows."""
    person = pairs.table["participant_id"]
    return np.stack([volumes[(person == each).to_numpy()].mean(0) for each in person.unique()])
