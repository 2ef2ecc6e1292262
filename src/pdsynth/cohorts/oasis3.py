"""OASIS-3: scans by their file names, and diagnoses from the UDS forms, matched by days since entry into the study.

The Uniform Data Set (UDS) is the set of clinical forms of the study; form D1 contains the diagnosis.
"""

from __future__ import annotations

import re
from collections import defaultdict
from functools import partial
from pathlib import Path

from pdsynth.cohorts.choice import ANY, Select
from pdsynth.cohorts.cohort import Cohort, Rejection, Subject
from pdsynth.cohorts.kinds import NAMED, NIFTI, SERIES, Item, Kind, Verdict, classify
from pdsynth.cohorts.layout import Layout
from pdsynth.cohorts.ledger import Ledger
from pdsynth.cohorts.names import REMEDY, SUFFIX, contradiction, refuse_twins
from pdsynth.cohorts.tables import Row, find_table
from pdsynth.cohorts.visits import DAYS_A_YEAR, Visit, sessions
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
FLAG, MISSING = frozenset("01"), frozenset("89")  # codes of form D1
ROLE = frozenset("01237")  # 1 primary cause, 2 contributing, 3 non-contributing
SCORE_MISSING = frozenset({88.0, 95.0, 96.0, 97.0, 98.0, 99.0, 888.0, 999.0, -4.0})
EDUC_MISSING = frozenset({88.0, 99.0, 888.0, 999.0})
SCORES = (("OASIS3_UDSb4_cdr", "MMSE", "mmse"), ("OASIS3_UDSc1_cognitive_assessments", "mocatots", "moca"))


def oasis3(root: str | Path, select: Select = ANY) -> Cohort:
    """Read OASIS-3 as downloaded, with one folder per session or as BIDS, and its CSV tables in the same folder.

    Participant and day of a scan are taken from its file name. A scan in the folder of another participant or day is
    rejected. Sessions with possible Alzheimer's disease, dementia of another cause, or cognitive impairment that is not
    MCI are rejected. The Clinical Dementia Rating (CDR) is not used: a CDR of 0.5 does not imply MCI.

    Raises InputError if there is no scan or no diagnosis table, if one day is written in two ways, and for a code that
    the form does not have.
    """
    root = Path(root)
    ledger = Ledger(select)
    files = _verdicts(root)
    if not any(verdict.kind in (Kind.CANDIDATE, Kind.REFUSED) for each in files.values() for verdict in each):
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
            entry[participant] = age - day / DAYS_A_YEAR
    for name, column, score in SCORES:
        for row in find_table(root, name, ("OASISID", "days_to_visit")) or ():
            if (value := row.number(column, 0, 30, SCORE_MISSING)) is not None:
                visits[_participant(row)].append(Visit(_day(row), scores={score: value}))
    people = {_participant(row): row for row in find_table(root, "OASIS3_demographics", ("OASISID",)) or ()}
    subjects = []
    for participant, verdicts in sorted(files.items()):
        person = people.get(participant, Row(root, {}))
        at_entry = person.number("AgeatEntry", 0, 120) or entry.get(participant)
        conflict = partial(_conflict, root, participant)
        found = sessions(verdicts, visits[participant], _session_id, partial(_age, at_entry), ledger, conflict)
        if found:
            sex = SEX.get((person.text("GENDER") or "").lower())
            education = person.number("EDUC", 0, 40, EDUC_MISSING)
            subjects.append(Subject(f"sub-{participant}", found, sex, SITE, education))
    return ledger.cohort(root, subjects)


def _age(at_entry: float | None, day: int) -> float | None:
    return None if at_entry is None else at_entry + day / DAYS_A_YEAR


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
    return find_table(root, DIAGNOSES) is not None and any(NAME.fullmatch(found.name) for found in walk(root))


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


def _verdicts(root: Path) -> dict[str, list[Verdict]]:
    """The verdicts on the files below root by participant; the session of a verdict is the day of the scan, or None.

    A file whose name is not exact belongs to the participant of its name or of the folders above it. A file of no
    participant, such as a table, has no verdict.
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
    """The refusal of a scan whose participant and day contradict the folders below root or the rest of its name."""
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


def _participant(row: Row) -> str:
    return row.text("OASISID") or ""


def _day(row: Row) -> int:
    text = row.text("days_to_visit")
    try:
        return int(float(text or ""))
    except ValueError:
        problem = f"has {text!r} in days_to_visit of {_participant(row)}"
        raise InputError(row.path, problem, "write a whole number of days") from None
