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

from pdsynth.imaging.spatial import block_means
from pdsynth.types import InputError, Split

SPLITS = tuple(Split)
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
    check_fractions(fractions)
    ids = participants["participant_id"].astype(str)
    if ids.duplicated().any():
        raise ValueError(f"participant {ids[ids.duplicated()].iloc[0]} is listed twice; list each once")
    table = participants[list(strata)].astype(str).assign(participant_id=ids)
    table["sha256"] = [sha256(f"{salt}{name}".encode()).hexdigest() for name in ids]
    table = table.sort_values([*strata, "sha256"], ignore_index=True)
    table["split"] = _deal(len(table), np.asarray(_sizes(len(table), fractions)))
    return table.sort_values("participant_id", ignore_index=True)[["participant_id", "split", "sha256"]]


def check_fractions(fractions: Sequence[float]) -> None:
    """Raise ValueError unless these are three fractions, of 0 or more, that sum to 1.

    >>> check_fractions((0.8, 0.1, 0.2))
    Traceback (most recent call last):
    ValueError: the split 0.8,0.1,0.2 is not three fractions that sum to 1. Write fractions such as 0.8,0.1,0.1.
    """
    if len(fractions) != 3 or min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
        written = ",".join(f"{fraction:g}" for fraction in fractions)
        raise ValueError(
            f"the split {written} is not three fractions that sum to 1. Write fractions such as 0.8,0.1,0.1."
        )


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
        dealt.append(SPLITS[k].value)
    return dealt


def check_disjoint(splits: pd.DataFrame, participants: Iterable[str], path: str | Path) -> None:
    """Raise InputError unless each participant has one row, and each row names a split.

    splits: columns participant_id and split, as in splits.tsv at `path`; participants: those who have scans. A person
    of two rows could leak between splits, and one without a row, or with a misspelt split, would be lost.
    """
    repeated = splits.loc[splits["participant_id"].duplicated(), "participant_id"]
    if len(repeated):
        problem = f"{repeated.iloc[0]} stands in more than one split row, so people could leak between splits"
        raise InputError(path, problem, "keep one row for each participant")
    if unknown := set(splits["split"]) - set(SPLITS):
        raise InputError(path, f"names a split {min(unknown)!r}", f"use {', '.join(SPLITS)} only")
    if missing := set(participants) - set(splits["participant_id"]):
        raise InputError(path, f"has no row of {min(missing)}", "add one, or prepare the cohort again")


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
    """Means over cells of 4 x 4 x 4 voxels, flattened: (X, Y, Z) -> (X//4 * Y//4 * Z//4,) float32."""
    return block_means(volume, CELL).ravel()
