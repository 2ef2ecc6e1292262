"""The correction learnt from pairs: regressions of the estimate's error, at each voxel and over all voxels together.

The equations of a voxel hold those of the voxels around it, weighted by a Gaussian, and those of `strength` more people
at an average voxel. With few pairs, the weights of a voxel are therefore near those of an average voxel. If people who
are left out gain by it, the equations are the mean of those of a voxel and of its mirror image in the other hemisphere,
which are as many data again. The volumes' grid is symmetric about the midsagittal plane (`imaging.spatial.mni_grid`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations_with_replacement

import numpy as np
from scipy import ndimage

from pdsynth.methods.correction import COLUMNS, LOCAL_COLUMNS

STRENGTHS = (0.3, 1.0, 3.0, 10.0, 30.0)
SAME = (np.inf, False)  # all voxels have the same weights
WAYS = (*((strength, mirrored) for strength in STRENGTHS for mirrored in (False, True)), SAME)
SIGMA = 0.8  # SD in voxels of the Gaussian over the voxels around
RIDGE = 0.001  # relative to the mean square of a column
GROUPS = 5  # of people, of which one at a time is left out
STEP = 37  # every 37th voxel takes part in the choice of the strength
CHUNK = 8192  # voxels whose equations are solved at a time
TRIANGLE = np.triu_indices(LOCAL_COLUMNS + 1)
Way = tuple[float, bool]  # strength, and whether the equations of mirror images are joined


def _mirrored_products() -> np.ndarray:
    """For each product of two columns, the number of the same product in the mirrored brain, (products,).

    The first two of the neighbours, left and right, exchange their places.
    """
    column = np.arange(LOCAL_COLUMNS + 1)
    column[[COLUMNS, COLUMNS + 1]] = COLUMNS + 1, COLUMNS
    number = np.empty((LOCAL_COLUMNS + 1,) * 2, int)
    number[TRIANGLE] = number[TRIANGLE[::-1]] = np.arange(len(TRIANGLE[0]))
    return number[column[TRIANGLE[0]], column[TRIANGLE[1]]]


MIRRORED = _mirrored_products()


@dataclass(frozen=True)
class Scan:
    """One estimate: its columns (LOCAL_COLUMNS, X, Y, Z), its error (X, Y, Z), and the voxels that count, bool."""

    columns: np.ndarray
    error: np.ndarray
    inside: np.ndarray

    def add_to(self, sums: np.ndarray, weight: float) -> None:
        """Add the weighted products of each two of the columns and the error to sums, (products, X, Y, Z)."""
        joined = np.concatenate([self.columns, self.error[None]]) * (np.sqrt(weight, dtype=np.float32) * self.inside)
        for one, first, second in zip(sums, *TRIANGLE, strict=True):
            one += joined[first] * joined[second]

    def sample(self) -> Sample:
        """Every STEP-th voxel, of those that count."""
        places = np.arange(0, self.inside.size, STEP)
        places = places[self.inside.ravel()[places]]
        return Sample(places, self.columns.reshape(LOCAL_COLUMNS, -1)[:, places].T, self.error.ravel()[places])


@dataclass(frozen=True)
class Sample:
    """Some voxels of a scan: their flat indices (n,), columns (n, LOCAL_COLUMNS) and errors (n,)."""

    places: np.ndarray
    columns: np.ndarray
    error: np.ndarray

    def left(self, places: np.ndarray, weights: np.ndarray) -> float:
        """The mean squared error with the weights (voxels, LOCAL_COLUMNS) of `places`, (voxels,), in order."""
        own = weights[np.searchsorted(places, self.places)]
        return max(float(np.mean(np.square(self.error - (own * self.columns).sum(1)))), 1e-12)


@dataclass(frozen=True)
class Correction:
    """The correction of one direction of synthesis.

    weights (COLUMNS,): for all voxels. maps (LOCAL_COLUMNS, X, Y, Z): weights that are added to them at each voxel.
    without: by a set of one or two groups, the sum of both, learnt without the participants of these groups, each
    (LOCAL_COLUMNS, X, Y, Z); participant i is in group i % groups; {} for fewer than three groups. gains (people,): of
    each participant who was left out, in dB; nan without another participant.
    """

    weights: np.ndarray
    maps: np.ndarray
    without: dict[frozenset[int], np.ndarray]
    gains: np.ndarray


class Equations:
    """The normal equations of several groups of people. Those of all but some groups are a difference of sums.

    groups: by group, the sums over people of the products of columns and error, (groups, products, X, Y, Z).
    """

    def __init__(self, groups: np.ndarray) -> None:
        self.mean, self.shape = groups.sum((2, 3, 4), dtype=float), groups.shape[2:]
        box = ndimage.find_objects(groups[:, 0].any(0).astype(int))[0]  # of the voxels that count
        for each in groups:
            for product in each:
                ndimage.gaussian_filter(product[box], SIGMA, truncate=3, mode="constant", output=product[box])
        self.of_voxels = groups.reshape(*groups.shape[:2], -1)

    def near(self, places: np.ndarray) -> np.ndarray:
        """Those of the flat indices around which anybody has a voxel that counts."""
        return places[self.of_voxels[:, 0, places].sum(0) > 1e-3]

    def mirror(self, places: np.ndarray) -> np.ndarray:
        """The flat indices of the mirror images of voxels in the other hemisphere."""
        x, y, z = np.unravel_index(places, self.shape)
        return np.ravel_multi_index((self.shape[0] - 1 - x, y, z), self.shape)

    def at(self, places: np.ndarray, groups: Sequence[int], mirrored: bool) -> np.ndarray:
        """The sums of products over some groups, (products, voxels); mirrored: their mean with the mirror images."""
        own: np.ndarray = sum(self.of_voxels[group][:, places] for group in groups)
        return (own + self.at(self.mirror(places), groups, False)[MIRRORED]) / 2 if mirrored else own

    def weights(self, way: Way, places: np.ndarray, without: Collection[int] = ()) -> np.ndarray:
        """The weights of the voxels `places`, (voxels, LOCAL_COLUMNS), from the groups but those in `without`."""
        strength, mirrored = way
        groups = [group for group in range(len(self.mean)) if group not in without]
        mean = self.mean[groups].sum(0)
        if mirrored:
            mean = (mean + mean[MIRRORED]) / 2
        average = _full(mean / mean[0])  # the first product is 1, so that its sum is the number of voxels
        average += RIDGE * np.diag(np.diag(average) + 1e-9)
        if np.isinf(strength):
            few = [*range(COLUMNS), LOCAL_COLUMNS]  # with the same weights everywhere, the neighbours are one more blur
            same = _solved(average[np.ix_(few, few)])
            return np.tile(np.pad(same, (0, LOCAL_COLUMNS - COLUMNS)), (len(places), 1))
        chunks = np.array_split(places, -(-len(places) // CHUNK))
        return np.concatenate(
            [_solved(_full(self.at(chunk, groups, mirrored).T) + strength * average) for chunk in chunks]
        )


def _full(products: np.ndarray) -> np.ndarray:
    """The symmetric matrices (..., LOCAL_COLUMNS + 1, LOCAL_COLUMNS + 1) of the products (..., products)."""
    full = np.empty((*products.shape[:-1], LOCAL_COLUMNS + 1, LOCAL_COLUMNS + 1))
    full[..., TRIANGLE[0], TRIANGLE[1]] = full[..., TRIANGLE[1], TRIANGLE[0]] = products
    return full


def _solved(equations: np.ndarray) -> np.ndarray:
    """The weights (..., columns) of equations (..., columns + 1, columns + 1), of which the last row is the error's."""
    return np.linalg.solve(equations[..., :-1, :-1], equations[..., :-1, -1:])[..., 0]


