"""A simulated cohort on disk in several layouts: the pairs are the same."""

from __future__ import annotations

import shutil
from datetime import date, timedelta
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from fixture_trees import write_table
from pdsynth.cohorts import detect, read
from pdsynth.cohorts.simulated.cohort import simulate
from pdsynth.data.pairs import Pairs
from pdsynth.data.prepare import prepare
from pdsynth.imaging.nifti import Volume
from pdsynth.imaging.spatial import Grid, mni_grid, resample
from pdsynth.types import Modality

FIRST_DAY = date(2011, 3, 1)
CODES = {"NC": ("1", "CN"), "MCI": ("2", "MCI"), "AD": ("3", "Dementia")}


def scans(study: Path):
    """Number of the participant, kind, diagnosis and files of each scan of the BIDS study."""
    rows = [line.split("\t") for line in (study / "participants.tsv").read_text().splitlines()[1:]]
    for participant, *_, diagnosis in rows:
        for image in sorted((study / participant).rglob("*.nii.gz")):
            stem = image.name.removesuffix(".nii.gz")
            yield int(participant[-1]), image.parent.name, diagnosis, sorted(image.parent.glob(f"{stem}.*"))


def copy(files: list[Path], folder: Path, stem: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        shutil.copy(file, folder / f"{stem}{file.name[file.name.index('.') :]}")


def as_adni(study: Path, out: Path) -> None:
    series = {"func": "Resting_State_fMRI", "dwi": "Axial_DTI"}
    rows = ["PTID VISCODE EXAMDATE EXAMDATE_bl DX AGE PTGENDER PTEDUCAT MMSE MOCA"]
    for i, kind, diagnosis, files in scans(study):
        day, ptid = FIRST_DAY + timedelta(days=i), f"027_S_000{i}"
        copy(files, out / ptid / series[kind] / f"{day}_10_00_00.0" / f"I{i}{kind}", f"ADNI_{ptid}_{series[kind]}")
        rows.append(f"{ptid} bl {day} {day} {CODES[diagnosis][1]} 7{i} Female 16 28 26")
    write_table(out / "ADNIMERGE.csv", "\n".join(dict.fromkeys(rows)))


def as_oasis3(study: Path, out: Path, bids: bool) -> None:
    folder = {"func": "func1", "dwi": "dwi1"}
    rows = ["OASISID days_to_visit age+at+visit NORMCOG DEMENTED PROBAD MCIAMEM"]
    for i, kind, diagnosis, files in scans(study):
        person, suffix = f"OAS3000{i}", "task-rest_run-01_bold" if kind == "func" else "dwi"
        place = f"sub-{person}/ses-d010{i}/{kind}" if bids else f"{person}_MR_d010{i}/{folder[kind]}"
        copy(files, out / place, f"sub-{person}_ses-d010{i}_{suffix}")
        flags = {"NC": "1 0 0 0", "MCI": "0 0 0 1", "AD": "0 1 1 0"}[diagnosis]
        rows.append(f"{person} 10{i} 7{i} {flags}")
    write_table(out / "OASIS3_UDSd1_diagnoses.csv", "\n".join(dict.fromkeys(rows)))


def as_derivatives(study: Path, out: Path) -> None:
    """In the participants' own spaces, as QSIPrep and an fMRIPrep without a template write them."""
    for i, kind, _, files in scans(study):
        tree, suffix = (
            ("fmriprep", "task-rest_desc-preproc_bold")
            if kind == "func"
            else ("qsiprep", "space-ACPC_desc-preproc_dwi")
        )
        copy(files, out / tree / f"sub-0{i}" / kind, f"sub-0{i}_{suffix}")
    shutil.copy(study / "participants.tsv", out)


def as_hospital(study: Path, out: Path) -> None:
    for i, kind, _, files in scans(study):
        copy(files, out / f"P{i}" / kind, f"{kind}_scan")
    (out / "pdsynth.yaml").write_text(
        """{fmri: "{participant}/func/*.nii.gz", dmri: "{participant}/dwi/*.nii.gz", table: all.tsv,
        columns: {participant: id, diagnosis: diagnosis, age: age}}"""
    )
    table = (study / "participants.tsv").read_text().replace("participant_id", "id").replace("sub-0", "P")
    (out / "all.tsv").write_text(table)


LAYOUTS = {
    "adni": as_adni,
    "oasis3 A": lambda study, out: as_oasis3(study, out, bids=False),
    "oasis3 B": lambda study, out: as_oasis3(study, out, bids=True),
    "derivatives": as_derivatives,
    "folder": as_hospital,
}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Path:
    """Four simulated participants as plain BIDS, two with both scans and then two with one, without their truth."""
    made = simulate(tmp_path_factory.mktemp("made"), 4, 3, ["oasis", "adni"], 0.25, 0.25, quick=True, truth=False)
    root = tmp_path_factory.mktemp("cohort")
    people = pd.read_csv(made / "participants.tsv", sep="\t").set_index("participant_id")
    rows = ["participant_id\tage\tsex\tsite\tdiagnosis"]
    for i, folder in enumerate(sorted(made.glob("sub-*"), key=lambda f: (-len(list(f.rglob("*.nii.gz"))), f)), start=1):
        for file in sorted(folder.rglob("*.*")):
            place = root / f"sub-0{i}" / file.parent.name
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, place / file.name.replace(folder.name, f"sub-0{i}"))
        rows.append(f"sub-0{i}\t7{i}\tF\tx\t{people.loc[folder.name, 'diagnosis']}")
    (root / "participants.tsv").write_text("\n".join(rows) + "\n")
    return root


