"""A hospital's own folders, read by the patterns in pdsynth.yaml."""

from __future__ import annotations

from pathlib import Path

import pytest

from fixture_trees import write_dwi, write_scan, write_table
from pdsynth.cohorts import detect, read
from pdsynth.types import Diagnosis, InputError, Modality

FMRI, DMRI = Modality.FMRI, Modality.DMRI
SETTINGS = """
fmri: "scans/{participant}/{session}/*rest*.nii.gz"
dmri: "scans/{participant}/{session}/*dti*.nii.gz"
table: patients.csv
columns: {participant: Patient No, session: visit, diagnosis: dx, age: years, sex: sex, mmse: mmse}
diagnoses: {1: NC, 2: MCI, 3: AD}
site: city hospital
"""


def settings(root: Path, text: str = SETTINGS) -> None:
    (root / "pdsynth.yaml").write_text(text)


@pytest.fixture
def hospital(tmp_path: Path) -> Path:
    """P-01 twice, the second time with dMRI alone; P-02 with two runs of fMRI."""
    settings(tmp_path)
    write_scan(tmp_path / "scans/P-01/v1/01_rest_run.nii.gz")
    write_dwi(tmp_path / "scans/P-01/v1/02_dti_32.nii.gz")
    write_dwi(tmp_path / "scans/P-01/v2/dti.nii.gz")
    write_scan(tmp_path / "scans/P-02/v1/a_rest.nii.gz", volumes=3)
    write_scan(tmp_path / "scans/P-02/v1/b_rest.nii.gz", volumes=8)
    write_scan(tmp_path / "scans/P-02/v1/t1.nii.gz")
    write_table(
        tmp_path / "patients.csv",
        """Patient+No visit dx years sex mmse
        P-01 v1 1 70.5 f 29
        P-01 v2 2 72 f .
        P-02 v1 dementia 81 m 20""",
    )
    return tmp_path


def test_scans_and_table_are_read_to_exactly_the_table(hospital):
    assert detect(hospital) == ("folder", "pdsynth.yaml says how to read it")
    cohort = read(hospital)
    assert [
        (p.participant_id, p.sex, p.site, v.session_id, sorted(v.scans), v.diagnosis, v.age, dict(v.scores))
        for p, v in cohort
    ] == [
        ("sub-P01", "F", "city hospital", "ses-v1", [DMRI, FMRI], Diagnosis.NC, 70.5, {"mmse": 29}),
        ("sub-P01", "F", "city hospital", "ses-v2", [DMRI], Diagnosis.MCI, 72, {}),
        ("sub-P02", "M", "city hospital", "ses-v1", [FMRI], Diagnosis.AD, 81, {"mmse": 20}),
    ]
    assert cohort.subjects[1].sessions[0].scans[FMRI].path.name == "b_rest.nii.gz"  # the longer run
    assert cohort.subjects[0].sessions[0].scans[DMRI].bvec.name == "02_dti_32.bvec"


def test_without_sessions_or_a_table_the_scans_are_there_all_the_same(tmp_path):
    settings(tmp_path, 'fmri: "{participant}/{participant}_rest.nii"\n')
    write_scan(tmp_path / "A1/A1_rest.nii")
    write_scan(tmp_path / "A1/B2_rest.nii")  # another's name in this folder
    (person,) = read(tmp_path).subjects
    assert (person.participant_id, person.site, person.sessions[0].session_id) == ("sub-A1", None, "")
    assert person.sessions[0].diagnosis is None and person.sessions[0].missing == [DMRI]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("fmri: [", "cannot be read"),
        ("table: x.csv", "names no pattern"),
        ('fmri: "{participant}.nii"\nfmrii: x', "has an entry 'fmrii'"),
        ('fmri: "scans/*.nii.gz"', r"has no \{participant\}"),
        ('fmri: "{participant}.nii"', "patterns that no file fits"),
        (SETTINGS.replace("session: visit", "visit: visit"), "a column for 'visit'"),
        (SETTINGS.replace("2: MCI", "2: MCX"), "maps the code 2 to 'MCX'"),
        (SETTINGS.replace("participant: Patient No, ", ""), "not its column of participants"),
        (SETTINGS.replace("years", "alter"), "has no column alter"),
        (SETTINGS.replace("{1: NC, 2: MCI, 3: AD}", "{1: NC}"), "gives P-01 the diagnosis '2'"),
        (SETTINGS.replace("session: visit, ", ""), "lists P-01 twice"),
    ],
)
def test_settings_that_are_not_understood_are_named(hospital, text, problem):
    settings(hospital, text)
    with pytest.raises(InputError, match=problem):
        read(hospital)


def test_two_participants_of_one_name_are_an_error(hospital):
    write_scan(hospital / "scans/P01/v1/rest.nii.gz")
    with pytest.raises(InputError, match="P-01 and P01, both sub-P01"):
        read(hospital)
