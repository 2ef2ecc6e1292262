"""Estimates of the training rows that one stage keeps for the next, so that no training loop makes them again."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from pdsynth.data.batch import PairBatch, crop
from pdsynth.data.pairs import Pairs
from pdsynth.types import Direction


def spread_rows(total: int, wanted: int) -> np.ndarray:
    """Which of `total` rows to keep, (total,) bool, so that at least `wanted`, where there are, stand evenly spread.

    >>> spread_rows(6, 2).nonzero()[0].tolist()
    [0, 3]
    """
    return np.arange(total) % max(1, total // wanted) == 0


class Cached:
    """Whole volumes by direction, (rows, 1, X, Y, Z) fp16 on the CPU, cut to the patches of a batch."""

    def __init__(self) -> None:
        self.volumes: dict[Direction, Tensor] = {}

    @torch.inference_mode()
    def fill(self, pairs: Pairs, estimate: Callable[[PairBatch, Direction], Tensor], device: torch.device) -> None:
        """Estimate every row once, whole."""
        batches = (pairs.batch(np.array([row])).to(device) for row in range(len(pairs)))
        each = [{d: estimate(batch, d).half().cpu() for d in Direction} for batch in batches]
        self.volumes = {d: torch.cat([one[d] for one in each]) for d in Direction}

    def at(self, batch: PairBatch, direction: Direction) -> Tensor:
        """(B, 1, x, y, z) float32 on the batch's device."""
        x, y, z = batch.targets[direction].shape[2:]
        volumes = self.volumes[direction]
        rows = zip(batch.rows.tolist(), batch.corner, strict=True)
        return torch.stack([crop(volumes[r], c, (x, y, z)).float() for r, c in rows]).to(batch.corner.device)
