"""From one acquisition to the standard volume that methods see: MNI grid, brain and its rim, 0..1; every step kept.

The same code prepares a cohort and the single scan that is handed to synthesis.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from scipy import ndimage
from skimage.metrics import normalized_mutual_information

from pdsynth.cohorts.cohort import Scan
from pdsynth.data.means import scan_mean
from pdsynth.imaging.intensity import RobustScale, brain_mask, flatten
from pdsynth.imaging.nifti import Volume, read_header
from pdsynth.imaging.spatial import Grid, Transform, from_flirt, register, resample
from pdsynth.imaging.template import epi_template, tissue_template
from pdsynth.types import InputError

MARGIN_MM = 8.0  # volumes are cut out this far around the template's brain
LEAST_COVERAGE = 0.7  # of the template brain inside the field of view
LEAST_OVERLAP = 0.6  # Dice of the brain with the template brain inside the field of view
FLIRT_TEMPLATE = "standard.nii.gz"  # beside FEAT's matrix
BINS = 32  # of each intensity, for mutual information


@dataclass(frozen=True)
class Placement:
    """How well a scan lies on the template.

    coverage: part of the template brain in the field of view; overlap: Dice of the two brains there;
    mutual_information: of the reference with the template, normalised, 1 (none) to 2 (Studholme et al. 1999).
    """

    coverage: float
    overlap: float
    mutual_information: float


@dataclass(frozen=True)
class Standardised:
    """A scan on the standard grid.

    volume (X, Y, Z) float32 in 0..1, zero farther than 8 mm from the template's brain; brain (X, Y, Z) bool is the
    scan's own; transform maps the scan's mm to the grid's; scale inverts the intensities; native is the scan's own 3D
    grid; placement judges the transform.
    """

    volume: np.ndarray
    brain: np.ndarray
    transform: Transform
    scale: RobustScale
    native: Grid
    placement: Placement


def to_template(reference: Volume, grid: Grid) -> np.ndarray:
    """Affine of a scan's reference to the MNI template: (4, 4), scan mm -> grid mm."""
    template = epi_template(grid)
    brain, inside = brain_mask(reference), tissue_template(grid)["brain"] > 0.5
    return register(
        flatten(reference, brain), flatten(template, inside), "affine", moving_mask=brain, fixed_mask=inside
    )


def place(scan: Scan, reference: Volume, grid: Grid) -> Transform:
    """From a scan's mm to the grid's: what a preprocessing tool has found, or else an affine registration.

    Raises InputError for a matrix of FSL that cannot be read or has no template image beside it.
    """
    if scan.in_mni:
        return Transform({f"already in {scan.space}": np.eye(4)})
    if scan.flirt is not None:
        return Transform({"FLIRT to MNI": read_flirt(scan.flirt, Grid.of(reference))})
    return Transform({"affine to MNI": to_template(reference, grid)})


def read_flirt(path: Path, moving: Grid) -> np.ndarray:
    """FEAT's matrix to the template that lies beside it, as a map between mm, (4, 4)."""
    try:
        matrix = np.loadtxt(path)
    except (OSError, ValueError) as error:
        raise InputError(path, f"is no table of numbers ({error})", "run FEAT again") from error
    if matrix.shape != (4, 4):
        raise InputError(path, f"holds {matrix.shape} numbers, not 4 x 4", "run FEAT again")
    template = read_header(path.with_name(FLIRT_TEMPLATE))
    x, y, z = template.shape[:3]
    return from_flirt(matrix, moving, Grid((x, y, z), template.affine))


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
    brain, placement = standard_brain(reference, grid, transform)
    return [_placed(mean, brain, grid, transform, placement) for mean in means]


def standard_brain(reference: Volume, grid: Grid, transform: Transform) -> tuple[np.ndarray, Placement]:
    """The scan's brain on the grid, (X, Y, Z) bool, inside the template's brain widened by 8 mm; judged.

    Raises ValueError where the brain is cut off by the field of view or does not meet the template's.
    """
    native = brain_mask(reference)
    template = tissue_template(grid)["brain"] > 0.5
    seen = resample(Volume(np.ones_like(reference.data), reference.affine), grid, transform.matrix) > 0.5
    coverage = (seen & template).sum() / template.sum()
    if coverage < LEAST_COVERAGE:
        raise ValueError(f"the scan holds only {coverage:.0%} of the brain; give a scan of the whole brain.")
    brain = resample(Volume(native, reference.affine), grid, transform.matrix) > 0.5
    overlap = 2 * (brain & template).sum() / max(1, (brain.sum() + (template & seen).sum()))
    if overlap < LEAST_OVERLAP:
        raise ValueError(
            f"the brain does not align with the template (overlap {overlap:.2f}); "
            "check the scan's orientation and voxel size in its header."
        )
    there = seen & template
    image = resample(flatten(reference, native), grid, transform.matrix)[there]
    shared = normalized_mutual_information(image, epi_template(grid).data[there], bins=BINS)
    return brain & brain_region(grid), Placement(float(coverage), float(overlap), float(shared))


def _placed(mean: Volume, brain: np.ndarray, grid: Grid, transform: Transform, placement: Placement) -> Standardised:
    data = resample(mean, grid, transform.matrix)
    scale = RobustScale.fit(data, brain)
    # One cut for everyone: at the edge of each scan's own brain mask it would be an error that no method can foresee
    volume = np.where(brain_region(grid), scale.apply(data), np.float32(0))
    return Standardised(volume, brain, transform, scale, Grid.of(mean), placement)


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
