"""Train, validation and test participants: stratified, hashed, frozen; and scans for leaks between them.

A participant is in one split with all sessions, runs and segments. The order within a stratum comes from
sha256(salt + participant_id), so it does not depend on the order of rows, the clock or a random state.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd

from pdsynth.types import InputError

SPLITS = ("train", "val", "test")
CELL = 4  # voxels: the edge of the cells that images are compared in
SAME_IMAGE = 0.005  # relative RMS difference: see `near_duplicates`


def assign_splits(
    participants: pd.DataFrame,
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1),
    salt: str = "",
    strata: Sequence[str] = ("site", "diagnosis"),
) -> pd.DataFrame:
    """Deal participants to train, val and test.

    participants: columns participant_id (unique) and strata. Returns participant_id, split, sha256, sorted by
    participant. Sizes are the fractions of the whole, by largest remainder, and of each stratum to within one; three
    participants or more leave no wished split empty. Raises ValueError for fractions that are no split of one.

    >>> table = pd.DataFrame({"participant_id": list("abcdefghij"), "site": "x", "diagnosis": "NC"})
    >>> assign_splits(table)["split"].value_counts().to_dict()
    {'train': 8, 'val': 1, 'test': 1}
    """
    if len(fractions) != 3 or min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
        raise ValueError(f"the split {fractions} is no three fractions that sum to 1; try 0.8,0.1,0.1")
    ids = participants["participant_id"].astype(str)
    if ids.duplicated().any():
        raise ValueError(f"participant {ids[ids.duplicated()].iloc[0]} is listed twice; list each once")
    table = participants[list(strata)].astype(str).assign(participant_id=ids)
    table["sha256"] = [sha256(f"{salt}{name}".encode()).hexdigest() for name in ids]
    table = table.sort_values([*strata, "sha256"], ignore_index=True)
    table["split"] = _deal(len(table), np.asarray(_sizes(len(table), fractions)))
    return table.sort_values("participant_id", ignore_index=True)[["participant_id", "split", "sha256"]]


def _sizes(n: int, fractions: tuple[float, float, float]) -> list[int]:
    """Whole numbers that sum to n, nearest to the fractions of n; none is 0 whose fraction is not, where n allows."""
    wished = np.asarray(fractions) * n
    sizes = np.floor(wished + 1e-9).astype(int)
    for k in np.argsort(-(wished - sizes), kind="stable")[: n - sizes.sum()]:
        sizes[k] += 1
    if n >= len(SPLITS):
        for k in np.flatnonzero((sizes == 0) & (wished > 0)):
            sizes[np.argmax(sizes)] -= 1
            sizes[k] = 1
    return [int(s) for s in sizes]


def _deal(n: int, sizes: np.ndarray) -> list[str]:
    """Deal positions 0..n-1 evenly: each goes to the split that lags most behind its share."""
    counts = np.zeros(len(sizes))
    dealt = []
    for i in range(n):
        k = int(np.argmax(sizes * (i + 1) / n - counts))
        counts[k] += 1
        dealt.append(SPLITS[k])
    return dealt


def check_disjoint(splits: pd.DataFrame, path: str | Path) -> None:
    """Raise InputError where a participant stands in two splits, or a split has an unknown name."""
    count = splits.groupby("participant_id")["split"].nunique()
    if (count > 1).any():
        name = count.index[count > 1][0]
        raise InputError(path, f"puts {name} into more than one split", "prepare the cohort again")
    unknown = set(splits["split"]) - set(SPLITS)
    if unknown:
        raise InputError(path, f"names a split {sorted(unknown)[0]!r}", f"use {', '.join(SPLITS)} only")


def near_duplicates(volumes: Iterable[np.ndarray], participants: Sequence[str]) -> list[tuple[int, int]]:
    """Places of the same image under two participants, which would leak between splits.

    volumes: N of (X, Y, Z) in 0..1; participants (N,). Images are averaged over cells of 4 voxels and are the same
    where the RMS of their difference is below 0.5 % of the RMS of the image: rounding and recompression stay far below
    that, two people far above.
    """
    names = np.asarray(participants)
    cells = np.asarray([cell_means(v) for v in volumes])
    square = np.square(cells).sum(-1)
    found = []
    for i in range(len(cells) - 1):
        # |a - b|^2 = |a|^2 + |b|^2 - 2ab finds the candidates; the difference itself decides, free of cancellation
        distance = square[i] + square[i + 1 :] - 2 * (cells[i + 1 :] @ cells[i])
        near = np.flatnonzero((distance < (3 * SAME_IMAGE) ** 2 * square[i]) & (names[i + 1 :] != names[i])) + i + 1
        found += [(i, int(j)) for j in near if np.linalg.norm(cells[i] - cells[j]) < SAME_IMAGE * np.sqrt(square[i])]
    return found


def cell_means(volume: np.ndarray) -> np.ndarray:
    """Means over cells of 4 voxels a side, flattened; what is left at the far borders is cut off."""
    x, y, z = (n // CELL for n in volume.shape)
    cut = np.asarray(volume[: x * CELL, : y * CELL, : z * CELL], np.float32)
    return cut.reshape(x, CELL, y, CELL, z, CELL).mean((1, 3, 5)).ravel()
