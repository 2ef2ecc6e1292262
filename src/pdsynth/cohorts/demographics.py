"""The paper's Table I for a cohort: demographics and acquisition parameters by group."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from pdsynth.cohorts.cohort import Cohort, Scan, Session, Subject
from pdsynth.cohorts.inheritance import sidecar
from pdsynth.imaging.nifti import read_header
from pdsynth.imaging.plausible import extent_mm
from pdsynth.types import NA, Diagnosis, Modality

UNKNOWN = "no diagnosis"
MILLI = 1000
PEOPLE = {"weight": "weight, kg", "age": "age, years", "mmse": "MMSE", "moca": "MoCA", "education": "education, years"}
ACQUISITION = ("TR, s", "TE, ms", "field of view, mm", "slices", "flip angle, degrees", "slice thickness, mm")


def table1(cohort: Cohort) -> pd.DataFrame:
    """The paper's Table I for a cohort: demographics and acquisition parameters by diagnostic group, as texts.

    There is one row per measure and one column per group: NC, MCI, AD and "no diagnosis", without groups that have no
    participant, whose scans are then not counted. The measures are weight (kg), age and education (years), MMSE, MoCA,
    and per modality the parameters of `acquisition`, such as the repetition time. Each is mean ± SD, with the number of
    missing values if there are any, or "n/a" if all are missing. Other rows are numbers of participants, of women and
    men, and of scans. The SD is the sample SD over participants, and over scans for an acquisition parameter; it is 0.0
    for one value. A participant counts once, in the group of the first session, with the first known value; age is that
    of the first session. A scan counts in the group of its session. Acquisition parameters are read from headers and
    JSON sidecars. Raises InputError if a header cannot be read.
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
        "F / M": f"{sexes.count('F')} / {sexes.count('M')}{_missing(sexes.count(None))}",
    }
    for key, label in PEOPLE.items():
        column[label] = _mean_and_sd([_value(subject, key) for subject in people])
    for modality in Modality:
        group_scans = scans.get(modality, [])
        column[f"{modality} scans"] = str(len(group_scans))
        parameters = [acquisition(scan) for scan in group_scans]
        for name in ACQUISITION:
            column[f"{modality} {name}"] = _mean_and_sd([each.get(name) for each in parameters])
    return column


def acquisition(scan: Scan) -> dict[str, float]:
    """Acquisition parameters of one scan, from its header and JSON sidecar; unknown ones are absent.

    The names are "TR, s", "TE, ms", "field of view, mm", "slices", "flip angle, degrees" and "slice thickness, mm". The
    repetition time (TR) of the sidecar takes precedence over that of the header, which is read for fMRI only. The field
    of view is the larger of those from left to right and from back to front; slices is the number of voxels along the
    third axis. Raises InputError if the header cannot be read.
    """
    header, entries = read_header(scan.path), sidecar(scan)
    parameters: dict[str, float] = {"field of view, mm": max(extent_mm(header)[:2])}
    if scan.modality is Modality.FMRI and len(header.zooms) > 3 and header.zooms[3] > 0:
        parameters["TR, s"] = header.zooms[3]
    parameters["slices"] = float(header.shape[2])
    for name, key, unit in (
        ("TR, s", "RepetitionTime", 1),
        ("TE, ms", "EchoTime", MILLI),
        ("flip angle, degrees", "FlipAngle", 1),
        ("slice thickness, mm", "SliceThickness", 1),
    ):
        if isinstance(entries.get(key), int | float):
            parameters[name] = float(entries[key]) * unit
    return parameters


def _value(subject: Subject, key: str) -> float | None:
    if key == "education":
        return subject.education
    if key == "age":
        return subject.sessions[0].age
    return next((session.scores[key] for session in subject.sessions if key in session.scores), None)


def _group(session: Session) -> str:
    return UNKNOWN if session.diagnosis is None else session.diagnosis


def _mean_and_sd(values: Sequence[float | None]) -> str:
    """Mean and sample SD of the known values, and the number of missing ones; one value has no SD.

    >>> _mean_and_sd([60.0, 70.0, None])
    '65.0 ± 7.1 (1 missing)'
    """
    known = [value for value in values if value is not None]
    if not known:
        return NA
    spread = f" ± {np.std(known, ddof=1):.1f}" if len(known) > 1 else ""
    return f"{np.mean(known):.1f}{spread}{_missing(len(values) - len(known))}"


def _missing(number: int) -> str:
    return f" ({number} missing)" if number else ""
