"""A cache of estimates for the training rows, so that a training loop need not compute them again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from pdsynth.data.batch import PairBatch, crop
from pdsynth.data.pairs import Pairs
from pdsynth.types import Direction

IN_MEMORY = 1 << 30  # bytes of cached volumes


def spread_rows(total: int, least: int) -> np.ndarray:
    """Mask, (total,) bool, of evenly spaced rows: at least `least`, and fewer than twice as many.

    All of the `total` rows are in it if there are fewer than 2 * `least`. The first row always is. least: 1 or more.

    >>> spread_rows(6, 2).nonzero()[0].tolist()
    [0, 3]
    """
    return np.arange(total) % max(1, total // least) == 0


class RowFile:
    """Rows of half-precision volumes in a temporary file that is removed with this object; other processes may read it.

    shape: of all rows, (rows, 1, X, Y, Z). An index is the number of a row; the row is a tensor (1, X, Y, Z) fp16. The
    file is in the system's folder for temporary files, which TMPDIR sets. A pickled copy reads the same file.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._file = NamedTemporaryFile(prefix="pdsynth-", suffix=".rows")  # noqa: SIM115, it is closed with this object
        self._map(Path(self._file.name), shape, "w+")

    def _map(self, path: Path, shape: tuple[int, ...], mode: Literal["r", "w+"]) -> None:
        self.path, self._rows = path, np.memmap(path, np.float16, mode, shape=shape)

    def __getstate__(self) -> tuple[Path, tuple[int, ...]]:
        return self.path, self._rows.shape

    def __setstate__(self, state: tuple[Path, tuple[int, ...]]) -> None:
        self._map(*state, "r")

    def __getitem__(self, row: int) -> Tensor:
        return torch.from_numpy(self._rows[row].copy())

    def __setitem__(self, row: int, volume: Tensor) -> None:
        self._rows[row] = volume.numpy()


class Cached:
    """Estimates for all training rows, computed once, from which the patches of a training batch are cut.

    volumes: whole volumes by direction of synthesis, (rows, 1, X, Y, Z) fp16 on the CPU; empty before `fill`. If they
    would take more than 1 GiB, they are in a file (`RowFile`).
    """

    def __init__(self) -> None:
        self.volumes: dict[Direction, Tensor | RowFile] = {}

    @torch.inference_mode()
    def fill(self, pairs: Pairs, estimate: Callable[[PairBatch, Direction], Tensor], device: torch.device) -> None:
        """Compute the estimate of every row of `pairs` on `device`, and store it, in place of all earlier ones.

        estimate(batch, direction) gets a batch of one row on `device`, and returns a whole volume (1, 1, X, Y, Z).
        """
        shape = (len(pairs), 1, *pairs.grid.shape)
        large = 2 * len(Direction) * int(np.prod(shape)) > IN_MEMORY
        self.volumes = {d: RowFile(shape) if large else torch.empty(shape, dtype=torch.float16) for d in Direction}
        for row in range(len(pairs)):
            batch = pairs.batch(np.array([row])).to(device)
            for direction, volumes in self.volumes.items():
                volumes[row] = estimate(batch, direction)[0].half().cpu()

    def at(self, batch: PairBatch, direction: Direction) -> Tensor:
        """The stored estimates for the patches of a batch, (B, 1, x, y, z) float32 on the batch's device.

        The batch's row numbers and patch corners select them; its patches have the size of its targets. The row numbers
        must be positions in the `pairs` of `fill`.
        """
        x, y, z = batch.targets[direction].shape[2:]
        volumes = self.volumes[direction]
        rows = zip(batch.rows.tolist(), batch.corner, strict=True)
        return torch.stack([crop(volumes[r], c, (x, y, z)).float() for r, c in rows]).to(batch.corner.device)
