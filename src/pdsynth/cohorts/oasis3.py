"""OASIS-3: scans by their file names, and diagnoses from the UDS forms, matched by days since entry into the study.

The Uniform Data Set (UDS) is the set of clinical forms of the study; form D1 contains the diagnosis.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from functools import partial
from pathlib import Path

from pdsynth.cohorts.cells import AGE, EDUCATION, SCORE, Code, Number
from pdsynth.cohorts.cohort import Cohort, Rejection, Subject
from pdsynth.cohorts.join import join, merged
from pdsynth.cohorts.layout import Layout
from pdsynth.cohorts.names import REMEDY, SUFFIX, contradiction, refuse_twins
from pdsynth.cohorts.tables import UNKNOWN_CODE, Column, Row, Schema, Table, find_table, locate
from pdsynth.cohorts.visits import DAYS_A_YEAR, Visit, consistent, sessions
from pdsynth.types import Diagnosis, InputError, Modality

NAME = re.compile(r"sub-(OAS3\d{4})_(?:ses|sess)-d(\d+)(?:_[^_]+-[^_]+)*_(bold|dwi)\.nii(\.gz)?")
PARTICIPANT, DAY = re.compile(r"OAS3\d{4}(?!\d)"), re.compile(r"(?:^|_)(?:sess?-)?d(\d+)(?=_|$)")  # in a folder's name
MODALITY = {suffix: modality for modality, suffix in SUFFIX.items()}
SITE = "OASIS-3"
DIAGNOSES = "OASIS3_UDSd1_diagnoses"
SEX = {"1": "M", "2": "F", "m": "M", "f": "F"}
MCI = ("MCIAMEM", "MCIAPLUS", "MCINON1", "MCINON2")
FLAG = Code(frozenset("01"), frozenset("89"))  # codes of form D1
ROLE = Code(frozenset("01237"), frozenset("89"))  # 1 primary cause, 2 contributing, 3 non-contributing
FLAGS = ("NORMCOG", "DEMENTED", "ALZDIS", "PROBAD", "POSSAD", *MCI, "IMPNOMCI")
VISIT = {
    "participant": Column(("OASISID",), needed=True, identity=True),
    "day": Column(("days_to_visit",), Number(-36525, 36525), needed=True),
}
D1_SCHEMA = {
    **VISIT,
    "age": Column(("age at visit",), AGE),
    **{flag: Column((flag,), FLAG) for flag in FLAGS},
    "ALZDISIF": Column(("ALZDISIF",), ROLE),
}
PEOPLE_SCHEMA = {
    "participant": VISIT["participant"],
    "age": Column(("AgeatEntry",), AGE),
    "sex": Column(("GENDER",)),
    "education": Column(("EDUC",), EDUCATION),
}
SCORES = (("OASIS3_UDSb4_cdr", "MMSE", "mmse"), ("OASIS3_UDSc1_cognitive_assessments", "mocatots", "moca"))


def oasis3(root: str | Path, tables: bool = True) -> Cohort:
    """Read OASIS-3 as downloaded, with one folder per session or as BIDS, and its CSV tables in the same folder.

    Participant and day of a scan are taken from its file name. A scan in the folder of another participant or day is
    rejected. Sessions with possible Alzheimer's disease, dementia of another cause, or cognitive impairment that is not
    MCI are rejected. The Clinical Dementia Rating (CDR) is not used: a CDR of 0.5 does not imply MCI. If `tables` is
    false, no table is read.

    A code that the form does not have, a visit that contradicts another one of its day, and a participant without a row
    become a `Rejection`.

    Raises InputError if there is no scan or no diagnosis table, and if one day is written in two ways.
    """
    root = Path(root)
    rejected: list[Rejection] = []
    files = _files(root, rejected)
    if not files and not rejected:
        raise InputError(
            root, "contains no sub-OAS3*_bold.nii.gz or *_dwi.nii.gz", "give the folder of the OASIS-3 scans"
        )
    on_disk = {*files, *(label for r in rejected for label in PARTICIPANT.findall(r.path.name))}
    archive = _Archive(root, on_disk) if tables else None
    subjects = []
    for participant, by_modality in sorted(files.items()):
        visits, at_entry, person = archive.of(participant) if archive is not None else ([], None, Row())
        found = sessions(by_modality, visits, _session_id, partial(_age, at_entry), rejected)
        if found:
            sex = SEX.get((person.text("sex") or "").lower())
            subjects.append(Subject(f"sub-{participant}", found, sex, SITE, person.number("education")))
    return Cohort(root, subjects, rejected + (archive.rejections() if archive is not None else []))


class _Archive:
    """The tables of OASIS-3, held against the participants on disk."""

    def __init__(self, root: Path, participants: Collection[str]) -> None:
        self.participants = participants
        self.tables: list[Table] = []
        diagnoses = self._rows(root, DIAGNOSES, D1_SCHEMA, every=True)
        if diagnoses is None:
            raise InputError(root, f"has no {DIAGNOSES}.csv", "put the table into the folder of the scans")
        self.forms = diagnoses
        self.people = self._rows(root, "OASIS3_demographics", PEOPLE_SCHEMA) or {}
        self.scores = {
            score: self._rows(root, name, VISIT | {score: Column((column,), SCORE)}) or {}
            for name, column, score in SCORES
        }

    def of(self, participant: str) -> tuple[list[Visit], float | None, Row]:
        """The visits of a participant, the age at entry in years, and the row of the demographic table."""
        found: list[Visit] = []
        entry: float | None = None
        for row in self.forms.get(participant, []):
            if (day := row.number("day")) is not None:
                found.append(Visit(int(day), *uds_diagnosis(row)))
                if (age := row.number("age")) is not None:
                    entry = age - day / DAYS_A_YEAR
        for score, rows in self.scores.items():
            for row in rows.get(participant, []):
                if (value := row.number(score)) is not None and (day := row.number("day")) is not None:
                    found.append(Visit(int(day), scores={score: value}))
        visits, contradicted = consistent(found)
        for day in contradicted:
            problem = "has visits of one day that contradict each other; the cells that differ were not read"
            self.tables[0].notes.add(problem, f"{participant} d{day:04d}", "keep the valid row")
        person = merged(self.people.get(participant, []), participant)
        at_entry = person.number("age")
        return visits, entry if at_entry is None else at_entry, person

    def rejections(self) -> list[Rejection]:
        return [rejection for table in self.tables for rejection in table.notes.rejections()]

    def _rows(self, root: Path, name: str, schema: Schema, every: bool = False) -> dict[str, list[Row]] | None:
        """The rows of a table by participant; None without the table."""
        table = find_table(root, name, schema)
        if table is None:
            return None
        self.tables.append(table)
        return join(table, table.rows, "participant", self.participants, "sub", every=every)


def _age(at_entry: float | None, day: int) -> float | None:
    return None if at_entry is None else at_entry + day / DAYS_A_YEAR


def uds_diagnosis(row: Row) -> tuple[Diagnosis | None, str | None]:
    """Diagnosis of a row of UDS form D1, or the reason for its exclusion.

    Both are None if the form has no diagnosis, or a code that is unknown.
    """
    codes = {column: row.code(column) for column in (*FLAGS, "ALZDISIF")}
    if UNKNOWN_CODE in codes.values():
        return None, None

    def ticked(*columns: str) -> bool:
        return any(codes[column] == "1" for column in columns)

    if ticked("NORMCOG"):
        return Diagnosis.NC, None
    if ticked("DEMENTED"):
        # version 3 of the form: ALZDIS is the presence of Alzheimer's disease, ALZDISIF its role (1: primary cause)
        primary = ticked("ALZDIS") and ticked("ALZDISIF")
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
    return next(_named(root), None) is not None and locate(root, DIAGNOSES) is not None


def _preferred_to(root: Path, other: str) -> bool:
    """True for `bids` without a participants.tsv: read as BIDS, these scans would then have no diagnosis."""
    return other == "bids" and not (root / "participants.tsv").exists()


LAYOUT = Layout(
    "oasis3",
    f"scans with file names of OASIS-3, and {DIAGNOSES}.csv",
    is_oasis3,
    oasis3,
    scans=partial(oasis3, tables=False),
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
