"""Head motion between the volumes of a series: its correction by rigid registration, and its size."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from pdsynth.imaging.nifti import Volume
from pdsynth.imaging.registration import register
from pdsynth.imaging.spatial import Grid, resample

HEAD_MM = 50.0  # radius of a sphere on which a rotation is measured as a displacement


def realign(series: np.ndarray, reference: Volume) -> tuple[np.ndarray, np.ndarray]:
    """Register every volume rigidly to the reference; returns the aligned series, and "maps", each volume's transform.

    series is (T, X, Y, Z) float32 on the grid of the reference, a mean of some of its volumes. The aligned series has
    this shape and grid, and is 0 outside the field of view of the volume. maps is (T, 4, 4), from mm of the volume to
    mm of the reference. Raises ValueError if a volume cannot be registered.
    """
    grid = Grid.of(reference)
    maps = np.empty((len(series), 4, 4))
    aligned = np.empty_like(series)
    for t, data in enumerate(series):
        volume = Volume(data, reference.affine)
        start = maps[t - 1] if t else np.eye(4)
        maps[t] = register(volume, reference, "rigid", start)  # no masks, because the whole head moves as one body
        aligned[t] = resample(volume, grid, maps[t], order=3)
    return aligned, maps


def framewise_displacement(maps: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Displacement of the head from each volume to the next, (T - 1,) mm (Power et al. 2012).

    It is the sum of the absolute changes of the three shifts of `centre` and of the three rotations (Euler angles), as
    arcs at a radius of 50 mm. maps is (T, 4, 4), rigid, from mm of the volume to mm of a common reference. centre (3,)
    mm is the centre of the rotations.

    >>> maps = np.stack([np.eye(4), np.eye(4)])
    >>> maps[1, :3, 3] = 0.1, -0.2, 0.3
    >>> framewise_displacement(maps, np.zeros(3)).round(6).tolist()
    [0.6]
    """
    shifts = maps[:, :3, 3] + np.einsum("tij,j->ti", maps[:, :3, :3], centre) - centre
    angles = Rotation.from_matrix(maps[:, :3, :3]).as_euler("xyz")
    parameters = np.concatenate([shifts, HEAD_MM * angles], axis=1)
    return np.abs(np.diff(parameters, axis=0)).sum(1)
