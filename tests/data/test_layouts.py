"""A simulated cohort on disk in several layouts: the pairs are the same."""

from __future__ import annotations

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from layouts import LAYOUTS
from pdsynth.cohorts import detect, read
from pdsynth.cohorts.simulated.cohort import simulate
from pdsynth.data.pairs import Pairs
from pdsynth.data.prepare import prepare
from pdsynth.imaging.nifti import Volume
from pdsynth.imaging.spatial import Grid, mni_grid, resample
from pdsynth.types import Modality


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Path:
    """Four simulated participants as plain BIDS, two with both scans and then two with one, without their truth."""
    made = simulate(
        tmp_path_factory.mktemp("made"),
        4,
        seed=3,
        sites=["oasis", "adni"],
        missing_fmri=0.25,
        missing_dmri=0.25,
        quick=True,
        truth=False,
    )
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
