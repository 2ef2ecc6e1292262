"""What a model does with people whom it was trained on, with an inserted lesion, and with a known change."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from pdsynth.evaluation.evaluate import predictions
from pdsynth.evaluation.memorisation import membership_auc, nearest_neighbour_ratio
from pdsynth.evaluation.metrics import dilate
from pdsynth.evaluation.probes import LesionResponse, Predict, counterfactual_response, lesion_response
from pdsynth.files import write_json
from pdsynth.report import words
from pdsynth.report.tables import PROBES
from pdsynth.types import Direction

PEOPLE = 40  # of each kind, at most
FEWEST = 3
LESIONED, LESIONS, RADIUS_MM, FACTOR, NOISE_SD = 4, 8, 8.0, 1.5, 0.02
TWICE = 9  # simulated people at two severities
COUNTERFACTUAL = 4_000_000  # added to the seed, so that they are no cohort's participants
Probe = dict[str, Any]  # a Section of the report, as JSON


def write_probes(out: Path, model: Model, pairs: Pairs, split: str, seed: int, jobs: int = 1) -> Path:
    """Write probes.json of a model into a results folder: a section of the report a probe; returns its path.

    Memorisation needs, in the prepared folder, participants whom the model was trained on and others in the split. A
    probe that can't be made says so. The counterfactual people are simulated and prepared here, by `jobs` processes.
    """
    others = pairs.split(split).whole_scans()
    others = others.where(others.table["available"] == "both")
    found = {"memorisation": _memorisation(model, pairs, others, seed), "lesions": _lesions(model, others, seed)}
    if pairs.simulated:  # on others it would tell of the distance between simulated and real scans
        found["counterfactual"] = _counterfactual(model, pairs, seed, jobs)
    write_json(out / PROBES, found)
    return out / PROBES


def trained_on(model: Model, pairs: Pairs) -> Pairs:
    """The whole scans of the participants whom the model's card names, by the digests of their files."""
    scans, known = pairs.whole_scans(), set(model.card.get("scans_sha256", []))
    people = {person for digest, person in scans.scan_digests().items() if digest in known}
    return scans.where(scans.table["participant_id"].isin(people) & (scans.table["available"] == "both"))


