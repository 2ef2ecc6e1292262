"""Standardises one scan: a volume on the MNI grid, of the brain and its rim, in 0..1, with the transforms.

`prepare` calls `standardise` for the scans of a cohort, and `synthesize` for a user's scan. Both get the same volume.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from scipy import ndimage
from skimage.metrics import normalized_mutual_information

from pdsynth.cohorts.cohort import Scan
from pdsynth.data.means import given_mask, scan_brain, scan_means
from pdsynth.data.preprocessing import Preprocessing
from pdsynth.imaging.intensity import RobustScale, flatten
from pdsynth.imaging.nifti import Volume, read_header
from pdsynth.imaging.plausible import check_brain, check_head_size, check_intensities
from pdsynth.imaging.poses import check_pose
from pdsynth.imaging.spatial import Grid, Transform, from_flirt, register, resample
from pdsynth.imaging.template import b0_template, epi_template, tissue_template
from pdsynth.types import InputError, Modality

LEAST_COVERAGE = 0.7  # fraction of the template brain inside the field of view
LEAST_OVERLAP = 0.6  # Dice coefficient of the brain and the template brain inside the field of view
FLIRT_TEMPLATE = "standard.nii.gz"  # in the folder of FEAT's matrix
TO_MNI, BY_B0 = "affine to MNI", "affine to MNI by the mean b0"  # steps of a transform
BINS = 32  # of each image's histogram, for mutual information
log = logging.getLogger(__name__)  # one message per step, for those who show the progress


@dataclass(frozen=True)
class Placement:
    """Measures of the alignment of a scan with the template.

    coverage: fraction of the template brain in the scan's field of view. overlap: Dice coefficient of the scan's brain
    and the part of the template brain in the field of view. mutual_information: normalised, of the mean fMRI or b0 and
    the template, over that part, 1 (none) to 2 (Studholme et al. 1999).
    """

    coverage: float
    overlap: float
    mutual_information: float


@dataclass(frozen=True)
class Standardised:
    """A scan on the standard grid.

    volumes: first the mean of the whole scan, then of each segment if there are several; (X, Y, Z) float32 in 0..1,
    rounded to float16 as in a prepared folder, and zero farther from the template's brain than the margin. scales: for
    each volume, the intensity in the scan's unit that becomes 1, and the relative receive field on the grid, if it was
    divided out. brain: the scan's own brain mask on the grid, (X, Y, Z) bool. transform: from the scan to the grid, mm
    to mm. placement: quality of the transform. reference: the mean fMRI or b0, on the scan's own 3D grid `native`;
    mean: the mean of the whole scan there, for dMRI that of its shell; native_brain: the brain mask there. mask: the
    file of native_brain, None if it was computed. bval: the dMRI shell in s/mm^2, None for fMRI and 3D means.
    motion_mm: mean framewise displacement in mm, None if it is unknown. notes: doubts about the scan, with their
    reading.
    """

    scan: Scan
    volumes: list[np.ndarray]
    scales: list[RobustScale]
    brain: np.ndarray
    transform: Transform
    placement: Placement
    reference: Volume
    mean: Volume
    native_brain: np.ndarray
    mask: Path | None
    bval: float | None
    motion_mm: float | None
    notes: tuple[str, ...] = ()

    @property
    def volume(self) -> np.ndarray:
        """The volume of the whole scan, (X, Y, Z) float32 in 0..1."""
        return self.volumes[0]

    @property
    def native(self) -> Grid:
        """The scan's own 3D grid."""
        return Grid.of(self.reference)


