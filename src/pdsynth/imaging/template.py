"""Tissue maps of the MNI152 brain on any grid, and the two templates of registration: like EPI, and a mean b0.

The maps are the ICBM 2009a symmetric templates that nilearn ships. They are read from nilearn's folder without an
import of nilearn, which would take longer than the reading. The mean b0 is a file of this package.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from pdsynth.imaging.nifti import Volume, read_volume
from pdsynth.imaging.spatial import Grid, resample

FILES = {name: f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz" for name in ("t1", "gm", "wm")}
B0_TEMPLATE = Path(__file__).with_name("b0_template.nii.gz")  # made by benchmarks/b0_template.py
EPI_CONTRAST = {"gm": 1.0, "wm": 0.8, "csf": 1.3}  # of T2*- and T2-weighted EPI at 3T, relative to grey matter


@lru_cache(maxsize=4)
def tissue_template(grid: Grid) -> dict[str, np.ndarray]:
    """Probabilities of tissue in the MNI152 brain on a grid, (X, Y, Z) float32 in 0..1, by name: gm, wm, csf and brain.

    grid: in MNI mm. The maps are those of ICBM 2009a that nilearn ships; csf is brain - gm - wm. The result is cached,
    and its arrays are read-only: copy an array before you change it.
    """
    brain = resample(_bundled("t1", binary=True), grid)
    gm = np.minimum(resample(_bundled("gm"), grid), brain)
    wm = np.minimum(resample(_bundled("wm"), grid), brain - gm)
    maps = {"gm": gm, "wm": wm, "csf": np.clip(brain - gm - wm, 0, 1), "brain": np.clip(brain, 0, 1)}
    for array in maps.values():
        array.flags.writeable = False
    return maps


@lru_cache(maxsize=4)
def epi_template(grid: Grid) -> Volume:
    """The MNI152 brain on a grid with the contrast of T2*-weighted EPI, without skull: the target of registration.

    Grey matter is 1, white matter 0.8, CSF 1.3 and air 0; a voxel is the mean of these, weighted by the probabilities
    of tissue. The result is cached: copy its data before you change them.
    """
    tissues = tissue_template(grid)
    data = np.zeros(grid.shape, np.float32)
    for name, contrast in EPI_CONTRAST.items():
        data += np.float32(contrast) * tissues[name]
    return Volume(data, grid.affine)


@lru_cache(maxsize=4)
def b0_template(grid: Grid) -> Volume:
    """The mean b0 of SIMULATED people on a grid, without skull: the target of registration of a dMRI without an fMRI.

    It lies where an fMRI that is registered to `epi_template` places the dMRI of its session. The b0 itself is placed
    higher there, because it has no signal loss at the base of the brain. Values are 0 outside the brain. The result is
    cached: copy its data before you change them.
    """
    mean = read_volume(B0_TEMPLATE)
    inside = resample(Volume((mean.data > 0).astype(np.float32), mean.affine), grid) > 0.5
    return Volume(np.where(inside, resample(mean, grid), np.float32(0)), grid.affine)


def bundled_file(name: str) -> Path:
    """Path of a data file that nilearn ships, by its name.

    Whether the file exists is not checked. Raises ModuleNotFoundError if nilearn is not installed.
    """
    spec = find_spec("nilearn")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("nilearn, which ships the MNI152 templates, is not installed; install pdsynth again.")
    return Path(spec.submodule_search_locations[0]) / "datasets" / "data" / name


def _bundled(name: str, binary: bool = False) -> Volume:
    """One of nilearn's templates, scaled to a maximum of 1; binary gives 1 where it is above zero."""
    image: Any = nib.load(bundled_file(FILES[name]))
    raw = np.asanyarray(image.dataobj)
    data = (raw > 0).astype(np.float32) if binary else raw.astype(np.float32) / np.float32(raw.max())
    return Volume(data, image.affine)
