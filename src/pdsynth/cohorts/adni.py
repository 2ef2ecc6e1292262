"""ADNI as downloaded from its archive: folders PTID/series/date, with diagnoses from the tables ADNIMERGE or DXSUM.

PTID is ADNI's participant identifier (027_S_0074). `bids` reads ADNI data that Clinica has converted to BIDS.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Collection
from dataclasses import replace
from datetime import date
from functools import partial
from pathlib import Path

from pdsynth.cohorts.cells import AGE, EDUCATION, SCORE, Date, whole
from pdsynth.cohorts.choice import ANY, Select
from pdsynth.cohorts.cohort import Cohort, Rejection, Subject
from pdsynth.cohorts.join import join, merged
from pdsynth.cohorts.kinds import OTHER_SERIES, SERIES, Item, Kind, Verdict, classify
from pdsynth.cohorts.layout import Layout
from pdsynth.cohorts.ledger import Ledger
from pdsynth.cohorts.names import REMEDY, contradiction
from pdsynth.cohorts.tables import Column, Row, Table, find_table
from pdsynth.cohorts.visits import DAYS_PER_YEAR, Visit, consistent, sessions
from pdsynth.cohorts.walk import walk
from pdsynth.types import Diagnosis, InputError, Modality

PTID = re.compile(r"\d{3}_S_\d{4,5}")
ANY_PTID = re.compile(rf"(?<!\d){PTID.pattern}(?!\d)", re.IGNORECASE)
WHEN = re.compile(r"(\d{4}-\d{2}-\d{2})_\d{2}_\d{2}_\d{2}(\.\d+)?")
DERIVED = {"mb", "adc", "fa", "tracew", "enhanced", "reg"}  # words that exclude a DTI series: computed maps, multiband
RESTING = ("fmri", "fcmri", "resting")
NOT_BOLD = {"asl", "pcasl", "perfusion", "mocoseries"}
MERGED = {  # states of the column DX
    **dict.fromkeys(("cn", "nl", "smc"), Diagnosis.NC),
    **dict.fromkeys(("mci", "emci", "lmci"), Diagnosis.MCI),
    **dict.fromkeys(("dementia", "ad"), Diagnosis.AD),
}
COLUMNS = (  # diagnosis columns of DXSUM with their codes; each study phase filled in one of them
    ("DIAGNOSIS", {1: Diagnosis.NC, 2: Diagnosis.MCI, 3: Diagnosis.AD}),
    (
        "DXCHANGE",
        dict.fromkeys((1, 7, 9), Diagnosis.NC)
        | dict.fromkeys((2, 4, 8), Diagnosis.MCI)
        | dict.fromkeys((3, 5, 6), Diagnosis.AD),
    ),
    ("DXCURREN", {1: Diagnosis.NC, 2: Diagnosis.MCI, 3: Diagnosis.AD}),
)
REPAIR = "correct these cells, or leave them empty"
NOT_DONE = {"-4", "-1"}
SEX = {"female": "F", "male": "M", "2": "F", "1": "M"}
DAY = Date(day_first=False)  # 2/3/2011 is a day of February
MERGED_SCHEMA = {
    "ptid": Column(("PTID",), needed=True, identity=True),
    "day": Column(("EXAMDATE",), DAY, needed=True),
    "diagnosis": Column(("DX",), needed=True),
    "viscode": Column(("VISCODE",), identity=True),
    "baseline": Column(("EXAMDATE_bl",), DAY),
    "age": Column(("AGE",), AGE),
    "sex": Column(("PTGENDER",)),
    "education": Column(("PTEDUCAT",), EDUCATION),
    "mmse": Column(("MMSE",), SCORE),
    "moca": Column(("MOCA",), SCORE),
}
SUMMARY_SCHEMA = {
    "ptid": Column(("PTID", "RID"), needed=True, identity=True),
    "examdate": Column(("EXAMDATE",), DAY),
    "userdate": Column(("USERDATE",), DAY),
    **{name: Column((name,)) for name, _ in COLUMNS},
}


def adni(root: str | Path, select: Select = ANY, tables: bool = True) -> Cohort:
    """Read ADNI as downloaded from its archive: scans in folders PTID/series/date, and tables of diagnoses.

    PTID is ADNI's participant identifier, such as 027_S_0074. The table lies in root or in a folder directly below it:
    ADNIMERGE.csv, else TADPOLE_D1_D2.csv, else DXSUM.csv or DXSUM_PDXCONV_ADNIALL.csv. Their names may end with the
    date of the download. Of a change such as "MCI to Dementia", which older tables have in the column DX, the state
    after "to" counts; NL is CN. Participants with a subjective memory complaint count as cognitively normal. DXSUM has
    diagnoses only: age, sex, education and scores are then unknown. If `tables` is false, no table is read: diagnosis,
    age, sex, education and scores are unknown.

    A scan belongs to the participant and the date of its folders. A scan is rejected if its name or a folder above it
    contains another participant, or if it has no valid date. Multi-band DTI is not read. An fMRI and a dMRI that are at
    most 90 days apart form a session; another scan is a session alone. A session is named by the date of its first
    scan, such as ses-20110203. It has the diagnosis of the nearest visit within 365 days that gives one, else None, and
    each score likewise. The age is that at the baseline visit plus the time since then. select: leaves out scans by the
    key-value pairs of their file names (option --select).

    A cell with an unknown code or date, a visit that contradicts another one of its day, and a participant without a
    row do not stop the reading. The cohort lists each in `rejected`, with reason and remedy.

    Raises InputError if there is no scan, if there is no table, if a table exists twice, cannot be read, or lacks a
    needed column.
    """
    root = Path(root)
    ledger = Ledger(select)
    files = {name: _verdicts(root / name) for name in _people(root)}
    if not any(verdict.kind in (Kind.CANDIDATE, Kind.REFUSED) for each in files.values() for verdict in each):
        raise InputError(root, "contains no scan PTID/series/date/image", "give the folder of the ADNI participants")
    table = _table(root) if tables else None
    rows = _rows_of(table, _people(root)) if table is not None else {}
    subjects = []
    for ptid, verdicts in files.items():
        own = rows.get(ptid, [])
        visits = _visits(ptid, own)
        person = merged([row for row in own if (row.text("viscode") or "").lower() == "bl"] or own[:1], ptid)
        conflict = partial(_conflict, root / ptid)
        found = sessions(verdicts, visits, _session_id, partial(_age, person), ledger, conflict)
        if found:
            sex = SEX.get((person.text("sex") or "").lower())
            subjects.append(Subject(_participant_id(ptid), found, sex, f"ADNI-{ptid[:3]}", person.number("education")))
    ledger.rejected += table.notes.rejections() if table is not None else []
    return ledger.cohort(root, subjects)


def _table(root: Path) -> Table:
    """The table of diagnoses. Raises InputError if there is none."""
    for name in ("ADNIMERGE", "TADPOLE_D1_D2"):
        if (table := find_table(root, name, MERGED_SCHEMA)) is not None:
            return table
    for name in ("DXSUM", "DXSUM_PDXCONV_ADNIALL"):
        if (table := find_table(root, name, SUMMARY_SCHEMA)) is not None:
            return table
    raise InputError(root, "has neither ADNIMERGE.csv nor DXSUM*.csv", "put one of them into this folder")


def _rows_of(table: Table, ptids: Collection[str]) -> dict[str, list[Row]]:
    """The rows of each participant on disk, by PTID. Old tables have only the RID, the number at the end of the PTID.

    The rows of a RID that two folders share are not joined.
    """
    rid = table.names["ptid"].upper() == "RID"
    numbers = Counter(ptid[6:] for ptid in ptids)
    names = {ptid[6:] if rid else ptid: ptid for ptid in ptids if not rid or numbers[ptid[6:]] == 1}
    return {names[name]: rows for name, rows in join(table, table.rows, "ptid", names, "sub").items()}


def _people(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir() if PTID.fullmatch(path.name) and os.path.isdir(path))


def is_adni(root: Path) -> bool:
    """Whether root directly contains a folder whose name is a PTID, ADNI's participant identifier (027_S_0074).

    Deeper folders are not searched. Raises FileNotFoundError if root does not exist.
    """
    return bool(_people(root))


LAYOUT = Layout(
    "adni", "folders with participant names of ADNI (027_S_0074)", is_adni, adni, scans=partial(adni, tables=False)
)


def modality_of(series: str) -> Modality | None:
    """Modality of an ADNI series by the words in the name of its folder, in any case; None for any other name.

    dMRI: a name that contains "dti", but none of the words ADC, FA, TRACEW, enhanced, reg (computed maps) and MB
    (multi-band). fMRI: a name that contains "fmri", "fcmri" or "resting", but none of the words ASL, PCASL, perfusion
    and MoCoSeries. A word is a whole sequence of letters and digits: "DTI_MB" has the word MB, "DTIMB" has not.

    >>> modality_of("Axial_DTI"), modality_of("Axial_rsfMRI__Eyes_Open_")
    (<Modality.DMRI: 'dmri'>, <Modality.FMRI: 'fmri'>)
    >>> modality_of("Axial_DTI_ADC"), modality_of("Axial_MB_DTI"), modality_of("Axial_DWI")
    (None, None, None)
    """
    name = series.lower()
    words = set(re.split(r"[^a-z0-9]+", name))
    if "dti" in name and not words & DERIVED:
        return Modality.DMRI
    if any(word in name for word in RESTING) and not words & NOT_BOLD:
        return Modality.FMRI
    return None


def _verdicts(person: Path) -> list[Verdict]:
    """The verdicts on the files of a participant.

    The session of a verdict is the day of the scan, counted as `date.toordinal` does, or None without a valid date.
    """
    verdicts = []
    for found in walk(person):
        series, when = (*found.dirs, found.name, "")[:2]
        date_of = WHEN.fullmatch(when)
        level = None if date_of is not None else "lies at another level than series/date/image"
        day = None if date_of is None else _ordinal(date_of[1])
        verdict = classify(Item(found, day, level, modality_of(series)), SERIES)
        verdicts.append(_multiband(verdict) if _is_multiband(series) else verdict)
    return verdicts


def _ordinal(text: str) -> int | None:
    try:
        return date.fromisoformat(text).toordinal()
    except ValueError:  # such as 2011-02-30
        return None


def _is_multiband(series: str) -> bool:
    words = re.split(r"[^a-z0-9]+", series.lower())
    return modality_of("_".join(word for word in words if word != "mb")) is Modality.DMRI


def _multiband(verdict: Verdict) -> Verdict:
    """The verdict on a file of a multi-band DTI, which is not read: its image is a stand-in (see `Kind`) for dMRI."""
    if verdict.rule != OTHER_SERIES:
        return verdict
    reason, remedy = "is a multi-band DTI, which is not read", "leave it out, or read it with the layout `folder`"
    return replace(
        verdict, kind=Kind.STAND_IN, rule="multi-band DTI", modality=Modality.DMRI, reason=reason, remedy=remedy
    )


def _conflict(person: Path, verdict: Verdict) -> Rejection | None:
    """The refusal of a scan whose name, or a folder above it, contradicts the participant's folder or the day.

    person: the participant's folder. A scan without a valid date is refused, too. None for any other scan.
    """
    below = str(verdict.path.relative_to(person))
    other = next((o for o in ANY_PTID.findall(below) if o.upper() != person.name), None)
    if other is not None:
        problem: str | None = f"is named for {other} but lies in the folder of {person.name}"
    elif not isinstance(verdict.session, int):
        return Rejection(verdict.path, "lies in a folder without a valid date", REMEDY)
    else:
        problem = contradiction(verdict.path, _participant_id(person.name), _session_id(verdict.session))
    return None if problem is None else Rejection(verdict.path, problem, REMEDY)


def _visits(ptid: str, rows: list[Row]) -> list[Visit]:
    """The visits of a participant, one per day."""
    found = []
    for row in rows:
        assert row.table is not None
        merged_table = row.table.schema is MERGED_SCHEMA
        word = "examdate" if row.filled("examdate") else "userdate"
        day = row.day("day" if merged_table else word)
        if day is not None:
            scores = {s: value for s in ("mmse", "moca") if merged_table and (value := row.number(s)) is not None}
            diagnosis = _merged_diagnosis(row) if merged_table else _summary_diagnosis(row)
            found.append(Visit(day, diagnosis, scores=scores))
        elif merged_table and not row.filled("day"):
            row.note("has visits without EXAMDATE", "download the table again")
    visits, contradicted = consistent(found)
    for day in contradicted:
        problem = "has visits of one day that contradict each other; the cells that differ were not read"
        rows[0].table.notes.add(problem, f"{ptid} {date.fromordinal(day)}", "keep the valid row")  # type: ignore[union-attr]
    return visits


def _merged_diagnosis(row: Row) -> Diagnosis | None:
    """The diagnosis by the column DX: of a change such as "NL to MCI", the state after it.

    None if the cell is empty or, with a note, if its state is unknown.
    """
    text = row.text("diagnosis")
    if text is None:
        return None
    state = text.lower().rpartition(" to ")[2].strip()
    if state not in MERGED:
        row.note(
            "has cells in the column DX that are not CN, NL, SMC, MCI or Dementia, and were not read", REPAIR, text
        )
    return MERGED.get(state)


def _summary_diagnosis(row: Row) -> Diagnosis | None:
    """The diagnosis of a row of DXSUM, from the first of COLUMNS that has a value other than NOT_DONE.

    None if there is no value or, with a note, if its code is unknown.
    """
    for column, codes in COLUMNS:
        text = row.text(column)
        if text is None or whole(text) in NOT_DONE:
            continue
        if column != "DXCHANGE" and text.lower() in MERGED:
            return MERGED[text.lower()]
        by_text = {str(code): diagnosis for code, diagnosis in codes.items()}
        if whole(text) not in by_text:
            known = ", ".join(sorted(by_text))
            row.note(f"has cells in the column {column} that are not {known}, and were not read", REPAIR, text)
        return by_text.get(whole(text))
    return None


def _age(person: Row, day: int) -> float | None:
    at_baseline = person.number("age")
    baseline = person.day("baseline" if person.filled("baseline") else "day") if at_baseline is not None else None
    return None if at_baseline is None or baseline is None else at_baseline + (day - baseline) / DAYS_PER_YEAR


def _participant_id(ptid: str) -> str:
    return f"sub-ADNI{ptid.replace('_', '')}"


def _session_id(day: int) -> str:
    return f"ses-{date.fromordinal(day):%Y%m%d}"
