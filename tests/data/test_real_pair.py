"""The real volunteer: both scans lie on each other, however the files are stored and the head lay."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from pdsynth.cohorts.bids import bids
from pdsynth.data.pairs import Pairs
from pdsynth.data.prepare import prepare
from pdsynth.data.preprocessing import Preprocessing
from pdsynth.imaging.nifti import Volume
from pdsynth.imaging.spatial import Grid, resample
from pdsynth.types import Modality

FIELD = Preprocessing(intensity="percentile")  # the scale that leaves the receive field in place
Change = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


def flipped(data: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Stored from right to left and from top to bottom, axes in another order: the same places in the world."""
    image = nib.Nifti1Image(data, affine)
    change = nib.orientations.ornt_transform(nib.io_orientation(affine), nib.orientations.axcodes2ornt(("I", "R", "P")))
    moved = image.as_reoriented(change)
    return np.asarray(moved.dataobj), moved.affine


def rotated(data: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The head turned by 20 degrees about an oblique axis, and moved."""
    axis = np.array([1.0, 2.0, 3.0]) / np.sqrt(14)
    cross = np.cross(np.eye(3), axis)
    angle = np.deg2rad(20)
    turn = np.eye(4)
    turn[:3, :3] = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    turn[:3, 3] = (12, -8, 15)
    return data, turn @ affine


def cropped(data: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Columns and rows without the brain cut off, unevenly."""
    shift = np.eye(4)
    shift[:3, 3] = (5, 2, 0)
    return data[5:-3, 2:-3], affine @ shift


def resampled(data: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """In voxels of 3 mm."""
    spacing = np.sqrt(np.square(affine[:3, :3]).sum(0))
    shape = tuple(int(n) for n in np.ceil(np.array(data.shape[:3]) * spacing / 3))
    grid = Grid(shape, affine @ np.diag([*3 / spacing, 1]))
    volumes = [resample(Volume(data[..., t], affine), grid) for t in range(data.shape[3])]
    return np.stack(volumes, -1).astype(np.float32), grid.affine


@pytest.fixture(scope="module")
def pair(real_data: Path, tmp_path_factory) -> Pairs:
    return prepare(bids(real_data / "bids-real"), tmp_path_factory.mktemp("real") / "prepared")


@pytest.fixture(scope="module")
def pair_with_field(real_data: Path, tmp_path_factory) -> Pairs:
    return prepare(bids(real_data / "bids-real"), tmp_path_factory.mktemp("field") / "prepared", preprocessing=FIELD)


def test_fmri_and_b0_lie_on_each_other(pair: Pairs) -> None:
    (row,) = pair.table.to_dict("records")
    assert (row["available"], row["dmri_bval"], row["diagnosis"]) == ("both", 2500.0, "n/a")
    quality = pd.read_csv(pair.root / "quality.tsv", sep="\t").set_index("modality")
    assert quality.loc["dmri", "correlation"] >= 0.75
    assert quality["overlap"].ge(0.93).all()
    fmri, dmri = (pair.brain(m, 0) for m in Modality)
    assert 2 * (fmri & dmri).sum() / (fmri.sum() + dmri.sum()) > 0.9
    both = fmri & dmri
    assert 0.2 < np.corrcoef(pair.volume(Modality.FMRI, 0)[both], pair.volume(Modality.DMRI, 0)[both])[0, 1] < 0.9


@pytest.mark.parametrize("change", [flipped, rotated, cropped, resampled])
def test_the_result_does_not_depend_on_how_it_was_stored_or_how_the_head_lay(
    change: Change, pair: Pairs, pair_with_field: Pairs, real_data: Path, tmp_path: Path
) -> None:
    """The error is bounded in both intensity scales; the correlation where the scan has its receive field, by which the
    bounds were set: the field is half of the variance, and interpolation does not change it."""
    root = Path(shutil.copytree(real_data / "bids-real", tmp_path / "study"))
    for path in root.rglob("*.nii.gz"):
        image = nib.load(path)
        data, affine = change(np.asarray(image.dataobj), image.affine)
        changed = nib.Nifti1Image(data, affine)
        changed.header["pixdim"][4] = image.header["pixdim"][4]
        nib.save(changed, path)
    found = prepare(bids(root), tmp_path / "prepared")
    with_field = prepare(bids(root), tmp_path / "with-field", preprocessing=FIELD)
    assert json.loads((found.root / "sessions" / "sub-xa30.json").read_text())["rejected"] == []
    for modality in Modality:
        inside = pair.brain(modality, 0) & found.brain(modality, 0)
        assert inside.sum() > 0.95 * pair.brain(modality, 0).sum()
        for before, after in ((pair, found), (pair_with_field, with_field)):
            one, other = before.volume(modality, 0)[inside], after.volume(modality, 0)[inside]
            assert np.sqrt(np.square(one - other).mean()) < RMSE[change.__name__]
        assert np.corrcoef(one, other)[0, 1] > CORRELATION[change.__name__]  # of the pair with its field


CORRELATION = {"flipped": 0.99, "rotated": 0.95, "cropped": 0.98, "resampled": 0.95}
RMSE = {"flipped": 0.02, "rotated": 0.05, "cropped": 0.03, "resampled": 0.05}
