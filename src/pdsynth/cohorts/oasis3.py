"""OASIS-3: scans by their file names, and diagnoses from the UDS forms, matched by days since entry into the study.

The Uniform Data Set (UDS) is the set of clinical forms of the study; form D1 contains the diagnosis.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from pdsynth.cohorts.cohort import Cohort, Rejection, Subject
from pdsynth.cohorts.layout import Layout
from pdsynth.cohorts.names import REMEDY, SUFFIX, contradiction, refuse_twins
from pdsynth.cohorts.tables import Row, find_table
from pdsynth.cohorts.visits import DAYS_PER_YEAR, Visit, sessions
from pdsynth.types import Diagnosis, InputError, Modality

NAME = re.compile(r"sub-(OAS3\d{4})_(?:ses|sess)-d(\d+)(?:_[^_]+-[^_]+)*_(bold|dwi)\.nii(\.gz)?")
PARTICIPANT, DAY = re.compile(r"OAS3\d{4}(?!\d)"), re.compile(r"(?:^|_)(?:sess?-)?d(\d+)(?=_|$)")  # in a folder's name
MODALITY = {suffix: modality for modality, suffix in SUFFIX.items()}
SITE = "OASIS-3"
DIAGNOSES = "OASIS3_UDSd1_diagnoses"
SEX = {"1": "M", "2": "F", "m": "M", "f": "F"}
MCI = ("MCIAMEM", "MCIAPLUS", "MCINON1", "MCINON2")
FLAG, MISSING = frozenset("01"), frozenset("89")  # codes of form D1
ROLE = frozenset("01237")  # 1 primary cause, 2 contributing, 3 non-contributing
SCORE_MISSING = frozenset({88.0, 95.0, 96.0, 97.0, 98.0, 99.0, 888.0, 999.0, -4.0})
EDUC_MISSING = frozenset({88.0, 99.0, 888.0, 999.0})
SCORES = (("OASIS3_UDSb4_cdr", "MMSE", "mmse"), ("OASIS3_UDSc1_cognitive_assessments", "mocatots", "moca"))


def oasis3(root: str | Path) -> Cohort:
    """Read OASIS-3 as downloaded, with one folder per session or as BIDS, and its CSV tables in the same folder.

    Participant and day of a scan are taken from its file name. A scan in the folder of another participant or day is
    rejected. Sessions with possible Alzheimer's disease, dementia of another cause, or cognitive impairment that is not
    MCI are rejected. The Clinical Dementia Rating (CDR) is not used: a CDR of 0.5 does not imply MCI.

    Raises InputError if there is no scan or no diagnosis table, if one day is written in two ways, and for a code that
    the form does not have.
    """
    root = Path(root)
    rejected: list[Rejection] = []
    files = _files(root, rejected)
    if not files and not rejected:
        raise InputError(
            root, "contains no sub-OAS3*_bold.nii.gz or *_dwi.nii.gz", "give the folder of the OASIS-3 scans"
        )
    diagnoses = find_table(root, DIAGNOSES, ("OASISID", "days_to_visit"))
    if diagnoses is None:
        raise InputError(root, f"has no {DIAGNOSES}.csv", "put the table into the folder of the scans")
    visits: dict[str, list[Visit]] = defaultdict(list)
    entry: dict[str, float] = {}  # age at entry, years
    for row in diagnoses:
        participant, day = _participant(row), _day(row)
        visits[participant].append(Visit(day, *uds_diagnosis(row)))
        if (age := row.number("age at visit", 0, 120)) is not None:
            entry[participant] = age - day / DAYS_PER_YEAR
    for name, column, score in SCORES:
        for row in find_table(root, name, ("OASISID", "days_to_visit")) or ():
            if (value := row.number(column, 0, 30, SCORE_MISSING)) is not None:
                visits[_participant(row)].append(Visit(_day(row), scores={score: value}))
    people = {_participant(row): row for row in find_table(root, "OASIS3_demographics", ("OASISID",)) or ()}
    subjects = []
    for participant, by_modality in sorted(files.items()):
        person = people.get(participant, Row(root, {}))
        at_entry = person.number("AgeatEntry", 0, 120) or entry.get(participant)
        found = sessions(by_modality, visits[participant], _session_id, partial(_age, at_entry), rejected)
        if found:
            sex = SEX.get((person.text("GENDER") or "").lower())
            education = person.number("EDUC", 0, 40, EDUC_MISSING)
            subjects.append(Subject(f"sub-{participant}", found, sex, SITE, education))
    return Cohort(root, subjects, rejected)


def _age(at_entry: float | None, day: int) -> float | None:
    return None if at_entry is None else at_entry + day / DAYS_PER_YEAR


def uds_diagnosis(row: Row) -> tuple[Diagnosis | None, str | None]:
    """Diagnosis of a row of UDS form D1, or the reason for its exclusion; both None if the form has no diagnosis."""

    def ticked(*columns: str) -> bool:
        return any(row.code(column, FLAG, MISSING) == "1" for column in columns)

    if ticked("NORMCOG"):
        return Diagnosis.NC, None
    if ticked("DEMENTED"):
        # version 3 of the form: ALZDIS is the presence of Alzheimer's disease, ALZDISIF its role (1: primary cause)
        primary = ticked("ALZDIS") and row.code("ALZDISIF", ROLE, MISSING) == "1"
        if ticked("PROBAD") or primary:
            return Diagnosis.AD, None
        if ticked("POSSAD"):
            return None, "possible Alzheimer's disease only"
        return None, "dementia of another cause than Alzheimer's disease"
    if ticked(*MCI):
        return Diagnosis.MCI, None
    if ticked("IMPNOMCI"):
        return None, "cognitive impairment that is not MCI"
    return None, None


def is_oasis3(root: Path) -> bool:
    """Whether root contains a scan with an OASIS-3 name, and the table of diagnoses."""
    return next(_named(root), None) is not None and find_table(root, DIAGNOSES) is not None


def _preferred_to(root: Path, other: str) -> bool:
    """True for `bids` without a participants.tsv: read as BIDS, these scans would then have no diagnosis."""
    return other == "bids" and not (root / "participants.tsv").exists()


LAYOUT = Layout(
    "oasis3",
    f"scans with file names of OASIS-3, and {DIAGNOSES}.csv",
    is_oasis3,
    oasis3,
    preferred_to=_preferred_to,
)


def _files(root: Path, rejected: list[Rejection]) -> dict[str, dict[Modality, dict[int, list[Path]]]]:
    """Paths by participant, modality and day. Files in a folder of another one are appended to `rejected`."""
    found: dict[str, dict[Modality, dict[int, list[Path]]]] = {}
    days = []
    for path, match in _named(root):
        participant, day, suffix, _ = match.groups()
        if problem := _conflict(path, root, participant, day):
            rejected.append(Rejection(path, problem, REMEDY))
            continue
        days.append((f"d{day} of {participant}", f"sub-{participant}_{_session_id(int(day))}"))
        found.setdefault(participant, {}).setdefault(MODALITY[suffix], {}).setdefault(int(day), []).append(path)
    refuse_twins(root, "sessions", days)
    return found


def _conflict(path: Path, root: Path, participant: str, day: str) -> str | None:
    """The conflict of participant and day with the folders below root or the rest of the file's name; or None."""
    for folder in path.relative_to(root).parts[:-1]:
        others = [label for label in PARTICIPANT.findall(folder) if label != participant]
        others += [f"d{other}" for other in DAY.findall(folder) if int(other) != int(day)]
        if others:
            return f"is named for {participant} d{day} but lies in the folder {folder}"
    return contradiction(path, f"sub-{participant}", f"ses-d{day}")


def _session_id(day: int) -> str:
    return f"ses-d{day:04d}"


def _named(root: Path) -> Iterator[tuple[Path, re.Match[str]]]:
    for folder, _, names in os.walk(root):
        for name in names:
            if match := NAME.fullmatch(name):
                yield Path(folder, name), match


def _participant(row: Row) -> str:
    return row.text("OASISID") or ""


def _day(row: Row) -> int:
    text = row.text("days_to_visit")
    try:
        return int(float(text or ""))
    except ValueError:
        problem = f"has {text!r} in days_to_visit of {_participant(row)}"
        raise InputError(row.path, problem, "write a whole number of days") from None
