"""The paper's Table I for a cohort: who its participants are and how they were scanned, by group."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from pdsynth.cohorts.cohort import Cohort, Scan, Session, Subject
from pdsynth.cohorts.scans import extent_mm, sidecar
from pdsynth.imaging.nifti import read_header
from pdsynth.types import Diagnosis, Modality

UNKNOWN = "no diagnosis"
MILLI = 1000
PEOPLE = {"weight": "weight, kg", "age": "age, years", "mmse": "MMSE", "moca": "MoCA", "education": "education, years"}
ACQUISITION = ("TR, s", "TE, ms", "field of view, mm", "slices", "flip angle, degrees", "slice thickness, mm")


def table1(cohort: Cohort) -> pd.DataFrame:
    """Rows by measure, columns by group (NC, MCI, AD, no diagnosis, those there are): mean ± SD, and how many lack it.

    A participant counts once, in the group of the first session, with the first value that is known there or later; a
    scan counts in the group of its session. Acquisition is read from headers and JSON sidecars.
    """
    people: dict[str, list[Subject]] = {}
    scans: dict[str, dict[Modality, list[Scan]]] = {}
    for subject in cohort.subjects:
        if subject.sessions:
            people.setdefault(_group(subject.sessions[0]), []).append(subject)
    for _, session in cohort:
        for modality, scan in session.scans.items():
            scans.setdefault(_group(session), {}).setdefault(modality, []).append(scan)
    columns = {group: _column(people.get(group, []), scans.get(group, {})) for group in (*Diagnosis, UNKNOWN)}
    return pd.DataFrame({str(group): column for group, column in columns.items() if column["participants"] != "0"})


def _column(people: Sequence[Subject], scans: dict[Modality, list[Scan]]) -> dict[str, str]:
    sexes = [subject.sex for subject in people]
    column = {
        "participants": str(len(people)),
        "F / M": f"{sexes.count('F')} / {sexes.count('M')}{_lacking(sexes.count(None))}",
    }
    for key, label in PEOPLE.items():
        column[label] = _described([_of(subject, key) for subject in people])
    for modality in Modality:
        here = scans.get(modality, [])
        column[f"{modality} scans"] = str(len(here))
        measured = [acquisition(scan) for scan in here]
        for name in ACQUISITION:
            column[f"{modality} {name}"] = _described([each.get(name) for each in measured])
    return column


def acquisition(scan: Scan) -> dict[str, float]:
    """What header and sidecar say of one scan, by the names in ACQUISITION; what neither says is absent."""
    header, said = read_header(scan.path), sidecar(scan)
    found: dict[str, float] = {"field of view, mm": max(extent_mm(header)[:2])}
    if scan.modality is Modality.FMRI and len(header.zooms) > 3 and header.zooms[3] > 0:
        found["TR, s"] = header.zooms[3]
    found["slices"] = float(header.shape[2])
    for name, key, unit in (
        ("TR, s", "RepetitionTime", 1),
        ("TE, ms", "EchoTime", MILLI),
        ("flip angle, degrees", "FlipAngle", 1),
        ("slice thickness, mm", "SliceThickness", 1),
    ):
        if isinstance(said.get(key), int | float):
            found[name] = float(said[key]) * unit
    return found


def _of(subject: Subject, key: str) -> float | None:
    if key == "education":
        return subject.education
    if key == "age":
        return subject.sessions[0].age
    return next((session.scores[key] for session in subject.sessions if key in session.scores), None)


def _group(session: Session) -> str:
    return UNKNOWN if session.diagnosis is None else session.diagnosis


def _described(values: Sequence[float | None]) -> str:
    """Mean and SD (of the sample) of the values that are there.

    >>> _described([60.0, 70.0, None])
    '65.0 ± 7.1 (1 missing)'
    """
    known = [value for value in values if value is not None]
    if not known:
        return "n/a"
    spread = np.std(known, ddof=1) if len(known) > 1 else 0.0
    return f"{np.mean(known):.1f} ± {spread:.1f}{_lacking(len(values) - len(known))}"


def _lacking(number: int) -> str:
    return f" ({number} missing)" if number else ""
