"""Mean volumes of a scan's file: of the whole scan, of each segment, and the reference for registration."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd

from pdsynth.cohorts.cohort import Scan
from pdsynth.data.preprocessing import SHELL, Preprocessing
from pdsynth.imaging.intensity import brain_mask
from pdsynth.imaging.motion import framewise_displacement, realign
from pdsynth.imaging.nifti import ScanHeader, Volume, read_header, read_volume
from pdsynth.imaging.segments import (
    Gradients,
    direction_subsets,
    nearest_shell,
    read_gradients,
    segment_means,
    steady_start,
    time_blocks,
)
from pdsynth.types import NA, InputError, Modality

OTHER_SHELL = 300.0  # s/mm^2; a shell farther from the asked one has another contrast, and is noted
SAME_AFFINE = 1e-3  # tolerance between the affines of a scan and its mask, for rounding in headers


@dataclass(frozen=True)
class ScanMeans:
    """Mean volumes of one scan on its own grid.

    means: first of the whole scan, then of each segment if there are several; of fMRI over the volumes in the steady
    state, of dMRI over one shell. reference: the volume for registration, which is the mean fMRI, or the mean b0 (the
    mean of the shell if there is no b0). A 3D file is its own mean and reference. bval: median b-value of the shell in
    s/mm^2, None for fMRI and for a 3D file. motion_mm: mean framewise displacement in mm, by the realignment, else, for
    fMRI, from fMRIPrep's table of confounds; None without either. notes: the doubtful entries of the header and of the
    gradient tables, and how they were read, and a shell far from the one that is asked for.
    """

    means: list[Volume]
    reference: Volume
    bval: float | None
    motion_mm: float | None = None
    notes: tuple[str, ...] = ()


def scan_means(scan: Scan, preprocessing: Preprocessing, segments: int = 1) -> ScanMeans:
    """Read a scan once and compute the means of the whole scan and, if segments is above 1, of each segment.

    preprocessing: settings of the steps, such as b-value and corrections. Segments of an fMRI scan are contiguous
    blocks of time after the first non-steady volumes. Those of a dMRI scan are subsets, with evenly spread directions,
    of the shell nearest to the b-value `preprocessing.shell`; other shells are not used. A file of a single volume is
    its own mean, and no correction changes it.

    Raises InputError for a scan that cannot be read, a 4D dMRI without gradient tables, segments of a dMRI without
    directions, or fewer steady volumes, or volumes of the shell, than segments; a file of a single volume has one.
    Raises ValueError for a dMRI without diffusion-weighted volumes, a negative repetition time, and a realignment that
    fails.
    """
    header = read_header(scan.path)
    if header.n_volumes == 1:
        _enough(scan, 1, segments)
        volume = read_volume(scan.path)
        return ScanMeans([volume], volume, None, notes=header.notes)
    if scan.modality is Modality.FMRI:
        skip = steady_start(
            header.zooms[3], header.n_volumes, preprocessing.unsteady_seconds, preprocessing.unsteady_share
        )
        steady = np.arange(skip, header.n_volumes)
        _enough(scan, len(steady), segments)
        blocks = time_blocks(header.n_volumes, segments, skip) if segments > 1 else []
        means, motion = _means(scan, [steady, *blocks], header.affine, preprocessing)
        motion = reported_motion(scan) if motion is None else motion
        return ScanMeans(means, means[0], None, motion, _fmri_notes(header))
    if scan.bval is None or scan.bvec is None:
        raise InputError(scan.path, "has no .bval and .bvec files", "put both next to the scan, with its name")
    gradients = read_gradients(scan.bval, scan.bvec, header.n_volumes, scan.path)
    shell, bval = nearest_shell(gradients.bvals, preprocessing.shell)
    _enough(scan, len(shell), segments)
    if segments > 1 and not gradients.bvecs[shell].any(1).all():
        raise InputError(scan.bvec, "has no directions to divide into segments", "leave out --segments")
    subsets = direction_subsets(gradients.bvecs, shell, segments) if segments > 1 else []
    b0 = np.flatnonzero(gradients.is_b0)
    means, motion = _means(scan, [b0 if len(b0) else shell, shell, *subsets], header.affine, preprocessing)
    return ScanMeans(means[1:], means[0], bval, motion, _dmri_notes(header, gradients, preprocessing.shell))


def scan_notes(scan: Scan, header: ScanHeader, shell: float = SHELL) -> tuple[str, ...]:
    """The doubtful entries of a scan's header and gradient tables, and how they were read; no voxel is read.

    scan: a file of a single volume needs no gradient tables. header: that of the scan. shell: b-value in s/mm^2 of the
    dMRI shell that is averaged; a scan whose nearest shell is far from it is doubtful. Raises InputError for a table
    that cannot be used, and ValueError for a dMRI without diffusion-weighted volumes.
    """
    if header.n_volumes == 1:
        return header.notes
    if scan.modality is Modality.FMRI:
        return _fmri_notes(header)
    return _dmri_notes(header, read_gradients(scan.bval, scan.bvec, header.n_volumes, scan.path), shell)


def _fmri_notes(header: ScanHeader) -> tuple[str, ...]:
    return header.notes + ((header.time_note,) if header.time_note else ())


def _dmri_notes(header: ScanHeader, gradients: Gradients, shell: float) -> tuple[str, ...]:
    return header.notes + gradients.notes + _other_shell(nearest_shell(gradients.bvals, shell)[1], shell)


def _other_shell(bval: float, target: float) -> tuple[str, ...]:
    """A note if the nearest shell of a scan is far from the one that is asked for, both in s/mm^2.

    >>> _other_shell(1250, 1000), _other_shell(2500, 1000)
    ((), ('has no shell near b = 1000 s/mm^2; that of b = 2500 is used, whose contrast differs',))
    """
    if abs(bval - target) <= OTHER_SHELL:
        return ()
    return (f"has no shell near b = {target:g} s/mm^2; that of b = {bval:g} is used, whose contrast differs",)


def scan_brain(scan: Scan, reference: Volume, preprocessing: Preprocessing) -> np.ndarray:
    """Brain mask of a scan on its own grid, (X, Y, Z) bool: that of its mask file, or one computed from `reference`.

    The mask file is used if a preprocessing tool wrote one and the setting `mask` is "given"; its values above 0.5 are
    brain. Raises InputError, naming the mask file, if it cannot be read, is on another grid or is empty. Raises
    ValueError if there is no mask file to use and no brain is found.
    """
    mask = given_mask(scan, preprocessing)
    if mask is None:
        return brain_mask(reference)
    given = read_volume(mask)
    alike = given.data.shape == reference.data.shape and np.allclose(given.affine, reference.affine, atol=SAME_AFFINE)
    if not alike:
        problem = f"is not a mask of {scan.path.name}: it is on another grid"
        raise InputError(mask, problem, "put the scan's own mask there, or move this one away")
    brain = given.data > 0.5
    if not brain.any():
        raise InputError(mask, "is an empty brain mask", "make it again, or move it away so that one is computed")
    return brain


def given_mask(scan: Scan, preprocessing: Preprocessing) -> Path | None:
    """The brain mask file to use for a scan; None if the mask is to be computed.

    It is a file that fMRIPrep or QSIPrep wrote beside the scan, and is used if the setting `mask` of the preprocessing
    is "given".
    """
    return scan.mask if preprocessing.mask == "given" else None


def _means(
    scan: Scan, indices: list[np.ndarray], affine: np.ndarray, preprocessing: Preprocessing
) -> tuple[list[Volume], float | None]:
    """Mean volume over each set of volume numbers, and the mean framewise displacement in mm, None without realignment.

    The mean over the first set is the reference to which all volumes are realigned. affine: the scan's, (4, 4).
    """
    denoise = preprocessing.denoise and scan.modality is Modality.DMRI
    if not (denoise or preprocessing.realign):
        return [Volume(data, affine) for data in segment_means(scan.path, indices)], None
    every = [np.array([t]) for t in range(read_header(scan.path).n_volumes)]
    series, motion = segment_means(scan.path, every), None
    if denoise:
        series = denoised(series)
    if preprocessing.realign:
        reference = Volume(series[indices[0]].mean(0), affine)
        series, maps = realign(series, reference)
        brain = scan_brain(scan, reference, preprocessing)
        centre = np.argwhere(brain).mean(0) @ affine[:3, :3].T + affine[:3, 3]
        motion = float(framewise_displacement(maps, centre).mean())
    return [Volume(series[chosen].mean(0), affine) for chosen in indices], motion


def require_dipy() -> None:
    """Raise ValueError if the package dipy, which denoises dMRI, is not installed."""
    if find_spec("dipy") is None:
        raise ValueError(
            "dMRI is denoised by dipy, which is not installed; install it by pip install 'pdsynth[denoise]'."
        )


def denoised(series: np.ndarray) -> np.ndarray:
    """Denoise a dMRI series (T, X, Y, Z) by Marchenko-Pastur principal component analysis (Veraart et al. 2016).

    It removes the principal components of patches of 5 x 5 x 5 voxels that noise explains. The result has the same
    shape, float32. Raises ValueError if dipy is not installed.
    """
    require_dipy()
    from dipy.denoise.localpca import mppca

    return np.moveaxis(mppca(np.moveaxis(series, 0, -1), patch_radius=2), -1, 0).astype(np.float32)


def confounds(scan: Scan) -> Path | None:
    """Path of the table of confounds (head motion) that fMRIPrep wrote beside a BOLD scan; None if there is none.

    Only a scan whose name ends in _desc-preproc_bold.nii or .nii.gz, as fMRIPrep writes it, can have one.
    """
    stem = re.sub(r"(_space-[A-Za-z0-9]+)?(_res-[A-Za-z0-9]+)?_desc-preproc_bold\.nii(\.gz)?$", "", scan.path.name)
    path = scan.path.with_name(f"{stem}_desc-confounds_timeseries.tsv")
    return path if stem != scan.path.name and path.exists() else None


def reported_motion(scan: Scan) -> float | None:
    """Mean framewise displacement in mm from fMRIPrep's table of confounds of the scan; None if it is not known.

    Cells without a number are left out. It is not known without a table that can be read and has this column.
    """
    path = confounds(scan)
    if path is None:
        return None
    try:
        moved = pd.read_csv(path, sep="\t", na_values=NA)["framewise_displacement"].astype(float).mean()
    except (KeyError, ValueError):
        return None
    return float(moved) if np.isfinite(moved) else None


def _enough(scan: Scan, n_volumes: int, segments: int) -> None:
    if n_volumes < segments:
        raise InputError(
            scan.path, f"has {n_volumes} volumes to average, too few for {segments} segments", "lower --segments"
        )
