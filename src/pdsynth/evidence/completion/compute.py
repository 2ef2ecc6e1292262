"""Diagnosis of participants who lack a scan: accuracy with synthesised scans and with alternatives to them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from pdsynth.evidence.completion.files import COMPLETE, MEAN, ONE_SCAN, RIVALS, SYNTHESISED, Arm
from pdsynth.results.patterns import REAL, Patterns, diagnosed
from pdsynth.results.patterns import Values as Features
from pdsynth.statistics.classification import Block, Predictions, balanced_interval, balanced_mean, out_of_fold
from pdsynth.statistics.inference import bca_interval, holm, paired_permutation
from pdsynth.statistics.resampling import Estimate
from pdsynth.types import Modality


def complete(patterns: Patterns, methods: Sequence[str], simulated: bool, seed: int = 0) -> list[Arm]:
    """Accuracy of diagnosis if scans are missing, for each way to deal with missing scans: the rows of completion.tsv.

    patterns: region means, one row per participant. methods: those whose synthesised scans are filled in. simulated:
    whether the rows are marked as SIMULATED, else as real. seed: of all random numbers. See `arms` for the rows and the
    errors.
    """
    data = "SIMULATED" if simulated else "real"
    return [replace(arm, data=data) for arm in arms(patterns.values, patterns.people, methods, seed=seed)]


def arms(features: Features, people: pd.DataFrame, methods: Sequence[str], masks: int = 5, seed: int = 0) -> list[Arm]:
    """Accuracy of diagnosis if a third of the participants lack the fMRI and a third the dMRI.

    features: region means (N, R) by modality and origin, "real" or a method's name; people: N rows with participant_id
    and diagnosis, of which those without a diagnosis of NC, MCI or AD are left out. methods: those whose synthesised
    scans are filled in. masks: number of random choices of the missing scans. seed: of these choices, of the folds and
    of the intervals.

    There is one row per way to deal with missing scans (arm):

    - "complete-cases" trains on participants with both scans; in the test, the mean of these training participants
      replaces a missing scan.
    - "mean" replaces a missing scan by the mean of the training fold.
    - "real" has all scans, for comparison: no scan has to be replaced.
    - "one-scan" has a classifier of fMRI and one of dMRI, and averages those of the scans that a participant has.
    - "synthesised", one row per method, replaces a missing scan by the one that the method synthesised from the other.

    Scans are missing in the same way in training and test participants. All arms share the folds. Each row has the
    accuracy and the balanced accuracy, averaged over the masks, with 95 % bootstrap intervals over participants. Rows
    of synthesised scans also have the balanced accuracy minus that of "mean", of "complete-cases" and of "one-scan",
    each with interval, p (paired permutation test) and p_holm (corrected over the three alternatives of a method).

    Raises ValueError if there are fewer than two diagnoses, if one has fewer than five participants or too few to train
    on, if real scans are missing, or if a method lacks a modality.
    """
    features, people = diagnosed(features, people, methods)
    for key in itertools.product(Modality, methods):
        if key not in features:
            raise ValueError(f"{key[1]!r} has no {key[0]} scans; name methods that synthesise both modalities.")
    labels, participants = (people[name].to_numpy(str) for name in ("diagnosis", "participant_id"))
    seeds = np.random.default_rng(seed).integers(2**31, size=masks).tolist()
    found = [_arms(features, labels, participants, methods, s) for s in seeds]
    one = found[0][REAL, ""]
    right = {arm: np.mean([predictions[arm].correct for predictions in found], axis=0) for arm in found[0]}
    return [_row(arm, right, one, seed) for arm in right]


def kept_scans(labels: np.ndarray, participants: np.ndarray, seed: int = 0) -> dict[Modality, np.ndarray]:
    """Random choice of the scans that are not missing in a study with missing scans: (N,) bool by modality.

    labels (N,): diagnosis of each row; participants (N,): participant of each row. Of each diagnosis, a third of the
    participants (rounded down) lack the fMRI, as many others lack the dMRI, and the rest have both. The diagnosis of a
    participant is the label of the first row; all rows of a participant get the same choice.
    """
    generator = np.random.default_rng(seed)
    _, first, person = np.unique(participants, return_index=True, return_inverse=True)
    kind = np.zeros(len(first), int)
    for name in np.unique(labels[first]):
        members = generator.permutation(np.flatnonzero(labels[first] == name))
        third = len(members) // 3
        kind[members[:third]], kind[members[third : 2 * third]] = 1, 2
    return {Modality.FMRI: (kind != 1)[person], Modality.DMRI: (kind != 2)[person]}


def _arms(
    features: Features, labels: np.ndarray, participants: np.ndarray, methods: Sequence[str], seed: int
) -> dict[tuple[str, str], Predictions]:
    """Predictions by arm and method for one random choice of the missing scans, one row per participant.

    An arm is a way to deal with missing scans (see `arms`). The method is that of synthesis, "" for arms without one.
    """
    has = kept_scans(labels, participants, seed)

    def block(fill: dict[Modality, np.ndarray] | None, modalities: Sequence[Modality] = tuple(Modality)) -> Block:
        real = {m: features[m, REAL] for m in modalities}
        filled = real if fill is None else {m: np.where(has[m][:, None], real[m], fill[m]) for m in modalities}
        return Block(np.hstack(list(filled.values())), labels, participants)

    def tested(train: Block, test: Block) -> Predictions:
        return out_of_fold([train], [test], repeats=1, seed=seed)[0]

    full = block(None)
    holes = block({m: np.full_like(features[m, REAL], np.nan, float) for m in Modality})
    both = np.logical_and.reduce(list(has.values()))
    found = {
        (COMPLETE, ""): tested(holes.where(both), holes),
        (MEAN, ""): tested(holes, holes),
        (REAL, ""): tested(full, full),
    }
    single = {m: block(None, [m]) for m in Modality}
    by_scan = np.stack([tested(single[m].where(has[m]), single[m]).probabilities for m in Modality])
    weights = np.stack([has[m] for m in Modality])[..., None]
    fused = np.sum(by_scan * weights, axis=0) / weights.sum(0)
    found[ONE_SCAN, ""] = Predictions(found[REAL, ""].classes, labels, participants, fused)
    for method in methods:
        filled = block({m: features[m, method] for m in Modality})
        found[SYNTHESISED, method] = tested(filled, filled)
    return {arm: predictions.by_participant() for arm, predictions in found.items()}


def _row(arm: tuple[str, str], right: dict[tuple[str, str], np.ndarray], one: Predictions, seed: int) -> Arm:
    """The scores of an arm (see `arms`).

    right: by arm and method, the share (N,) of the random choices of missing scans with a correct prediction. one: any
    predictions, for their labels and participants.
    """
    labels, participants = one.labels, one.participants
    over: dict[str, Any] = {}
    if arm[0] == SYNTHESISED:
        p = {}
        for name, rival in RIVALS.items():
            difference = right[arm] - right[rival, ""]
            interval = balanced_interval(difference, labels, participants, seed)
            over[name] = Estimate(balanced_mean(difference, labels), *interval)
            p[name] = _balanced_permutation(difference, labels, participants, seed)
        over |= {f"{name}_p": value for name, value in p.items()}
        over |= {f"{name}_p_holm": float(v) for name, v in zip(p, holm(list(p.values())), strict=True)}
    balanced = balanced_interval(right[arm], labels, participants, seed)
    return Arm(
        arm=arm[0],
        method=arm[1],
        n=len(labels),
        accuracy=Estimate(float(right[arm].mean()), *bca_interval(right[arm], seed=seed)),
        balanced_accuracy=Estimate(balanced_mean(right[arm], labels), *balanced),
        **over,
    )


def _balanced_permutation(difference: np.ndarray, labels: np.ndarray, participants: np.ndarray, seed: int) -> float:
    """p value of `balanced_mean` of `difference`, by a permutation test that flips the signs of whole participants.

    difference (N,): share of correct predictions minus that of an alternative; labels, participants (N,).
    """
    _, label, size = np.unique(labels, return_inverse=True, return_counts=True)
    person = np.unique(participants, return_inverse=True)[1]
    shares = np.bincount(person, weights=difference / size[label])
    return paired_permutation(shares, np.zeros_like(shares), seed=seed)
