"""Writes a simulated cohort as a BIDS dataset that is marked SIMULATED, with its ground truth in derivatives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd

from pdsynth.cohorts.simulated.files import Task, describe, write_session, write_tsv
from pdsynth.cohorts.simulated.heads import find_heads
from pdsynth.cohorts.simulated.sites import SITES
from pdsynth.cohorts.simulated.streams import COHORT, Streams
from pdsynth.options import SimulateOptions
from pdsynth.types import Diagnosis, InputError, Modality
from pdsynth.workers import Workers

PARTICIPANT = ["participant_id", "age", "sex", "site", "diagnosis"]  # columns of participants.tsv
Item = TypeVar("Item")
Result = TypeVar("Result")


def simulate(
    out: str | Path,
    subjects: int = SimulateOptions.subjects,
    *,
    seed: int = SimulateOptions.seed,
    sites: Sequence[str] = SimulateOptions.sites,
    missing_fmri: float = SimulateOptions.missing_fmri,
    missing_dmri: float = SimulateOptions.missing_dmri,
    grid_mm: float = SimulateOptions.grid_mm,
    quick: bool = SimulateOptions.quick,
    randomise: float = SimulateOptions.randomise,
    truth: bool = SimulateOptions.truth,
    anatomies: str | Path | None = SimulateOptions.anatomies,
    anatomies_share: float = SimulateOptions.anatomies_share,
    jobs: int | Workers = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write a simulated cohort of NC, MCI and AD participants as BIDS with 4D scans, and return its root.

    subjects is the number of participants, with one session each. seed is that of all random numbers. sites are names
    of SITES: "oasis", "adni" and "hospital"; groups and sites are balanced. missing_fmri and missing_dmri are the
    fractions of subjects without that scan, together at most 1, because nobody lacks both. The mean of a missing scan
    is written to derivatives/truth. grid_mm (0.67 to 10.6) sets the resolution of the simulated anatomy, whose voxels
    are 0.75 * grid_mm. quick writes few volumes and directions. randomise is the fraction of subjects whose acquisition
    is random instead of their site's. truth adds the oracles to derivatives/truth: the expected mean volume of each
    scan, given the anatomy that both scans share. anatomies is a folder of label maps with FreeSurfer's numbers: the
    fraction anatomies_share of the subjects is simulated from them, the others from the template. None takes the
    template for all. progress(finished, subjects) is called after each subject. The bytes do not depend on jobs, the
    number of processes or the `Workers` of a cluster.

    Raises InputError if out is not empty, or if anatomies has no label map or one that cannot be read. Raises
    ValueError for an unknown site and for numbers out of range.
    """
    options = SimulateOptions(
        subjects=subjects,
        seed=seed,
        sites=tuple(sites),
        missing_fmri=missing_fmri,
        missing_dmri=missing_dmri,
        grid_mm=grid_mm,
        quick=quick,
        randomise=randomise,
        truth=truth,
        anatomies=None if anatomies is None else Path(anatomies),
        anatomies_share=anatomies_share,
    )
    return simulate_cohort(Path(out), options, jobs, progress)


def simulate_cohort(
    out: Path,
    options: SimulateOptions,
    jobs: int | Workers = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write a simulated cohort as `simulate` does, with the options that decide its content as one object.

    out is the root of the dataset, which is returned. jobs is the number of processes, or the workers of a cluster.
    progress(finished, subjects) is called after each subject. Raises the errors of `simulate`.
    """
    missing_fmri, missing_dmri = options.missing_fmri, options.missing_dmri
    if min(missing_fmri, missing_dmri) < 0 or missing_fmri + missing_dmri > 1:
        raise ValueError(
            f"missing_fmri {missing_fmri} and missing_dmri {missing_dmri} must be 0 or more and add up to at most 1."
        )
    for name in ("randomise", "anatomies_share"):
        if not 0 <= getattr(options, name) <= 1:
            raise ValueError(f"{name} is {getattr(options, name)}; give the fraction of subjects, from 0 to 1.")
    heads = find_heads(options.anatomies) if options.anatomies else []
    begin(out, options.subjects, options.sites)
    settings = f"seed {options.seed}, quick {options.quick}, randomise {options.randomise}"
    describe(out, "SIMULATED cohort (pdsynth)", "pdsynth simulate", settings)
    plan = _plan(options)
    counts = np.floor(np.arange(options.subjects + 1) * options.randomise)
    random_acquisition = np.diff(counts) > 0  # spread evenly over the plan
    heads_of = _heads(options, heads)
    tasks = [
        Task(
            root=out,
            seed=options.seed,
            index=index,
            diagnosis=group,
            site=site,
            grid_mm=options.grid_mm,
            quick=options.quick,
            hidden=hidden,
            randomise=bool(random_acquisition[index]),
            truth=options.truth,
            head=heads_of[index],
        )
        for index, (group, site, hidden) in enumerate(plan)
    ]
    table = pd.DataFrame(each(write_session, tasks, jobs, progress))
    write_tsv(table[PARTICIPANT], out / "participants.tsv")
    write_tsv(table, out / "derivatives" / "truth" / "truth.tsv")
    return out


def begin(out: Path, subjects: int, sites: Sequence[str]) -> None:
    """Make the empty folder `out` of a dataset, after a check of the number of subjects and the names of the sites.

    An existing empty folder is accepted. Raises ValueError for an unknown site, for no site and for fewer than one
    subject, and InputError if out is not empty.
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
    work: Callable[[Item], Result],
    items: Sequence[Item],
    jobs: int | Workers,
    progress: Callable[[int, int], None] | None = None,
) -> list[Result]:
    """Apply work to every item in `jobs` processes or on a cluster; returns the results in the order of the items.

    progress(finished, total) is called after every item. An error of an item is raised. Raises ValueError for jobs
    below 1, and InputError if a process is killed.
    """
    numbered = list(enumerate(items))
    results: dict[int, Result] = {}
    finished = Workers.of(jobs).run(partial(_of_numbered, work), numbered, name=_name)
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


def _heads(options: SimulateOptions, heads: list[Path]) -> list[Path | None]:
    """The label map of each subject, None for the template. All maps are used about equally often, in random order."""
    real = round(options.subjects * options.anatomies_share) if heads else 0
    chosen = [heads[i % len(heads)] for i in range(real)] + [None] * (options.subjects - real)
    return [chosen[i] for i in Streams(options.seed, COHORT).generator(1).permutation(options.subjects)]


def _plan(options: SimulateOptions) -> list[tuple[Diagnosis, str, Modality | None]]:
    """Group, site and missing modality of each subject. Groups and sites are balanced; the order is random."""
    subjects, sites = options.subjects, options.sites
    generator = Streams(options.seed, COHORT).generator(0)
    groups = list(Diagnosis)
    cells = [(groups[i % 3], sites[i // 3 % len(sites)]) for i in range(subjects)]
    cells = [cells[i] for i in generator.permutation(subjects)]
    hidden: list[Modality | None] = [None] * subjects
    order = generator.permutation(subjects)
    n_fmri = round(subjects * options.missing_fmri)
    n_dmri = min(round(subjects * options.missing_dmri), subjects - n_fmri)
    for i in order[:n_fmri]:
        hidden[i] = Modality.FMRI
    for i in order[n_fmri : n_fmri + n_dmri]:
        hidden[i] = Modality.DMRI
    return [(group, site, modality) for (group, site), modality in zip(cells, hidden, strict=True)]
