"""The scans of an evaluation: read when they are needed, with masks and donors that depend on all of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from pdsynth.data.batch import PairBatch
from pdsynth.data.pairs import Pairs
from pdsynth.evaluation.audit import shuffle_sources
from pdsynth.evaluation.estimates import source_only
from pdsynth.evaluation.metrics import dilate
from pdsynth.methods.base import Method
from pdsynth.types import Direction

BLOCK = 16  # scans of one task, and real scans in memory at a time, about .5 MB each at 4 mm


class Scans:
    """The evaluated scans. Each is read from the prepared folder when it is needed, and is not kept in memory.

    For each of N scans: site; person, the index of its participant; donor, the row of the scan of another participant
    whose source replaces its own in the audit. first: row of the first scan of each participant. By direction: common,
    the voxels in the dilated brains of all scans, and common_first, those of the first scans, (X, Y, Z) each; centre,
    the mean of the first real scans over the voxels of common_first, (V,). Another process gets the scans by a pickle
    without their volumes, which it reads itself.
    """

    def __init__(self, pairs: Pairs, seed: int) -> None:
        self.pairs, self.table, self.has_oracle = pairs.streamed(), pairs.table, pairs.has_oracle
        names, self.site = (self.table[column].astype(str).tolist() for column in ("participant_id", "site"))
        people, self.first, self.person = np.unique(names, return_index=True, return_inverse=True)
        self.donor = self.first[shuffle_sources(len(people), seed=seed)[self.person]]
        self.common: dict[Direction, np.ndarray] = {}
        self.common_first: dict[Direction, np.ndarray] = {}
        self.centre: dict[Direction, np.ndarray] = {}
        for direction in Direction:
            self._survey(direction)

    def _survey(self, direction: Direction) -> None:
        """Find the common voxels and the centre in one pass over the real scans."""
        shape = self.pairs.grid.shape
        common, common_first, total = np.ones(shape, bool), np.ones(shape, bool), np.zeros(shape)
        first = set(self.first.tolist())
        for row in range(len(self)):
            mask = self.mask(row, direction)
            common &= mask
            if row in first:
                common_first &= mask
                total += self.real(row, direction)
        self.common[direction], self.common_first[direction] = common, common_first
        self.centre[direction] = (total[common_first] / len(first)).astype(np.float32)

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, pairs=state["pairs"].streamed())

    def __len__(self) -> int:
        return len(self.pairs)

    def blocks(self) -> Iterator[range]:
        """The rows in blocks of at most BLOCK."""
        for start in range(0, len(self), BLOCK):
            yield range(start, min(start + BLOCK, len(self)))

    def real(self, row: int, direction: Direction) -> np.ndarray:
        """The real target, (X, Y, Z)."""
        return self.pairs.volume(direction.target, row)

    def mask(self, row: int, direction: Direction) -> np.ndarray:
        """The brain mask of the real target, dilated by one voxel, (X, Y, Z) bool."""
        return dilate(self.pairs.brain(direction.target, row))

    def targets(self, direction: Direction) -> Iterator[np.ndarray]:
        """The candidates for the identification of a prediction, in blocks (b, V): the first scan of each participant.

        With one scan per participant, a prediction is never compared with a second scan of the same participant.
        """
        for start in range(0, len(self.first), BLOCK):
            rows = self.first[start : start + BLOCK].tolist()
            yield np.stack([self.real(row, direction)[self.common_first[direction]] for row in rows])

    def source(self, row: int, direction: Direction, method: Method) -> PairBatch:
        """A batch of the source of the scan in this row, without its target (see `source_only`)."""
        return source_only(self.pairs.batch(np.array([row]), directions=[direction]), direction, method)

    def donor_source(self, row: int, own: PairBatch, direction: Direction, method: Method) -> PairBatch:
        """The batch of `source`, `own`, but with the source volume of the donor (another participant, at random).

        The site remains that of the scan in this row. The b value is the donor's if the source is the dMRI, and that of
        the target if the target is the dMRI.
        """
        other = self.source(int(self.donor[row]), direction, method)
        bval = other.bval if direction is Direction.DMRI_TO_FMRI else own.bval
        return replace(own, sources=other.sources, oracle=other.oracle, bval=bval)
