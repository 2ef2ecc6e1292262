"""Boosted trees on top of the weights that were learnt from pairs: the error that they leave, over all voxels together.

Each participant's error is that of weights learnt from the others, since weights leave less of the error of those from
whom they were learnt. The same voxel in the mirrored head has the same error, and counts as a voxel more. The mean
source scan, from which the source of a participant differs, is that of the others, as it is for a new person.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.ensemble import HistGradientBoostingRegressor
from threadpoolctl import threadpool_limits

from pdsynth.methods.correction import DEPTH, NODE, TREE_COLUMNS
from pdsynth.methods.trees import tree_arrays

TREES, RATE, LEAST = 300, 0.1, 800  # number of trees, their learning rate, least number of voxels of a leaf
TRIED = 0.3  # share of the columns that are tried at a node
VOXELS, ROWS = 16_000, 240_000  # of a participant at most, and of all participants with their mirrored heads
LEFT, RIGHT = 3, 4  # columns of the estimate at the left and the right neighbour
SOURCE_LEFT, SOURCE_RIGHT, X = 15, 16, TREE_COLUMNS - 7  # the same of the source, and the coordinate to the right

Left = frozenset[int]  # one or two groups of participants who were left out


@dataclass(frozen=True)
class Remains:
    """Voxels of a participant: columns (voxels, TREE_COLUMNS), and the error that the weights leave, (voxels,)."""

    columns: np.ndarray
    error: np.ndarray

    @classmethod
    def drawn(cls, columns: np.ndarray, error: np.ndarray, inside: np.ndarray, number: int, seed: int) -> Remains:
        """At most `number` of the voxels that count, at random.

        columns (TREE_COLUMNS, X, Y, Z). error, inside (bool): (X, Y, Z).
        """
        voxels = np.flatnonzero(inside)
        voxels = np.random.default_rng(seed).choice(voxels, min(number, len(voxels)), replace=False)
        return cls(columns.reshape(TREE_COLUMNS, -1)[:, voxels].T, error.ravel()[voxels])

    @classmethod
    def joined(cls, parts: Sequence[Remains]) -> Remains:
        """The voxels of several scans."""
        return cls(np.concatenate([each.columns for each in parts]), np.concatenate([each.error for each in parts]))

    def mirrored(self) -> Remains:
        """The same voxels in the mirrored head."""
        columns = self.columns.copy()
        columns[:, [LEFT, RIGHT, SOURCE_LEFT, SOURCE_RIGHT]] = columns[:, [RIGHT, LEFT, SOURCE_RIGHT, SOURCE_LEFT]]
        columns[:, X] *= -1
        return Remains(columns, self.error)


def voxels_of_each(people: int) -> int:
    """The number of voxels to draw of each of some participants."""
    return min(VOXELS, ROWS // (2 * people))


def fitted(people: Sequence[Mapping[Left, Remains]], groups: int) -> tuple[np.ndarray, np.ndarray]:
    """Fit trees to the error that is left, and judge them: nodes (trees, nodes, NODE), and gains in dB (people,).

    people: of each participant, the voxels after a correction by weights that were learnt without their own group, and
    without this and another one. Participant i is in group i % groups. A gain is that of a participant who was left out
    of all fits, of weights and of trees; it is 0 if the mean gain of the other groups is not above its standard error.
    If the mean gain of all is not, there are no trees.
    """
    group = np.arange(len(people)) % groups
    gains = np.empty(len(people))
    for g in range(groups):
        # weights that know group g leave errors in others that know it, too
        model = _fit([each[frozenset((g, int(h)))] for h, each in zip(group, people, strict=True) if h != g])
        for i in np.flatnonzero(group == g).tolist():
            own = people[i][frozenset((g,))]
            before, after = (np.mean(np.square(e)) for e in (own.error, own.error - model.predict(own.columns)))
            gains[i] = 10 * np.log10(max(before, 1e-12) / max(after, 1e-12))
    judged = [gains[i] if _above_chance(gains[group != group[i]]) else 0.0 for i in range(len(people))]
    every = [each[frozenset((int(h),))] for h, each in zip(group, people, strict=True)]
    nodes = _nodes(_fit(every)) if _above_chance(gains) else np.zeros((0, 0, NODE), np.float32)
    return nodes, np.array(judged)


def _above_chance(gains: np.ndarray) -> bool:
    return bool(gains.mean() > gains.std(ddof=1) / np.sqrt(len(gains)))


def _fit(people: Sequence[Remains]) -> HistGradientBoostingRegressor:
    heads = [*people, *(each.mirrored() for each in people)]
    model = HistGradientBoostingRegressor(
        max_iter=TREES,
        learning_rate=RATE,
        max_depth=DEPTH,
        min_samples_leaf=LEAST,
        max_features=TRIED,
        early_stopping=False,
        random_state=0,
    )
    with threadpool_limits(1):  # on busy cores, several threads wait for each other for minutes
        return model.fit(np.concatenate([each.columns for each in heads]), np.concatenate([e.error for e in heads]))


def _nodes(model: HistGradientBoostingRegressor) -> np.ndarray:
    """The nodes of fitted trees, as `methods.correction` evaluates them; the baseline is in the first tree."""
    arrays = tree_arrays(model)
    arrays["value"][0] += arrays["baseline"]
    feature, threshold, value = (arrays[name][..., None] for name in ("feature", "threshold", "value"))
    return np.concatenate([feature, threshold, arrays["branches"], value], -1).astype(np.float32)
