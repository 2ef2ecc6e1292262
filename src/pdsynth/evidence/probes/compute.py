"""Probes of a model: memorisation of training participants, inserted lesions, and known changes of a person."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pdsynth.api import Model
from pdsynth.atlas import evidence_regions
from pdsynth.cohorts.bids import bids
from pdsynth.cohorts.simulated.counterfactual import SESSIONS, SEVERITIES, write_counterfactuals
from pdsynth.data.batch import source_batch
from pdsynth.data.pairs import Pairs
from pdsynth.data.prepare import prepare
from pdsynth.data.splits import cell_means
from pdsynth.evaluation.estimates import predictions
from pdsynth.evaluation.metrics import dilate
from pdsynth.evidence.probes.files import Change, Counterfactual, Lesion, Lesions, Memorisation, Memory, Probes
from pdsynth.evidence.probes.memorisation import membership_auc, nearest_neighbour_ratio
from pdsynth.evidence.probes.responses import (
    LesionResponse,
    NotMeasurableError,
    Predict,
    counterfactual_response,
    lesion_response,
)
from pdsynth.types import Available, Direction

PEOPLE = 40  # most training participants, and most other participants, of the memorisation probe
FEWEST = 3
LESIONED, LESIONS, RADIUS_MM, FACTOR, NOISE_SD = 4, 8, 8.0, 1.5, 0.02
TWICE = 9  # number of people who are simulated at two severities
COUNTERFACTUAL = 4_000_000  # added to the seed, so that these people are not participants of a simulated cohort


def probe(model: Model, pairs: Pairs, split: str, seed: int, jobs: int = 1) -> Probes:
    """Test a model for memorisation, for inserted lesions and, if `pairs` are simulated, for known changes.

    Known changes are those of a person whose disease becomes more severe. pairs: all pairs of a prepared folder. split:
    name of the split ("val" or "test") with participants who were not in the training set, which is not checked.
    Memorisation needs participants of the training set in `pairs`, and others in this split; lesions are inserted into
    scans of up to four of the others. If there are too few participants for the first test, none for the second, or if
    no lesion fits into a brain, the result has the reason in place of this test. For the known changes, nine people are
    simulated at two severities and prepared by `jobs` processes. seed: of all random numbers. Raises ValueError if
    scans of training participants are among those of the others.
    """
    others = pairs.split(split).whole_scans()
    others = others.where(others.table["available"] == Available.BOTH)
    reasons: dict[str, str] = {}
    memorisation = lesions = counterfactual = None
    try:
        memorisation = measure_memorisation(model, pairs, others, seed)
    except NotMeasurableError as error:
        reasons["memorisation"] = str(error)
    try:
        lesions = _lesions(model, others, seed)
    except NotMeasurableError as error:
        reasons["lesions"] = str(error)
    if pairs.simulated:  # on other data the response would reflect the distance between simulated and real scans
        counterfactual = _counterfactual(model, pairs, seed, jobs)
    return Probes(str(model.card["recipe"]), memorisation, lesions, counterfactual, reasons)


def trained_on(model: Model, pairs: Pairs) -> Pairs:
    """Whole scans of the participants of `pairs` who are in the model's training set.

    They are all sessions of these participants with both scans. A participant is in the training set if the model's
    card (record of the training) lists the SHA-256 of one of their scans. Without such a list, the result has no rows.
    """
    scans, known = pairs.whole_scans(), set(model.card.get("scans_sha256", []))
    people = {person for digest, person in scans.scan_digests().items() if digest in known}
    return scans.where(scans.table["participant_id"].isin(people) & (scans.table["available"] == Available.BOTH))


def measure_memorisation(model: Model, pairs: Pairs, others: Pairs, seed: int) -> Memorisation:
    """Measure in both directions whether a model reproduces its training participants.

    pairs: of a prepared folder, in which the training participants are found (see `trained_on`). others: scans of
    people with both scans who are not in the model's training set; at most 40 of these people, drawn at random, are
    used, with the first session of each. For one half of them, the distances of their synthesised scans to the nearest
    of all scans of the training participants are compared with the distances to the nearest scan of the other half
    (strangers), see `nearest_neighbour_ratio`; images are compared by their means over cells of 4 x 4 x 4 voxels. The
    mean squared errors of at most 40 training participants, drawn at random, are compared with those of the others, see
    `membership_auc`. Raises NotMeasurableError if there are fewer than three training participants in `pairs`, or fewer
    than six others, and ValueError if more than half of the real scans of the first half are equal to scans in a set
    that they are compared with.
    """
    known, others = trained_on(model, pairs), _some(others, PEOPLE, seed)
    number = known.participants
    if number < FEWEST or len(others) < 2 * FEWEST:
        few_known = f"the model's card lists fewer than {FEWEST} participants of this folder"
        raise NotMeasurableError(f"{few_known}, or the split has fewer than {2 * FEWEST} participants")
    members = _some(known, PEOPLE, seed)
    order = np.random.default_rng(seed).permutation(len(others))
    tested, strangers = order[: len(order) // 2], order[len(order) // 2 :]
    few = _some(known, len(strangers), seed)
    rows = []
    for direction in Direction:
        of_members, of_others = _Scans.by(model, members, direction), _Scans.by(model, others, direction)
        sets = (_real_cells(known, direction), _real_cells(few, direction), of_others.real[strangers])
        to_all, to_few, to_strangers = (
            nearest_neighbour_ratio(of_others.cells[tested], each, of_others.real[tested]) for each in sets
        )
        membership = membership_auc(of_members.errors, of_others.errors, seed)
        rows.append(Memory(direction, to_all, to_few, to_strangers, membership))
    return Memorisation(number, len(few), len(strangers), len(members), len(others), rows)


def _lesions(model: Model, people: Pairs, seed: int) -> Lesions:
    """Responses to lesions in at most LESIONED of the people.

    Raises NotMeasurableError if there are no people, or if no lesion fits into a brain.
    """
    if not len(people):
        raise NotMeasurableError("the split has no participant with both scans")
    rows = []
    some = _some(people, LESIONED, seed)
    for direction in Direction:
        for of_source, found in _responses(model, some, direction, seed).items():
            rows.append(
                Lesion(
                    of_source,
                    direction,
                    sensitivity=float(np.mean([each.sensitivity for each in found])),
                    false_positives=float(np.mean([each.false_positives for each in found])),
                    contrast_to_noise=float(np.median(np.concatenate([each.contrast_to_noise for each in found]))),
                )
            )
    return Lesions(len(some), LESIONS, RADIUS_MM, FACTOR, NOISE_SD, rows)


def _responses(model: Model, people: Pairs, direction: Direction, seed: int) -> dict[bool, list[LesionResponse]]:
    """Responses to lesions of the model's output (key False) and of the source itself (True), one per participant."""
    found: dict[bool, list[LesionResponse]] = {False: [], True: []}
    for row in range(len(people)):
        source, brain = people.volume(direction.source, row), people.brain(direction.source, row)
        predictors: tuple[Predict, ...] = (_predictor(model, brain, direction, people, row), lambda volume: volume)
        for of_source, predict in zip(found, predictors, strict=True):
            found[of_source].append(
                lesion_response(
                    predict,
                    source,
                    brain,
                    people.grid.spacing_mm,
                    radius_mm=RADIUS_MM,
                    factor=FACTOR,
                    noise_sd=NOISE_SD,
                    lesions=LESIONS,
                    seed=seed + row,
                )
            )
    return found


