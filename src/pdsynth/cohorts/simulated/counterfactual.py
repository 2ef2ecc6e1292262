"""The same person at two severities: what the disease alone does to both scans, which no real cohort can show.

Everything else (age, sex, folding, pose, coil, private fields, noise) comes from the same random draws. What follows
from severity changes with it: ventricles, hippocampi, grey matter, lesions, diffusion and network coupling.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from pdsynth.atlas import Atlas, evidence_regions, region_means
from pdsynth.cohorts.simulated.cohort import PARTICIPANT, begin, each
from pdsynth.cohorts.simulated.files import Task, describe, write_session, write_tsv
from pdsynth.cohorts.simulated.session import Session, means, simulate_session
from pdsynth.cohorts.simulated.sites import SEVERITY, SITES
from pdsynth.imaging.intensity import RobustScale
from pdsynth.imaging.nifti import Volume
from pdsynth.imaging.spatial import Grid, mni_grid, resample
from pdsynth.types import Diagnosis, Modality

SEVERITIES = (SEVERITY[Diagnosis.NC][0], SEVERITY[Diagnosis.AD][0])  # the groups' means
SESSIONS = ("ses-low", "ses-high")


@dataclass(frozen=True, eq=False)
class TrueEffects:
    """What the change from one severity to another does to the region means of single people.

    changes: (N people, R regions) by modality, in units of the prepared volumes (1 is the brain's 99.5th percentile).
    """

    severities: tuple[float, float]
    atlas: Atlas
    changes: Mapping[Modality, np.ndarray]

    def mean(self, modality: Modality) -> np.ndarray:
        """Over people, (R,)."""
        return np.asarray(self.changes[modality].mean(0))

    def standard_error(self, modality: Modality) -> np.ndarray:
        """Of the mean, (R,)."""
        changes = self.changes[modality]
        return np.asarray(changes.std(0, ddof=1) / np.sqrt(len(changes)))


def counterfactual_session(
    seed: int, subject: int, site: str, severity: float, grid_mm: float = 4.0, quick: bool = True
) -> Session:
    """The session of one subject at a severity (0..1); of the same arguments, only what follows from severity differs.

    Raises ValueError for a severity out of range.
    """
    return simulate_session(
        seed,
        subject,
        stage(severity),
        site,
        grid_mm=grid_mm,
        quick=quick,
        randomise=False,
        oracle_draws=0,
        severity=severity,
    )


def stage(severity: float) -> Diagnosis:
    """The group whose mean severity is nearest; raises ValueError for a severity out of range.

    >>> stage(0.1), stage(0.5), stage(0.85)
    (<Diagnosis.NC: 'NC'>, <Diagnosis.MCI: 'MCI'>, <Diagnosis.AD: 'AD'>)
    """
    if not 0 <= severity <= 1:
        raise ValueError(f"severity is {severity}; give one from 0 (healthy) to 1.")
    return min(SEVERITY, key=lambda diagnosis: abs(SEVERITY[diagnosis][0] - severity))


def standard_means(session: Session, grid: Grid) -> dict[Modality, np.ndarray]:
    """Both means on a grid in MNI space, (X, Y, Z) float32 in 0..1: as `prepare` makes them, but by the true transform.

    The scale is that of the true brain; what lies outside the brain is kept.
    """
    anatomy, acquisition = session.anatomy, session.acquisition
    brain = resample(Volume(anatomy.brain, anatomy.grid.affine), grid) > 0.5
    found = {}
    for modality, mean, scan in zip(Modality, means(session), (acquisition.fmri, acquisition.dmri), strict=True):
        data = resample(Volume(mean, scan.native.affine), grid, scan.to_template)
        found[modality] = RobustScale.fit(data, brain).apply(data)
    return found


def true_effects(
    subjects: int,
    seed: int = 0,
    sites: Sequence[str] = tuple(SITES),
    severities: tuple[float, float] = SEVERITIES,
    grid_mm: float = 4.0,
    jobs: int = 1,
) -> TrueEffects:
    """The change of every person's region means (`evidence_regions`) from the first severity to the second.

    People take the sites in turn; scans are quick ones. No registration and no fresh noise comes in between, so a dozen
    people tell what a cohort of hundreds can only estimate. Raises ValueError for fewer than two subjects.
    """
    if subjects < 2:
        raise ValueError(f"{subjects} subject(s) give no standard error; ask for at least 2.")
    atlas = evidence_regions(mni_grid(grid_mm))
    people = [(seed, i, sites[i % len(sites)]) for i in range(subjects)]
    changes = each(partial(_change, severities, grid_mm, atlas), people, jobs)
    return TrueEffects(severities, atlas, {m: np.stack([change[m] for change in changes]) for m in Modality})


def _change(
    severities: tuple[float, float], grid_mm: float, atlas: Atlas, person: tuple[int, int, str]
) -> dict[Modality, np.ndarray]:
    before, after = (
        standard_means(counterfactual_session(*person, severity, grid_mm), mni_grid(grid_mm)) for severity in severities
    )
    return {m: region_means(after[m], atlas) - region_means(before[m], atlas) for m in Modality}


def write_counterfactuals(
    out: Path,
    subjects: int,
    seed: int = 0,
    sites: Sequence[str] = tuple(SITES),
    severities: tuple[float, float] = SEVERITIES,
    grid_mm: float = 4.0,
    quick: bool = True,
    jobs: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write people with a session at each severity, ses-low and ses-high, as BIDS with 4D scans; returns the root.

    People take the sites in turn. participants.tsv names no diagnosis, since it is not the same in both sessions;
    derivatives/truth/truth.tsv has a row a session with its severity. The bytes do not depend on jobs. Raises
    InputError where out holds something already and ValueError for an unknown site or a severity out of range.
    """
    out, groups = Path(out), [stage(severity) for severity in severities]
    begin(out, subjects, sites)
    made = f"seed {seed}, quick {quick}, severities {severities[0]} and {severities[1]}"
    describe(out, "SIMULATED people at two severities (pdsynth)", "pdsynth write_counterfactuals", made)
    visits = list(zip(SESSIONS, severities, groups, strict=True))
    tasks = [
        Task(out, seed, i, group, sites[i % len(sites)], grid_mm, quick, session_id=name, severity=severity)
        for i in range(subjects)
        for name, severity, group in visits
    ]
    table = pd.DataFrame(each(write_session, tasks, jobs, progress))
    table.insert(1, "session_id", [task.session_id for task in tasks])
    people = table.drop_duplicates("participant_id").assign(diagnosis="n/a")
    write_tsv(people[PARTICIPANT], out / "participants.tsv")
    write_tsv(table, out / "derivatives" / "truth" / "truth.tsv")
    return out