@pytest.fixture(scope="module")
def expected(cohort, tmp_path_factory) -> Pairs:
    return prepare(read(cohort), tmp_path_factory.mktemp("bids") / "prepared", split=(0.5, 0.25, 0.25))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_prepares_to_the_same_pairs(layout, cohort, expected, tmp_path):
    LAYOUTS[layout](cohort, tmp_path / "study")
    assert detect(tmp_path / "study")[0] == layout.split()[0]
    found = prepare(read(tmp_path / "study"), tmp_path / "prepared", split=(0.5, 0.25, 0.25))
    assert found.table["available"].tolist() == expected.table["available"].tolist()
    assert found.table["diagnosis"].tolist() == expected.table["diagnosis"].tolist()
    np.testing.assert_allclose(found.table["age"].astype(float), expected.table["age"].astype(float), atol=0.01)
    assert found.table["dx_gap_days"].astype(str).isin(["0", "n/a"]).all() and found.table["scan_gap_days"].eq(0).all()
    for name in expected.manifest["volumes"]:
        for row in range(len(expected)):
            np.testing.assert_array_equal(found.read(name, row), expected.read(name, row))


def test_a_scan_that_a_tool_brought_to_mni_is_not_registered_again(cohort, expected, tmp_path):
    """Scans resampled to MNI by hand, given as fMRIPrep's: the same volumes, but for resampling twice."""
    tree = tmp_path / "fmriprep" / "sub-01" / "func"
    tree.mkdir(parents=True)
    image = nib.load(next(cohort.rglob("sub-01*_bold.nii.gz")))
    moved = expected.transform(Modality.FMRI, 0).matrix
    grid = mni_grid(2.0)
    series = [resample(Volume(image.dataobj[..., t], image.affine), grid, moved) for t in range(image.shape[3])]
    name = "sub-01_task-rest_space-MNI152NLin2009cAsym_res-2_desc-preproc_bold.nii.gz"
    nib.save(nib.Nifti1Image(np.stack(series, -1).astype(np.float32), grid.affine), tree / name)
    found = prepare(read(tmp_path), tmp_path / "prepared", split=(1.0, 0.0, 0.0))
    assert list(found.transform(Modality.FMRI, 0).steps) == ["already in MNI152NLin2009cAsym"]
    one, other = found.volume(Modality.FMRI, 0), expected.volume(Modality.FMRI, 0)
    assert np.corrcoef(one[other > 0], other[other > 0])[0, 1] > 0.99


