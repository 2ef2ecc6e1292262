"""ADNI's archive layout and tables."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path

import pytest

from fixture_trees import write_dwi, write_scan, write_table
from pdsynth.cohorts import adni, detect, read
from pdsynth.cohorts.adni import modality_of
from pdsynth.types import Diagnosis, InputError, Modality

FMRI, DMRI = Modality.FMRI, Modality.DMRI
MERGED = "PTID VISCODE EXAMDATE EXAMDATE_bl DX AGE PTGENDER PTEDUCAT MMSE MOCA"


def scan(root: Path, ptid: str, series: str, day: str, image: str = "I100", volumes: int = 4) -> Path:
    folder = root / ptid / series / f"{day}_10_20_30.0" / image
    name = f"ADNI_{ptid}_{series}_{image}.nii.gz"
    return write_dwi(folder / name) if "DTI" in series else write_scan(folder / name, volumes)


def merged(root: Path, rows: str, name: str = "ADNIMERGE_02Mar2024.csv") -> None:
    write_table(root / name, f"{MERGED}\n{rows}")


def found(cohort) -> list[tuple]:
    return [
        (p.participant_id, v.session_id, sorted(v.scans), v.diagnosis, v.dx_gap_days, v.scan_gap_days)
        for p, v in cohort
    ]


def test_scans_and_diagnoses_are_read_to_exactly_the_table(tmp_path):
    merged(
        tmp_path,
        """027_S_0074 bl 2011-01-10 2011-01-10 CN 70.0 Female 16 29 26
        027_S_0074 m06 2011-07-09 2011-01-10 MCI 70.0 Female 16 27 .
        027_S_0074 m12 2012-01-20 2011-01-10 . 70.0 Female 16 26 .
        002_S_1000 bl 2013-05-01 2013-05-01 Dementia 80.5 Male 12 21 -4
        003_S_2000 bl 2005-05-01 2005-05-01 SMC 60.0 Male 20 30 30""",
    )
    scan(tmp_path, "027_S_0074", "Resting_State_fMRI", "2011-04-10")  # 90 days from both visits: the earlier one
    scan(tmp_path, "027_S_0074", "Axial_DTI", "2011-04-10", "I101")
    scan(tmp_path, "027_S_0074", "Axial_DTI_ADC", "2011-04-10", "I102")
    scan(tmp_path, "027_S_0074", "Axial_MB_DTI", "2011-04-10", "I103")
    scan(tmp_path, "027_S_0074", "Sagittal_MPRAGE", "2011-04-10", "I104")
    scan(tmp_path, "027_S_0074", "Axial_rsfMRI__Eyes_Open_", "2012-02-01", "I105")
    scan(tmp_path, "002_S_1000", "Extended_Resting_State_fMRI", "2013-04-20", "I106")
    scan(tmp_path, "002_S_1000", "Axial_DTI", "2013-06-20", "I107")
    scan(tmp_path, "003_S_2000", "Axial_DTI", "2013-06-20", "I108")
    (tmp_path / "readme").mkdir()
    assert detect(tmp_path)[0] == "adni"
    cohort = read(tmp_path)
    assert found(cohort) == [
        ("sub-ADNI002S1000", "ses-20130420", [DMRI, FMRI], Diagnosis.AD, 11, 61),
        ("sub-ADNI003S2000", "ses-20130620", [DMRI], None, None, 0),  # its visit is years away
        ("sub-ADNI027S0074", "ses-20110410", [DMRI, FMRI], Diagnosis.NC, -90, 0),
        ("sub-ADNI027S0074", "ses-20120201", [FMRI], Diagnosis.MCI, -207, 0),  # the nearer visit decides nothing
    ]
    first = cohort.subjects[2]
    assert (first.sex, first.education, first.site) == ("F", 16, "ADNI-027")
    age = 70 + (date(2011, 4, 10) - date(2011, 1, 10)).days / 365.25
    assert first.sessions[0].age == pytest.approx(age)
    assert first.sessions[0].scores == {"mmse": 29, "moca": 26}
    assert first.sessions[1].scores == {"mmse": 26}
    assert cohort.subjects[0].sessions[0].scores == {"mmse": 21}
    assert cohort.rejected == []


@pytest.mark.parametrize(
    ("columns", "code", "expected"),
    [
        ("DIAGNOSIS", "2", Diagnosis.MCI),
        ("DXCURREN", "3", Diagnosis.AD),
        ("DXCHANGE", "7", Diagnosis.NC),
        ("DXCHANGE", "8", Diagnosis.MCI),
        ("DXCHANGE", "5.0", Diagnosis.AD),
        ("DXCURREN", "-4", None),
    ],
)
def test_the_summary_of_diagnoses_stands_in_for_the_merged_table(tmp_path, columns, code, expected):
    scan(tmp_path, "027_S_0074", "Axial_DTI", "2011-04-10")
    write_table(
        tmp_path / "DXSUM_PDXCONV_ADNIALL_1Jan2020.csv",
        f"PTID VISCODE2 EXAMDATE USERDATE {columns}\n027_S_0074 bl . 4/1/2011 {code}\n027_S_0074 m06 . . 1",
    )
    assert adni(tmp_path).subjects[0].sessions[0].diagnosis == expected


def test_of_two_images_of_one_series_the_longer_is_taken(tmp_path):
    merged(tmp_path, "027_S_0074 bl 2011-01-10 2011-01-10 CN 70.0 Female 16 29 26")
    scan(tmp_path, "027_S_0074", "Resting_State_fMRI", "2011-04-10", "I1", volumes=5)
    long = scan(tmp_path, "027_S_0074", "Resting_State_fMRI", "2011-04-10", "I2", volumes=9)
    assert adni(tmp_path).subjects[0].sessions[0].scans[FMRI].path == long


def test_what_is_no_plain_series_is_left():
    assert modality_of("Axial_fcMRI") is modality_of("Resting_State_fMRI") is FMRI
    assert modality_of("Axial_DTI") is modality_of("AxialDTI_gated") is DMRI
    for series in (
        "Axial_DTI_FA",
        "Enhanced_Axial_DTI",
        "DTI_TRACEW",
        "Reg_-_DTI",
        "MoCoSeries_fMRI",
        "Perfusion_fMRI",
        "MPRAGE",
    ):
        assert modality_of(series) is None


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("027_S_0074 m06 2011-04-01 . AZ 70 Female 16 29 26", "column DX that are not CN.*: 'AZ' \\(line 3\\)"),
        ("027_S_0074 m06 . . AD 70 Female 16 29 26", "visits without EXAMDATE: \\(line 3\\)"),
        ("027_S_0074 m06 2011-13-10 . AD 70 Female 16 29 26", "column EXAMDATE, .*: '2011-13-10' \\(line 3\\)"),
        ("027_S_0074 m06 2/3/11 . AD 70 Female 16 29 26", "column EXAMDATE, .*: '2/3/11' \\(line 3\\)"),
        ("027_S_0074 m06 2911-02-03 . AD 70 Female 16 29 26", "column EXAMDATE, .*: '2911-02-03' \\(line 3\\)"),
        ("027_S_0074 m06 2011-04-01 . CN 70 Female 16 31 26", "column MMSE, .*: '31' \\(line 3\\)"),
    ],
)
def test_a_cell_that_cannot_be_read_is_named_and_costs_no_other(tmp_path, row, problem):
    merged(tmp_path, f"027_S_0074 bl 2011-01-10 . CN 70 Female 16 28 25\n{row}")
    scan(tmp_path, "027_S_0074", "Axial_DTI", "2011-04-10")
    cohort = adni(tmp_path)
    (rejection,) = cohort.rejected
    assert re.search(problem, rejection.reason) and rejection.path.name == "ADNIMERGE_02Mar2024.csv"
    session = cohort.subjects[0].sessions[0]
    assert session.diagnosis == Diagnosis.NC
    assert session.scores["mmse"] == (28 if "MMSE" in problem or "EXAMDATE" in problem else 29)


def test_no_table_or_two_are_errors(tmp_path):
    scan(tmp_path, "027_S_0074", "Axial_DTI", "2011-04-10")
    with pytest.raises(InputError, match="neither ADNIMERGE"):
        adni(tmp_path)
    for name in ("ADNIMERGE.csv", "ADNIMERGE_02Mar2024.csv"):
        merged(tmp_path, "027_S_0074 bl 2011-01-10 . CN 70 Female 16 29 26", name)
    with pytest.raises(InputError, match=r"ADNIMERGE\.csv and ADNIMERGE_02Mar2024\.csv"):
        adni(tmp_path)


def test_a_folder_that_fits_two_layouts_or_none_is_an_error(tmp_path):
    with pytest.raises(InputError, match=r"contains none of these: folders .*\(adni\); sub-\* folders \(bids\);"):
        detect(tmp_path)
    scan(tmp_path, "027_S_0074", "Axial_DTI", "2011-04-10")
    (tmp_path / "sub-01").mkdir()
    with pytest.raises(InputError, match="--layout adni or --layout bids"):
        detect(tmp_path)
    with pytest.raises(ValueError, match="no layout 'bidss'"):
        read(tmp_path, "bidss")
