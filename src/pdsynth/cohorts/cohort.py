"""A cohort on disk: participants, sessions, scans and tables, without voxel data."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from pdsynth.types import Diagnosis, InputError, Modality

NOTHING_NEEDED = "nothing is needed"  # begins the remedy of a row of rejected.tsv that may need no action
Row = TypeVar("Row")
LINES = re.compile(r": .*\blines? \d.*")  # the lines of a table, after the problem that they have


@dataclass(frozen=True)
class Scan:
    """One acquisition: a NIfTI file (`path`), 4D or a 3D mean, and for dMRI its gradient tables (bval, bvec).

    bval, bvec: None for fMRI, and for a 3D mean without tables. space: the space in the file name, such as T1w or
    MNI152NLin2009cAsym, in which a preprocessing tool wrote the scan; None for a name without one, as of a raw scan.
    flirt: file of the matrix by which FSL FEAT registers the scan to MNI152 (reg/example_func2standard.mat); the
    template image, standard.nii.gz, is expected in its folder; None where there is none. mask: the brain mask that
    fMRIPrep or QSIPrep wrote for the scan; None where there is none.
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
        """The image, the gradient tables and the brain mask, as far as the scan has them, but not FEAT's matrix."""
        return [path for path in (self.path, self.bval, self.bvec, self.mask) if path is not None]

    @property
    def in_mni(self) -> bool:
        """Whether the scan is in MNI152 space by its file name: its space begins with "MNI152", in any version.

        A preprocessing tool has then registered it. The versions of the template do not differ at our resolution.
        """
        return self.space is not None and self.space.startswith("MNI152")


@dataclass(frozen=True)
class Session:
    """One session of a participant, with at most one scan per modality. Synthesis can supply a missing modality.

    session_id: with the prefix "ses-"; "" where the dataset has no sessions. scans: the usable scan of each modality;
    the two may be of different days. diagnosis and age (years): None if unknown. dx_gap_days: days from the first scan
    to the visit of the diagnosis, negative if the visit was earlier; None if unknown. scan_gap_days: days between the
    two scans, 0 or more; 0 also for one scan, and if the days are unknown. scores: those of "mmse" and "moca" (points)
    and "weight" (kg) that are known. refused: by modality, the reason why none of its files could be used. Such a
    modality is not missing: its scan was acquired.
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
    """One participant with all sessions.

    participant_id: with the prefix "sub-". sex: "F", "M", or None if unknown. site: name of the place of the scanner,
    or None if unknown. education: in years, or None if unknown.
    """

    participant_id: str  # with the "sub-" prefix
    sessions: list[Session]
    sex: str | None = None  # "F" or "M"
    site: str | None = None
    education: float | None = None  # years


def session_name(subject: Subject, session: Session) -> str:
    """Participant and session as BIDS entities, a name that is unique in a cohort; without a session, "sub-1".

    >>> session_name(Subject("sub-1", []), Session("ses-a", {}))
    'sub-1_ses-a'
    """
    return "_".join(filter(None, [subject.participant_id, session.session_id]))


@dataclass(frozen=True)
class Rejection:
    """A rejected file, or a problem of a table's rows or cells, with reason and remedy: one row of rejected.tsv.

    path: the file, the table, or a folder. reason: the words that follow the path in a message, such as "is empty (0
    bytes)".
    """

    path: Path
    reason: str
    remedy: str


@dataclass(frozen=True)
class NotNeeded:
    """A file that is not read, with the rule in words by which it is not needed."""

    path: Path
    rule: str


def asks_for_action(remedy: str) -> bool:
    """Whether something has to be done about a row of rejected.tsv, by its remedy.

    >>> asks_for_action("copy it again"), asks_for_action("nothing is needed if their scans are elsewhere")
    (True, False)
    """
    return not remedy.startswith(NOTHING_NEEDED)


def by_action(rows: Iterable[Row], remedy: Callable[[Row], str]) -> tuple[list[Row], list[Row]]:
    """The rows of rejected.tsv that ask for action, which are refused files, and the notes that may need nothing.

    remedy: function that gives the remedy of a row.

    >>> by_action(["copy it again", "nothing is needed if their scans are elsewhere"], str)
    (['copy it again'], ['nothing is needed if their scans are elsewhere'])
    """
    refused: list[Row] = []
    noted: list[Row] = []
    for row in rows:
        (refused if asks_for_action(remedy(row)) else noted).append(row)
    return refused, noted


def by_reason(reasons: Iterable[str]) -> dict[str, int]:
    """Number of rejected files per reason, the most frequent first. Reasons that differ only in numbers are one reason.

    reasons: one per rejected file. The numbers in them are replaced by #. In a reason that ends in "image as" and a
    file name, "another" replaces the name, so that reasons with different names are one reason, too. The lines of a
    table that a reason lists are left out.

    >>> by_reason(["is a slab of 30 mm", "is damaged", "is a slab of 42 mm"])
    {'is a slab of # mm': 2, 'is damaged': 1}
    >>> by_reason(["has rows without site: line 7, line 9"])
    {'has rows without site': 1}
    """
    general = (LINES.sub("", re.sub(r"(?<=image as ).*", "another", reason)) for reason in reasons)
    return dict(Counter(re.sub(r"\d+(\.\d+)?", "#", reason) for reason in general).most_common())


@dataclass
class Cohort:
    """The participants of one dataset in the folder `root`, and how each file below their folders is used.

    A file is in one of three lists: used (scans, their gradient tables, JSON files, brain masks and matrices of FEAT,
    and sessions.tsv), not needed (with the rule), or rejected (with reason and remedy). rejected also holds problems of
    tables. subjects: the participants with at least one usable scan. simulated: whether the data are simulated.
    Iteration yields each pair of participant and session.
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

    def only(self, participants: Sequence[str]) -> Cohort:
        """The part of the cohort that belongs to these participants, or all of it if none is named.

        participants: ids with the prefix "sub-". A rejected file belongs to the participant in whose folder it is.
        Raises InputError if one of them has no scan, usable or rejected.
        """
        if not participants:
            return self
        subjects = [subject for subject in self.subjects if subject.participant_id in participants]
        rejected = [each for each in self.rejected if set(each.path.parts) & set(participants)]
        found = {subject.participant_id for subject in subjects}.union(*(each.path.parts for each in rejected))
        if lacking := [name for name in participants if name not in found]:
            remedy = "`pdsynth inspect` lists the participants"
            raise InputError(self.root, f"has no scan of {', '.join(lacking)}", remedy)
        return replace(self, subjects=subjects, rejected=rejected)
