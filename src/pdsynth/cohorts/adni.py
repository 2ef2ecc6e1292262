"""ADNI as downloaded from its archive: folders PTID/series/date, with diagnoses from the tables ADNIMERGE or DXSUM.

PTID is ADNI's participant identifier (027_S_0074). `bids` reads ADNI data that Clinica has converted to BIDS.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from datetime import date
from functools import partial
from pathlib import Path

from pdsynth.cohorts.cohort import Cohort, Rejection, Subject
from pdsynth.cohorts.layout import Layout
from pdsynth.cohorts.names import REMEDY, contradiction
from pdsynth.cohorts.tables import Row, find_table
from pdsynth.cohorts.visits import DAYS_PER_YEAR, Visit, sessions
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


def adni(root: str | Path) -> Cohort:
    """Read ADNI's archive layout, PTID/series/date/image, with ADNIMERGE.csv or DXSUM*.csv in the same folder.

    A scan belongs to the participant of its folder. A scan whose name contains another participant is rejected.
    Participants with a subjective memory complaint count as cognitively normal. Days are counted from year 1. A session
    is named by its date.

    Raises InputError if there is no scan, if there is neither table, if a table exists twice, and for an unknown code.
    """
    root = Path(root)
    rejected: list[Rejection] = []
    files = _files(root, rejected)
    if not files and not rejected:
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
    for ptid, by_modality in sorted(files.items()):
        person = baseline.get(ptid, Row(root, {}))
        found = sessions(by_modality, visits[ptid], _session_id, partial(_age, person), rejected)
        if found:
            sex = SEX.get((person.text("PTGENDER") or "").lower())
            site = f"ADNI-{ptid[:3]}"
            education = person.number("PTEDUCAT", 0, 40, frozenset({-4.0, -1.0}))
            subjects.append(Subject(_participant_id(ptid), found, sex, site, education))
    return Cohort(root, subjects, rejected)


def is_adni(root: Path) -> bool:
    """Whether root contains a folder whose name is a PTID."""
    return any(PTID.fullmatch(path.name) for path in root.iterdir() if path.is_dir())


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


def _files(root: Path, rejected: list[Rejection]) -> dict[str, dict[Modality, dict[int, list[Path]]]]:
    """Paths by participant, modality and day. Files whose names contradict their folders are appended to `rejected`."""
    found: dict[str, dict[Modality, dict[int, list[Path]]]] = {}
    for person in root.iterdir():
        if not (person.is_dir() and PTID.fullmatch(person.name)):
            continue
        for folder, _, names in os.walk(person):
            parts = Path(folder).relative_to(person).parts
            when = WHEN.fullmatch(parts[1]) if len(parts) > 1 else None
            modality = modality_of(parts[0]) if parts else None
            if when is None or modality is None:
                continue
            for path in (Path(folder, name) for name in names if name.endswith((".nii", ".nii.gz"))):
                day = date.fromisoformat(when[1]).toordinal()
                if problem := _conflict(path, person, day):
                    rejected.append(Rejection(path, problem, REMEDY))
                else:
                    found.setdefault(person.name, {}).setdefault(modality, {}).setdefault(day, []).append(path)
    return found


def _conflict(path: Path, person: Path, day: int) -> str | None:
    """The conflict of a file's name, or of a folder above it, with the participant's folder and the day; or None."""
    other = next((o for o in ANY_PTID.findall(str(path.relative_to(person))) if o.upper() != person.name), None)
    if other is not None:
        return f"is named for {other} but lies in the folder of {person.name}"
    return contradiction(path, _participant_id(person.name), _session_id(day))


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
    return None if at_baseline is None or baseline is None else at_baseline + (day - baseline) / DAYS_PER_YEAR


def _participant_id(ptid: str) -> str:
    return f"sub-ADNI{ptid.replace('_', '')}"


def _session_id(day: int) -> str:
    return f"ses-{date.fromordinal(day):%Y%m%d}"


def _ptid(row: Row) -> str:
    return row.text("PTID") or ""
