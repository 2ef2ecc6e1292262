"""Counterfactual sessions: the same person at two severities, which isolates the effect of the disease on both scans.

Age, sex, folding, pose, coil, private fields and noise come from the same random draws. The maps that depend on
severity change with it: ventricles, hippocampi, grey matter, lesions, diffusion and network coupling. No real cohort
offers this.
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
from pdsynth.types import NA, Diagnosis, Modality

SEVERITIES = (SEVERITY[Diagnosis.NC][0], SEVERITY[Diagnosis.AD][0])  # group means
SESSIONS = ("ses-low", "ses-high")


@dataclass(frozen=True, eq=False)
class TrueEffects:
    """Change of each person's region means from the first severity to the second.

    severities: the two, 0 (healthy) to 1. atlas has the R regions. changes holds (N people, R regions) for each
    modality, the second minus the first, in units of the prepared volumes, where 1 is 2.5 times the median in the
    brain.
    """

    severities: tuple[float, float]
    atlas: Atlas
    changes: Mapping[Modality, np.ndarray]

    def mean(self, modality: Modality) -> np.ndarray:
        """Mean change over people of one modality, (R,)."""
        return np.asarray(self.changes[modality].mean(0))

    def standard_error(self, modality: Modality) -> np.ndarray:
        """Standard error of `mean`, (R,): the sample SD over people, divided by the square root of their number."""
        changes = self.changes[modality]
        return np.asarray(changes.std(0, ddof=1) / np.sqrt(len(changes)))


def counterfactual_session(
    seed: int, subject: int, site: str, severity: float, grid_mm: float = 4.0, quick: bool = True
) -> Session:
    """Simulate the session of one subject at a severity (0 is healthy, 1 the most severe).

    seed is that of the cohort, subject the number of the person in it, and site one of "oasis", "adni" and "hospital".
    grid_mm sets the resolution of the anatomy, whose voxels are 0.75 * grid_mm. quick simulates few volumes and
    directions. Two calls that differ in severity alone use the same random draws. The diagnosis of the person is the
    group whose mean severity is nearest. The session has no oracles. Raises ValueError for a severity out of range, and
    KeyError for an unknown site.
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
    """The group (NC, MCI or AD) whose mean severity is nearest to a severity (0..1).

    Raises ValueError for a severity out of range.

    >>> stage(0.1), stage(0.5), stage(0.85)
    (<Diagnosis.NC: 'NC'>, <Diagnosis.MCI: 'MCI'>, <Diagnosis.AD: 'AD'>)
    """
    if not 0 <= severity <= 1:
        raise ValueError(f"severity is {severity}; give a value from 0 (healthy) to 1.")
    return min(SEVERITY, key=lambda diagnosis: abs(SEVERITY[diagnosis][0] - severity))


def standard_means(session: Session, grid: Grid) -> dict[Modality, np.ndarray]:
    """Mean volumes of both scans on a grid in MNI space, by modality: (X, Y, Z) float32 in 0..1.

    They correspond to the volumes that `prepare` writes, with the true transform in place of registration. As there,
    the receive field is divided out, and 1 is 2.5 times the median in the brain; both are estimated in the true brain
    mask. Voxels outside the brain are not set to zero.
    """
    anatomy, acquisition = session.anatomy, session.acquisition
    brain = resample(Volume(anatomy.brain, anatomy.grid.affine), grid) > 0.5
    volumes = {}
    for modality, mean, scan in zip(Modality, means(session), (acquisition.fmri, acquisition.dmri), strict=True):
        data = resample(Volume(mean, scan.native.affine), grid, scan.to_template)
        volumes[modality] = RobustScale.flat_median(Volume(data, grid.affine), brain).apply(data)
    return volumes


def true_effects(
    subjects: int,
    seed: int = 0,
    sites: Sequence[str] = tuple(SITES),
    severities: tuple[float, float] = SEVERITIES,
    grid_mm: float = 4.0,
    jobs: int = 1,
) -> TrueEffects:
    """Simulate people at two severities; returns the change of each person's region means from the first to the second.

    The regions are those of `evidence_regions`, which evaluation uses by default. The severities are by default the
    means of NC and of AD. grid_mm is the voxel size of the volumes; those of the anatomy are 0.75 * grid_mm. jobs is
    the number of processes. Person i is scanned at site i modulo the number of sites, by quick scans. The two
    severities share noise and need no registration, so that a dozen people give a smaller error than a cohort of
    hundreds. Raises ValueError for fewer than two subjects and for a severity out of range, and KeyError for an unknown
    site.
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

    The severities are by default the means of NC and of AD. ses-low has the first. subjects is the number of people.
    Person i is scanned at site i modulo the number of sites. grid_mm sets the resolution of the anatomy, whose voxels
    are 0.75 * grid_mm. quick writes few volumes and directions. participants.tsv has "n/a" as the diagnosis, because
    the two sessions differ in it; derivatives/truth/truth.tsv has one row per session with its severity. No oracles are
    written. progress is called as progress(finished, sessions). The bytes do not depend on jobs, the number of
    processes. Raises InputError if out is not empty, and ValueError for no subject, an unknown site or a severity out
    of range.
    """
    out, groups = Path(out), [stage(severity) for severity in severities]
    begin(out, subjects, sites)
    settings = f"seed {seed}, quick {quick}, severities {severities[0]} and {severities[1]}"
    describe(out, "SIMULATED people at two severities (pdsynth)", "pdsynth write_counterfactuals", settings)
    visits = list(zip(SESSIONS, severities, groups, strict=True))
    tasks = [
        Task(out, seed, i, group, sites[i % len(sites)], grid_mm, quick, session_id=name, severity=severity)
        for i in range(subjects)
        for name, severity, group in visits
    ]
    table = pd.DataFrame(each(write_session, tasks, jobs, progress))
    table.insert(1, "session_id", [task.session_id for task in tasks])
    people = table.drop_duplicates("participant_id").assign(diagnosis=NA)
    write_tsv(people[PARTICIPANT], out / "participants.tsv")
    write_tsv(table, out / "derivatives" / "truth" / "truth.tsv")
    return out
