"""The scanner: pose, receive coil, distortion, dropout, point spread and sampling onto the scan's own voxels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage, sparse
from scipy.spatial.transform import Rotation

from pdsynth.cohorts.simulated.anatomy import Anatomy
from pdsynth.cohorts.simulated.fields import coarse_nodes, random_field, smooth, upsample, world
from pdsynth.imaging.spatial import Grid

COIL_ELEMENTS = 20
COIL_NODES_MM = 12.0
TILT_FWHM_MM, PRIVATE_TILT = 110.0, 0.05
HEAD_CENTRE_MM = np.array([0.0, -18.0, 8.0])
FIELD_PER_MM = 3.5  # dropout: exp(-(TE / 30 ms) (3.5 |grad field|)^2), field gradient in 1/mm


@dataclass(frozen=True)
class Optics:
    """What one acquisition does to an image, apart from its contrast.

    coil_strength: exponent on the array's sensitivity (0: perfectly normalised). shift_mm: distortion along the phase
    axis for one unit of field, its sign the blip direction. dropout scales the field gradient. ghost: share of signal
    half a field of view away.
    """

    coil_strength: float
    coil_reach_mm: float  # depth at which an element's near field ends
    coil_centre_mm: tuple[float, float, float]
    psf_mm: tuple[float, float, float]
    shift_mm: float
    dropout: float = 1.0
    ghost: float = 0.0
    scalp: float = 1.0  # 0 where the scan comes without skull
    tilt: float = 0.12  # log-SD of the smooth sensitivity that the coil model misses
    tilt_seed: int = 0  # both scans of a session share that sensitivity


def pose(generator: np.random.Generator, degrees: float, mm: float, scale_sd: float = 0.0) -> np.ndarray:
    """A random rigid (and scaling) map of world mm about the head's centre, (4, 4)."""
    matrix = np.eye(4)
    rotation = Rotation.from_euler("xyz", generator.normal(0, degrees, 3), degrees=True).as_matrix()
    matrix[:3, :3] = rotation * (1 + generator.normal(0, scale_sd))
    matrix[:3, 3] = HEAD_CENTRE_MM - matrix[:3, :3] @ HEAD_CENTRE_MM + generator.normal(0, mm, 3)
    return matrix


def native_grid(
    voxel_mm: tuple[float, float, float], field_of_view_mm: float, slab_mm: float, centre_mm: np.ndarray, flip_x: bool
) -> Grid:
    """A scan's own grid: a square matrix in plane (even), slices along z; stored left to right or right to left."""
    in_plane = [int(2 * np.round(field_of_view_mm / v / 2)) for v in voxel_mm[:2]]
    shape = (in_plane[0], in_plane[1], max(int(np.round(slab_mm / voxel_mm[2])), 8))
    affine = np.diag([*voxel_mm, 1.0])
    if flip_x:
        affine[0, 0] *= -1
    affine[:3, 3] = centre_mm - affine[:3, :3] @ ((np.asarray(shape) - 1) / 2)
    return Grid(shape, affine)


def coil_field(generator: np.random.Generator, grid: Grid, optics: Optics, jitter: float) -> np.ndarray:
    """Receive sensitivity, (X, Y, Z), mean about one in the head: root sum of squares of elements around it.

    jitter (mm) moves the head in the coil; it is what each scan draws for itself.
    """
    nodes = coarse_nodes(grid, COIL_NODES_MM)
    points = world(nodes)
    golden = np.pi * (3 - np.sqrt(5))
    height = np.linspace(-0.5, 0.95, COIL_ELEMENTS)
    around = golden * np.arange(COIL_ELEMENTS)
    ring = np.sqrt(1 - height**2)
    elements = np.stack([ring * np.cos(around) * 105, ring * np.sin(around) * 125, height * 115])
    centre = HEAD_CENTRE_MM + np.asarray(optics.coil_centre_mm) + generator.normal(0, jitter, 3)
    total = np.zeros(nodes.shape, np.float32)
    for element in (elements.T + centre).astype(np.float32):
        squared = sum(np.square(points[i] - element[i]) for i in range(3))
        total += 1 / np.square(squared + np.float32(optics.coil_reach_mm**2))
    log = 0.5 * np.log(total)
    head = sum(np.square((points[i] - HEAD_CENTRE_MM[i]) / r) for i, r in enumerate((75, 92, 80))) < 1
    log -= log[head].mean()
    rest = optics.tilt * random_field(np.random.default_rng(optics.tilt_seed), nodes, TILT_FWHM_MM)[0]
    rest += PRIVATE_TILT * random_field(generator, nodes, TILT_FWHM_MM)[0]
    return np.exp(upsample(np.float32(optics.coil_strength) * log + rest, grid))


def dropout(anatomy: Anatomy, t_e: float, strength: float) -> np.ndarray:
    """Signal left after dephasing by the field's gradient, (X, Y, Z) in 0..1. t_e in ms."""
    gradient = np.gradient(anatomy.field, *anatomy.grid.spacing_mm)
    squared = sum(np.square(g) for g in gradient)
    return np.asarray(np.exp(-(t_e / 30) * np.square(FIELD_PER_MM * strength) * squared), np.float32)


