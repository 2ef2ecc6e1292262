"""OASIS-3: scans by their file names, and diagnoses from the UDS forms, matched by days since entry into the study.

The Uniform Data Set (UDS) is the set of clinical forms of the study; form D1 contains the diagnosis.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import partial
from pathlib import Path

from pdsynth.cohorts.cells import AGE, EDUCATION, SCORE, Code, Number
from pdsynth.cohorts.choice import ANY, Select
from pdsynth.cohorts.cohort import Cohort, Rejection, Subject
from pdsynth.cohorts.join import join, merged
from pdsynth.cohorts.kinds import NAMED, NIFTI, SERIES, Item, Kind, Verdict, classify
from pdsynth.cohorts.layout import Layout
from pdsynth.cohorts.ledger import Ledger
from pdsynth.cohorts.names import REMEDY, SUFFIX, contradiction, refuse_twins
from pdsynth.cohorts.tables import UNKNOWN_CODE, Column, Row, Schema, Table, find_table, locate
from pdsynth.cohorts.visits import DAYS_PER_YEAR, Visit, consistent, sessions
from pdsynth.cohorts.walk import walk
from pdsynth.types import Diagnosis, InputError

NAME = re.compile(r"sub-(OAS3\d{4})_(?:ses|sess)-d(\d+)(?:_[^_]+-[^_]+)*_(bold|dwi)\.nii(\.gz)?")
LOOSE = re.compile(r"sub-(OAS3\d{4})_(?:ses|sess)-d(\d+)(?:_[^_]+-[^_]+)*_(bold|dwi)(?![a-z])", re.IGNORECASE)
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


def oasis3(root: str | Path, select: Select = ANY, tables: bool = True) -> Cohort:
    """Read OASIS-3 as downloaded, with one folder per session or as BIDS, and its CSV tables.

    The tables lie in root or directly in a folder of it: OASIS3_UDSd1_diagnoses.csv (form D1), and, if they are there,
    OASIS3_demographics.csv, OASIS3_UDSb4_cdr.csv with MMSE and OASIS3_UDSc1_cognitive_assessments.csv with MoCA. Their
    names may end with the date of the download. Participant and day of a scan, in days since entry into the study, are
    taken from its file name. An fMRI and a dMRI that are at most 90 days apart form a session; another scan is a
    session alone. A session is named by the day of its first scan, such as ses-d0129. It has the diagnosis of the
    nearest visit within 365 days of this scan that gives one, else None, and each score likewise. The age is that at
    entry plus the time since. select: leaves out scans by the key-value pairs of their file names (option --select). A
    scan in the folder of another participant or day is rejected. The scans of sessions with possible Alzheimer's
    disease, dementia of another cause, or cognitive impairment that is not MCI are rejected. The Clinical Dementia
    Rating (CDR) is not used: a CDR of 0.5 does not imply MCI. If `tables` is false, no table is read: diagnosis, age,
    sex, education and scores are unknown.

    A code that the form does not have, a visit that contradicts another one of its day, and a participant without a row
    do not stop the reading. The cohort lists each in `rejected`, with reason and remedy.

    Raises InputError if there is no scan or no diagnosis table, if a table exists twice, cannot be read, or lacks a
    needed column, and if the names of two scans write one day in two ways (d129 and d0129).
    """
    root = Path(root)
    ledger = Ledger(select)
    files = _verdicts(root)
    if not any(verdict.kind in (Kind.CANDIDATE, Kind.REFUSED) for each in files.values() for verdict in each):
        raise InputError(
            root, "contains no sub-OAS3*_bold.nii.gz or *_dwi.nii.gz", "give the folder of the OASIS-3 scans"
        )
    archive = _Archive(root, files) if tables else None
    subjects = []
    for participant, verdicts in sorted(files.items()):
        visits, at_entry, person = archive.of(participant) if archive is not None else ([], None, Row())
        conflict = partial(_conflict, root, participant)
        found = sessions(verdicts, visits, _session_id, partial(_age, at_entry), ledger, conflict)
        if found:
            sex = SEX.get((person.text("sex") or "").lower())
            subjects.append(Subject(f"sub-{participant}", found, sex, SITE, person.number("education")))
    ledger.rejected += archive.rejections() if archive is not None else []
    return ledger.cohort(root, subjects)


class _Archive:
    """The tables of OASIS-3, with their rows joined to the participants on disk."""

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
        """The visits of a participant, the age at entry in years or None, and the row of the demographic table.

        The age is that of the demographic table. Else it is the age in the last row of form D1 (the diagnosis) that has
        an age, minus the years since entry.
        """
        found: list[Visit] = []
        entry: float | None = None
        for row in self.forms.get(participant, []):
            if (day := row.number("day")) is not None:
                found.append(Visit(int(day), *uds_diagnosis(row)))
                if (age := row.number("age")) is not None:
                    entry = age - day / DAYS_PER_YEAR
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
        """The rows of a table by participant; None without the table. every: note participants without a row."""
        table = find_table(root, name, schema)
        if table is None:
            return None
        self.tables.append(table)
        return join(table, table.rows, "participant", self.participants, "sub", every=every)


def _age(at_entry: float | None, day: int) -> float | None:
    return None if at_entry is None else at_entry + day / DAYS_PER_YEAR


def uds_diagnosis(row: Row) -> tuple[Diagnosis | None, str | None]:
    """Diagnosis by a row of form D1, the clinical diagnosis of the Uniform Data Set (UDS) that OASIS-3 uses.

    Returns (diagnosis, None), or (None, reason) for a participant in none of the groups NC, MCI and AD, such as
    dementia of another cause. Both are None if the form has no diagnosis, or a code that is unknown.
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
    """Whether root contains, at any level, a scan with an OASIS-3 name, and the table OASIS3_UDSd1_diagnoses.csv.

    Such a name is sub-OAS30001_ses-d0129_task-rest_bold.nii.gz. The table lies in root or directly in a folder of it.
    Raises InputError if it is there twice, or only in another format.
    """
    return locate(root, DIAGNOSES) is not None and any(NAME.fullmatch(found.name) for found in walk(root))


