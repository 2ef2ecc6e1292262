"""Grids, resampling, and transforms between coordinate systems in mm, as named and invertible affine steps."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import ndimage

from pdsynth.imaging.nifti import Volume
from pdsynth.imaging.registration import register

__all__ = ["Grid", "Transform", "from_flirt", "mni_grid", "register", "resample"]

FWHM = 2 * np.sqrt(2 * np.log(2))  # of a Gaussian, in standard deviations
FIELD_OF_VIEW_MM = np.array([192.0, 224.0, 192.0])  # of the default grid: 48 x 56 x 48 voxels of 4 mm
FINEST_MM, COARSEST_MM = 0.5, 8.0  # 8 mm leave 24 voxels on 192 mm, which is the edge of the largest training patch
CENTRE_MM = np.array([0.0, -22.0, 16.0])  # MNI


@dataclass(frozen=True, eq=False)
class Grid:
    """A voxel grid: shape (X, Y, Z) and affine (4, 4), voxel index -> mm.

    It is hashable. Two grids are equal if their shapes, and their affines rounded to 5 decimals, are equal.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        affine = np.array(self.affine, np.float64)
        affine.flags.writeable = False
        object.__setattr__(self, "affine", affine)

    @property
    def spacing_mm(self) -> np.ndarray:
        """Voxel edges, (3,) mm."""
        return np.sqrt(np.square(self.affine[:3, :3]).sum(0))

    def _key(self) -> tuple[tuple[int, int, int], bytes]:
        return self.shape, (np.round(self.affine, 5) + 0.0).tobytes()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Grid) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    @classmethod
    def of(cls, volume: Volume) -> Grid:
        """The grid of a volume: its shape and its affine."""
        x, y, z = volume.data.shape
        return cls((x, y, z), volume.affine)


def mni_grid(spacing_mm: float = 4.0) -> Grid:
    """The RAS grid over the head in MNI space. It covers at least 192 x 224 x 192 mm in multiples of 4 voxels.

    Its voxels are cubes with edges of spacing_mm, and its centre is at (0, -22, 16) mm. Raises ValueError for a spacing
    outside 0.5 to 8 mm.

    >>> mni_grid(4).shape, mni_grid(4).affine[:3, 3].tolist(), mni_grid(2).shape
    ((48, 56, 48), [-94.0, -132.0, -78.0], (96, 112, 96))
    """
    if not FINEST_MM <= spacing_mm <= COARSEST_MM:
        raise ValueError(
            f"a grid of {spacing_mm} mm is not supported: methods train on patches of up to 24 voxels, which must fit "
            f"into it. Choose {FINEST_MM:g} to {COARSEST_MM:g} mm."
        )
    shape = 4 * np.ceil(FIELD_OF_VIEW_MM / spacing_mm / 4 - 1e-6).astype(int)
    affine = np.diag([spacing_mm] * 3 + [1.0])
    affine[:3, 3] = CENTRE_MM - spacing_mm * (shape - 1) / 2
    return Grid((int(shape[0]), int(shape[1]), int(shape[2])), affine)


def from_flirt(matrix: np.ndarray, moving: Grid, fixed: Grid) -> np.ndarray:
    """The (4, 4) matrix from mm of the moving image to mm of the fixed image, by FSL FLIRT's matrix between the two.

    matrix (4, 4): that of FLIRT, from the moving to the fixed image in mm of FSL. FSL measures mm from the first voxel
    of an image. If the affine is right-handed, it measures x from the last voxel.

    >>> grid = mni_grid(4)
    >>> bool(np.allclose(from_flirt(np.eye(4), grid, grid), np.eye(4)))
    True
    """
    return fixed.affine @ np.linalg.inv(_to_fsl(fixed)) @ matrix @ _to_fsl(moving) @ np.linalg.inv(moving.affine)


def _to_fsl(grid: Grid) -> np.ndarray:
    """The (4, 4) matrix from voxel indices to FSL's mm."""
    scale = np.diag([*grid.spacing_mm, 1.0])
    if np.linalg.det(grid.affine[:3, :3]) > 0:
        flip = np.diag([-1.0, 1.0, 1.0, 1.0])
        flip[0, 3] = grid.shape[0] - 1
        scale = scale @ flip
    return scale


