"""Random fields, smoothing and interpolation on a grid, as one matrix product per axis.

A Gaussian random field is white noise on a coarse lattice, multiplied by one Gaussian basis matrix per axis. Three
small matrix products replace a Fourier transform. The variance is one everywhere, also at the edges.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy import ndimage

from pdsynth.imaging.spatial import FWHM, Grid


def separable(data: np.ndarray, matrices: tuple[np.ndarray, np.ndarray, np.ndarray]) -> np.ndarray:
    """Apply one matrix per axis: (..., a, b, c) with (A, a), (B, b), (C, c) -> (..., A, B, C)."""
    x, y, z = matrices
    data = data @ z.T
    data = y @ data
    lead, (a, b, c) = data.shape[:-3], data.shape[-3:]
    return (x @ data.reshape(*lead, a, b * c)).reshape(*lead, len(x), b, c)


@lru_cache(maxsize=64)
def _basis(length: int, spacing_mm: float, fwhm_mm: float) -> np.ndarray:
    """Values at the voxels of n Gaussians with centres one SD apart, (length, n) float32; rows have unit norm."""
    sigma = fwhm_mm / FWHM
    voxels = np.arange(length) * spacing_mm
    centres = np.arange(-3 * sigma, voxels[-1] + 3.5 * sigma, sigma)
    values = np.exp(-0.5 * np.square((voxels[:, None] - centres) / sigma))
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


def random_field(generator: np.random.Generator, grid: Grid, fwhm_mm: float, n: int = 1) -> np.ndarray:
    """n stationary Gaussian fields of mean 0 and SD 1: (n, X, Y, Z) float32.

    fwhm_mm is the FWHM of the Gaussian kernel that would turn white noise into such a field.
    """
    x, y, z = (_basis(s, float(d), float(fwhm_mm)) for s, d in zip(grid.shape, grid.spacing_mm, strict=True))
    noise = generator.standard_normal((n, x.shape[1], y.shape[1], z.shape[1]), np.float32)
    return separable(noise, (x, y, z))


@lru_cache(maxsize=128)
def _smoother(length: int, sigma: float) -> np.ndarray:
    """Matrix (length, length) that smooths one axis by a Gaussian of SD sigma, in voxels."""
    if sigma < 0.05:
        return np.eye(length, dtype=np.float32)
    distance = np.arange(length)[:, None] - np.arange(length)
    kernel = np.exp(-0.5 * np.square(distance / sigma))
    return (kernel / kernel.sum(1).max()).astype(np.float32)


def smooth(data: np.ndarray, grid: Grid, fwhm_mm: float | np.ndarray) -> np.ndarray:
    """Gaussian smoothing of (..., X, Y, Z) by one FWHM, or one FWHM per axis, in mm; values outside count as zero.

    grid: that of the data, whose voxel edges it gives.
    """
    fwhm = np.broadcast_to(np.asarray(fwhm_mm, float), 3)
    sigmas = fwhm / FWHM / grid.spacing_mm
    x, y, z = (_smoother(n, round(float(s), 3)) for n, s in zip(grid.shape, sigmas, strict=True))
    return separable(data, (x, y, z))


@lru_cache(maxsize=32)
def _stretch(length: int, coarse: int) -> np.ndarray:
    """Matrix (length, coarse) that interpolates linearly from `coarse` nodes to the `length` voxels of an axis.

    The nodes are evenly spaced from the first to the last voxel.
    """
    position = np.linspace(0, coarse - 1, length)
    return np.clip(1 - np.abs(position[:, None] - np.arange(coarse)), 0, None).astype(np.float32)


def coarse_nodes(grid: Grid, spacing_mm: float) -> Grid:
    """A lattice of about spacing_mm, at least two nodes per axis, between the outermost voxels of an axis-aligned grid.

    The outermost nodes coincide with these voxels.
    """
    edges = (np.asarray(grid.shape) - 1) * grid.spacing_mm
    x, y, z = (int(n) for n in np.maximum(np.round(edges / spacing_mm).astype(int) + 1, 2))
    affine = grid.affine.copy()
    affine[:3, :3] = np.diag(edges / (np.array([x, y, z]) - 1))
    return Grid((x, y, z), affine)


def upsample(nodes: np.ndarray, grid: Grid) -> np.ndarray:
    """Linear interpolation from values (..., x, y, z) on `coarse_nodes` to the grid, (..., X, Y, Z)."""
    x, y, z = (_stretch(n, c) for n, c in zip(grid.shape, nodes.shape[-3:], strict=True))
    return separable(nodes.astype(np.float32, copy=False), (x, y, z))


def signed_distance(mask: np.ndarray, spacing_mm: float | np.ndarray) -> np.ndarray:
    """Distance (X, Y, Z) in mm of each voxel from the other side of a mask (X, Y, Z) bool, negative inside the mask.

    It is the distance between voxel centres: outside, from the nearest voxel inside, and inside, minus that from the
    nearest voxel outside, so that it is never 0. It is not defined if the mask is true everywhere or nowhere.
    spacing_mm is the edge of a voxel, or one edge per axis.
    """
    outer = ndimage.distance_transform_edt(~mask, sampling=spacing_mm)
    inner = ndimage.distance_transform_edt(mask, sampling=spacing_mm)
    return np.asarray(outer - inner, np.float32)


def world(grid: Grid) -> np.ndarray:
    """Coordinates of every voxel of an axis-aligned grid: (3, X, Y, Z) float32, mm."""
    index = np.indices(grid.shape, dtype=np.float32)
    step = np.diag(grid.affine)[:3].astype(np.float32)
    return index * step[:, None, None, None] + grid.affine[:3, 3].astype(np.float32)[:, None, None, None]
