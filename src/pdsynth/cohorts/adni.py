"""ADNI as downloaded from its archive: folders PTID/series/date, with diagnoses from the tables ADNIMERGE or DXSUM.

PTID is ADNI's participant identifier (027_S_0074). `bids` reads ADNI data that Clinica has converted to BIDS.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from dataclasses import replace
from datetime import date
from functools import partial
from pathlib import Path

from pdsynth.cohorts.choice import ANY, Select
from pdsynth.cohorts.cohort import Cohort, Rejection, Subject
from pdsynth.cohorts.kinds import OTHER_SERIES, SERIES, Item, Kind, Verdict, classify
from pdsynth.cohorts.layout import Layout
from pdsynth.cohorts.ledger import Ledger
from pdsynth.cohorts.names import REMEDY, contradiction
from pdsynth.cohorts.tables import Row, find_table
from pdsynth.cohorts.visits import DAYS_A_YEAR, Visit, sessions
from pdsynth.cohorts.walk import walk
from pdsynth.types import Diagnosis, InputError, Modality

PTID = re.compile(r"\d{3}_S_\d{4,5}")
ANY_PTID = re.compile(rf"(?<!\d){PTID.pattern}(?!\d)", re.IGNORECASE)
WHEN = re.compile(r"(\d{4}-\d{2}-\d{2})_\d{2}_\d{2}_\d{2}(\.\d+)?")
DERIVED = {"mb", "adc", "fa", "tracew", "enhanced", "reg"}  # words that exclude a DTI series: computed maps, multiband
RESTING = ("fmri", "fcmri", "resting")
NOT_BOLD = {"asl", "pcasl", "perfusion", "mocoseries"}
MERGED = {"cn": Diagnosis.NC, "smc": Diagnosis.NC, "mci": Diagnosis.MCI, "dementia": Diagnosis.AD, "ad": Diagnosis.AD}
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
FIRST_YEAR = 1900
NOT_DONE = {"-4", "-1"}
SEX = {"female": "F", "male": "M", "2": "F", "1": "M"}


def adni(root: str | Path, select: Select = ANY) -> Cohort:
    """Read ADNI's archive layout, PTID/series/date/image, with ADNIMERGE.csv or DXSUM*.csv in the same folder.

    A scan belongs to the participant of its folder. A scan whose name contains another participant is rejected.
    Participants with a subjective memory complaint count as cognitively normal. Days are counted from year 1. A session
    is named by its date.

    Raises InputError if there is no scan, if there is neither table, if a table exists twice, and for an unknown code.
    """
    root = Path(root)
    ledger = Ledger(select)
    files = {person.name: _verdicts(person) for person in sorted(root.iterdir()) if _is_person(person)}
    if not any(verdict.kind in (Kind.CANDIDATE, Kind.REFUSED) for each in files.values() for verdict in each):
        raise InputError(root, "contains no scan PTID/series/date/image", "give the folder of the ADNI participants")
    merged = find_table(root, "ADNIMERGE", ("PTID", "EXAMDATE", "DX"))
    summary = find_table(root, "DXSUM", ("PTID",)) or find_table(root, "DXSUM_PDXCONV_ADNIALL", ("PTID",))
    if merged is None and summary is None:
        raise InputError(root, "has neither ADNIMERGE.csv nor DXSUM*.csv", "put one of them into this folder")
    visits: dict[str, list[Visit]] = defaultdict(list)
    baseline: dict[str, Row] = {}
    for row in merged or ():
        visits[_ptid(row)].append(_merged_visit(row))
        if (row.text("VISCODE") or "").lower() == "bl" or _ptid(row) not in baseline:
            baseline[_ptid(row)] = row
    for row in summary or () if merged is None else ():
        if (day := _day(row, "EXAMDATE", "USERDATE")) is not None:
            visits[_ptid(row)].append(Visit(day, _summary_diagnosis(row)))
    subjects = []
    for ptid, verdicts in files.items():
        person = baseline.get(ptid, Row(root, {}))
        conflict = partial(_conflict, root / ptid)
        found = sessions(verdicts, visits[ptid], _session_id, partial(_age, person), ledger, conflict)
        if found:
            sex = SEX.get((person.text("PTGENDER") or "").lower())
            site = f"ADNI-{ptid[:3]}"
            education = person.number("PTEDUCAT", 0, 40, frozenset({-4.0, -1.0}))
            subjects.append(Subject(_participant_id(ptid), found, sex, site, education))
    return ledger.cohort(root, subjects)


def is_adni(root: Path) -> bool:
    """Whether root contains a folder whose name is a PTID."""
    return any(map(_is_person, root.iterdir()))


def _is_person(path: Path) -> bool:
    return PTID.fullmatch(path.name) is not None and os.path.isdir(path)


LAYOUT = Layout("adni", "folders with participant names of ADNI (027_S_0074)", is_adni, adni)


def modality_of(series: str) -> Modality | None:
    """Modality of an ADNI series by its description; None if it is neither a plain DWI nor a resting-state fMRI.

    >>> modality_of("Axial_DTI"), modality_of("Axial_rsfMRI__Eyes_Open_"), modality_of("Axial_DTI_ADC")
    (<Modality.DMRI: 'dmri'>, <Modality.FMRI: 'fmri'>, None)
    """
    name = series.lower()
    words = set(re.split(r"[^a-z0-9]+", name))
    if "dti" in name and not words & DERIVED:
        return Modality.DMRI
    if any(word in name for word in RESTING) and not words & NOT_BOLD:
        return Modality.FMRI
    return None


def _verdicts(person: Path) -> list[Verdict]:
    """The verdicts on the files of a participant; the session of a verdict is the day of the scan, or None."""
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
    """The verdict on a file of a multi-band DTI, which is not read: its image is a stand-in for the plain DTI."""
    if verdict.rule != OTHER_SERIES:
        return verdict
    reason, remedy = "is a multi-band DTI, which is not read", "leave it out, or read it with the layout `folder`"
    return replace(
        verdict, kind=Kind.STAND_IN, rule="multi-band DTI", modality=Modality.DMRI, reason=reason, remedy=remedy
    )


def _conflict(person: Path, verdict: Verdict) -> Rejection | None:
    """The refusal of a scan whose name, or a folder above it, contradicts the participant's folder or the day."""
    below = str(verdict.path.relative_to(person))
    other = next((o for o in ANY_PTID.findall(below) if o.upper() != person.name), None)
    if other is not None:
        problem: str | None = f"is named for {other} but lies in the folder of {person.name}"
    elif not isinstance(verdict.session, int):
        return Rejection(verdict.path, "lies in a folder without a valid date", REMEDY)
    else:
        problem = contradiction(verdict.path, _participant_id(person.name), _session_id(verdict.session))
    return None if problem is None else Rejection(verdict.path, problem, REMEDY)