def _preferred_to(root: Path, other: str) -> bool:
    """Whether this layout comes before the one named `other`: before "bids", if there is no participants.tsv.

    Read as BIDS, these scans would then have no diagnosis.
    """
    return other == "bids" and not (root / "participants.tsv").exists()


LAYOUT = Layout(
    "oasis3",
    f"scans with file names of OASIS-3, and {DIAGNOSES}.csv",
    is_oasis3,
    oasis3,
    scans=partial(oasis3, tables=False),
    preferred_to=_preferred_to,
)


def _verdicts(root: Path) -> dict[str, list[Verdict]]:
    """The verdicts on the files below root by participant.

    The session of a verdict is the scan's day since entry into the study, or None. A file whose name is not exact
    belongs to the participant of its name or of the folders above it. A file of no participant, such as a table, has no
    verdict.
    """
    verdicts: dict[str, list[Verdict]] = {}
    days = []
    for found in walk(root):
        match = LOOSE.match(found.name)
        if match is not None:
            participant, day, modality = match[1].upper(), int(match[2]), MODALITY[match[3].lower()]
            exact = NAME.fullmatch(found.name) is not None
            rules = SERIES if exact or not found.name.endswith(NIFTI) else NAMED
            verdict = classify(Item(found, day, series=modality), rules)
            if verdict.kind is Kind.CANDIDATE and _conflict(root, participant, verdict) is None:
                days.append((f"d{match[2]} of {participant}", f"sub-{participant}_{_session_id(day)}"))
        else:
            names = [PARTICIPANT.search(part) for part in (found.name, *reversed(found.dirs))]
            participant = next((name[0] for name in names if name is not None), "")
            verdict = classify(Item(found), NAMED)
        if participant:
            verdicts.setdefault(participant, []).append(verdict)
    refuse_twins(root, "sessions", days)
    return verdicts


def _conflict(root: Path, participant: str, verdict: Verdict) -> Rejection | None:
    """The refusal of a scan whose participant or day contradicts a folder below root or the rest of its name.

    None for any other scan.
    """
    path, day = verdict.path, verdict.session
    match = NAME.fullmatch(path.name)
    written = f"d{day}" if match is None else f"d{match[2]}"
    for folder in path.relative_to(root).parts[:-1]:
        others = [label for label in PARTICIPANT.findall(folder) if label != participant]
        others += [f"d{other}" for other in DAY.findall(folder) if int(other) != day]
        if others:
            return Rejection(path, f"is named for {participant} {written} but lies in the folder {folder}", REMEDY)
    problem = contradiction(path, f"sub-{participant}", f"ses-{written}")
    return None if problem is None else Rejection(path, problem, REMEDY)


def _session_id(day: int) -> str:
    return f"ses-d{day:04d}"
