"""Adapts a saved model to a new scanner in closed form, and judges the gain by people who were left out.

The error of the model's estimates is regressed on features of estimate and source, over people with both scans. The few
weights of `methods.correction` are the same for all voxels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pdsynth import api
from pdsynth.data.pairs import Pairs
from pdsynth.evaluation.evaluate import source_only
from pdsynth.evaluation.metrics import dilate
from pdsynth.methods import checkpoint
from pdsynth.methods.base import Method
from pdsynth.methods.correction import columns, no_correction
from pdsynth.types import Available, Direction

ENTRY = "adaptation"  # key in a model's card
PENALTIES = (0.001, 0.01, 0.1, 1.0, 10.0)  # relative to the mean square of a column
FEWEST = 3  # participants with both scans by whom a gain can be judged


@dataclass(frozen=True)
class Adaptation:
    """How one direction of synthesis was adapted.

    participants: number of people with both scans from whom it could learn. gain_db: mean increase of PSNR in the brain
    of people who were left out of the fit, in dB; nan if there were too few people to judge it. error_db: its standard
    error. correction: whether the new correction is part of the model. If not, the direction stays as it was, with the
    correction of an earlier adaptation, if there is one.
    """

    participants: int
    gain_db: float
    error_db: float
    correction: bool


@dataclass(frozen=True)
class Equations:
    """The normal equations of one participant: means over voxels of x x', x y and y y.

    x are the columns of the correction, (columns,), and y is the error of the estimate.
    """

    square: np.ndarray
    product: np.ndarray
    error: float

    @classmethod
    def of(cls, x: np.ndarray, y: np.ndarray) -> Equations:
        """x (voxels, columns) and y (voxels,)."""
        return cls(x.T @ x / len(y), x.T @ y / len(y), float(y @ y / len(y)))

    @classmethod
    def mean(cls, several: Sequence[Equations]) -> Equations:
        """The equations of several participants together, each with the same weight."""
        return cls(
            np.mean([e.square for e in several], axis=0),
            np.mean([e.product for e in several], axis=0),
            float(np.mean([e.error for e in several])),
        )

    def solve(self, penalty: float) -> np.ndarray:
        """The ridge weights (columns,)."""
        return np.linalg.solve(self.square + penalty * np.diag(np.diag(self.square) + 1e-9), self.product)

    def left(self, weights: np.ndarray) -> float:
        """The mean squared error with these weights."""
        return max(float(self.error - 2 * weights @ self.product + weights @ self.square @ weights), 1e-12)


def fitted(people: Sequence[Equations]) -> tuple[np.ndarray, np.ndarray]:
    """Fit the correction: its weights (columns,), and the gain in dB of each participant who was left out (people,).

    The penalty is chosen by the error of people who were left out; for the gain of a participant, by the others alone.
    """
    gains = []
    for number, held in enumerate(people):
        others = [*people[:number], *people[number + 1 :]]
        weights = Equations.mean(others).solve(_penalty(others))
        gains.append(10 * np.log10(max(held.error, 1e-12) / held.left(weights)))
    return Equations.mean(people).solve(_penalty(people)), np.array(gains)


def _penalty(people: Sequence[Equations]) -> float:
    """The penalty with the least error of people who were left out; the largest if nobody can be left out."""
    if len(people) < 2:
        return PENALTIES[-1]
    rest = [Equations.mean([*people[:i], *people[i + 1 :]]) for i in range(len(people))]
    errors = [
        np.mean([held.left(r.solve(penalty)) for held, r in zip(people, rest, strict=True)]) for penalty in PENALTIES
    ]
    return PENALTIES[int(np.argmin(errors))]


def adapt(
    model: str | Path, pairs: Pairs, out: str | Path, device: str = "auto", unjudged: bool = False
) -> dict[Direction, Adaptation]:
    """Correct a model for the scanner of a prepared folder, and save it in `out`; says how, by direction of synthesis.

    Uses the participants of `pairs` who have both scans, are not in the test split and were not in the model's training
    set. A correction is kept if people who were left out gain more than its standard error. With fewer than FEWEST
    participants nothing can be judged, and the model is saved as it was, unless `unjudged` is true. The scans from
    which it learnt become training scans in the model's card (record of the training), so that `pdsynth evaluate`
    refuses to score on them. Raises InputError if the model has another preprocessing than the pairs, or if its card
    does not list its training scans.
    """
    loaded = api.load(model, device)
    new = api.new_people(str(model), loaded, pairs)
    people = new.where(new.table["available"] == Available.BOTH)
    earlier = loaded.method.correction.clone()
    loaded.method.correction.copy_(no_correction())  # the new one replaces an earlier one, and is learnt without it
    found = {direction: _adapted(loaded.method, people, direction, unjudged) for direction in Direction}
    for direction, each in found.items():
        if not each.correction:
            loaded.method.correction[direction.index] = earlier[direction.index]
    entry = {
        "cohort": pairs.root.name,
        "simulated": pairs.simulated,
        **{d.value: {k: v for k, v in asdict(each).items() if v == v} for d, each in found.items()},
    }
    learnt = people.scan_digests() if any(each.correction for each in found.values()) else {}
    scans = {*loaded.card["scans_sha256"], *learnt}
    card: dict[str, Any] = {**loaded.card, ENTRY: entry, "scans_sha256": sorted(scans)}
    checkpoint.save(loaded.method.cpu(), out, card)
    return found


def _adapted(method: Method, people: Pairs, direction: Direction, unjudged: bool) -> Adaptation:
    """Fit the correction of one direction, and keep it in the method if people who were left out gain."""
    number = people.table["participant_id"].nunique()
    judged = number >= FEWEST
    if not judged and not (unjudged and number):
        return Adaptation(number, float("nan"), float("nan"), correction=False)
    weights, gains = fitted(list(_of_pairs(method, people, direction)))
    gain = float(gains.mean()) if judged else float("nan")
    error = float(gains.std(ddof=1) / np.sqrt(len(gains))) if judged else float("nan")
    better = gain > error if judged else unjudged
    if better:
        method.correction[direction.index] = torch.from_numpy(weights).to(method.correction)
    return Adaptation(number, gain, error, better)


@torch.inference_mode()
def _columns(method: Method, pairs: Pairs, row: int, direction: Direction) -> tuple[Tensor, Tensor, np.ndarray]:
    """Columns (columns, X, Y, Z) and estimate (X, Y, Z) of a row, and the voxels near its source, (X, Y, Z) bool."""
    batch = source_only(pairs.batch(np.array([row]), directions=[direction]), direction, method)
    estimate, source = method.estimate(batch, direction)[0], batch.sources[direction]
    return columns(estimate, source)[0].cpu(), estimate[0, 0].cpu(), source.near[0, 0].cpu().numpy()


def _of_pairs(method: Method, pairs: Pairs, direction: Direction) -> Iterator[Equations]:
    """The equations of each participant with both scans, over the voxels in the dilated brain of the real target."""
    method.eval()
    for person in pairs.table["participant_id"].unique():
        of = pairs.where(pairs.table["participant_id"] == person)
        several = []
        for row in range(len(of)):
            x, estimate, near = _columns(method, of, row, direction)
            inside = dilate(of.brain(direction.target, row)) & near
            error = of.volume(direction.target, row) - estimate.numpy()
            several.append(Equations.of(x.numpy()[:, inside].T.astype(float), error[inside].astype(float)))
        yield Equations.mean(several)
