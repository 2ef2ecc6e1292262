"""From one acquisition to the standard volume that methods see: MNI grid, brain and its rim, 0..1; every step kept.

The same code prepares a cohort and the single scan that is handed to synthesis.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import ndimage

from pdsynth.cohorts.cohort import Scan
from pdsynth.imaging.intensity import RobustScale, brain_mask, flatten
from pdsynth.imaging.nifti import Volume, read_header, read_volume
from pdsynth.imaging.segments import (
    direction_subsets,
    nearest_shell,
    read_gradients,
    segment_means,
    steady_start,
    time_blocks,
)
from pdsynth.imaging.spatial import Grid, Transform, register, resample
from pdsynth.imaging.template import epi_template, tissue_template
from pdsynth.types import InputError, Modality

SHELL = 1000.0  # s/mm^2: the shell nearest to it is taken
MARGIN_MM = 8.0  # volumes are cut out this far around the template's brain
LEAST_COVERAGE = 0.7  # of the template brain inside the field of view
LEAST_DICE = 0.6  # of the brain with the template brain inside the field of view


@dataclass(frozen=True)
class ScanMeans:
    """Means of one scan on its own grid.

    means: the whole scan's first, then each segment's where there is more than one. reference is what is registered:
    the whole fMRI mean, or the mean b0 (the mean over b > 0 where there is no b0). bval: the dMRI shell in s/mm^2,
    None for fMRI and for 3D means.
    """

    means: list[Volume]
    reference: Volume
    bval: float | None


@dataclass(frozen=True)
class Standardised:
    """A scan on the standard grid.

    volume (X, Y, Z) float32 in 0..1, zero farther than 8 mm from the template's brain; brain (X, Y, Z) bool is the
    scan's own; transform maps the scan's mm to the grid's; scale inverts the intensities; native is the scan's own 3D
    grid.
    """

    volume: np.ndarray
    brain: np.ndarray
    transform: Transform
    scale: RobustScale
    native: Grid


def scan_means(scan: Scan, segments: int = 1) -> ScanMeans:
    """Read a scan once: its mean and those of its segments.

    fMRI: contiguous blocks of time after the first non-steady volumes. dMRI: the b > 0 volumes of the shell nearest
    1000 s/mm^2, in subsets of evenly spread directions. A 3D file is its own mean. Raises InputError for a scan that
    cannot be read or has fewer volumes than segments.
    """
    header = read_header(scan.path)
    if header.n_volumes == 1:
        _enough(scan, 1, segments)
        volume = read_volume(scan.path)
        return ScanMeans([volume], volume, None)
    if scan.modality is Modality.FMRI:
        skip = steady_start(header.zooms[3], header.n_volumes)
        steady = np.arange(skip, header.n_volumes)
        _enough(scan, len(steady), segments)
        blocks = time_blocks(header.n_volumes, segments, skip) if segments > 1 else []
        means = _means(scan, [steady, *blocks], header.affine)
        return ScanMeans(means, means[0], None)
    if scan.bval is None or scan.bvec is None:
        raise InputError(scan.path, "has no .bval and .bvec files", "put both beside it under the scan's name")
    gradients = read_gradients(scan.bval, scan.bvec, header.n_volumes, scan.path)
    shell, bval = nearest_shell(gradients.bvals, SHELL)
    _enough(scan, len(shell), segments)
    subsets = direction_subsets(gradients.bvecs, shell, segments) if segments > 1 else []
    b0 = np.flatnonzero(gradients.is_b0)
    means = _means(scan, [b0 if len(b0) else shell, shell, *subsets], header.affine)
    return ScanMeans(means[1:], means[0], bval)


def scan_mean(scan: Scan) -> tuple[Volume, Volume, float | None]:
    """The whole scan's mean, the reference to register and the b-value: see `scan_means`."""
    read = scan_means(scan)
    return read.means[0], read.reference, read.bval


def _means(scan: Scan, indices: list[np.ndarray], affine: np.ndarray) -> list[Volume]:
    return [Volume(data, affine) for data in segment_means(scan.path, indices)]


def _enough(scan: Scan, n_volumes: int, segments: int) -> None:
    if n_volumes < segments:
        raise InputError(
            scan.path, f"has {n_volumes} volumes to average, which make no {segments} segments", "lower --segments"
        )


def to_template(reference: Volume, grid: Grid) -> np.ndarray:
    """Affine of a scan's reference to the MNI template: (4, 4), scan mm -> grid mm."""
    template = epi_template(grid)
    brain, inside = brain_mask(reference), tissue_template(grid)["brain"] > 0.5
    return register(
        flatten(reference, brain), flatten(template, inside), "affine", moving_mask=brain, fixed_mask=inside
    )