def standardise(
    scan: Scan,
    preprocessing: Preprocessing,
    segments: int = 1,
    partner: Standardised | None = None,
) -> Standardised:
    """Read a scan, resample it on the grid, scale it, and set voxels far from the template's brain to zero.

    preprocessing: the settings of all steps, such as the grid, the intensity scale, and `margin_mm`, the distance from
    which a voxel is far. segments: if above 1, number of segments whose means are standardised besides the mean of the
    whole scan. partner: the standardised fMRI of a dMRI's session, through which the dMRI is registered; None without
    one. Raises InputError, naming the file, if the scan cannot be used.
    """
    try:
        log.info("Reading the scan")
        read = scan_means(scan, preprocessing, segments)
        check_intensities(read.reference)
        log.info("Checking the pose of the head")
        notes = read.notes + check_pose(read.reference)
        log.info("Finding the brain")
        native_brain = scan_brain(scan, read.reference, preprocessing)
        check_brain(read.reference, native_brain)
        log.info("Aligning the scan with the template")
        transform = place(scan, read.reference, native_brain, preprocessing, partner)
        notes += check_head_size(transform.matrix)
        brain, placement = standard_brain(read.reference, native_brain, preprocessing, transform)
        volumes, scales = zip(*(_scaled(m, brain, preprocessing, transform) for m in read.means), strict=True)
    except ValueError as error:
        raise refused(scan, error) from error
    return Standardised(
        scan,
        list(volumes),
        list(scales),
        brain,
        transform,
        placement,
        read.reference,
        read.means[0],
        native_brain,
        given_mask(scan, preprocessing),
        read.bval,
        read.motion_mm,
        notes,
    )


def place(
    scan: Scan,
    reference: Volume,
    brain: np.ndarray,
    preprocessing: Preprocessing,
    partner: Standardised | None = None,
) -> Transform:
    """Transform from a scan to the grid, mm to mm: of a preprocessing tool, through the partner, or to the template.

    reference: the scan's mean fMRI or b0, with its brain mask `brain`, (X, Y, Z) bool. partner: the standardised fMRI
    of a dMRI's session, or None. A scan in MNI space gets the identity, and one with a matrix of FSL
    gets that matrix; only others are registered. A partner that a tool has warped to MNI is not used, because no rigid
    transform leads to it. Raises InputError for a matrix of FSL that cannot be read, or without a template image in its
    folder, and ValueError if a registration fails.
    """
    if scan.in_mni:
        return Transform({f"already in {scan.space}": np.eye(4)})
    if scan.flirt is not None:
        return Transform({"FLIRT to MNI": read_flirt(scan.flirt, Grid.of(reference))})
    if partner is not None and not partner.scan.in_mni:
        rigid = to_partner(reference, brain, partner.reference, partner.native_brain)
        return Transform({f"rigid to {partner.scan.modality}": rigid, TO_MNI: partner.transform.matrix})
    grid = preprocessing.grid
    if scan.modality is Modality.DMRI and preprocessing.alone == "affine-b0":
        return Transform({BY_B0: to_template(reference, brain, b0_template(grid))})
    template = flatten(epi_template(grid), tissue_template(grid)["brain"] > 0.5)
    return Transform({TO_MNI: to_template(reference, brain, template)})


def to_template(reference: Volume, brain: np.ndarray, template: Volume) -> np.ndarray:
    """Affine registration of a scan's reference volume, with its brain mask, to a template: (4, 4), mm to mm.

    template: in MNI space, 0 outside the brain. Raises ValueError if the two do not overlap enough.
    """
    inside = template.data > 0
    return register(flatten(reference, brain), template, "affine", moving_mask=brain, fixed_mask=inside)


def read_flirt(path: Path, moving: Grid) -> np.ndarray:
    """FEAT's matrix from the scan (grid `moving`) to the template image in the matrix's folder: (4, 4), mm to mm.

    path: the matrix's file. The template image has the name standard.nii.gz. Raises InputError if the file is not a
    table of 4 x 4 numbers, or without the template image.
    """
    try:
        matrix = np.loadtxt(path)
    except (OSError, ValueError) as error:
        raise InputError(path, f"is not a table of numbers ({error})", "run FEAT again") from error
    if matrix.shape != (4, 4):
        raise InputError(path, f"holds {matrix.shape} numbers, not 4 x 4", "run FEAT again")
    template = read_header(path.with_name(FLIRT_TEMPLATE))
    x, y, z = template.shape[:3]
    return from_flirt(matrix, moving, Grid((x, y, z), template.affine))


def to_partner(moving: Volume, moving_brain: np.ndarray, fixed: Volume, fixed_brain: np.ndarray) -> np.ndarray:
    """Rigid registration of two scans of one session, with their brain masks: (4, 4), from moving to fixed, mm to mm.

    Raises ValueError if the two do not overlap enough.
    """
    flat = flatten(moving, moving_brain), flatten(fixed, fixed_brain)
    return register(*flat, "rigid", moving_mask=moving_brain, fixed_mask=fixed_brain)


