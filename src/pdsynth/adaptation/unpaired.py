"""The correction learnt from scans without a partner: the mean target minus the mean estimate, at each voxel.

The two means are of different people, whose anatomy differs too. The spread over people says how much of the squared
difference this explains, and the difference is multiplied by the rest (empirical Bayes; Efron and Morris, J. Am. Stat.
Assoc. 68:117, 1973). Two parts of the difference are shrunk, each by its own spread: the part that is the same in both
hemispheres, and the part that is opposite. Most of a scanner's error is the same on both sides. The volumes' grid is
symmetric about the midsagittal plane.

`carried` lets the correction follow the anatomy of a person. Two guesses of a person's error count half each. First,
a linear function is fitted over all voxels, which gives the mean error from the mean columns. From the columns of one
person, it gives a guess of this person's error. Second, an optical flow (Le Besnerais and Champagnat, ICIP 2005)
registers the mean source to the person's source. The mean target is deformed in the same way, and this deformed target
minus the person's estimate is the other guess.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from skimage.registration import optical_flow_ilk

from pdsynth.adaptation.paired import SAME, TRIANGLE, Equations, Scan
from pdsynth.methods.correction import ESTIMATE, LOCAL_COLUMNS, SOURCE

AROUND = 3  # SD in voxels of the Gaussian over which the difference is compared with its spread
GROUPS = 5  # of people, of which one at a time is left out
RADIUS, ROUNDS = 4, 3  # of the deformation: radius of its Gaussian window in voxels, and number of steps
WAY = (1.0, True)  # strength of the average voxel, and mirror images are joined, as in `paired`


@dataclass(frozen=True)
class MeanError:
    """map (X, Y, Z): the mean error, which is added to the estimates in the mean over people (see `carried`).

    removed: the fraction of the squared mean error that the map removes, judged by people who were left out. error: its
    standard error.
    """

    map: np.ndarray
    removed: float
    error: float


def mean_error(targets: np.ndarray, estimates: np.ndarray, inside: np.ndarray, groups: np.ndarray) -> MeanError:
    """Learn from the target scans of some people, and the estimates from the source scans of the same or other people.

    targets, estimates: (people, X, Y, Z). inside (X, Y, Z) bool: where the mean error is learnt. groups (people of
    targets + people of estimates,): the group of each person. One group at a time is left out of the map that is judged
    by it; each group but one must hold two people with a target, and two with an estimate.

    A map c changes the squared mean error m'm by c'c - 2 c'm. People who were left out give an estimate of m that is
    free of bias, although none of them has both scans: the mean of their targets minus the mean of their estimates.
    """
    targets, estimates = (np.asarray(each, np.float32) * inside for each in (targets, estimates))
    of_targets, of_estimates = np.split(groups, [len(targets)])
    along_targets, along_estimates = np.zeros(len(targets)), np.zeros(len(estimates))
    sizes = []
    for group in np.unique(groups):
        t, e = of_targets == group, of_estimates == group
        learnt = _learnt(targets[~t], estimates[~e], inside)
        along_targets[t] = (targets[t] * learnt).sum((1, 2, 3))
        along_estimates[e] = (estimates[e] * learnt).sum((1, 2, 3))
        sizes.append(np.square(learnt).sum())
    found, whole = _learnt(targets, estimates, inside), _shrunk(targets, estimates, inside)[1]
    gain = 2 * (along_targets.mean() - along_estimates.mean()) - np.mean(sizes)
    spread = along_targets.var(ddof=1) / len(targets) + along_estimates.var(ddof=1) / len(estimates)
    return MeanError(found, float(gain / whole), float(2 * np.sqrt(spread) / whole))


def carried(
    error: np.ndarray,
    target: np.ndarray,
    scans: Callable[[], Iterable[tuple[np.ndarray, float]]],
    inside: np.ndarray,
) -> np.ndarray:
    """Weights of the columns at each voxel, (LOCAL_COLUMNS, X, Y, Z), whose mean over people adds the mean error.

    error (X, Y, Z): the mean error that was learnt. target (X, Y, Z): the mean target scan. scans() gives for each
    source scan the columns (LOCAL_COLUMNS, X, Y, Z) of its estimate and the weight of the scan in the mean; it is
    called twice. inside (X, Y, Z) bool: where the weights are learnt.
    """
    mean, number = np.zeros((LOCAL_COLUMNS, *inside.shape), np.float32), 0.0
    for columns, weight in scans():
        mean += weight * columns
        number += weight
    mean /= number
    sums = np.zeros((1, len(TRIANGLE[0]), *inside.shape), np.float32)
    Scan(mean, error, inside).add_to(sums[0], 1)
    same = Equations(sums).weights(SAME, np.zeros(1, int))[0].astype(np.float32)
    sums[:] = 0
    here = np.indices(inside.shape, np.float32)
    for columns, weight in scans():
        flow = optical_flow_ilk(columns[SOURCE], mean[SOURCE], radius=RADIUS, num_warp=ROUNDS, gaussian=True)
        deformed = ndimage.map_coordinates(target, here + flow, order=1, mode="nearest")
        guesses = np.tensordot(same, columns, 1), deformed - columns[ESTIMATE]
        Scan(columns, np.mean(guesses, 0), inside).add_to(sums[0], weight)
    places = np.flatnonzero(inside | inside[::-1])
    maps = np.zeros((LOCAL_COLUMNS, inside.size), np.float32)
    maps[:, places] = Equations(sums).weights(WAY, places).T
    maps = maps.reshape(mean.shape)
    maps[0] += error - (maps * mean).sum(0)  # the first column is 1
    return maps


def _learnt(targets: np.ndarray, estimates: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """The shrunk difference of the means, (X, Y, Z): the part that is the same on both sides plus the opposite one."""
    parts = [[(each + sign * each[:, ::-1]) / 2 for each in (targets, estimates)] for sign in (1, -1)]
    same, opposite = (_shrunk(of_targets, of_estimates, inside)[0] for of_targets, of_estimates in parts)
    return same + opposite


def _shrunk(targets: np.ndarray, estimates: np.ndarray, inside: np.ndarray) -> tuple[np.ndarray, float]:
    """The shrunk difference of the means, (X, Y, Z), and the squared mean error.

    The squared mean error is the squared difference without the part that chance explains, but at least this part.
    """
    difference = targets.mean(0) - estimates.mean(0)
    chance = targets.var(0, ddof=1) / len(targets) + estimates.var(0, ddof=1) / len(estimates)
    chance_around, square_around = (
        ndimage.gaussian_filter(each, AROUND, truncate=3, mode="constant") for each in (chance, np.square(difference))
    )
    share = 1 - np.minimum(chance_around / np.maximum(square_around, 1e-12), 1)
    square = max(np.square(difference).sum() - chance.sum(), chance.sum(), 1e-12)
    return difference * share * inside, float(square)
