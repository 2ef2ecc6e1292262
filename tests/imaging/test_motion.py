"""Simulated motion of a series is estimated and corrected."""

from __future__ import annotations

import numpy as np
import pytest

from pdsynth.imaging.motion import HEAD_MM, framewise_displacement, realign
from pdsynth.imaging.nifti import Volume
from pdsynth.imaging.spatial import Grid, mni_grid, resample
from pdsynth.imaging.template import epi_template

GRID = Grid((48, 56, 44), mni_grid(4.0).affine)


def rigid(degrees: float, shift: tuple[float, float, float], centre: np.ndarray) -> np.ndarray:
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    matrix = np.eye(4)
    matrix[:3, :3] = [[1, 0, 0], [0, c, -s], [0, s, c]]
    matrix[:3, 3] = centre + shift - matrix[:3, :3] @ centre
    return matrix


def test_a_series_with_motion_is_realigned():
    still = Volume(epi_template(GRID).data * 500, GRID.affine)
    centre = np.array([0.0, -20.0, 10.0])
    true = [rigid(0, (0, 0, 0), centre), rigid(2, (1, 0, -2), centre), rigid(-1.5, (0, 2, 1), centre)]
    noise = np.random.default_rng(0).normal(0, 5, (3, *GRID.shape)).astype(np.float32)
    series = np.stack([resample(still, GRID, matrix, order=3) for matrix in true]) + noise
    moved, maps = realign(series, still)
    inside = np.argwhere(still.data > 250) @ GRID.affine[:3, :3].T + GRID.affine[:3, 3]
    points = np.c_[inside, np.ones(len(inside))]
    for found, matrix in zip(maps, true, strict=True):
        error_mm = np.linalg.norm((points @ (found @ matrix).T - points)[:, :3], axis=1)
        assert np.median(error_mm) < 0.1
    brain = still.data > 250
    before, after = (np.abs(each[1:] - still.data)[:, brain].mean() for each in (series, moved))
    assert after < 0.5 * before
    found = framewise_displacement(maps, centre)
    assert found == pytest.approx(framewise_displacement(np.linalg.inv(true), centre), abs=0.2)


def test_displacement_of_a_rotation_about_the_centre():
    centre = np.array([3.0, -7.0, 11.0])
    maps = np.stack([rigid(0, (0, 0, 0), centre), rigid(1, (0, 0, 0), centre), rigid(1, (0, 0, 0.5), centre)])
    assert framewise_displacement(maps, centre) == pytest.approx([HEAD_MM * np.deg2rad(1), 0.5])
