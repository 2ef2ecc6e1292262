"""Small scans for fixture trees."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

from pdsynth.imaging.nifti import Volume
from pdsynth.imaging.spatial import mni_grid

SHAPE = (24, 24, 20)


def write_scan(path: Path, volumes: int = 4, spacing: float = 5.0, shape: tuple[int, ...] = SHAPE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = np.ones((*shape, volumes) if volumes else shape, np.int16)
    image = nib.Nifti1Image(data, np.diag([spacing, spacing, spacing, 1]))
    nib.save(image, path)
    return path


def write_volume(volume: Volume, path: Path) -> None:
    """An acquired volume, as another program writes it."""
    nib.save(nib.Nifti1Image(volume.data, volume.affine), path)


def write_dwi(path: Path, bvals: tuple[float, ...] = (0, 1000, 1000, 1000), transposed: bool = False) -> Path:
    write_scan(path, len(bvals))
    stem = path.name.removesuffix(".nii.gz")
    directions = np.eye(3)[np.arange(len(bvals)) % 3] * (np.asarray(bvals) > 50)[:, None]
    np.savetxt(path.with_name(f"{stem}.bval"), np.asarray(bvals)[None], fmt="%g")
    np.savetxt(path.with_name(f"{stem}.bvec"), directions if transposed else directions.T, fmt="%g")
    return path


def write_table(path: Path, text: str, separator: str = ",") -> None:
    """Rows of words; `n/a` stays, `.` is an empty cell, `_` in a word is a space where it begins with `+`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [
        [cell.replace("+", " ") if cell != "." else "" for cell in line.split()] for line in text.strip().splitlines()
    ]
    path.write_text("\n".join(separator.join(line) for line in lines) + "\n")


def copy_source_model(folder: Path) -> Path:
    """A saved model on the grid of 8 mm that copies its source."""
    from pdsynth.methods import checkpoint, create  # slow to import

    grid = mni_grid(8)
    shape = list(grid.shape)
    card = {"grid_shape": shape, "grid_affine": grid.affine.tolist()}
    return checkpoint.save(create("copy-source", {"grid_shape": shape}), folder, card)