def _predictor(model: Model, brain: np.ndarray, direction: Direction, people: Pairs, row: int) -> Predict:
    """The model as a function of the source volume (X, Y, Z) of one participant."""
    bval = float(people.table["dmri_bval"].iloc[row])

    def predict(volume: np.ndarray) -> np.ndarray:
        batch = source_batch(volume, brain, direction, bval).to(model.device)
        with torch.inference_mode():
            return np.asarray(model.method.estimate(batch, direction)[0][0, 0].float().cpu())

    return predict


def _counterfactual(model: Model, pairs: Pairs, seed: int, jobs: int) -> Counterfactual:
    """Response to the known change of people who are simulated at two severities, on the grid of the pairs."""
    with tempfile.TemporaryDirectory() as folder:
        root = write_counterfactuals(Path(folder) / "bids", TWICE, COUNTERFACTUAL + seed, jobs=jobs)
        prepared = prepare(
            bids(root), Path(folder) / "prepared", preprocessing=pairs.preprocessing, split=(0, 0, 1), jobs=jobs
        )
        visits = {name: prepared.where(prepared.table["session_id"] == name) for name in SESSIONS}
        rows = []
        for direction in Direction:
            synthesised, real = {}, {}
            for name, people in visits.items():
                synthesised[name] = predictions(model.method, people, direction)
                real[name] = np.stack([people.volume(direction.target, row) for row in range(len(people))])
            low, high = SESSIONS
            found = counterfactual_response(
                synthesised[low], synthesised[high], real[low], real[high], evidence_regions(pairs.grid), seed
            )
            rows.append(Change(direction, found.slope, found.sign_agreement, int(found.clear.sum())))
    return Counterfactual(TWICE, list(SEVERITIES), rows)


@dataclass(frozen=True, eq=False)
class _Scans:
    """Synthesised and real scans of N people.

    cells, real (N, F): means over cells of 4 x 4 x 4 voxels of the synthesised and of the real scans. errors (N,): mean
    squared errors in the brain of the real scan, dilated by one voxel.
    """

    cells: np.ndarray
    real: np.ndarray
    errors: np.ndarray

    @classmethod
    def by(cls, model: Model, people: Pairs, direction: Direction) -> _Scans:
        synthesised = predictions(model.method, people, direction)
        errors = []
        for row, image in enumerate(synthesised):
            mask = dilate(people.brain(direction.target, row))
            errors.append(float(np.square(image - people.volume(direction.target, row))[mask].mean()))
        cells = np.stack([cell_means(volume) for volume in synthesised])
        return cls(cells, _real_cells(people, direction), np.array(errors))


def _real_cells(people: Pairs, direction: Direction) -> np.ndarray:
    return np.stack([cell_means(people.volume(direction.target, row)) for row in range(len(people))])


def _some(people: Pairs, number: int, seed: int) -> Pairs:
    """The first row of each of at most `number` participants, chosen at random."""
    first = np.flatnonzero(~people.table["participant_id"].duplicated())
    chosen = np.random.default_rng(seed).permutation(first)[:number]
    return people.where(np.isin(np.arange(len(people)), chosen))