def resample(volume: Volume, grid: Grid, world: np.ndarray | None = None, order: int = 1) -> np.ndarray:
    """The volume resampled to another grid, (X, Y, Z) float32; zero outside the volume's field of view.

    world (4, 4) maps the volume's mm to the grid's mm; by default the two are the same. order is that of the spline: 0
    for labels, 1 or 3 for intensities. If order is above 0 and the new voxels are larger, the data are first smoothed
    to their size, which preserves means and avoids aliasing (Cardoso et al. 2015).
    """
    world = np.eye(4) if world is None else np.asarray(world, np.float64)
    to_source = np.linalg.inv(world @ volume.affine) @ grid.affine
    data = volume.data
    if order > 0:
        data, shrink = _antialias(data, np.sqrt(np.square(to_source[:3, :3]).sum(1)))
        to_source = shrink @ to_source
    # With the mode "constant", the outermost voxels would be zero if rounding gives a coordinate of -1e-17.
    return ndimage.affine_transform(
        data, to_source[:3, :3], to_source[:3, 3], grid.shape, np.float32, order, "grid-constant", prefilter=order > 1
    )


def _antialias(data: np.ndarray, ratio: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Data smoothed for sampling at every `ratio` voxels, (3,), and the (4, 4) matrix from old to new voxel indices.

    Without blocks the indices do not change. If the ratio is 4 or more, blocks of voxels are averaged first, which
    gives the same smoothing in less time.
    """
    block = np.maximum(1, np.floor(ratio / 2)).astype(int)
    shrink = np.eye(4)
    if (block > 1).any():
        pad = [(0, -n % b) for n, b in zip(data.shape, block, strict=True)]
        padded = np.pad(data, pad, mode="edge")
        data = block_means(padded, block)
        shrink[:3, :3] = np.diag(1 / block)
        shrink[:3, 3] = -(block - 1) / 2 / block
    variance = np.maximum(np.square(ratio) - 1, 0) / FWHM**2  # of the smoothing, in squared old voxels
    rest = np.maximum(variance - (np.square(block) - 1) / 12, 0) / np.square(block)
    if (rest > 0.01).any():
        data = ndimage.gaussian_filter(data, np.sqrt(rest), mode="nearest", truncate=3)
    return data, shrink


@dataclass(frozen=True, eq=False)
class Transform:
    """A transform between coordinate systems in mm, as named affine steps.

    steps: name and (4, 4) matrix, mm -> mm, of each step, in the order of their application.

    >>> shift = np.eye(4); shift[0, 3] = 5
    >>> t = Transform({"centre": shift})
    >>> bool(np.allclose(t.inverse().matrix @ t.matrix, np.eye(4)))
    True
    """

    steps: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def matrix(self) -> np.ndarray:
        """The one matrix of all steps together, (4, 4), mm -> mm; the identity if there is no step."""
        matrix = np.eye(4)
        for step in self.steps.values():
            matrix = np.asarray(step, np.float64) @ matrix
        return matrix

    def then(self, name: str, step: np.ndarray) -> Transform:
        """A new transform with one further step, a (4, 4) matrix from mm to mm, applied last.

        Raises ValueError if the name exists already.
        """
        if name in self.steps:
            raise ValueError(f"there is a step {name!r} already; give another name.")
        return Transform({**self.steps, name: np.asarray(step, np.float64)})

    def inverse(self) -> Transform:
        """The inverse transform: the inverse of each step, in reverse order, with ", inverse" added to its name."""
        return Transform({f"{name}, inverse": np.linalg.inv(step) for name, step in reversed(self.steps.items())})

    def entries(self) -> list[dict[str, Any]]:
        """The steps as values for JSON: a list of {"name", "matrix"}, mm to mm, exact to the last bit."""
        return [{"name": name, "matrix": np.asarray(step).tolist()} for name, step in self.steps.items()]

    @classmethod
    def of(cls, entries: list[dict[str, Any]]) -> Transform:
        """Read a transform from JSON values, a list of {"name", "matrix"}, as `entries` returns them."""
        return cls({entry["name"]: np.asarray(entry["matrix"], np.float64) for entry in entries})


def block_means(volume: np.ndarray, edge: int | np.ndarray) -> np.ndarray:
    """Means over blocks of voxels: (X, Y, Z) -> (X//edge, Y//edge, Z//edge) float32.

    edge is the number of voxels along an edge of a block, one number or one per axis. Voxels at the far borders that do
    not fill a block are omitted.

    >>> block_means(np.arange(27.0).reshape(3, 3, 3), 2).tolist()
    [[[6.5]]]
    """
    i, j, k = np.broadcast_to(edge, 3)
    x, y, z = np.array(volume.shape) // (i, j, k)
    blocks = volume[: x * i, : y * j, : z * k].reshape(x, i, y, j, z, k)
    return np.asarray(blocks.mean((1, 3, 5), dtype=np.float32))
