"""Assigns participants to train, validation and test, in strata, and finds images that would leak between splits.

A participant is in one split with all sessions, runs and segments. The order within a stratum is that of
sha256(salt + participant_id), so that it does not depend on the order of rows, the clock or a random state.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd

from pdsynth.imaging.spatial import block_means
from pdsynth.types import Available, InputError, Split

SPLITS = tuple(Split)
FEWEST = 2  # participants with both scans by whom a model can be scored
CELL = 4  # voxels; edge of the cells over which images are averaged before they are compared
SAME_IMAGE = 0.005  # relative RMS difference: see `near_duplicates`


def assign_splits(
    participants: pd.DataFrame,
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1),
    salt: str = "",
    strata: Sequence[str] = ("site", "diagnosis"),
) -> pd.DataFrame:
    """Assign participants to train, val and test.

    participants: table with participant_id (unique) and the columns of strata. salt: a text, such as a seed, that
    selects one of many assignments. A stratum is the participants with the same values in these columns. Returns a
    table with participant_id, split and sha256, the digest of salt + participant_id by which a stratum is ordered,
    sorted by participant. The sizes of the splits are the fractions of the number of participants, rounded by largest
    remainder; within a stratum they differ from their share by less than two participants. With three participants or
    more, no split with a positive fraction is empty. Raises ValueError if the fractions are not three that sum to 1, or
    an id is repeated.

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


def splits_table(
    pairs: pd.DataFrame, fractions: tuple[float, float, float], salt: str, before: pd.DataFrame | None
) -> pd.DataFrame:
    """The table splits.tsv of the table pairs.tsv: `assign_splits` for its participants; `before` is the earlier one.

    The strata are: has a session with both scans or not, site, and diagnosis. Site and diagnosis are those of the
    participant's first session, where sessions with both scans come first. A participant with an earlier split keeps
    it, so that no training participant of a model is tested later; only the others are assigned.
    """
    people = pairs.assign(unpaired=pairs["available"] != Available.BOTH)
    people = people.sort_values(["participant_id", "unpaired", "session_id"]).drop_duplicates("participant_id")
    known = people["participant_id"].isin([] if before is None else before["participant_id"])
    splits = assign_splits(people[~known], fractions, salt=salt, strata=("unpaired", "site", "diagnosis"))
    if before is not None:  # with participants who have no scan now: they keep their split once it is repaired
        splits = pd.concat([before, splits]).sort_values("participant_id", ignore_index=True)
    return splits


def check_fractions(fractions: Sequence[float]) -> None:
    """Raise ValueError unless these are three fractions, of 0 or more, that sum to 1 within 10^-6.

    >>> check_fractions((0.8, 0.1, 0.2))
    Traceback (most recent call last):
    ValueError: the split 0.8,0.1,0.2 is not three fractions that sum to 1. Write fractions such as 0.8,0.1,0.1.
    """
    if len(fractions) != 3 or not (min(fractions) >= 0 and abs(sum(fractions) - 1) <= 1e-6):  # a nan is refused, too
        written = ",".join(f"{fraction:g}" for fraction in fractions)
        raise ValueError(
            f"the split {written} is not three fractions that sum to 1. Write fractions such as 0.8,0.1,0.1."
        )


def _sizes(n: int, fractions: tuple[float, float, float]) -> list[int]:
    """Integers that sum to n, nearest to fractions * n; none is 0 for a positive fraction, if n is 3 or more."""
    exact = np.asarray(fractions) * n
    sizes = np.floor(exact + 1e-9).astype(int)
    for k in np.argsort(-(exact - sizes), kind="stable")[: n - sizes.sum()]:
        sizes[k] += 1
    if n >= len(SPLITS):
        for k in np.flatnonzero((sizes == 0) & (exact > 0)):
            sizes[np.argmax(sizes)] -= 1
            sizes[k] = 1
    return [int(s) for s in sizes]


def _deal(n: int, sizes: np.ndarray) -> list[str]:
    """The split of each position 0..n-1: the one whose count is farthest below its share up to this position."""
    counts = np.zeros(len(sizes))
    splits = []
    for i in range(n):
        k = int(np.argmax(sizes * (i + 1) / n - counts))
        counts[k] += 1
        splits.append(SPLITS[k].value)
    return splits


def check_disjoint(splits: pd.DataFrame, participants: Iterable[str], path: str | Path) -> None:
    """Raise InputError unless each participant has one row, and each row names a split ("train", "val" or "test").

    splits: table with participant_id and split, read from splits.tsv at `path`. participants: those who have scans; the
    table may have others, too. A participant with two rows could be in two splits. One without a row, or with a
    misspelt split, would be in none.
    """
    repeated = splits.loc[splits["participant_id"].duplicated(), "participant_id"]
    if len(repeated):
        problem = f"{repeated.iloc[0]} has more than one row, so that participants could leak between splits"
        raise InputError(path, problem, "keep one row per participant")
    if unknown := set(splits["split"]) - set(SPLITS):
        raise InputError(path, f"names a split {min(unknown)!r}", f"use {', '.join(SPLITS)} only")
    if missing := set(participants) - set(splits["participant_id"]):
        raise InputError(path, f"has no row of {min(missing)}", "add one, or prepare the cohort again")


def near_duplicates(volumes: Iterable[np.ndarray], participants: Sequence[str]) -> list[tuple[int, int]]:
    """Index pairs (i, j), i < j, of volumes that hold the same image under two participants, a leak between splits.

    volumes: N volumes (X, Y, Z) in 0..1; participants (N,): whose they are. Volumes are averaged over cells of 4 x 4 x
    4 voxels. Two are the same image if the RMS of their difference is below 0.5 % of the RMS of the first, both over
    these cells. Differences by rounding and recompression are far smaller, those between two participants far larger.
    """
    names = np.asarray(participants)
    cells = np.asarray([cell_means(v) for v in volumes])
    square = np.square(cells).sum(-1)
    found = []
    for i in range(len(cells) - 1):
        # |a - b|^2 = |a|^2 + |b|^2 - 2ab finds candidates; their difference, free of cancellation, is then compared
        distance = square[i] + square[i + 1 :] - 2 * (cells[i + 1 :] @ cells[i])
        near = np.flatnonzero((distance < (3 * SAME_IMAGE) ** 2 * square[i]) & (names[i + 1 :] != names[i])) + i + 1
        found += [(i, int(j)) for j in near if np.linalg.norm(cells[i] - cells[j]) < SAME_IMAGE * np.sqrt(square[i])]
    return found


def cell_means(volume: np.ndarray) -> np.ndarray:
    """Means over cells of 4 x 4 x 4 voxels, flattened: (X, Y, Z) -> (X//4 * Y//4 * Z//4,) float32.

    Incomplete cells at the far borders are dropped.
    """
    return block_means(volume, CELL).ravel()