def standard_brain(
    reference: Volume, native: np.ndarray, preprocessing: Preprocessing, transform: Transform
) -> tuple[np.ndarray, Placement]:
    """The scan's brain mask on the grid, (X, Y, Z) bool, within the margin of the template's brain, and its alignment.

    reference: the scan's mean fMRI or b0. native: the brain mask on the scan's own grid. transform: from the scan to
    the grid. Raises ValueError if the field of view covers less than 0.7 of the template brain, or if the Dice
    coefficient of the scan's brain and the part of the template brain in the field of view is below 0.6.
    """
    grid = preprocessing.grid
    template = tissue_template(grid)["brain"] > 0.5
    field_of_view = resample(Volume(np.ones_like(reference.data), reference.affine), grid, transform.matrix) > 0.5
    coverage = (field_of_view & template).sum() / template.sum()
    if coverage < LEAST_COVERAGE:
        raise ValueError(f"the scan holds only {coverage:.0%} of the brain; give a scan of the whole brain.")
    brain = resample(Volume(native, reference.affine), grid, transform.matrix) > 0.5
    overlap = 2 * (brain & template).sum() / max(1, (brain.sum() + (template & field_of_view).sum()))
    if overlap < LEAST_OVERLAP:
        raise ValueError(
            f"the brain does not align with the template (overlap {overlap:.2f}); "
            "check the scan's orientation and voxel size in its header."
        )
    visible = field_of_view & template
    image = resample(flatten(reference, native), grid, transform.matrix)[visible]
    shared = normalized_mutual_information(image, epi_template(grid).data[visible], bins=BINS)
    placement = Placement(float(coverage), float(overlap), float(shared))
    return brain & brain_region(grid, preprocessing.margin_mm), placement


def _scaled(
    mean: Volume, brain: np.ndarray, preprocessing: Preprocessing, transform: Transform
) -> tuple[np.ndarray, RobustScale]:
    """A mean volume on the grid, scaled and cut to the region (see `Standardised`), and its intensity scale."""
    data = resample(mean, preprocessing.grid, transform.matrix)
    scale = intensity_scale(data, brain, preprocessing)
    # the same region for all participants: no method can predict the edge of a scan's own brain mask
    region = brain_region(preprocessing.grid, preprocessing.margin_mm)
    return np.where(region, scale.apply(data), 0).astype(np.float16).astype(np.float32), scale


def intensity_scale(data: np.ndarray, brain: np.ndarray, preprocessing: Preprocessing) -> RobustScale:
    """The scale of a volume on the grid, (X, Y, Z), with its brain mask, (X, Y, Z) bool, by the setting `intensity`.

    "flat-median" divides by the receive field and 2.5 times the median in the brain, "percentile" by a percentile
    there. Raises ValueError if the mask is empty, or the median or percentile in the brain is not positive.
    """
    if preprocessing.intensity == "percentile":
        return RobustScale.by_percentile(data, brain, preprocessing.percentile)
    return RobustScale.flat_median(Volume(data, preprocessing.grid.affine), brain)


@lru_cache(maxsize=4)
def brain_region(grid: Grid, margin_mm: float) -> np.ndarray:
    """The template's brain and all voxels up to margin_mm from it, (X, Y, Z) bool, read-only.

    Outside it every prepared volume is zero.
    """
    brain = tissue_template(grid)["brain"] > 0.5
    region = ndimage.distance_transform_edt(~brain, sampling=grid.spacing_mm) <= margin_mm
    region.flags.writeable = False
    return region


def refused(scan: Scan, error: Exception) -> InputError:
    """The InputError by which a scan is refused, from an error of its processing; it names the scan's file.

    An InputError is returned as it is. The message of another error is divided at the first "; " into problem and
    remedy; without a remedy, the advice is to look at the scan. The problem of an error other than a ValueError also
    names its type.
    """
    if isinstance(error, InputError):
        return error
    text = " ".join(str(error).split()).rstrip(".") or "cannot be used"
    problem, _, remedy = text.partition("; ")
    if not isinstance(error, ValueError):
        problem = f"{problem} ({type(error).__name__})"
    return InputError(scan.path, problem, remedy or "look at the scan in a viewer, and leave it out if it is damaged")