def _memorisation(model: Model, pairs: Pairs, others: Pairs, seed: int) -> Probe:
    lead = (
        "Does the model print people whom it has seen? Distance ratio: how near its scans of people never seen lie to "
        "their nearest training scan, over how near those people's real scans lie: 0 for copies. A smooth image is "
        "nearer to everybody, so beside it stand the ratio to as many people never seen, and to as many it was trained "
        "on. Membership: the chance that its error is lower on one whom it was trained on than on another; 0.5 is "
        "ideal."
    )
    section: Probe = {"title": "Memory of training participants", "lead": lead}
    known = trained_on(model, pairs)
    if len(known) < FEWEST or len(others) < 2 * FEWEST:
        why = "its card names fewer than 3 participants of this folder, or the split holds fewer than 6"
        return section | {"found": [f"Not measured: {why}."]}
    members, others = _some(known, PEOPLE, seed), _some(others, PEOPLE, seed)
    order = np.random.default_rng(seed).permutation(len(others))
    tested, strangers = order[: len(order) // 2], order[len(order) // 2 :]
    few = np.random.default_rng(seed).permutation(len(known))[: len(strangers)]
    rows = []
    for direction in Direction:
        seen, unseen = _Made.by(model, members, direction), _Made.by(model, others, direction)
        trained = _real_cells(known, direction)
        sets = (trained, trained[few], unseen.real[strangers])
        ratios = [nearest_neighbour_ratio(unseen.cells[tested], each, unseen.real[tested]) for each in sets]
        auc = membership_auc(seen.errors, unseen.errors, seed).auc
        told = f"{words.number(auc.value, 2)} ({words.interval(auc.low, auc.high, 2)})"
        rows.append([words.DIRECTIONS[direction], *(words.number(ratio, 2) for ratio in ratios), told])
    head = ["Direction", f"ratio to all {len(known)}", f"to {len(few)} of them", f"to {len(strangers)} never seen",
            "membership"]  # fmt: skip
    caption = f"{len(members)} participants whom it was trained on, {len(others)} whom it was not"
    return section | {"caption": caption, "head": head, "rows": rows}


def _lesions(model: Model, people: Pairs, seed: int) -> Probe:
    lead = (
        f"Spheres of {RADIUS_MM:g} mm are made {FACTOR:g} times as bright in the source, one at a time at random, "
        f"under noise of {NOISE_SD:g}. Sensitivity: the share that the output shows, its change inside beyond 95 % of "
        "the changes of equal spheres elsewhere; an output that knows nothing of the lesion reaches 0.05. False "
        "positives: the share of places that noise alone changes by half as much. Beside it the source itself: what "
        "could be seen at best. That a lesion shows in the output does not make it right there: a real lesion of the "
        "target may look otherwise, or not at all."
    )
    section: Probe = {"title": "Inserted lesions", "lead": lead}
    rows = []
    few = _some(people, LESIONED, seed)
    for direction in Direction:
        try:
            responses = _responses(model, few, direction, seed)
        except ValueError as error:  # no lesion fits into a brain
            return section | {"found": [f"Not measured: {error}"]}
        for name, found in responses.items():
            contrasts = np.concatenate([each.contrast_to_noise for each in found])
            sensitivity = float(np.mean([each.sensitivity for each in found]))
            false = float(np.mean([each.false_positives for each in found]))
            values = (sensitivity, false, float(np.median(contrasts)))
            rows.append([name, words.DIRECTIONS[direction], *(words.number(value, 2) for value in values)])
    head = ["Seen in", "Direction", "sensitivity", "false positives", "contrast to noise, median"]
    caption = f"{LESIONS} lesions in each of {len(few)} participants"
    return section | {"caption": caption, "head": head, "rows": rows}


def _responses(model: Model, people: Pairs, direction: Direction, seed: int) -> dict[str, list[LesionResponse]]:
    """By what is looked at, the output or the source, a response a participant."""
    found: dict[str, list[LesionResponse]] = {f"{model.card['recipe']}'s output": [], "the source": []}
    for row in range(len(people)):
        source, brain = people.volume(direction.source, row), people.brain(direction.source, row)
        seers: tuple[Predict, ...] = (_predictor(model, brain, direction, people, row), lambda volume: volume)
        for name, seer in zip(found, seers, strict=True):
            found[name].append(
                lesion_response(
                    seer, source, brain, people.grid.spacing_mm, RADIUS_MM, FACTOR, NOISE_SD, LESIONS, seed + row
                )
            )
    return found


def _predictor(model: Model, brain: np.ndarray, direction: Direction, people: Pairs, row: int) -> Predict:
    """The model as a function of one participant's source volume."""
    bval = float(people.table["dmri_bval"].iloc[row])

    def predict(volume: np.ndarray) -> np.ndarray:
        batch = source_batch(volume, brain, direction, bval).to(model.device)
        with torch.inference_mode():
            return np.asarray(model.method.predict(batch, direction)[0, 0].float().cpu())

    return predict


def _counterfactual(model: Model, pairs: Pairs, seed: int, jobs: int) -> Probe:
    lead = (
        f"SIMULATED people, each scanned at severity {SEVERITIES[0]:g} and at {SEVERITIES[1]:g}, with all else the "
        "same: the one true effect of the disease in a person, without sampling. Slope of the synthesised change on "
        "the real one over regions, means over people; signs are compared where the real change is clear. Intervals: "
        "over people."
    )
    with tempfile.TemporaryDirectory() as folder:
        root = write_counterfactuals(Path(folder) / "bids", TWICE, COUNTERFACTUAL + seed, jobs=jobs)
        made = prepare(bids(root), Path(folder) / "prepared", pairs.grid.spacing_mm[0], split=(0, 0, 1), jobs=jobs)
        visits = {name: made.where(made.table["session_id"] == name) for name in SESSIONS}
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
            cells = [f"{words.number(e.value, 2)} ({words.interval(e.low, e.high, 2)})" for e in
                     (found.slope, found.sign_agreement)]  # fmt: skip
            rows.append([words.DIRECTIONS[direction], cells[0], cells[1], f"{found.clear.sum()}"])
    head = ["Direction", "slope", "sign agrees", "clear regions"]
    caption = f"{TWICE} SIMULATED people at two severities, {model.card['recipe']}"
    return {"title": "The same person, healthy and ill", "lead": lead, "caption": caption, "head": head, "rows": rows}


@dataclass(frozen=True, eq=False)
class _Made:
    """Scans of some people: cell means of the synthesised and of the real ones (N, F), and mean squared errors (N,)."""

    cells: np.ndarray
    real: np.ndarray
    errors: np.ndarray

    @classmethod
    def by(cls, model: Model, people: Pairs, direction: Direction) -> _Made:
        made = predictions(model.method, people, direction)
        errors = []
        for row, image in enumerate(made):
            mask = dilate(people.brain(direction.target, row))
            errors.append(float(np.square(image - people.volume(direction.target, row))[mask].mean()))
        return cls(np.stack([cell_means(volume) for volume in made]), _real_cells(people, direction), np.array(errors))


def _real_cells(people: Pairs, direction: Direction) -> np.ndarray:
    return np.stack([cell_means(people.volume(direction.target, row)) for row in range(len(people))])


def _some(people: Pairs, number: int, seed: int) -> Pairs:
    """At most so many rows, drawn at random, one a participant."""
    first = np.flatnonzero(~people.table["participant_id"].duplicated())
    chosen = np.random.default_rng(seed).permutation(first)[:number]
    return people.where(np.isin(np.arange(len(people)), chosen))
