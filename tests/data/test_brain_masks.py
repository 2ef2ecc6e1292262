"""The brain mask that fMRIPrep or QSIPrep wrote beside a scan is used, at preparation and at synthesis."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from pdsynth.cohorts.bids import bids
from pdsynth.cohorts.cohort import Cohort
from pdsynth.cohorts.scans import single_scan
from pdsynth.data.means import scan_means
from pdsynth.data.pairs import Pairs
from pdsynth.data.prepare import prepare
from pdsynth.data.preprocessing import Preprocessing
from pdsynth.data.standardise import standardise
from pdsynth.files import sha256
from pdsynth.imaging.nifti import Volume
from pdsynth.imaging.spatial import Grid, mni_grid, resample
from pdsynth.imaging.template import tissue_template
from pdsynth.methods import checkpoint, create
from pdsynth.missing import synthesise_path
from pdsynth.types import InputError, Modality

STANDARD = Preprocessing(grid=mni_grid(8))
SCAN, MASK = "sub-03/func/sub-03_task-rest_bold.nii.gz", "sub-03/func/sub-03_task-rest_desc-brain_mask.nii.gz"
MNI = "space-MNI152NLin2009cAsym_res-2"


@pytest.mark.parametrize(
    ("name", "mask"),
    [
        (f"sub-1_task-rest_{MNI}_desc-preproc_bold.nii.gz", f"sub-1_task-rest_{MNI}_desc-brain_mask.nii.gz"),
        (f"sub-1_task-rest_{MNI}_boldref.nii.gz", f"sub-1_task-rest_{MNI}_desc-brain_mask.nii.gz"),
        ("sub-1_ses-2_space-ACPC_desc-preproc_dwi.nii.gz", "sub-1_ses-2_space-ACPC_desc-brain_mask.nii"),
        ("sub-1_space-ACPC_dwiref.nii", "sub-1_space-ACPC_desc-brain_mask.nii.gz"),
        ("rest_bold.nii.gz", "rest_desc-brain_mask.nii.gz"),
        ("sub-1_task-rest_desc-preproc_bold.nii.gz", None),  # of another space, run or person
    ],
)
def test_the_mask_is_found_by_the_scans_name(name: str, mask: str | None, tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.ones((24, 24, 20), np.int16), np.diag([5.0, 5, 5, 1]))
    for path in (name, f"sub-1_task-rest_{MNI}_desc-brain_mask.nii.gz", "sub-2_task-rest_desc-brain_mask.nii.gz", mask):
        if path is not None:
            nib.save(image, tmp_path / path)
    assert single_scan(tmp_path / name).mask == (None if mask is None else tmp_path / mask)


def template_on(scan: Path, to_mni: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The template's brain on the grid of a scan, (X, Y, Z) bool, and the affine."""
    image, grid = nib.load(scan), mni_grid(4.0)
    brain = Volume(tissue_template(grid)["brain"], grid.affine)
    return resample(brain, Grid(image.shape[:3], image.affine), np.linalg.inv(to_mni)) > 0.5, image.affine


@pytest.fixture
def masked(study) -> Path:
    """The study with the true brain of sub-03, less its outer 9 mm, as a mask beside the scan."""
    brain, affine = template_on(study.root / SCAN, study.truth["sub-03", "fmri"])
    nib.save(nib.Nifti1Image(ndimage.binary_erosion(brain, iterations=2).astype(np.uint8), affine), study.root / MASK)
    return study.root


def only(root: Path, *names: str) -> Cohort:
    cohort = bids(root)
    return replace(cohort, subjects=[s for s in cohort.subjects if s.participant_id in names])


def test_it_takes_the_place_of_our_own(masked: Path) -> None:
    scan = single_scan(masked / SCAN)
    given, ours = standardise(scan, STANDARD), standardise(scan, STANDARD.model_copy(update={"mask": "computed"}))
    mask = nib.load(masked / MASK).get_fdata() > 0
    np.testing.assert_array_equal(given.native_brain, mask)
    assert given.mask == masked / MASK and ours.mask is None
    assert ours.native_brain.sum() > 1.2 * mask.sum()
    moved = resample(Volume(mask, given.reference.affine), STANDARD.grid, given.transform.matrix) > 0.5
    np.testing.assert_array_equal(given.brain, moved)
    mean = resample(scan_means(scan, STANDARD).means[0], STANDARD.grid, given.transform.matrix)
    assert given.scales[0].unit == pytest.approx(2.5 * np.median(mean[moved]))


