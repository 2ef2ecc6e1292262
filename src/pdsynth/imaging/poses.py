"""Whether a head lies as its header says, by the fit of the template brain in the 24 right-angled poses.

A wrong sign or a wrong order of the axes in a header turns the head by right angles, or mirrors it. The template is
symmetric, so that a pose and its left-right mirror image fit equally: of the 48 poses, 24 differ. Therefore an exchange
of left and right alone cannot be seen here. benchmarks/poses.py measures the misfits from which the margins come.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations, product

import numpy as np

from pdsynth.imaging.intensity import LEAST_HEAD_MM, SLAB_MM, bright_piece, flatten
from pdsynth.imaging.nifti import Volume
from pdsynth.imaging.registration import misfits
from pdsynth.imaging.spatial import block_means, mni_grid
from pdsynth.imaging.template import epi_template, tissue_template

VOXEL_MM = 5.0  # blocks of voxels up to this size are averaged first
SIZES = 0.8, 1.25  # limits of a brain's size, relative to the template's
WRONG = 0.05  # a pose whose misfit is this much less than that of the header's pose is the right one
DOUBTFUL = 0.0  # the header's pose is doubtful from here on


def _poses() -> list[np.ndarray]:
    """The 24 rotations by right angles, each (3, 3); the first is the identity."""
    signed = [
        np.array(signs) * np.eye(3)[list(order)]
        for order in permutations(range(3))
        for signs in product((1.0, -1.0), repeat=3)
    ]
    return sorted((m for m in signed if np.linalg.det(m) > 0), key=lambda m: -np.trace(m))


POSES = _poses()


def pose_misfits(volume: Volume, poses: Sequence[np.ndarray] = POSES) -> np.ndarray:
    """How badly the template brain fits a head in each pose, (N,) in 0..1, as in `misfits`.

    volume: a mean BOLD or b0, with or without skull. A pose is the rotation, (3, 3), from the template to the head as
    the header places it; the identity is the pose of a right header. The centres of the two brains and their sizes are
    matched first. Raises ValueError if no brain is found.
    """
    low = _shrunk(volume)
    brain = bright_piece(np.maximum(low.data, 0), low.spacing_mm)
    grid = mni_grid(4.0)
    inside = tissue_template(grid)["brain"] > 0.5
    centre, target = (np.argwhere(m) @ a[:3, :3].T + a[:3, 3] for m, a in ((brain, low.affine), (inside, grid.affine)))
    larger = brain.sum() * np.prod(low.spacing_mm) / (inside.sum() * np.prod(grid.spacing_mm))
    size = float(np.clip(np.cbrt(larger), *SIZES))
    starts = []
    for pose in poses:
        start = np.eye(4)
        start[:3, :3] = size * pose
        start[:3, 3] = centre.mean(0) - start[:3, :3] @ target.mean(0)
        starts.append(start)
    return misfits(flatten(low, brain), flatten(epi_template(grid), inside), starts, brain, inside)


def check_pose(volume: Volume) -> tuple[str, ...]:
    """Notes on the pose of a head in a mean BOLD or b0: none if the template brain fits best in the header's pose.

    Raises ValueError if it fits clearly better in another pose. A slab is not judged, nor an image without voxel size.
    """
    extent = np.array(volume.data.shape) * volume.spacing_mm
    if extent.max() < LEAST_HEAD_MM or extent.min() < SLAB_MM:
        return ()
    found = pose_misfits(volume)
    best = int(found.argmin())
    better = float(found[0] - found[best])
    if better > WRONG:
        raise ValueError(
            f"by its header {words(POSES[best])} (misfit {found[0]:.2f}, turned {found[best]:.2f}); "
            "the orientation in its header is wrong: convert it again from DICOM, and check it in a viewer."
        )
    if better > DOUBTFUL:
        return (f"the head may lie in another pose than its header says ({words(POSES[best])}?); look at it",)
    return ()


def words(pose: np.ndarray) -> str:
    """How a head lies that is turned by a pose.

    >>> words(np.diag([1.0, -1, -1]))
    'the head lies upside down'
    """
    up = pose @ (0, 0, 1)  # where the top of the head is, by the header
    front = pose @ (0, 1, 0)
    if up[2] > 0:
        return "the head faces backwards" if front[1] < 0 else "the head faces sideways"
    return "the head lies upside down" if up[2] < 0 else "the head lies on its side, its axes exchanged"


def _shrunk(volume: Volume) -> Volume:
    """The volume with blocks of voxels averaged, so that the voxels measure at most VOXEL_MM."""
    block = np.maximum(1, np.floor(VOXEL_MM / volume.spacing_mm)).astype(int)
    affine = volume.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ ((block - 1) / 2)
    affine[:3, :3] *= block
    return Volume(block_means(volume.data, block), affine)
