"""Scans as they lie on disk, with any header; a head that registers."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from pdsynth.imaging.nifti import Volume
from pdsynth.imaging.spatial import Grid, mni_grid, resample
from pdsynth.imaging.template import epi_template

GRID = mni_grid(8)
NATIVE = Grid((30, 34, 28), np.array([[-6, 0, 0, 88], [0, 6, 0, -118], [0, 0, 6, -70], [0, 0, 0, 1]], float))
AFFINE = np.eye(4)  # oblique, left-handed as scanners write it
AFFINE[:3, :3] = Rotation.from_euler("xyz", [6, -3, 2], degrees=True).as_matrix() * [-5.0, 5.1, 5.5]
AFFINE[:3, 3] = 60, -70, -50
SHAPE = (24, 26, 20, 3)
BOLD = "sub-01_task-rest_bold.nii"


def head(seed: int = 0) -> Volume:
    """The template brain under a person's own smooth field, as a scan of 6 mm voxels sees it."""
    field = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(NATIVE.shape), 3)
    data = resample(epi_template(mni_grid(4)), NATIVE) * (1 + 0.15 * field / field.std())
    return Volume(100 * data, NATIVE.affine)


def with_fields(raw: bytes, kind=nib.Nifti1Header, **values: object) -> bytes:
    """The same image with other values in its header, which nibabel would not write."""
    order = "<" if int.from_bytes(raw[:4], "little") == kind.sizeof_hdr else ">"
    header = np.frombuffer(raw[: kind.sizeof_hdr], kind.template_dtype.newbyteorder(order)).copy()
    for name, value in values.items():
        header[name] = value
    return header.tobytes() + raw[kind.sizeof_hdr :]


def image(data: np.ndarray | None = None, affine: np.ndarray = AFFINE, **fields: object) -> bytes:
    """The bytes of a .nii file of a scan, with both forms and a repetition time of 2 s; `fields` are changed."""
    data = np.ones(SHAPE, np.int16) if data is None else data
    made = nib.Nifti1Image(data, affine)
    made.set_sform(affine, 1)
    made.set_qform(affine, 1)
    made.header.set_xyzt_units("mm", "sec")
    made.header["pixdim"][4] = 2.0
    return with_fields(made.to_bytes(), **fields)


def put(path: Path, raw: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(raw) if path.name.endswith(".gz") else raw)
    return path