def _merged_visit(row: Row) -> Visit:
    text = row.text("DX")
    if text is not None and text.lower() not in MERGED:
        problem = f"gives {_ptid(row)} the diagnosis {text!r}, which is not one of CN, SMC, MCI, Dementia"
        raise InputError(row.path, problem, "correct the cell, or leave it empty")
    day = _day(row, "EXAMDATE")
    if day is None:
        raise InputError(row.path, f"has no EXAMDATE for a visit of {_ptid(row)}", "download the table again")
    numbers = {score: row.number(score.upper(), 0, 30, frozenset({-4.0, -1.0})) for score in ("mmse", "moca")}
    scores = {score: value for score, value in numbers.items() if value is not None}
    return Visit(day, None if text is None else MERGED[text.lower()], scores=scores)


def _summary_diagnosis(row: Row) -> Diagnosis | None:
    """The diagnosis from the first column that has a value; None if all are empty."""
    for column, codes in COLUMNS:
        text = row.text(column)
        if text is None or text in NOT_DONE:
            continue
        try:
            return codes[int(float(text))]
        except (ValueError, KeyError):
            problem = f"gives {_ptid(row)} the code {text!r} in {column}"
            raise InputError(row.path, problem, f"write one of {', '.join(map(str, sorted(codes)))}") from None
    return None


def _day(row: Row, *columns: str) -> int | None:
    """Ordinal of the first date in the columns, written 2011-02-03 or 2/3/2011 (month/day/year); None without one."""
    for column in columns:
        text = row.text(column)
        if text is None:
            continue
        try:
            if "/" in text:
                month, day, year = (int(part) for part in text.split("/"))
                found = date(year, month, day)
            else:
                found = date.fromisoformat(text[:10])
            if found.year < FIRST_YEAR:  # 2/3/11 would be read as a day of the year 11
                raise ValueError
            return found.toordinal()
        except ValueError:
            raise InputError(row.path, f"has the date {text!r} in {column}", "write it as 2011-02-03") from None
    return None


def _age(person: Row, day: int) -> float | None:
    at_baseline = person.number("AGE", 0, 120)
    baseline = _day(person, "EXAMDATE_bl", "EXAMDATE")
    return None if at_baseline is None or baseline is None else at_baseline + (day - baseline) / DAYS_A_YEAR


def _participant_id(ptid: str) -> str:
    return f"sub-ADNI{ptid.replace('_', '')}"


def _session_id(day: int) -> str:
    return f"ses-{date.fromordinal(day):%Y%m%d}"


def _ptid(row: Row) -> str:
    return row.text("PTID") or ""