def test_its_use_is_recorded_at_preparation_and_at_synthesis(masked: Path, tmp_path: Path) -> None:
    pairs = prepare(only(masked, "sub-03", "sub-04"), tmp_path / "prepared", grid_mm=8, split=(1, 0, 0))
    records = {n: json.loads((pairs.root / "sessions" / f"{n}.json").read_text()) for n in ("sub-03", "sub-04")}
    assert records["sub-03"]["masks"] == {"fmri": MASK} and records["sub-04"]["masks"] == {"dmri": None}
    assert records["sub-03"]["inputs"][MASK]["sha256"] == sha256(masked / MASK)
    assert pairs.masks_given == 1 and Pairs.open(pairs.root).preprocessing.mask == "given"
    standard = standardise(single_scan(masked / SCAN), pairs.preprocessing)
    np.testing.assert_array_equal(pairs.volume(Modality.FMRI, 0), standard.volume)
    np.testing.assert_array_equal(pairs.brain(Modality.FMRI, 0), standard.brain)

    method = create("copy-source", {"grid_shape": list(pairs.grid.shape)})
    for rule, used in (("given", Path(MASK).name), ("computed", "computed")):
        entries = pairs.preprocessing.model_copy(update={"mask": rule}).entries()
        model = checkpoint.save(method, tmp_path / rule, entries)
        (volume,), _ = synthesise_path(model, masked / SCAN, tmp_path / f"out-{rule}", device="cpu")
        said = json.loads(volume.with_name(volume.name.replace(".nii.gz", ".json")).read_text())
        assert said["BrainMask"] == used and said["Preprocessing"] == entries["preprocessing"]
        assert said["SourceSHA256"] == [sha256(masked / SCAN), sha256(masked / MASK)]
    changed = nib.load(tmp_path / "out-given" / volume.relative_to(tmp_path / "out-computed")).get_fdata()
    assert np.abs(changed - nib.load(volume).get_fdata()).max() > 0.01


def test_a_mask_that_comes_later_or_changes_makes_the_session_anew(masked: Path, tmp_path: Path) -> None:
    (masked / MASK).rename(tmp_path / "mask.nii.gz")
    out = tmp_path / "prepared"
    before = prepare(only(masked, "sub-03"), out, grid_mm=8, split=(1, 0, 0)).brain(Modality.FMRI, 0).sum()
    shutil.copy(tmp_path / "mask.nii.gz", masked / MASK)
    after = prepare(only(masked, "sub-03"), out, grid_mm=8, split=(1, 0, 0))
    assert after.masks_given == 1 and after.brain(Modality.FMRI, 0).sum() < 0.9 * before


def emptied(path: Path) -> None:
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.zeros(image.shape, np.uint8), image.affine), path)


def cropped(path: Path) -> None:
    nib.save(nib.load(path).slicer[1:], path)


def moved(path: Path) -> None:
    image = nib.load(path)
    shift = np.eye(4)
    shift[0, 3] = 0.5
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), shift @ image.affine), path)


def damaged(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:200])


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (emptied, "is an empty brain mask"),
        (cropped, "is not a mask of sub-03_task-rest_bold.nii.gz: it is on another grid"),
        (moved, "is not a mask of sub-03_task-rest_bold.nii.gz: it is on another grid"),
        (damaged, "truncated"),
    ],
)
def test_a_mask_that_cannot_be_used_is_refused_by_name(damage, problem: str, masked: Path, tmp_path: Path) -> None:
    damage(masked / MASK)
    with pytest.raises(InputError) as error:
        standardise(single_scan(masked / SCAN), STANDARD)
    assert error.value.path == masked / MASK and problem in error.value.problem and error.value.remedy
    prepare(only(masked, "sub-03", "sub-04"), tmp_path / "prepared", grid_mm=8)
    refused = pd.read_csv(tmp_path / "prepared" / "rejected.tsv", sep="\t")
    assert refused["path"].tolist() == [MASK] and problem in refused["reason"].iloc[0]
    model = checkpoint.save(
        create("copy-source", {"grid_shape": list(STANDARD.grid.shape)}), tmp_path / "model", STANDARD.entries()
    )
    with pytest.raises(InputError, match=r"desc-brain_mask\.nii\.gz"):
        synthesise_path(model, masked / SCAN, tmp_path / "out", device="cpu")
