"""Whether a head lies as its header says, by the fit of the template brain in the 24 right-angled poses.

A wrong sign or a wrong order of the axes in a header turns the head by right angles, or mirrors it. The template is
symmetric, so that a pose and its left-right mirror image fit equally: of the 48 poses, 24 differ. Therefore an exchange
of left and right alone cannot be seen here. benchmarks/poses.py measures the misfits from which the margins come.
"""

from __future__ import annotations

from itertools import permutations, product

import numpy as np

from pdsynth.imaging.intensity import LEAST_HEAD_MM, bright_piece, flatten
from pdsynth.imaging.nifti import Volume
from pdsynth.imaging.registration import misfits
from pdsynth.imaging.spatial import block_means, mni_grid
from pdsynth.imaging.template import epi_template, tissue_template

LEAST_MM = 100.0  # a lower stack of slices shows too little of the brain's shape
VOXEL_MM = 5.0  # blocks of voxels up to this size are averaged first
SIZES = 0.8, 1.25  # limits of a brain's size, relative to the template's
REFINED = 5  # poses that are registered; the right one matched best even before, in all of 57 scans
# Misfit of the header's pose minus that of the best other one. In 83 of 84 scans it was -0.16 or less for the right
# header, and 0.16 or more for each of 23 wrong ones; for a volunteer who tilted the head on purpose it was -0.03.
WRONG, DOUBTFUL = 0.1, -0.08


def _poses() -> list[np.ndarray]:
    """The 24 rotations by right angles, each (3, 3); the first is the identity."""
    signed = [
        np.array(signs) * np.eye(3)[list(order)]
        for order in permutations(range(3))
        for signs in product((1.0, -1.0), repeat=3)
    ]
    return sorted((m for m in signed if np.linalg.det(m) > 0), key=lambda m: -np.trace(m))


POSES = _poses()


def pose_misfits(volume: Volume, refined: int | None = None) -> np.ndarray:
    """Misfit of the template brain to a head in each of 24 right-angled poses, (24,); 0 is a perfect fit.

    volume: a mean BOLD or b0, with or without skull. A pose is the rotation, (3, 3), from the template to the head as
    the header places it; they are in `POSES`. The first is the identity, the pose of a right header. A misfit is in
    0..1, or infinite where the two overlap too little. The centres of the two brains and their sizes are matched before
    the registration. refined: if given, only the first pose, and this number of poses that fit best before a
    registration, are registered, and the misfit of the others is infinite; None registers all. Raises ValueError if no
    brain is found.
    """
    low = _shrunk(volume)
    brain = bright_piece(np.maximum(low.data, 0), low.spacing_mm)
    grid = mni_grid(4.0)
    inside = tissue_template(grid)["brain"] > 0.5
    centre, target = (np.argwhere(m) @ a[:3, :3].T + a[:3, 3] for m, a in ((brain, low.affine), (inside, grid.affine)))
    larger = brain.sum() * np.prod(low.spacing_mm) / (inside.sum() * np.prod(grid.spacing_mm))
    size = float(np.clip(np.cbrt(larger), *SIZES))
    starts = []
    for pose in POSES:
        start = np.eye(4)
        start[:3, :3] = size * pose
        start[:3, 3] = centre.mean(0) - start[:3, :3] @ target.mean(0)
        starts.append(start)
    return misfits(flatten(low, brain), flatten(epi_template(grid), inside), starts, brain, inside, refined)


def check_pose(volume: Volume) -> tuple[str, ...]:
    """Check that a head in a mean BOLD or b0 lies as its header says; returns notes, none if the pose is right.

    The template brain is fitted in 24 right-angled poses. Raises ValueError if its misfit (0..1) in another pose than
    the header's is lower by more than 0.1. There is a note if it is lower by 0.1 or less, or higher by less than 0.08.
    An image is not judged, and has no notes, if its field of view is below 100 mm along an axis, or below 120 mm along
    all axes, since its header has then lost the voxel size. Raises ValueError also if no brain is found. It takes 0.2 s
    on one core.
    """
    extent = np.array(volume.data.shape) * volume.spacing_mm
    if extent.max() < LEAST_HEAD_MM or extent.min() < LEAST_MM:
        return ()
    found = pose_misfits(volume, REFINED)
    best = 1 + int(found[1:].argmin())
    better = float(found[0] - found[best])
    if better > WRONG:
        raise ValueError(
            f"by its header {words(POSES[best])} (misfit {found[0]:.2f} as it is, {found[best]:.2f} if it is turned); "
            "look at it in a viewer, and convert it again from DICOM; if it still is, leave it out, because left and "
            "right are doubtful too."
        )
    if better > DOUBTFUL:
        return (f"perhaps {words(POSES[best])} by its header; look at it in a viewer",)
    return ()


def words(pose: np.ndarray) -> str:
    """How a head lies that is turned by a right-angled rotation `pose`, (3, 3), in words for a message.

    >>> words(np.diag([1.0, -1, -1]))
    'the head lies upside down'
    """
    up = pose @ (0, 0, 1)  # where the top of the head is, by the header
    front = pose @ (0, 1, 0)
    if up[2] > 0:
        return "the head faces backwards" if front[1] < 0 else "the head faces sideways"
    return "the head lies upside down" if up[2] < 0 else "the head lies on its side (axes exchanged)"


def _shrunk(volume: Volume) -> Volume:
    """The volume with blocks of voxels averaged, so that the voxels measure at most VOXEL_MM."""
    block = np.maximum(1, np.floor(VOXEL_MM / volume.spacing_mm)).astype(int)
    affine = volume.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ ((block - 1) / 2)
    affine[:3, :3] *= block
    return Volume(block_means(volume.data, block), affine)
