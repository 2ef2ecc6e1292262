"""Calibration factor of a method's SD, by conformal risk control.

The risk is the share of a participant's voxels whose real value is outside their interval (Angelopoulos, Bates, Fisch,
Lei and Schuster 2024, Conformal Risk Control). Coverage is the share inside.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from pdsynth.data.pairs import Pairs
from pdsynth.evaluation.estimates import estimates
from pdsynth.evaluation.metrics import dilate
from pdsynth.methods.base import Method
from pdsynth.types import Direction

Progress = Callable[[int, int], None]

COVERAGE = 0.9
FOLDS = 10
ROUNDING = 1e-9  # rounding error of sums of shares


@dataclass(frozen=True)
class Calibration:
    """Result of a calibration: the factor `scale` of the SD, and the coverage of 90 % intervals with and without it.

    Coverage is the share of a participant's voxels whose real value is inside the interval, averaged over participants.
    before: coverage without the factor. after: coverage, with the factor, of participants who were left out of its
    estimate (cross-validation); nan for fewer than 10 participants, or if no factor is large enough in a fold.
    participants: number of participants in the calibration.
    """

    scale: float
    before: float
    after: float
    participants: int


def calibrate(method: Method, pairs: Pairs, direction: Direction, progress: Progress | None = None) -> Calibration:
    """Estimate the factor by which a method's SD must be multiplied for correct 90 % intervals, in one direction.

    Correct intervals contain the real value in 90 % of a participant's voxels or more, on average over new
    participants. pairs: whole scans of participants who have both scans and were not in the training set; several
    sessions of a participant count as one set of voxels. progress(done, total) is called after each scan, with numbers
    of scans. The method itself is not changed. Raises ValueError if the method gives no SD, if there are fewer than 9
    participants, or if no factor is large enough.
    """
    ratios = interval_ratios(method, pairs, direction, progress=progress)
    before = float(np.mean([np.mean(each <= 1) for each in ratios]))
    return Calibration(conformal_scale(ratios), before, held_out_coverage(ratios), len(ratios))


def conformal_scale(ratios: Sequence[np.ndarray], coverage: float = COVERAGE) -> float:
    """The factor by which the width of intervals must be multiplied to cover a share of a new participant's voxels.

    coverage: this share, 0 to 1. ratios: one array per calibration participant, with the absolute error divided by half
    the interval width at each voxel. A factor below 1 narrows the intervals. The expected coverage is `coverage` or
    more for any method of computing the intervals, if the new participant comes from the same population. The
    expectation is over new participants and over calibration samples, so the coverage after one particular calibration
    may be lower. Raises ValueError if there are too few participants (fewer than 9 for a coverage of 0.9), or if no
    factor is large enough, for example because too many intervals have width 0.

    >>> conformal_scale([np.array([1.0, 2.0, 3.0])] * 99, coverage=0.5)
    2.0
    """
    n, needed = len(ratios), fewest(coverage)
    if n < needed:
        raise ValueError(f"{n} participants cannot calibrate {100 * coverage:g} % intervals; give {needed} or more.")
    values = np.concatenate(ratios)
    shares = np.concatenate([np.full(len(each), 1 / len(each)) for each in ratios])
    order = np.argsort(values)
    missed = n - np.cumsum(shares[order])  # sum over participants of the share outside, if the factor is each value
    allowed = (n + 1) * (1 - coverage) - 1 + ROUNDING
    first = min(int(np.searchsorted(-missed, -allowed)), len(values) - 1)
    scale = values[order[first]]
    if not np.isfinite(scale):
        raise ValueError("no factor is large enough: too many voxels with an SD of 0 have an error. Give more people.")
    return float(scale)


def fewest(coverage: float = COVERAGE) -> int:
    """The smallest number of participants from which intervals with this coverage (a share, 0 to 1) can be calibrated.

    >>> fewest(0.9)
    9
    """
    return int(np.ceil(1 / (1 - coverage) - 1 - ROUNDING))


def held_out_coverage(ratios: Sequence[np.ndarray], coverage: float = COVERAGE) -> float:
    """Share of voxels inside calibrated intervals, of participants who were left out of the calibration.

    ratios: for each participant, absolute error divided by half the interval width at each voxel. coverage: the share
    for which the factor is estimated. The result is the mean over participants. There are 10 folds, or one per
    participant if there are fewer. Fold k contains participants k, k + 10, k + 20 and so on; in a table sorted by site,
    every fold then contains every site. Returns nan if there are too few participants (fewer than 10 for a coverage of
    0.9), or if no factor is large enough.
    """
    people = np.arange(len(ratios))
    held = []
    for fold in range(min(FOLDS, len(ratios))):
        out = people % FOLDS == fold
        try:
            scale = conformal_scale([ratios[i] for i in people[~out]], coverage)
        except ValueError:  # too few other participants, or no factor is large enough for them
            return float("nan")
        held += [np.mean(ratios[i] <= scale) for i in people[out]]
    return float(np.mean(held))


def interval_ratios(
    method: Method, pairs: Pairs, direction: Direction, coverage: float = COVERAGE, progress: Progress | None = None
) -> list[np.ndarray]:
    """Errors of a method in units of its interval, by which it can be calibrated: one array per participant.

    An array has one value per voxel of all sessions. A value is the absolute error divided by half the width of the
    interval with this coverage (a share, 0 to 1), which is that of a normal distribution with the mean and SD that the
    method gives. It is 0 if the error is 0, and inf if only the SD is 0. Voxels are those of the brain of the real
    target, dilated by one voxel. pairs: whole scans of participants with both scans. progress(done, total) is called
    after each scan. Raises ValueError if the method gives no SD.
    """
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
