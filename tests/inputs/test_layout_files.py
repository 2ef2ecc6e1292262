"""The verdict on every file in the layouts of ADNI, OASIS-3 and pdsynth.yaml."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixture_trees import write_dwi, write_scan, write_table
from pdsynth.cohorts import adni, folder, oasis3
from pdsynth.types import Modality
from verdicts import assert_refused, put, refusals, rules

FMRI, DMRI = Modality.FMRI, Modality.DMRI
DAY = "2011-04-10_10_20_30.0"


def adni_root(root: Path) -> Path:
    """The folder of an ADNI participant with one DTI."""
    write_table(root / "ADNIMERGE.csv", "PTID EXAMDATE DX\n027_S_0071 2011-01-10 CN")
    write_dwi(root / "027_S_0071/Axial_DTI" / DAY / "I1/a.nii.gz")
    return root / "027_S_0071"


def oasis_root(root: Path) -> Path:
    """The folder of an OASIS-3 session with one dMRI."""
    write_table(root / "OASIS3_UDSd1_diagnoses.csv", "OASISID days_to_visit NORMCOG DEMENTED\nOAS30001 90 1 0")
    write_dwi(root / "OAS30001_MR_d0100/dwi1/sub-OAS30001_ses-d0100_dwi.nii.gz")
    return root / "OAS30001_MR_d0100"


def hospital_root(root: Path) -> Path:
    """The folder of a hospital's participant with one dMRI."""
    write_dwi(root / "P1/v1/dti.nii.gz")
    (root / "pdsynth.yaml").write_text(
        "{fmri: '{participant}/{session}/*rest*.nii.gz', dmri: '{participant}/{session}/dti*.nii.gz'}"
    )
    return root / "P1"


READERS = {adni: adni_root, oasis3: oasis_root, folder: hospital_root}
FOLDERS = (f"Resting_State_fMRI/{DAY}/I2", "Resting_State_fMRI", f"MPRAGE/{DAY}/I3", f"Axial_MB_DTI/{DAY}/I4", "func1")
FOLDERS += ("v1", "v1/rest", "", ".cache", f"Axial_DTI/{DAY}/I1", "dwi1", "Resting_State_fMRI/2011-02-30_10_20_30.0/I9")
STEMS = (
    "rest",
    "REST",
    "dti_ph",
    "sub-OAS30001_ses-d0100_task-rest_bold",
    "sub-OAS30001_ses-d0100_BOLD",
    "._rest",
    "t1",
)
STEMS += (
    "sub-OAS30002_ses-d0100_dwi",
    "sub-OAS30001_ses-d0100_part-phase_bold",
    "ADNI_027_S_0071_x",
    "027_S_0072_rest",
)
ENDINGS = (".nii.gz", ".nii.gz", ".nii", ".NII.GZ", ".hdr", ".dcm", ".json", ".bval", ".txt", "")
TREES = st.lists(
    st.tuples(*map(st.sampled_from, (FOLDERS, STEMS, ENDINGS, ("scan", "empty", "link", "text")))), max_size=10
)


@pytest.mark.parametrize("reader", READERS)
@settings(max_examples=25)
@given(files=TREES)
def test_every_file_of_a_layout_has_one_verdict(files, reader, content):
    """Input: any files of ADNI, OASIS-3 or a hospital. Result: read; each file is used, not needed or refused."""
    with TemporaryDirectory() as name:
        root = Path(name)
        person = READERS[reader](root)
        for place, stem, ending, kind in files:
            path = person / place / f"{stem}{ending}"
            if not os.path.lexists(path):
                put(path, {"scan": content, "empty": b""}.get(kind, b"0 1000"))
            if kind == "link":
                path.unlink()
                path.symlink_to("/absent")
        cohort = reader(root)
        verdicts = {*cohort.used, *(f.path for f in cohort.not_needed), *(r.path for r in cohort.rejected)}
        paths = {path for path in person.rglob("*") if path.is_symlink() or path.is_file()}
        whole = {verdict for verdict in verdicts if verdict.is_dir()}
        inside = {path for path in paths if whole & set(path.parents)} - set(verdicts)
        assert {verdict for verdict in verdicts - whole if person in verdict.parents} == paths - inside
        assert not set(cohort.used) & {f.path for f in cohort.not_needed}
        for _, session in cohort:
            assert {scan.path for scan in session.scans.values()} <= set(cohort.used)


def test_a_series_of_adni_in_another_form(tmp_path):
    """Input: an fMRI of ADNI as DICOM, or a multi-band DTI alone. Result: refused, and not called missing."""
    person = adni_root(tmp_path)
    for number in range(3):
        put(person / "Resting_State_fMRI" / DAY / f"I2/{number}.dcm", b"DICM")
    assert_refused(adni(tmp_path), FMRI, "holds 3 DICOM files")
    (person / "Axial_DTI").rename(person / "Axial_MB_DTI")
    write_scan(person / "Resting_State_fMRI" / DAY / "I3/a.nii.gz")
    cohort = adni(tmp_path)
    assert_refused(cohort, DMRI, "multi-band DTI")
    assert rules(cohort)["a.bval"] == "gradient table of no chosen scan"


def test_a_refused_scan_of_another_year(tmp_path):
    """Input: an fMRI of ADNI that was refused, years from the dMRI. Result: refused; that of the visit is missing."""
    person = adni_root(tmp_path)
    put(person / "Resting_State_fMRI/2014-04-10_10_20_30.0/I2/a.NII.GZ", b"x")
    cohort = adni(tmp_path)
    ((_, session),) = list(cohort)
    assert session.missing == [FMRI] and list(refusals(cohort)) == ["a.NII.GZ"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("sub-OAS30001_ses-d0100_task-rest_bold.NII.GZ", "capitals"),
        ("sub-OAS30001_ses-d0100_task-rest_BOLD.nii.gz", "capitals"),
        ("sub-OAS30001_ses-d0100_task-rest_bold.img", "is .img"),
        ("sub-OAS30001_ses-d0100_task-rest_part-phase_bold.nii.gz", "phase part"),
        ("sub-OAS30001_ses-d0100_task-rest_bold.nii.gz", "is empty"),
    ],
)
def test_a_scan_of_oasis3_in_another_form(tmp_path, name, reason):
    """Input: an fMRI of OASIS-3 in capitals, as .img, as its phase, or empty. Result: refused, not called missing."""
    put(oasis_root(tmp_path) / "func1" / name, b"")
    assert_refused(oasis3(tmp_path), FMRI, reason)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("my_REST.nii.gz", "capitals"),
        ("rest.NII.GZ", "capitals"),
        ("rest.hdr", "is .hdr"),
        ("rest.nii.bz2", "is .nii.bz2"),
        ("rest_ph.nii.gz", "ph part"),
        ("rest.nii.gz", "is empty"),
    ],
)
def test_a_scan_of_a_hospital_in_another_form(tmp_path, name, reason):
    """Input: a file that fits a pattern of pdsynth.yaml but for capitals or its format. Result: refused by name."""
    put(hospital_root(tmp_path) / "v1" / name, b"")
    assert_refused(folder(tmp_path), FMRI, reason)
