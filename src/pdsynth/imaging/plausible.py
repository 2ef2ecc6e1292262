"""Whether an image can be a head: its field of view, and its intensities. Where the head lies is judged in `poses`."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

from pdsynth.imaging.geometry import UNIT_EDGES
from pdsynth.imaging.nifti import ScanHeader, Volume
from pdsynth.types import InputError

LEAST_HEIGHT_MM = 60.0  # a lower stack of slices is a slab, not a brain
LARGEST_MM = 500.0  # no head coil sees more
LEAST_MM_AT_1_MM = (
    120.0,
    150.0,
)  # left-right, back-front: less is not a head, so that voxels of 1 mm are a default value
NEGATIVE, NEGATIVE_SHARE = 0.25, 2e-4  # of the 99.5th percentile; share of the voxels. Right scans have none
SATURATED, SATURATED_SHARE = 0.999, 0.05  # of the largest intensity; share of the brain
ZERO_SHARE = 0.5  # of the brain
# Correlation of neighbouring voxels of the brain, along the best axis. In real and SIMULATED scans it is 0.67 to 0.9
# (benchmarks/poses.py); after a wrap at 256, or with exchanged bytes, it was 0.2 to 0.5 in 21 of them.
LEAST_CORRELATION = 0.5
LARGE_MM = 5.0  # neighbours are not compared in larger voxels, which share less
# Size of a head by its registration, relative to the template along any axis: 0.86 to 1.13 in 600 SIMULATED and 22 real
# scans.
DOUBTFUL_SIZE, WRONG_SIZE = 1.3, 1.45  # larger or smaller by these factors
WRITE_SIZE = "convert it again from DICOM, or write the true voxel size into the header"


def check_field(path: Path, header: ScanHeader) -> None:
    """Raise InputError if a scan's field of view, by its header, cannot be that of a whole head.

    This is so if it is above 500 mm along an axis, or below 60 mm from foot to head. It is also so for voxels of 1 mm,
    a default value of programs, if the image would then be below 120 mm from left to right or 150 mm from back to
    front. An affine that is the identity matrix is refused, too. path: the scan, for the message.
    """
    extent, edges = extent_mm(header), np.linalg.norm(header.affine[:3, :3], axis=0)
    lost = np.abs(edges - 1).max() < UNIT_EDGES and any(
        mm < least for mm, least in zip(extent[:2], LEAST_MM_AT_1_MM, strict=True)
    )
    size = f"{_by(edges)} mm by its header, too {{}} for a head at {_by(header.shape[:3])} voxels"
    if lost or max(extent) > LARGEST_MM:
        raise InputError(path, f"has voxels of {size}".format("small" if lost else "large"), WRITE_SIZE)
    if np.array_equal(header.affine, np.eye(4)):
        problem = "has the identity matrix as its affine: voxel size and orientation are doubtful"
        raise InputError(path, problem, "convert it again from DICOM, or write its true affine into the header")
    if extent[2] < LEAST_HEIGHT_MM:
        problem = f"is a slab of {extent[2]:.0f} mm from foot to head"
        raise InputError(path, problem, "give a scan of the whole brain")


def check_intensities(volume: Volume) -> None:
    """Raise ValueError if a mean volume is constant, or has too many strongly negative voxels.

    A magnitude image has no negative voxels. A voxel is strongly negative if it is below -0.25 times the 99.5th
    percentile of the absolute values; a fraction of at most 0.0002 of the voxels may be.
    """
    data = volume.data
    if data.min() == data.max():
        raise ValueError(
            f"the volume contains no signal (every voxel has the value {data.min():g}); "
            "convert it again from DICOM, or leave it out."
        )
    scale = float(np.percentile(np.abs(data), 99.5))
    negative = float((data < -NEGATIVE * scale).mean())
    if negative > NEGATIVE_SHARE:
        raise ValueError(
            f"{negative:.1%} of its voxels are strongly negative; give the magnitude image if this is the phase, the "
            "series with its mean if it was removed, or convert it again if its brightest parts are black."
        )


def check_brain(volume: Volume, brain: np.ndarray) -> None:
    """Raise ValueError if a mean volume is zero, saturated or not smooth inside the brain.

    brain: (X, Y, Z) bool. The volume is zero if more than half of the brain is 0. It is saturated if more than 5 % of
    the brain has at least 0.999 of the largest intensity there: a program limited the intensities. It is not smooth if
    the correlation of neighbouring voxels is below 0.5 along each axis: values wrapped around (a scan of 12 bits that
    was stored in 8), or their bytes have the wrong order. Smoothness is not judged if all voxel edges are above 5 mm.
    """
    inside = volume.data[brain]
    if (inside == 0).mean() > ZERO_SHARE:
        raise ValueError(f"{(inside == 0).mean():.0%} of the brain is zero; convert it again from DICOM.")
    saturated = float((inside >= SATURATED * inside.max()).mean())
    if saturated > SATURATED_SHARE:
        raise ValueError(
            f"{saturated:.0%} of the brain has the largest intensity, {inside.max():g}: the scan is saturated; "
            "convert it again from DICOM with a larger data type."
        )
    alike = max(neighbours(volume.data, brain))
    if alike < LEAST_CORRELATION and volume.spacing_mm.min() <= LARGE_MM:
        raise ValueError(
            f"neighbouring voxels of the brain hardly resemble each other (correlation {alike:.2f}), as if intensities "
            "had wrapped around or their bytes were exchanged; convert it again from DICOM."
        )


def check_head_size(matrix: np.ndarray) -> tuple[str, ...]:
    """Compare the size of a scanned head with the template's, along any axis, and return notes on a doubtful size.

    matrix: (4, 4), the affine transform from the scan to the template, mm to mm. There is one note if the size differs
    by more than a factor of 1.3, else none. Raises ValueError if it differs by more than a factor of 1.45.

    >>> check_head_size(np.diag([1.1, 0.9, 1, 1]))
    ()
    """
    sizes = 1 / np.linalg.svd(matrix[:3, :3], compute_uv=False)
    factor = float(np.maximum(sizes, 1 / sizes).max())
    found = f"by its header the head is {sizes.min():.2f} to {sizes.max():.2f} times as large as the template's"
    if factor > WRONG_SIZE:
        raise ValueError(f"{found}: its voxel size is wrong; {WRITE_SIZE}.")
    return (f"{found}; check its voxel size",) if factor > DOUBTFUL_SIZE else ()


def neighbours(data: np.ndarray, brain: np.ndarray) -> list[float]:
    """Correlation of each voxel's value with the next one's, over the brain, along each of the three voxel axes.

    data and brain (bool) are (X, Y, Z). The result has three numbers in -1..1. A number is 1 if the values do not vary,
    or if the brain has fewer than two pairs of neighbours along the axis.
    """
    found = []
    for axis in range(3):
        (near, next_one), (first, second) = (
            [np.take(array, range(start, array.shape[axis] - 1 + start), axis) for start in (0, 1)]
            for array in (data, brain)
        )
        both = first & second
        values = near[both], next_one[both]
        known = both.sum() > 1 and all(v.std() > 0 for v in values)
        found.append(float(np.corrcoef(*values)[0, 1]) if known else 1.0)
    return found


def extent_mm(header: ScanHeader) -> tuple[float, float, float]:
    """Field of view in mm: left-right, back-front, foot-head, along the voxel axes nearest to these directions."""
    sizes = np.linalg.norm(header.affine[:3, :3], axis=0)
    order = nib.orientations.io_orientation(header.affine)[:, 0].astype(int)
    extent = np.empty(3)
    extent[order] = sizes * np.asarray(header.shape[:3])
    return float(extent[0]), float(extent[1]), float(extent[2])


def _by(numbers: np.ndarray | tuple[int, ...]) -> str:
    return "x".join(f"{number:.4g}" for number in numbers)