class View:
    """How one acquisition sees the working grid: a sparse matrix from working voxels to the scan's own.

    Linear interpolation after the point spread, at the places that distortion moved, times its Jacobian.
    """

    def __init__(self, anatomy: Anatomy, native: Grid, to_template: np.ndarray, optics: Optics) -> None:
        self.native, self.optics, self.grid = native, optics, anatomy.grid
        to_index = np.linalg.inv(anatomy.grid.affine) @ to_template @ native.affine
        index = np.indices(native.shape, dtype=np.float32).reshape(3, -1)
        place = to_index[:3, :3].astype(np.float32) @ index + to_index[:3, 3:].astype(np.float32)
        limit = np.asarray(anatomy.grid.shape, np.float32)[:, None] - 1.001
        self.rows = np.flatnonzero(((place >= 0) & (place <= limit)).all(0))
        place = place[:, self.rows]
        phase = to_index[:3, 1] / native.spacing_mm[1]  # one mm along the scan's y axis, in working voxels
        shift = np.float32(optics.shift_mm) * smooth(anatomy.field, anatomy.grid, 4.0)
        slope = np.tensordot(phase, np.gradient(shift), 1).astype(np.float32)
        here = _gather(shift, place)
        self.jacobian = np.clip(1 - _gather(slope, place), 0.25, 4.0)
        place = np.clip(place - phase.astype(np.float32)[:, None] * here, 0, limit)
        self.matrix = _interpolation(place, anatomy.grid.shape, self.jacobian)
        voxel = native.spacing_mm @ np.abs(np.linalg.inv(to_template[:3, :3])).round(1)
        # A voxel blurs like a Gaussian of .77 its edge; the working grid has blurred by its own part already.
        squared = 0.6 * np.square(voxel) + np.square(optics.psf_mm) - 0.5 * np.square(anatomy.grid.spacing_mm)
        self.psf_mm = np.round(np.sqrt(np.maximum(squared, 0)), 2)

    def image(self, maps: np.ndarray) -> np.ndarray:
        """(n, X, Y, Z) on the working grid -> (n, x, y, z) on the scan's, float32."""
        n = len(maps)
        blurred = smooth(maps, self.grid, self.psf_mm).reshape(n, -1)
        out = np.zeros((n, int(np.prod(self.native.shape))), np.float32)
        out[:, self.rows] = (self.matrix @ blurred.T).T
        seen = out.reshape(n, *self.native.shape)
        if self.optics.ghost:
            seen = seen + np.float32(self.optics.ghost) * np.roll(seen, self.native.shape[1] // 2, axis=2)
        return np.asarray(seen)

    def fractions(self, maps: np.ndarray) -> np.ndarray:
        """Like `image` for volume fractions: without the Jacobian and the ghost."""
        out = np.zeros((len(maps), int(np.prod(self.native.shape))), np.float32)
        out[:, self.rows] = (self.matrix @ maps.reshape(len(maps), -1).T).T / self.jacobian
        return out.reshape(len(maps), *self.native.shape)


def _gather(data: np.ndarray, index: np.ndarray) -> np.ndarray:
    return np.asarray(ndimage.map_coordinates(data, index, order=1, mode="nearest", output=np.float32))


def _interpolation(place: np.ndarray, shape: tuple[int, int, int], scale: np.ndarray) -> sparse.csr_matrix:
    """Trilinear weights at voxel indices (3, N) times a scale (N,), as (N, X*Y*Z)."""
    low = place.astype(np.int32)
    part = place - low
    steps = (shape[1] * shape[2], shape[2], 1)
    base = low[0] * steps[0] + low[1] * steps[1] + low[2]
    columns = np.empty((place.shape[1], 8), np.int32)
    weights = np.empty((place.shape[1], 8), np.float32)
    for corner in range(8):
        up = [(corner >> axis) & 1 for axis in range(3)]
        columns[:, corner] = base + sum(u * s for u, s in zip(up, steps, strict=True))
        weights[:, corner] = scale
        for axis in range(3):
            weights[:, corner] *= part[axis] if up[axis] else 1 - part[axis]
    pointers = np.arange(0, 8 * place.shape[1] + 1, 8, dtype=np.int32)
    return sparse.csr_matrix((weights.ravel(), columns.ravel(), pointers), shape=(place.shape[1], int(np.prod(shape))))


def rician(generator: np.random.Generator, signal: np.ndarray, sigma: float) -> np.ndarray:
    """Magnitude of the signal plus complex Gaussian noise of SD sigma a channel."""
    real = generator.standard_normal(signal.shape, np.float32)
    real *= np.float32(sigma)
    real += signal
    imaginary = generator.standard_normal(signal.shape, np.float32)
    imaginary *= np.float32(sigma)
    return np.hypot(real, imaginary, out=real)


def rician_mean(signal: np.ndarray, sigma: float) -> np.ndarray:
    """Expected magnitude, to second order: sqrt(S^2 + sigma^2)."""
    return np.sqrt(np.square(signal) + np.float32(sigma**2))
