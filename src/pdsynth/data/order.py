"""The rows of each training step: from all rows of a small cohort, from a window that moves over a large one."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import gcd

import numpy as np

USES = 8  # patches of a row, on average, while it is in the window
GROUPS = 8  # of the files of a cohort, at most: as many devices read each file on one of them only


class Order:
    """The order in which training reads rows, whose features are costly to compute and too many to keep.

    shards: name of the file of each row. memory: number of rows whose features fit into memory. Up to so many rows, a
    step takes its rows from all of them. With more, the files are shuffled anew for each pass, their rows are read one
    after the other, and a step takes its rows from a window of those read last, 2/3 of `memory`; the others are
    kept until they have left the window. A row stays in it for as many steps as it takes to be used 8 times on average,
    and 1/8 of the rows of a batch are new. The files are in 8 groups, or fewer if 8 does not divide the batch; equal
    parts of a batch are from equal parts of the groups, so that devices which divide it do not read the same files.
    """

    def __init__(self, shards: np.ndarray, memory: int) -> None:
        self.memory, self.window = memory, 2 * memory // 3
        self.files = np.unique(shards, return_inverse=True)[1]
        self._shuffled = lru_cache(maxsize=2 * GROUPS)(self._pass)

    def rows(self, size: int, seed: Sequence[int], step: int, generator: np.random.Generator) -> np.ndarray:
        """The rows of a step, (size,) int64, of which none is used twice before all that it takes from are used once.

        size: number of rows. seed: whole numbers, on which the order of the files depends. step: its number, from 0.
        generator: of the choice of this step.
        """
        if len(self.files) <= self.memory:
            return _drawn(np.arange(len(self.files)), size, generator)
        groups = gcd(size, GROUPS)
        each = size // groups
        read = (self._read(each, tuple(seed), step, group, groups) for group in range(groups))
        return np.concatenate([_drawn(rows, each, generator) for rows in read])

    def _read(self, size: int, seed: tuple[int, ...], step: int, group: int, groups: int) -> np.ndarray:
        """The rows of a group in the window at a step that takes `size` of them, each once."""
        rows = len(self._shuffled(seed, 0, group, groups))
        number, first = divmod(step * size // USES, rows)
        passes = np.concatenate([self._shuffled(seed, number + k, group, groups) for k in (0, 1)])
        return np.unique(passes[first : first + min(self.window // groups, rows)])

    def _pass(self, seed: tuple[int, ...], number: int, group: int, groups: int) -> np.ndarray:
        """The rows of a group in the order of pass `number` over its files."""
        files = np.random.default_rng([*seed, 0]).permutation(self.files.max() + 1)[group::groups]
        place = np.full(self.files.max() + 1, -1)
        place[np.random.default_rng([*seed, 1, number, group]).permutation(files)] = np.arange(len(files))
        rows = np.flatnonzero(place[self.files] >= 0)
        return rows[np.argsort(place[self.files[rows]], kind="stable")]


def _drawn(rows: np.ndarray, size: int, generator: np.random.Generator) -> np.ndarray:
    """A random choice of `size` rows, none twice before all are taken once."""
    rounds = -(-size // len(rows))
    return np.concatenate([generator.permutation(rows) for _ in range(rounds)])[:size]
