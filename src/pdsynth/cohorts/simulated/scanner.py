"""The scanner: pose, receive coil, distortion, dropout, point spread and sampling onto the voxels of the scan."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage, sparse
from scipy.spatial.transform import Rotation

from pdsynth.cohorts.simulated.anatomy import Anatomy
from pdsynth.cohorts.simulated.fields import coarse_nodes, random_field, smooth, upsample, world
from pdsynth.imaging.spatial import Grid

COIL_NODES_MM = 12.0
TILT_FWHM_MM, PRIVATE_TILT = 110.0, 0.05
HEAD_CENTRE_MM = np.array([0.0, -18.0, 8.0])
FIELD_PER_MM = 3.5  # dropout: exp(-(TE / 30 ms) (3.5 |grad field|)^2), field gradient in 1/mm


@dataclass(frozen=True)
class Coil:
    """A receive coil: an array of elements on an ellipsoid around the head.

    strength is the exponent of the array's sensitivity; 0 leaves the array out, as the normalisation of some scanners
    does. reach_mm is the depth to which the near field of an element reaches. centre_mm is the centre of the ellipsoid
    relative to HEAD_CENTRE_MM. size is that of the ellipsoid, 1 for half axes of 105, 125 and 115 mm. lowest is the
    height of the lowest of the elements above the centre, in half axes.
    """

    strength: float
    reach_mm: float
    centre_mm: tuple[float, float, float]
    elements: int = 20
    size: float = 1.0
    lowest: float = -0.5


@dataclass(frozen=True)
class Optics:
    """Effects of one acquisition on an image, apart from its contrast.

    psf_mm is the FWHM of the point spread along each axis, besides the blur of the voxel. shift_mm is the distortion
    along the phase axis for one unit of field; its sign is that of the phase blips. dropout is a factor on the field's
    gradient, whose dephasing removes signal; 1 is that of a gradient echo. ghost is the fraction of signal that appears
    half a field of view away. scalp is a factor on the signal outside the skull; 0 for a skull-stripped scan. tilt is
    the SD of the logarithm of a smooth sensitivity that the coil model leaves out, and tilt_seed its seed; both scans
    of a session share it.
    """

    coil: Coil
    psf_mm: tuple[float, float, float]
    shift_mm: float
    dropout: float = 1.0
    ghost: float = 0.0
    scalp: float = 1.0  # scale of the signal outside the skull; 0 for a skull-stripped scan
    tilt: float = 0.12  # SD of the log of a smooth sensitivity that the coil model leaves out
    tilt_seed: int = 0  # seed of that sensitivity, which both scans of a session share


def pose(generator: np.random.Generator, degrees: float, mm: float, scale_sd: float = 0.0) -> np.ndarray:
    """A random rigid map of world mm about the head's centre, with one random scale for all axes, (4, 4).

    degrees, mm and scale_sd are the SDs of the three rotations (degrees), of the three shifts (mm), and of the scale,
    whose mean is 1.
    """
    matrix = np.eye(4)
    rotation = Rotation.from_euler("xyz", generator.normal(0, degrees, 3), degrees=True).as_matrix()
    matrix[:3, :3] = rotation * (1 + generator.normal(0, scale_sd))
    matrix[:3, 3] = HEAD_CENTRE_MM - matrix[:3, :3] @ HEAD_CENTRE_MM + generator.normal(0, mm, 3)
    return matrix


def native_grid(
    voxel_mm: tuple[float, float, float], field_of_view_mm: float, slab_mm: float, centre_mm: np.ndarray, flip_x: bool
) -> Grid:
    """The grid of a scan, with an even number of voxels along x and y, and at least 8 slices along z.

    voxel_mm are the edges of a voxel. field_of_view_mm is the length of the grid along x and y, slab_mm that along z;
    both are rounded to whole voxels. centre_mm is the centre of the grid in world mm. flip_x stores the x axis from
    right to left.
    """
    in_plane = [int(2 * np.round(field_of_view_mm / v / 2)) for v in voxel_mm[:2]]
    shape = (in_plane[0], in_plane[1], max(int(np.round(slab_mm / voxel_mm[2])), 8))
    affine = np.diag([*voxel_mm, 1.0])
    if flip_x:
        affine[0, 0] *= -1
    affine[:3, 3] = centre_mm - affine[:3, :3] @ ((np.asarray(shape) - 1) / 2)
    return Grid(shape, affine)


def coil_field(generator: np.random.Generator, grid: Grid, optics: Optics, jitter: float) -> np.ndarray:
    """Receive sensitivity (X, Y, Z) with mean near one in the head: root sum of squares of elements around the head.

    It is raised to the power optics.coil.strength and multiplied by two smooth random fields: one of the SD optics.tilt
    from optics.tilt_seed, and a weak one from `generator`. jitter is the SD in mm of the position of the head in the
    coil, which `generator` draws for each scan.
    """
    nodes = coarse_nodes(grid, COIL_NODES_MM)
    points = world(nodes)
    golden = np.pi * (3 - np.sqrt(5))
    coil = optics.coil
    height = np.linspace(coil.lowest, 0.95, coil.elements)
    longitude = golden * np.arange(coil.elements)
    ring = np.sqrt(1 - height**2)
    elements = np.stack([ring * np.cos(longitude) * 105, ring * np.sin(longitude) * 125, height * 115])
    elements *= coil.size
    centre = HEAD_CENTRE_MM + np.asarray(coil.centre_mm) + generator.normal(0, jitter, 3)
    total = np.zeros(nodes.shape, np.float32)
    for element in (elements.T + centre).astype(np.float32):
        squared = sum(np.square(points[i] - element[i]) for i in range(3))
        total += 1 / np.square(squared + np.float32(coil.reach_mm**2))
    log = 0.5 * np.log(total)
    head = sum(np.square((points[i] - HEAD_CENTRE_MM[i]) / r) for i, r in enumerate((75, 92, 80))) < 1
    log -= log[head].mean()
    rest = optics.tilt * random_field(np.random.default_rng(optics.tilt_seed), nodes, TILT_FWHM_MM)[0]
    rest += PRIVATE_TILT * random_field(generator, nodes, TILT_FWHM_MM)[0]
    return np.exp(upsample(np.float32(coil.strength) * log + rest, grid))


def dropout(anatomy: Anatomy, t_e: float, strength: float) -> np.ndarray:
    """Fraction of the signal that remains after dephasing by the field's gradient, (X, Y, Z) in 0..1.

    The field is the off-resonance in `anatomy`. t_e is the echo time in ms. strength is a factor on the gradient of the
    field, 1 for a plain gradient echo.
    """
    gradient = np.gradient(anatomy.field, *anatomy.grid.spacing_mm)
    squared = sum(np.square(g) for g in gradient)
    return np.asarray(np.exp(-(t_e / 30) * np.square(FIELD_PER_MM * strength) * squared), np.float32)


class View:
    """Maps images from the working grid to the voxels of one scan, by a sparse matrix.

    An image is smoothed by the point spread, interpolated linearly at the distorted voxel positions, and multiplied by
    the Jacobian of the distortion; a ghost is added if `optics` has one. Voxels outside the working grid are 0.
    anatomy: gives the working grid and the field. native: the scan's voxel grid. to_template (4, 4): map from the
    scan's world mm to the working grid's mm, which is not kept. optics: the point spread, distortion and ghost.
    """

    def __init__(self, anatomy: Anatomy, native: Grid, to_template: np.ndarray, optics: Optics) -> None:
        self.native, self.optics, self.grid = native, optics, anatomy.grid
        to_index = np.linalg.inv(anatomy.grid.affine) @ to_template @ native.affine
        index = np.indices(native.shape, dtype=np.float32).reshape(3, -1)
        position = to_index[:3, :3].astype(np.float32) @ index + to_index[:3, 3:].astype(np.float32)
        limit = np.asarray(anatomy.grid.shape, np.float32)[:, None] - 1.001
        self.rows = np.flatnonzero(((position >= 0) & (position <= limit)).all(0))
        position = position[:, self.rows]
        phase_axis = to_index[:3, 1] / native.spacing_mm[1]  # 1 mm along the scan's y axis, in working voxels
        shift = np.float32(optics.shift_mm) * smooth(anatomy.field, anatomy.grid, 4.0)
        slope = np.tensordot(phase_axis, np.gradient(shift), 1).astype(np.float32)
        displacement = _gather(shift, position)
        self.jacobian = np.clip(1 - _gather(slope, position), 0.25, 4.0)
        position = np.clip(position - phase_axis.astype(np.float32)[:, None] * displacement, 0, limit)
        self.matrix = _interpolation(position, anatomy.grid.shape, self.jacobian)
        voxel = native.spacing_mm @ np.abs(np.linalg.inv(to_template[:3, :3])).round(1)
        # A voxel blurs like a Gaussian whose FWHM is .77 of its edge; the working grid has its own part of that blur.
        squared = 0.6 * np.square(voxel) + np.square(optics.psf_mm) - 0.5 * np.square(anatomy.grid.spacing_mm)
        self.psf_mm = np.round(np.sqrt(np.maximum(squared, 0)), 2)

    def image(self, maps: np.ndarray) -> np.ndarray:
        """Images (n, x, y, z) float32 on the scan's voxels, from maps of signal (n, X, Y, Z) on the working grid.

        They are smoothed, distorted and scaled by the Jacobian, and have the ghost.
        """
        n = len(maps)
        blurred = smooth(maps, self.grid, self.psf_mm).reshape(n, -1)
        out = np.zeros((n, int(np.prod(self.native.shape))), np.float32)
        out[:, self.rows] = (self.matrix @ blurred.T).T
        images = out.reshape(n, *self.native.shape)
        if self.optics.ghost:
            images = images + np.float32(self.optics.ghost) * np.roll(images, self.native.shape[1] // 2, axis=2)
        return np.asarray(images)

    def fractions(self, maps: np.ndarray) -> np.ndarray:
        """Volume fractions (n, x, y, z) on the scan's voxels: as `image`, but without point spread, Jacobian and ghost.

        They are interpolated at the distorted positions.
        """
        out = np.zeros((len(maps), int(np.prod(self.native.shape))), np.float32)
        out[:, self.rows] = (self.matrix @ maps.reshape(len(maps), -1).T).T / self.jacobian
        return out.reshape(len(maps), *self.native.shape)


def _gather(data: np.ndarray, index: np.ndarray) -> np.ndarray:
    return np.asarray(ndimage.map_coordinates(data, index, order=1, mode="nearest", output=np.float32))


def _interpolation(index: np.ndarray, shape: tuple[int, int, int], scale: np.ndarray) -> sparse.csr_matrix:
    """Sparse matrix (N, X*Y*Z) of trilinear weights at voxel indices (3, N); row k is multiplied by scale[k]."""
    lower = index.astype(np.int32)
    fraction = index - lower
    steps = (shape[1] * shape[2], shape[2], 1)
    base = lower[0] * steps[0] + lower[1] * steps[1] + lower[2]
    columns = np.empty((index.shape[1], 8), np.int32)
    weights = np.empty((index.shape[1], 8), np.float32)
    for corner in range(8):
        up = [(corner >> axis) & 1 for axis in range(3)]
        columns[:, corner] = base + sum(u * s for u, s in zip(up, steps, strict=True))
        weights[:, corner] = scale
        for axis in range(3):
            weights[:, corner] *= fraction[axis] if up[axis] else 1 - fraction[axis]
    pointers = np.arange(0, 8 * index.shape[1] + 1, 8, dtype=np.int32)
    return sparse.csr_matrix((weights.ravel(), columns.ravel(), pointers), shape=(index.shape[1], int(np.prod(shape))))


def rician(generator: np.random.Generator, signal: np.ndarray, sigma: float) -> np.ndarray:
    """Magnitude of the signal plus complex Gaussian noise, float32, of the shape of signal.

    sigma is the SD of the noise in the real part and in the imaginary part, in units of signal.
    """
    real = generator.standard_normal(signal.shape, np.float32)
    real *= np.float32(sigma)
    real += signal
    imaginary = generator.standard_normal(signal.shape, np.float32)
    imaginary *= np.float32(sigma)
    return np.hypot(real, imaginary, out=real)


def rician_mean(signal: np.ndarray, sigma: float) -> np.ndarray:
    """Expected magnitude of a signal S with noise, to second order in sigma / S: sqrt(S^2 + sigma^2).

    sigma is the SD of the noise, as in `rician`.
    """
    return np.sqrt(np.square(signal) + np.float32(sigma**2))
