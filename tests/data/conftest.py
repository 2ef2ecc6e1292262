"""A small study with known truth: template brains under a skull, moved by known transforms, written as BIDS."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

GRID_MM, NATIVE_MM, NATIVE_SHAPE = 4.0, 4.5, (44, 50, 42)
BVALS = (0, 1000, 1000, 1000, 1000, 2000)


def moved(degrees: float, mm: float, scale: float = 1.0) -> np.ndarray:
    """MNI mm -> scan mm."""
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    matrix = np.eye(4)
    matrix[:3, :3] = scale * np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    matrix[:3, 3] = mm
    return matrix


@dataclass(frozen=True)
class Study:
    """The dataset's root, and each scan's true map from its mm to MNI mm, by (participant, modality)."""

    root: Path
    truth: dict[tuple[str, str], np.ndarray]


def brain(contrast: dict[str, float], seed: int) -> np.ndarray:
    """A template brain of the tissue contrast under a person's own smooth field, a thin scalp around it: MNI, 4 mm."""
    from pdsynth.imaging.spatial import mni_grid
    from pdsynth.imaging.template import tissue_template

    tissues = tissue_template(mni_grid(GRID_MM))
    image = sum(value * tissues[name] for name, value in contrast.items())
    field = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(image.shape), 4)
    outside = ndimage.distance_transform_edt(tissues["brain"] < 0.5, sampling=GRID_MM)
    return image * (1 + 0.15 * field / field.std()) + 0.5 * ((outside > 10) & (outside < 15))


def write(path: Path, image: np.ndarray, to_scan: np.ndarray, gains: np.ndarray, seed: int) -> None:
    """The MNI image seen by a scanner in NATIVE_MM voxels, one volume a gain."""
    from pdsynth.imaging.nifti import Volume
    from pdsynth.imaging.spatial import Grid, mni_grid, resample

    affine = np.diag([-NATIVE_MM, NATIVE_MM, NATIVE_MM, 1])  # left-handed, as scanners write
    affine[:3, 3] = (NATIVE_MM * 21.5, -130, -85)
    native = resample(Volume(image, mni_grid(GRID_MM).affine), Grid(NATIVE_SHAPE, affine), to_scan)
    noise = np.random.default_rng(seed).standard_normal((*NATIVE_SHAPE, len(gains)))
    data = np.abs(800 * native[..., None] * gains + 8 * noise)
    path.parent.mkdir(parents=True, exist_ok=True)
    image_file = nib.Nifti1Image(data.astype(np.int16), affine)
    image_file.header["pixdim"][4] = 2.0
    nib.save(image_file, path)


def write_subject(root: Path, name: str, seed: int, only: str | None = None) -> dict[tuple[str, str], np.ndarray]:
    generator = np.random.default_rng(seed)
    head = moved(generator.normal(0, 4), generator.normal(0, 4), 1 + generator.normal(0, 0.03))
    truth = {}
    if only != "dmri":
        image = brain({"gm": 1.0, "wm": 0.85, "csf": 1.2}, seed)
        write(root / f"{name}/func/{name}_task-rest_bold.nii.gz", image, head, np.ones(6), seed)
        truth[name, "fmri"] = np.linalg.inv(head)
    if only != "fmri":
        own = moved(2, 3) @ head
        path = root / f"{name}/dwi/{name}_dwi.nii.gz"
        image = brain({"gm": 1.0, "wm": 0.9, "csf": 1.4}, seed + 100)
        write(path, image, own, np.exp(-0.7e-3 * np.asarray(BVALS)), seed + 1)
        directions = generator.standard_normal((len(BVALS), 3)) * (np.asarray(BVALS) > 0)[:, None]
        np.savetxt(path.with_name(f"{name}_dwi.bval"), np.asarray(BVALS)[None], fmt="%g")
        np.savetxt(path.with_name(f"{name}_dwi.bvec"), directions.T, fmt="%g")
        truth[name, "dmri"] = np.linalg.inv(own)
    return truth


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Four participants: two with both scans, one with each alone. Not to be changed: see `study`."""
    root = tmp_path_factory.mktemp("study")
    truth = write_subject(root, "sub-01", 1) | write_subject(root, "sub-02", 2)
    truth |= write_subject(root, "sub-03", 3, "fmri") | write_subject(root, "sub-04", 4, "dmri")
    rows = ["participant_id\tage\tsex\tsite\tdiagnosis"]
    rows += [f"sub-0{i}\t7{i}\tF\tx\t{d}" for i, d in enumerate(("NC", "MCI", "AD", "NC"), start=1)]
    (root / "participants.tsv").write_text("\n".join(rows) + "\n")
    return Study(root, truth)


@pytest.fixture
def study(pristine: Study, tmp_path: Path) -> Study:
    """A copy of the study that a test may spoil."""
    import shutil

    return Study(Path(shutil.copytree(pristine.root, tmp_path / "study")), pristine.truth)
