"""A cohort as it lies on disk: names and tables only, no voxel is read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pdsynth.types import Diagnosis, Modality


@dataclass(frozen=True)
class Scan:
    """One acquisition: a 4D NIfTI file (or a 3D mean) with, for dMRI, its gradient tables."""

    modality: Modality
    path: Path
    bval: Path | None = None
    bvec: Path | None = None


@dataclass(frozen=True)
class Session:
    """One visit. `scans` holds at most one scan a modality; a missing modality is what synthesis fills in."""

    session_id: str  # "" where the dataset has no session level
    scans: dict[Modality, Scan]
    diagnosis: Diagnosis | None = None
    age: float | None = None  # years

    @property
    def missing(self) -> list[Modality]:
        return [m for m in Modality if m not in self.scans]


@dataclass(frozen=True)
class Subject:
    """One participant with all visits."""

    participant_id: str  # with the "sub-" prefix
    sessions: list[Session]
    sex: str | None = None  # "F" or "M"
    site: str | None = None


@dataclass(frozen=True)
class Rejection:
    """A file that was refused, why, and what would mend it: a row of rejected.tsv."""

    path: Path
    reason: str
    remedy: str


@dataclass
class Cohort:
    """Participants of one dataset, and the files that were refused while it was read."""

    root: Path
    subjects: list[Subject]
    rejected: list[Rejection] = field(default_factory=list)
    simulated: bool = False

    def __iter__(self) -> Iterator[tuple[Subject, Session]]:
        for subject in self.subjects:
            for session in subject.sessions:
                yield subject, session
