"""A cache of estimates for the training rows, so that a training loop need not compute them again."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from pdsynth.data.batch import PairBatch, crop
from pdsynth.data.pairs import Pairs
from pdsynth.types import Direction


def spread_rows(total: int, least: int) -> np.ndarray:
    """Mask, (total,) bool, of evenly spaced rows: at least `least`, and fewer than twice as many.

    All of the `total` rows are in it if there are fewer than 2 * `least`. The first row always is. least: 1 or more.

    >>> spread_rows(6, 2).nonzero()[0].tolist()
    [0, 3]
    """
    return np.arange(total) % max(1, total // least) == 0


class Cached:
    """Estimates for all training rows, computed once, from which the patches of a training batch are cut.

    volumes: whole volumes by direction of synthesis, (rows, 1, X, Y, Z) fp16 on the CPU; empty before `fill`.
    """

    def __init__(self) -> None:
        self.volumes: dict[Direction, Tensor] = {}

    @torch.inference_mode()
    def fill(self, pairs: Pairs, estimate: Callable[[PairBatch, Direction], Tensor], device: torch.device) -> None:
        """Compute the estimate of every row of `pairs` on `device`, and store it, in place of all earlier ones.

        estimate(batch, direction) gets a batch of one row on `device`, and returns a whole volume (1, 1, X, Y, Z).
        """
        batches = (pairs.batch(np.array([row])).to(device) for row in range(len(pairs)))
        each = [{d: estimate(batch, d).half().cpu() for d in Direction} for batch in batches]
        self.volumes = {d: torch.cat([one[d] for one in each]) for d in Direction}

    def at(self, batch: PairBatch, direction: Direction) -> Tensor:
        """The stored estimates for the patches of a batch, (B, 1, x, y, z) float32 on the batch's device.

        The batch's row numbers and patch corners select them; its patches have the size of its targets. The row numbers
        must be positions in the `pairs` of `fill`.
        """
        x, y, z = batch.targets[direction].shape[2:]
        volumes = self.volumes[direction]
        rows = zip(batch.rows.tolist(), batch.corner, strict=True)
        return torch.stack([crop(volumes[r], c, (x, y, z)).float() for r, c in rows]).to(batch.corner.device)
