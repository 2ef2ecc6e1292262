"""A cohort on disk: participants, sessions, scans and tables, without voxel data."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pdsynth.types import Diagnosis, Modality


@dataclass(frozen=True)
class Scan:
    """One acquisition: a 4D NIfTI file or a 3D mean, and for dMRI its gradient tables.

    space is the BIDS name of the template space to which a preprocessing tool has registered the scan; None for a raw
    scan. flirt is the file of FSL FEAT's matrix from the scan to MNI152; the template image is in the same folder. mask
    is the brain mask that fMRIPrep or QSIPrep wrote for the scan; None where there is none.
    """

    modality: Modality
    path: Path
    bval: Path | None = None
    bvec: Path | None = None
    space: str | None = None
    flirt: Path | None = None
    mask: Path | None = None

    @property
    def files(self) -> list[Path]:
        """The files that the scan's volume is computed from: the image, the gradient tables and the brain mask."""
        return [path for path in (self.path, self.bval, self.bvec, self.mask) if path is not None]

    @property
    def in_mni(self) -> bool:
        """Whether the scan is in MNI152 space. The versions of this template do not differ at our resolution."""
        return self.space is not None and self.space.startswith("MNI152")


@dataclass(frozen=True)
class Session:
    """One visit, with at most one scan per modality. Synthesis can supply a missing modality.

    The two scans may be of different days. refused maps a modality to the reason why none of its files could be used.
    Such a modality is not missing: its scan was acquired.
    """

    session_id: str  # "" where the dataset has no session level
    scans: dict[Modality, Scan]
    diagnosis: Diagnosis | None = None
    age: float | None = None  # years
    dx_gap_days: int | None = None  # from the first scan to the visit of the diagnosis; negative if it was earlier
    scan_gap_days: int = 0  # between the two scans, 0 or more
    scores: Mapping[str, float] = field(default_factory=dict)  # mmse, moca, weight in kg
    refused: Mapping[Modality, str] = field(default_factory=dict)

    @property
    def missing(self) -> list[Modality]:
        """The modalities of which the session has no file, neither a usable scan nor a refused one."""
        return [m for m in Modality if m not in self.scans and m not in self.refused]


@dataclass(frozen=True)
class Subject:
    """One participant with all sessions."""

    participant_id: str  # with the "sub-" prefix
    sessions: list[Session]
    sex: str | None = None  # "F" or "M"
    site: str | None = None
    education: float | None = None  # years


def session_name(subject: Subject, session: Session) -> str:
    """Participant and session as BIDS entities, a name that is unique in a cohort.

    >>> session_name(Subject("sub-1", []), Session("ses-a", {}))
    'sub-1_ses-a'
    """
    return "_".join(filter(None, [subject.participant_id, session.session_id]))


@dataclass(frozen=True)
class Rejection:
    """A rejected file, or a problem of a table's rows or cells, with reason and remedy: one row of rejected.tsv."""

    path: Path
    reason: str
    remedy: str


@dataclass(frozen=True)
class NotNeeded:
    """A file that is not read, with the rule by which it is not needed."""

    path: Path
    rule: str


def by_reason(reasons: Iterable[str]) -> dict[str, int]:
    """Number of rejected files per reason, the most frequent first. Reasons that differ only in numbers are one reason.

    Names of files that hold the same image do not count as a difference either.

    >>> by_reason(["is a slab of 30 mm", "is damaged", "is a slab of 42 mm"])
    {'is a slab of # mm': 2, 'is damaged': 1}
    """
    alike = (re.sub(r"\d+(\.\d+)?", "#", re.sub(r"(?<=image as ).*", "another", reason)) for reason in reasons)
    return dict(Counter(alike).most_common())


@dataclass
class Cohort:
    """Participants of one dataset, and the verdict on each file below the participants' folders.

    A file is used (a scan, or its gradient tables, sidecars and brain mask), not needed, or rejected.
    """

    root: Path
    subjects: list[Subject]
    rejected: list[Rejection] = field(default_factory=list)
    simulated: bool = False
    not_needed: list[NotNeeded] = field(default_factory=list)
    used: list[Path] = field(default_factory=list)

    def __iter__(self) -> Iterator[tuple[Subject, Session]]:
        for subject in self.subjects:
            for session in subject.sessions:
                yield subject, session