def place(scan: Scan, reference: Volume, grid: Grid) -> Transform:
    """From a scan's mm to the grid's: an affine registration, or nothing where a tool has brought it to MNI152."""
    if scan.in_mni:
        return Transform({f"already in {scan.space}": np.eye(4)})
    return Transform({"affine to MNI": to_template(reference, grid)})


def to_partner(moving: Volume, fixed: Volume) -> np.ndarray:
    """Rigid transform between two scans of one session: (4, 4), moving mm -> fixed mm."""
    brains = brain_mask(moving), brain_mask(fixed)
    flat = flatten(moving, brains[0]), flatten(fixed, brains[1])
    return register(*flat, "rigid", moving_mask=brains[0], fixed_mask=brains[1])


def standardise(mean: Volume, reference: Volume, grid: Grid, transform: Transform) -> Standardised:
    """Bring a scan's mean to the grid, cut out the template's brain with its rim, scale by the brain's p99.5.

    reference lies on the mean's own grid and gives the brain mask; transform maps the scan's mm to the grid's.
    Raises ValueError where no brain is found, or the field of view or the registration does not hold the brain.
    """
    return standardise_all([mean], reference, grid, transform)[0]


def standardise_scan(scan: Scan, grid: Grid) -> tuple[Standardised, float | None]:
    """Read and standardise one scan by itself; returns it with its b-value (None for fMRI and 3D means).

    Raises InputError, naming the file, for whatever is wrong with it.
    """
    try:
        mean, reference, bval = scan_mean(scan)
        return standardise(mean, reference, grid, place(scan, reference, grid)), bval
    except ValueError as error:
        raise refused(scan, error) from error


def standardise_all(means: list[Volume], reference: Volume, grid: Grid, transform: Transform) -> list[Standardised]:
    """`standardise` for the several means of one scan, which share one brain."""
    brain = standard_brain(reference, grid, transform)
    return [_placed(mean, brain, grid, transform) for mean in means]


def standard_brain(reference: Volume, grid: Grid, transform: Transform) -> np.ndarray:
    """The scan's brain on the grid, (X, Y, Z) bool, inside the template's brain widened by 8 mm; checked.

    Raises ValueError where the brain is cut off by the field of view or does not meet the template's.
    """
    native = brain_mask(reference)
    template = tissue_template(grid)["brain"] > 0.5
    seen = resample(Volume(np.ones_like(reference.data), reference.affine), grid, transform.matrix) > 0.5
    coverage = (seen & template).sum() / template.sum()
    if coverage < LEAST_COVERAGE:
        raise ValueError(f"the scan holds only {coverage:.0%} of the brain; give a scan of the whole brain.")
    brain = resample(Volume(native, reference.affine), grid, transform.matrix) > 0.5
    dice = 2 * (brain & template).sum() / max(1, (brain.sum() + (template & seen).sum()))
    if dice < LEAST_DICE:
        raise ValueError(
            f"the brain does not align with the template (overlap {dice:.2f}); "
            "check the scan's orientation and voxel size in its header."
        )
    return brain & brain_region(grid)


def _placed(mean: Volume, brain: np.ndarray, grid: Grid, transform: Transform) -> Standardised:
    data = resample(mean, grid, transform.matrix)
    scale = RobustScale.fit(data, brain)
    # One cut for everyone: at the edge of each scan's own brain mask it would be an error that no method can foresee
    volume = np.where(brain_region(grid), scale.apply(data), np.float32(0))
    return Standardised(volume, brain, transform, scale, Grid.of(mean))


@lru_cache(maxsize=4)
def brain_region(grid: Grid) -> np.ndarray:
    """The template's brain widened by 8 mm, (X, Y, Z) bool, read-only: what is kept of every scan."""
    brain = tissue_template(grid)["brain"] > 0.5
    region = ndimage.distance_transform_edt(~brain, sampling=grid.spacing_mm) <= MARGIN_MM
    region.flags.writeable = False
    return region


def refused(scan: Scan, error: Exception) -> InputError:
    """The error of a scan as an InputError that names its file; our messages read 'problem; remedy.'"""
    if isinstance(error, InputError):
        return error
    text = " ".join(str(error).split()).rstrip(".") or "cannot be used"
    problem, _, remedy = text.partition("; ")
    if not isinstance(error, ValueError):
        problem = f"{problem} ({type(error).__name__})"
    return InputError(scan.path, problem, remedy or "look at the scan in a viewer, and leave it out if it is damaged")
