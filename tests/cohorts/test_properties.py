"""Whatever the dates, ties, codes, order of rows and spelling of headers: the nearest visit that decides, decides."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixture_trees import write_dwi
from pdsynth.cohorts import adni, oasis3
from pdsynth.types import Diagnosis, InputError

ENTRY = date(2010, 6, 15)
D1 = {  # a row of the form: what is ticked, the group, and whether the participant is in none
    "normal": ({"NORMCOG": "1"}, Diagnosis.NC, False),
    "amnestic": ({"NORMCOG": "0", "MCIAMEM": "1"}, Diagnosis.MCI, False),
    "other mci": ({"NORMCOG": "0", "DEMENTED": "0", "MCINON2": "1"}, Diagnosis.MCI, False),
    "alzheimer": ({"DEMENTED": "1", "PROBAD": "1", "MCIAMEM": "8"}, Diagnosis.AD, False),
    "alzheimer, version 3": ({"DEMENTED": "1", "ALZDIS": "1", "ALZDISIF": "1"}, Diagnosis.AD, False),
    "contributing": ({"DEMENTED": "1", "ALZDIS": "1", "ALZDISIF": "2"}, None, True),
    "lewy": ({"DEMENTED": "1", "PROBAD": "0"}, None, True),
    "impaired": ({"NORMCOG": "0", "IMPNOMCI": "1"}, None, True),
    "not filled in": ({"NORMCOG": "9"}, None, False),
}
DX = {"CN": Diagnosis.NC, "SMC": Diagnosis.NC, "MCI": Diagnosis.MCI, "Dementia": Diagnosis.AD, "": None}
DAYS = st.integers(-400, 3000)


def visits(codes: dict) -> st.SearchStrategy:
    return st.dictionaries(DAYS, st.sampled_from(sorted(codes)), min_size=1, max_size=8)


def cased(names: list[str], style: str) -> list[str]:
    return [{"upper": str.upper, "lower": str.lower, "as is": str}[style](name) for name in names]


@contextmanager
def folder() -> Iterator[Path]:
    with TemporaryDirectory() as name:
        yield Path(name)


def expected(days: dict, scan: int, codes: dict) -> tuple | None:
    """Day and meaning of the decided visit within a year that is nearest, of two the earlier; None without one."""
    near = [(abs(day - scan), day, codes[code]) for day, code in days.items() if abs(day - scan) <= 365]
    decided = [entry for entry in sorted(near, key=lambda e: e[:2]) if entry[2][1] is not None or entry[2][2]]
    return (decided[0][1], decided[0][2]) if decided else None


@settings(max_examples=40)
@given(
    visits(D1),
    st.integers(0, 2600),
    st.sampled_from(["upper", "lower", "as is"]),
    st.randoms(use_true_random=False),
    st.booleans(),
)
def test_oasis_forms(days, scan, style, random, dated):
    rows = [{"OASISID": "OAS30001", "days_to_visit": str(day)} | D1[code][0] for day, code in days.items()]
    random.shuffle(rows)
    table = pd.DataFrame(rows).fillna("")  # a column that no row needs is not there at all
    order = list(table.columns)
    random.shuffle(order)
    table = table[order]
    table.columns = cased(order, style)
    with folder() as root:
        write_dwi(root / f"OAS30001_MR_d{scan:04d}" / "dwi1" / f"sub-OAS30001_ses-d{scan:04d}_dwi.nii.gz")
        table.to_csv(root / f"OASIS3_UDSd1_diagnoses{'_3Feb2024' if dated else ''}.csv", index=False)
        cohort = oasis3(root)
        found = [session for _, session in cohort]
    said = expected(days, scan, D1)
    if said is not None and said[1][2]:
        assert found == [] and len(cohort.rejected) == 1
    else:
        assert [s.diagnosis for s in found] == [None if said is None else said[1][1]]
        assert [s.dx_gap_days for s in found] == [None if said is None else said[0] - scan]


@settings(max_examples=40)
@given(
    visits(DX),
    st.integers(0, 2600),
    st.sampled_from(["upper", "lower", "as is"]),
    st.randoms(use_true_random=False),
    st.sets(st.sampled_from(["AGE", "PTGENDER", "PTEDUCAT", "MMSE", "MOCA", "VISCODE"])),
)
def test_adni_visits(days, scan, style, random, absent):
    rows = []
    for number, (day, dx) in enumerate(sorted(days.items())):
        when = ENTRY + timedelta(days=day)
        rows.append(
            {
                "PTID": "027_S_0074",
                "VISCODE": "bl" if number == 0 else f"m{number}",
                "EXAMDATE": when.isoformat() if random.random() < 0.5 else f"{when.month}/{when.day}/{when.year}",
                "DX": random.choice([dx, dx.lower(), dx.upper()]),
                "AGE": "70",
                "PTGENDER": "Female",
                "PTEDUCAT": random.choice(["16", "-4", ""]),
                "MMSE": random.choice(["29", "-1", ""]),
                "MOCA": "",
            }
        )
    random.shuffle(rows)
    table = pd.DataFrame(rows).drop(columns=list(absent))
    table.columns = cased(list(table.columns), style)
    when = ENTRY + timedelta(days=scan)
    with folder() as root:
        series = root / "027_S_0074" / "Axial_DTI" / f"{when}_10_20_30.0" / "I1"
        write_dwi(series / "ADNI_027_S_0074_Axial_DTI.nii.gz")
        table.to_csv(root / "ADNIMERGE.csv", index=False)
        ((person, session),) = list(adni(root))
    said = expected(days, scan, {code: (None, meaning, False) for code, meaning in DX.items()})
    assert session.diagnosis == (None if said is None else said[1][1])
    assert session.dx_gap_days == (None if said is None else said[0] - scan)
    assert person.sex == (None if "PTGENDER" in absent else "F")
    assert (session.age is None) == ("AGE" in absent)
    if "VISCODE" not in absent and session.age is not None:
        assert session.age == pytest.approx(70 + (scan - min(days)) / 365.25)


@pytest.mark.parametrize(
    ("read", "table", "column"),
    [
        (oasis3, "OASIS3_UDSd1_diagnoses", "OASISID"),
        (oasis3, "OASIS3_UDSd1_diagnoses", "days_to_visit"),
        (oasis3, "OASIS3_UDSb4_cdr", "days_to_visit"),
        (adni, "ADNIMERGE", "PTID"),
        (adni, "ADNIMERGE", "EXAMDATE"),
        (adni, "ADNIMERGE", "DX"),
    ],
)
def test_a_column_that_is_needed_is_named(read, table, column, tmp_path):
    columns = {"OASISID": "OAS30001", "days_to_visit": "1", "NORMCOG": "1"}
    if read is adni:
        columns = {"PTID": "027_S_0074", "EXAMDATE": "2011-01-01", "DX": "CN"}
        write_dwi(tmp_path / "027_S_0074" / "Axial_DTI" / "2011-01-01_10_20_30.0" / "I1" / "a.nii.gz")
    else:
        write_dwi(tmp_path / "sub-OAS30001_ses-d0001_dwi.nii.gz")
        pd.DataFrame([columns]).to_csv(tmp_path / "OASIS3_UDSd1_diagnoses.csv", index=False)
    pd.DataFrame([columns]).drop(columns=column).to_csv(tmp_path / f"{table}.csv", index=False)
    with pytest.raises(InputError, match=rf"{table}\.csv: has no column {column}"):
        read(tmp_path)
