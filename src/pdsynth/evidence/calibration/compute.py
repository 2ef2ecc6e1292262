"""By how much the SD that a method states must be scaled for its intervals to hold, by conformal risk control.

The risk is the share of a participant's voxels that lie outside their interval (Angelopoulos, Bates, Fisch, Lei and
Schuster 2024, Conformal Risk Control).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from pdsynth.data.pairs import Pairs
from pdsynth.evaluation.evaluate import estimates
from pdsynth.evaluation.metrics import dilate
from pdsynth.methods.base import Method
from pdsynth.types import Direction

Progress = Callable[[int, int], None]

COVERAGE = 0.9
FOLDS = 10
ROUNDING = 1e-9  # of sums of shares


@dataclass(frozen=True)
class Calibration:
    """Scale of the SD, and the share of voxels that 90 % intervals held: before it, and after it of people left out."""

    scale: float
    before: float
    after: float
    participants: int


def calibrate(method: Method, pairs: Pairs, direction: Direction, progress: Progress | None = None) -> Calibration:
    """What the SD of a method must be multiplied with, from participants whom it never saw, on their whole scans.

    progress(done, scans) is called after each scan. Raises ValueError for a method that states no SD, and where
    `conformal_scale` does.
    """
    ratios = interval_ratios(method, pairs, direction, progress=progress)
    before = float(np.mean([np.mean(each <= 1) for each in ratios]))
    return Calibration(conformal_scale(ratios), before, held_of_others(ratios), len(ratios))


def conformal_scale(ratios: Sequence[np.ndarray], coverage: float = COVERAGE) -> float:
    """The factor on intervals that makes them hold `coverage` of a new participant's voxels, on average over people.

    ratios: of each calibration participant, error over half the interval at each voxel. However the intervals were
    made, the expected share is `coverage` or more, where the new participant is drawn as these were; expected over
    calibrations too, so that a single one may hold less. Raises ValueError for too few participants (for .9, below 9),
    or where no factor is enough, as where too many intervals are points.

    >>> conformal_scale([np.array([1.0, 2.0, 3.0])] * 99, coverage=0.5)
    2.0
    """
    n, needed = len(ratios), fewest(coverage)
    if n < needed:
        raise ValueError(f"{n} participants cannot tell intervals of {100 * coverage:g} %; it takes {needed} or more.")
    values = np.concatenate(ratios)
    shares = np.concatenate([np.full(len(each), 1 / len(each)) for each in ratios])
    order = np.argsort(values)
    missed = n - np.cumsum(shares[order])  # by a factor of each value, in participants
    allowed = (n + 1) * (1 - coverage) - 1 + ROUNDING
    first = min(int(np.searchsorted(-missed, -allowed)), len(values) - 1)
    scale = values[order[first]]
    if not np.isfinite(scale):
        raise ValueError("no factor is enough: where the method is certain, it is wrong too often for so few people.")
    return float(scale)


def fewest(coverage: float = COVERAGE) -> int:
    """The fewest participants from which intervals of this coverage can be estimated.

    >>> fewest(0.9)
    9
    """
    return int(np.ceil(1 / (1 - coverage) - 1 - ROUNDING))


def held_of_others(ratios: Sequence[np.ndarray], coverage: float = COVERAGE) -> float:
    """Mean share that the intervals hold of participants left out of the scale, in turn; nan where they are too few.

    Fold k holds the participants k, k + 10, k + 20 ...: of a table sorted by site every fold then holds every site.
    """
    people = np.arange(len(ratios))
    held = []
    for fold in range(min(FOLDS, len(ratios))):
        out = people % FOLDS == fold
        try:
            scale = conformal_scale([ratios[i] for i in people[~out]], coverage)
        except ValueError:  # the others are too few, or no factor is enough for them
            return float("nan")
        held += [np.mean(ratios[i] <= scale) for i in people[out]]
    return float(np.mean(held))


def interval_ratios(
    method: Method, pairs: Pairs, direction: Direction, coverage: float = COVERAGE, progress: Progress | None = None
) -> list[np.ndarray]:
    """Error over half the interval of a normal target at each voxel of the dilated brain; an array a participant."""
    half = special.ndtri((1 + coverage) / 2)
    found: dict[str, list[np.ndarray]] = {}
    for row, (mean, sd) in enumerate(estimates(method, pairs, direction)):
        if sd is None:
            raise ValueError(f"{method.name} states no uncertainty, so there is nothing to calibrate.")
        mask = dilate(pairs.brain(direction.target, row))
        error = np.abs(pairs.volume(direction.target, row) - mean)[mask]
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(error == 0, 0, error / (half * sd[mask]))
        found.setdefault(pairs.table["participant_id"].iloc[row], []).append(ratio.astype(np.float32))
        if progress:
            progress(row + 1, len(pairs))
    return [np.concatenate(each) for each in found.values()]