def fsl_mm(grid: Grid) -> np.ndarray:
    """Voxels to FSL's mm: x runs from the last voxel where the affine is right-handed."""
    matrix = np.diag([*grid.spacing_mm, 1])
    if np.linalg.det(grid.affine[:3, :3]) > 0:
        matrix[0, 0], matrix[0, 3] = -matrix[0, 0], matrix[0, 0] * (grid.shape[0] - 1)
    return matrix


def test_what_fsl_wrote_is_read_with_its_own_matrix_and_directions(cohort, expected, tmp_path):
    """FEAT's and eddy's folders by patterns; the registration that BIDS had found, given as FLIRT's."""
    feat, eddy = tmp_path / "sub-01" / "rest.feat", tmp_path / "sub-01" / "dwi"
    (feat / "reg").mkdir(parents=True)
    shutil.copy(next(cohort.rglob("sub-01*_bold.nii.gz")), feat / "filtered_func_data.nii.gz")
    grid = mni_grid(2.0)
    nib.save(nib.Nifti1Image(np.zeros(grid.shape, np.uint8), grid.affine), feat / "reg" / "standard.nii.gz")
    image = nib.load(feat / "filtered_func_data.nii.gz")
    moving = Grid(image.shape[:3], image.affine)
    found = expected.transform(Modality.FMRI, 0).matrix
    flirt = fsl_mm(grid) @ np.linalg.inv(grid.affine) @ found @ moving.affine @ np.linalg.inv(fsl_mm(moving))
    np.savetxt(feat / "reg" / "example_func2standard.mat", flirt, fmt="%.12g")
    eddy.mkdir()
    for name, kind in (
        ("bvals", "bval"),
        ("eddy_corrected.eddy_rotated_bvecs", "bvec"),
        ("eddy_corrected.nii.gz", "nii.gz"),
    ):
        shutil.copy(next(cohort.rglob(f"sub-01_dwi.{kind}")), eddy / name)
    (tmp_path / "pdsynth.yaml").write_text(
        'fmri: "{participant}/*.feat/filtered_func_data.nii.gz"\ndmri: "{participant}/dwi/eddy_corrected.nii.gz"\n'
    )
    pairs = prepare(read(tmp_path), tmp_path / "prepared", split=(1.0, 0.0, 0.0))
    assert list(pairs.transform(Modality.FMRI, 0).steps) == ["FLIRT to MNI"]
    np.testing.assert_allclose(pairs.transform(Modality.FMRI, 0).matrix, found, atol=1e-6)
    for modality in Modality:
        difference = pairs.volume(modality, 0) - expected.volume(modality, 0)
        assert np.abs(difference).max() < 2e-3
    template = (feat / "reg" / "standard.nii.gz").read_bytes()
    (feat / "reg" / "standard.nii.gz").unlink()
    assert prepare(read(tmp_path), tmp_path / "lost", split=(1.0, 0.0, 0.0)).table["available"].tolist() == ["dmri"]
    (feat / "reg" / "standard.nii.gz").write_bytes(template)  # once it is there, the scan is tried again
    assert prepare(read(tmp_path), tmp_path / "lost", split=(1.0, 0.0, 0.0)).table["available"].tolist() == ["both"]
    (feat / "reg" / "example_func2standard.mat").write_text("1 0 0\n")
    pairs = prepare(read(tmp_path), tmp_path / "again", split=(1.0, 0.0, 0.0))
    assert pairs.table["available"].tolist() == ["dmri"]
    assert "holds (3,) numbers, not 4 x 4" in (tmp_path / "again" / "rejected.tsv").read_text()
