"""Head motion between the volumes of a series: how much there was, and its correction by rigid registration."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from pdsynth.imaging.nifti import Volume
from pdsynth.imaging.registration import register
from pdsynth.imaging.spatial import Grid, resample

HEAD_MM = 50.0  # radius at which a rotation becomes a displacement


def realign(series: np.ndarray, reference: Volume) -> tuple[np.ndarray, np.ndarray]:
    """Bring every volume rigidly to the reference; returns the series and the (T, 4, 4) maps, mm to the reference's mm.

    series: (T, X, Y, Z) float32 on the grid of the reference, which is a mean of volumes of it. Raises ValueError where
    a volume cannot be registered.
    """
    grid = Grid.of(reference)
    maps = np.empty((len(series), 4, 4))
    moved = np.empty_like(series)
    for t, data in enumerate(series):
        volume = Volume(data, reference.affine)
        start = maps[t - 1] if t else np.eye(4)
        maps[t] = register(volume, reference, "rigid", start)  # without masks: the whole head moves as one
        moved[t] = resample(volume, grid, maps[t], order=3)
    return moved, maps


def framewise_displacement(maps: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Displacement from each volume to the next, (T - 1,) mm: shifts and rotations in sum (Power et al. 2012).

    maps: (T, 4, 4) rigid, mm to mm; centre: (3,) mm, which the rotations are about.

    >>> maps = np.stack([np.eye(4), np.eye(4)])
    >>> maps[1, :3, 3] = 0.1, -0.2, 0.3
    >>> framewise_displacement(maps, np.zeros(3)).round(6).tolist()
    [0.6]
    """
    shifts = maps[:, :3, 3] + np.einsum("tij,j->ti", maps[:, :3, :3], centre) - centre
    angles = Rotation.from_matrix(maps[:, :3, :3]).as_euler("xyz")
    parameters = np.concatenate([shifts, HEAD_MM * angles], axis=1)
    return np.abs(np.diff(parameters, axis=0)).sum(1)
