"""Writes a simulated cohort as a BIDS dataset that is marked SIMULATED, with its ground truth in derivatives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd

from pdsynth.cohorts.simulated.files import Task, describe, write_session, write_tsv
from pdsynth.cohorts.simulated.sites import SITES
from pdsynth.cohorts.simulated.streams import COHORT, Streams
from pdsynth.types import Diagnosis, InputError, Modality
from pdsynth.workers import Workers

PARTICIPANT = ["participant_id", "age", "sex", "site", "diagnosis"]  # columns of participants.tsv
Item = TypeVar("Item")
Result = TypeVar("Result")


def simulate(
    out: Path,
    subjects: int,
    seed: int = 0,
    sites: Sequence[str] = ("oasis", "adni", "hospital"),
    missing_fmri: float = 0.0,
    missing_dmri: float = 0.0,
    grid_mm: float = 4.0,
    quick: bool = False,
    randomise: float = 0.0,
    jobs: int = 1,
    truth: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write a simulated cohort of NC, MCI and AD participants as BIDS with 4D scans, and return its root.

    missing_fmri and missing_dmri are the fractions of subjects without that scan; nobody lacks both. The mean of a
    missing scan is written to derivatives/truth. quick writes few volumes and directions. randomise is the fraction of
    subjects whose acquisition is random instead of their site's. truth adds the oracle volumes. The bytes do not
    depend on jobs. Raises InputError if out is not empty, and ValueError for arguments out of range.
    """
    out = Path(out)
    if min(missing_fmri, missing_dmri) < 0 or missing_fmri + missing_dmri > 1:
        raise ValueError(
            f"missing_fmri {missing_fmri} and missing_dmri {missing_dmri} must be 0 or more and add up to at most 1."
        )
    if not 0 <= randomise <= 1:
        raise ValueError(f"randomise is {randomise}; give the fraction of subjects, from 0 to 1.")
    begin(out, subjects, sites)
    describe(
        out, "SIMULATED cohort (pdsynth)", "pdsynth simulate", f"seed {seed}, quick {quick}, randomise {randomise}"
    )
    plan = _plan(subjects, seed, sites, missing_fmri, missing_dmri)
    random_acquisition = np.diff(np.floor(np.arange(subjects + 1) * randomise)) > 0  # spread evenly over the plan
    tasks = [
        Task(out, seed, i, group, site, grid_mm, quick, hidden, bool(random_acquisition[i]), truth)
        for i, (group, site, hidden) in enumerate(plan)
    ]
    table = pd.DataFrame(each(write_session, tasks, jobs, progress))
    write_tsv(table[PARTICIPANT], out / "participants.tsv")
    write_tsv(table, out / "derivatives" / "truth" / "truth.tsv")
    return out


def begin(out: Path, subjects: int, sites: Sequence[str]) -> None:
    """Make the empty folder of a dataset.

    Raises ValueError for an unknown site or no subject, and InputError if out is not empty.
    """
    unknown = [s for s in sites if s not in SITES] or ([] if sites else ["(none)"])
    if unknown:
        raise ValueError(f"there is no site {unknown[0]!r}; choose from {', '.join(SITES)}.")
    if subjects < 1:
        raise ValueError(f"{subjects} subjects cannot be simulated; ask for at least 1.")
    if out.exists() and any(out.iterdir()):
        raise InputError(out, "is not empty", "choose a new folder, or remove it first")
    out.mkdir(parents=True, exist_ok=True)


def each(
    work: Callable[[Item], Result], items: Sequence[Item], jobs: int, progress: Callable[[int, int], None] | None = None
) -> list[Result]:
    """Apply work to every item in `jobs` processes; returns the results in the order of the items.

    progress(finished, total) is called after every item. Raises InputError if a process is killed.
    """
    numbered = list(enumerate(items))
    results: dict[int, Result] = {}
    finished = Workers(max(jobs, 1)).run(partial(_of_numbered, work), numbered, name=_name)
    for count, ((number, _), result) in enumerate(finished, start=1):
        results[number] = result
        if progress:
            progress(count, len(items))
    return [results[number] for number, _ in numbered]


def _of_numbered(work: Callable[[Item], Result], numbered: tuple[int, Item]) -> Result:
    return work(numbered[1])


def _name(numbered: tuple[int, object]) -> str | Path:
    number, item = numbered
    return item.root / item.participant_id if isinstance(item, Task) else f"simulated person {number}"


def _plan(
    subjects: int, seed: int, sites: Sequence[str], missing_fmri: float, missing_dmri: float
) -> list[tuple[Diagnosis, str, Modality | None]]:
    """Group, site and missing modality of each subject. Groups and sites are balanced; the order is random."""
    generator = Streams(seed, COHORT).generator(0)
    groups = list(Diagnosis)
    cells = [(groups[i % 3], sites[i // 3 % len(sites)]) for i in range(subjects)]
    cells = [cells[i] for i in generator.permutation(subjects)]
    hidden: list[Modality | None] = [None] * subjects
    order = generator.permutation(subjects)
    n_fmri = round(subjects * missing_fmri)
    n_dmri = min(round(subjects * missing_dmri), subjects - n_fmri)
    for i in order[:n_fmri]:
        hidden[i] = Modality.FMRI
    for i in order[n_fmri : n_fmri + n_dmri]:
        hidden[i] = Modality.DMRI
    return [(group, site, modality) for (group, site), modality in zip(cells, hidden, strict=True)]