def fitted(people: Iterable[Sequence[Scan]], number: int) -> Correction:
    """Fit the correction of one direction to the scans of each of `number` participants, and judge it.

    The strength, and whether mirror images are joined, are chosen by the error of people who were left out. For a
    participant's gain, the others alone choose them.
    """
    groups = min(GROUPS, number)
    samples: list[list[Sample]] = []
    for person, scans in enumerate(people):
        if not person:
            shape = scans[0].inside.shape
            sums, inside = np.zeros((groups, len(TRIANGLE[0]), *shape), np.float32), np.zeros(shape, bool)
        for scan in scans:
            scan.add_to(sums[person % groups], 1 / len(scans))
            inside |= scan.inside
        samples.append([scan.sample() for scan in scans])
    equations = Equations(sums)
    way, gains = _judged(equations, samples, equations.near(np.arange(0, inside.size, STEP)))
    places = np.flatnonzero(inside | inside[::-1] if way[1] else inside)
    same = equations.weights(SAME, places[:1])[0]
    maps = np.zeros((LOCAL_COLUMNS, inside.size), np.float32)
    maps[:, places] = (equations.weights(way, places) - same).T
    shape, without = (LOCAL_COLUMNS, *inside.shape), {}
    for left in combinations_with_replacement(range(groups if groups > 2 else 0), 2):
        weights = np.zeros_like(maps)
        weights[:, places] = equations.weights(way, places, left).T
        without[frozenset(left)] = weights.reshape(shape)
    return Correction(same[:COLUMNS], maps.reshape(shape), without, gains)


def _judged(equations: Equations, samples: Sequence[Sequence[Sample]], places: np.ndarray) -> tuple[Way, np.ndarray]:
    """The best way, and the gains in dB of people who were left out, (people,), at some voxels, `places`."""
    groups = len(equations.mean)
    group = np.arange(len(samples)) % groups

    @cache
    def learnt(without: frozenset[int]) -> list[np.ndarray]:
        return [equations.weights(way, places, without) for way in WAYS]

    def errors(of: int, without: Collection[int]) -> np.ndarray:
        """The errors of the people of a group with each way, (ways, people), learnt from the others."""
        own = [samples[int(person)] for person in np.flatnonzero(group == of)]
        weights = learnt(frozenset(without))
        return np.array([[np.mean([s.left(places, w) for s in scans]) for scans in own] for w in weights])

    def best(each: Sequence[np.ndarray]) -> int:
        """The way with the least mean error; the same weights for all voxels if nobody was left out."""
        return int(np.argmin(np.concatenate(each, 1).mean(1))) if each else WAYS.index(SAME)

    gains = np.full(len(samples), np.nan)
    left = [errors(g, [g]) for g in range(groups)] if groups > 1 else []
    for g, error in enumerate(left):
        others = [h for h in range(groups) if h != g] if groups > 2 else []
        chosen = best([errors(h, [g, h]) for h in others])
        for person, after in zip(np.flatnonzero(group == g), error[chosen], strict=True):
            before = np.mean([max(np.mean(np.square(s.error)), 1e-12) for s in samples[int(person)]])
            gains[person] = 10 * np.log10(before / after)
    return WAYS[best(left)], gains
