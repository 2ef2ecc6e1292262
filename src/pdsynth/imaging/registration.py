"""Rigid and affine registration of two volumes of any contrast, in a fraction of a second.

The criterion is the correlation ratio (Roche et al. 1998): the share of the fixed image's variance that a function of
the moving image explains. The function is fitted, so that images of different contrast can be registered, such as a b0
to a BOLD mean or a template. The criterion is optimised by Gauss-Newton steps with Levenberg's damping, on images with
less and less blur. For a scan of 64x64x36 voxels moved by a known affine, the error is 0.3 to 1 mm after 0.2 s on one
core; dipy's mutual information has an error of 2.1 to 4.4 mm after 4 to 7 s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy import ndimage

from pdsynth.imaging.nifti import Volume

Kind = Literal["rigid", "affine"]
KNOTS = 12  # of the piecewise linear function from moving to fixed intensity
MARGIN_MM = 8.0  # of background around the fixed brain, included because the brain's edge carries information
MIN_OVERLAP = 0.4  # least share of the fixed points inside the moving field of view
SCALE_SD, SHEAR_SD, PRIOR_WEIGHT = 0.12, 0.06, 1e-3  # a weak prior that heads have similar sizes
START_ROTATIONS = ((0.0, 0.0, 0.0), (-0.3, 0.0, 0.0), (0.3, 0.0, 0.0), (0.0, 0.3, 0.0), (0.0, -0.3, 0.0))


@dataclass(frozen=True)
class Level:
    """One level of a registration from coarse to fine.

    blur_mm: blur of both images in mm, twice the SD of the Gaussian. points: number of voxels that are compared, at
    most. iterations: largest number of optimisation steps.
    """

    blur_mm: float
    points: int
    iterations: int


COARSE = Level(8.0, 2000, 12)
POSE = Level(8.0, 1000, 8)  # of `misfits`
FINE = (Level(5.0, 6000, 15), Level(3.0, 12000, 15))


def register(
    moving: Volume,
    fixed: Volume,
    kind: Kind,
    start: np.ndarray | None = None,
    moving_mask: np.ndarray | None = None,
    fixed_mask: np.ndarray | None = None,
) -> np.ndarray:
    """The (4, 4) matrix from moving mm to fixed mm that best aligns the volumes; deterministic.

    The volumes may differ in contrast. kind is "rigid" (6 parameters) or "affine" (12). start is an initial value of
    the result. Without it, the centres of mass are matched and five rotations are tried. Negative intensities, and
    voxels outside a mask (X, Y, Z), are set to zero. Without a mask, voxels brighter than 0.2 of the 99th percentile,
    after a slight blur, count as the head. Up to 12,000 voxels in or within 8 mm of the fixed mask or head are
    compared. Give both masks or none: a skull in only one of the volumes biases the result. Raises ValueError for an
    unknown kind or a constant volume, and if less than 0.4 of the compared voxels lie in the moving field of view.
    """
    if kind not in ("rigid", "affine"):
        raise ValueError(f"registration is 'rigid' or 'affine', not {kind!r}.")
    moving_data, fixed_data = _masked(moving, moving_mask, "moving"), _masked(fixed, fixed_mask, "fixed")
    inside = _foreground(fixed_data) if fixed_mask is None else fixed_mask > 0
    points = _world_points(inside, fixed)
    centre = points.mean(0)
    margin = ndimage.distance_transform_edt(~inside, sampling=fixed.spacing_mm) <= MARGIN_MM
    if start is None:
        source = _foreground(moving_data) if moving_mask is None else moving_mask > 0
        offset = _world_points(source, moving).mean(0) - centre
        starts = [np.array([*offset, *rotation, *[0.0] * 6]) for rotation in START_ROTATIONS]
        base = np.eye(4)
    else:
        starts, base = [np.zeros(12)], np.linalg.inv(np.asarray(start, np.float64))

    def pair_at(level: Level) -> _Pair:
        return _Pair.at(level, moving_data, moving, fixed_data, fixed, margin, centre, base)

    coarse = pair_at(COARSE)
    free = 6
    candidates = [coarse.descend(p, free, COARSE.iterations) for p in starts]
    parameters, cost = min(candidates, key=lambda c: c[1])
    if kind == "affine":
        free = 12
        parameters, cost = coarse.descend(parameters, free, COARSE.iterations)
    for level in FINE:
        parameters, cost = pair_at(level).descend(parameters, free, level.iterations)
    if not np.isfinite(cost):
        raise ValueError("the two volumes do not overlap enough to be registered; check their affines and masks.")
    return np.linalg.inv(base @ _matrix(parameters, centre))


def misfits(
    moving: Volume,
    fixed: Volume,
    starts: Sequence[np.ndarray],
    moving_mask: np.ndarray,
    fixed_mask: np.ndarray,
    refined: int | None = None,
) -> np.ndarray:
    """How badly two volumes match after a coarse registration from each of N starts, (N,); 0 is a perfect match.

    Each start is a (4, 4) matrix from fixed mm to moving mm; this is the inverse direction of `register`. The masks,
    (X, Y, Z) bool, show the brain in each volume. The misfit is 1 - correlation ratio, in 0..1, the mean of two
    registrations: a rigid one, and one that also scales the three axes, with a small penalty on the scaling. It is
    infinite if less than 0.4 of the compared voxels of the fixed volume lie in the moving volume. refined: if given,
    only the first start, and this number of starts that match best without a registration, are registered, and the
    misfit of the others is infinite; None registers all. Raises ValueError for a constant volume.
    """
    moving_data, fixed_data = _masked(moving, moving_mask, "moving"), _masked(fixed, fixed_mask, "fixed")
    margin = ndimage.distance_transform_edt(~fixed_mask, sampling=fixed.spacing_mm) <= MARGIN_MM
    centre = _world_points(fixed_mask, fixed).mean(0)
    pair = _Pair.at(POSE, moving_data, moving, fixed_data, fixed, margin, centre, np.eye(4))
    pairs = [replace(pair, base=start) for start in starts]
    chosen = set(range(len(pairs)))
    if refined is not None:
        at_start = [pair.descend(np.zeros(12), 6, 0)[1] for pair in pairs]
        chosen = {0, *np.argsort(at_start)[:refined].tolist()}
    costs = np.full(len(pairs), np.inf)
    for number in chosen:
        rigid, first = pairs[number].descend(np.zeros(12), 6, POSE.iterations)
        costs[number] = (first + pairs[number].descend(rigid, 9, POSE.iterations)[1]) / 2
    return costs


@dataclass
class _Pair:
    """Blurred images of one level, and the points of the fixed image at which they are compared.

    base: the (4, 4) matrix from fixed mm to moving mm that is applied after that of the parameters. centre: (3,) mm, of
    rotation and scaling in the fixed image. knots: (KNOTS,) moving intensities of the fitted function.
    """

    points: np.ndarray  # (n, 4) homogeneous mm of the fixed image
    values: np.ndarray  # (n,) of the fixed image
    moving: np.ndarray
    gradient: list[np.ndarray]  # of the moving image along its three voxel axes
    to_voxel: np.ndarray  # moving mm -> moving voxel
    centre: np.ndarray
    base: np.ndarray
    knots: np.ndarray

    @classmethod
    def at(
        cls,
        level: Level,
        moving_data: np.ndarray,
        moving: Volume,
        fixed_data: np.ndarray,
        fixed: Volume,
        margin: np.ndarray,
        centre: np.ndarray,
        base: np.ndarray,
    ) -> _Pair:
        candidates = np.flatnonzero(margin)
        count = min(level.points, len(candidates))
        chosen = np.unravel_index(np.random.default_rng(0).choice(candidates, count, replace=False), margin.shape)
        points = np.column_stack(chosen) @ fixed.affine[:3, :3].T + fixed.affine[:3, 3]
        blurred = ndimage.gaussian_filter(moving_data, level.blur_mm / moving.spacing_mm / 2, truncate=2.5)
        fixed_blurred = ndimage.gaussian_filter(fixed_data, level.blur_mm / fixed.spacing_mm / 2, truncate=2.5)
        return cls(
            points=np.column_stack([points, np.ones(len(points))]),
            values=fixed_blurred[chosen].astype(np.float64),
            moving=blurred,
            gradient=list(np.gradient(blurred)),
            to_voxel=np.linalg.inv(moving.affine),
            centre=centre,
            base=base,
            knots=np.linspace(0, float(np.percentile(blurred[blurred > 0], 99.5)), KNOTS),
        )

    def descend(self, parameters: np.ndarray, free: int, iterations: int) -> tuple[np.ndarray, float]:
        """Damped Gauss-Newton steps on the first `free` of the 12 parameters; returns all parameters and the cost."""
        damping, state = 1e-2, self._linearise(parameters, free)
        for _ in range(iterations):
            cost, gradient, hessian = state
            if not np.isfinite(cost):
                break
            step = -np.linalg.solve(hessian + damping * np.diag(np.diag(hessian)) + 1e-12 * np.eye(free), gradient)
            trial = parameters.copy()
            trial[:free] += step
            trial_state = self._linearise(trial, free)
            if trial_state[0] < cost:
                parameters, state, damping = trial, trial_state, damping / 5
                if cost - trial_state[0] < 1e-6 * cost:
                    break
            else:
                damping *= 8
                if damping > 1e4:
                    break
        return parameters, state[0]

    def _linearise(self, parameters: np.ndarray, free: int) -> tuple[float, np.ndarray, np.ndarray]:
        """Cost (1 - correlation ratio + prior) at the parameters, half its gradient, half its Gauss-Newton Hessian.

        The prior is a penalty on scale and shear. The derivatives are by the first `free` parameters. The cost is
        infinite if the volumes overlap too little.
        """
        here = self.to_voxel @ self._world(parameters)
        voxel = (here @ self.points.T)[:3]
        limit = np.asarray(self.moving.shape)[:, None] - 1
        visible = ((voxel >= 0) & (voxel <= limit)).all(0)
        worst = np.inf, np.zeros(free), np.eye(free)
        if visible.mean() < MIN_OVERLAP:
            return worst
        voxel, points, values = voxel[:, visible], self.points[visible], self.values[visible]
        sampled = ndimage.map_coordinates(self.moving, voxel, order=1, output=np.float64)
        slopes = np.stack([ndimage.map_coordinates(g, voxel, order=1, output=np.float64) for g in self.gradient])
        basis, rise = _hats(sampled, self.knots)
        normal = basis.T @ basis + 1e-6 * len(values) * np.eye(KNOTS)
        curve = np.linalg.solve(normal, basis.T @ values)
        residual = values - basis @ curve
        variance = np.square(values - values.mean()).sum()
        if variance == 0:
            return worst
        chain = np.empty((len(values), free))
        weight = (rise @ curve) * slopes  # d prediction / d voxel
        for i in range(free):
            nudged = parameters.copy()
            nudged[i] += 1e-4
            change = (self.to_voxel @ self._world(nudged) - here)[:3] / 1e-4
            chain[:, i] = (weight * (change @ points.T)).sum(0)
        chain -= basis @ np.linalg.solve(
            normal, basis.T @ chain
        )  # variable projection (Kaufman 1975): curve is refitted
        prior = PRIOR_WEIGHT / np.square([SCALE_SD] * 3 + [SHEAR_SD] * 3)[: free - 6]
        cost = np.square(residual).sum() / variance + (prior * np.square(parameters[6:free])).sum()
        gradient, hessian = -chain.T @ residual / variance, chain.T @ chain / variance
        gradient[6:] += prior * parameters[6:free]
        hessian[np.arange(6, free), np.arange(6, free)] += prior
        return float(cost), gradient, hessian

    def _world(self, parameters: np.ndarray) -> np.ndarray:
        return self.base @ _matrix(parameters, self.centre)


def _matrix(parameters: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Matrix (4, 4) of 12 parameters: shift (mm), rotation vector (rad), log scales and shears about a centre (mm)."""
    angle = float(np.linalg.norm(parameters[3:6]))
    x, y, z = parameters[3:6] / angle if angle > 0 else np.zeros(3)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    rotation = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross  # Rodrigues
    shear = np.eye(3)
    shear[0, 1], shear[0, 2], shear[1, 2] = parameters[9:12]
    matrix = np.eye(4)
    matrix[:3, :3] = rotation @ np.diag(np.exp(parameters[6:9])) @ shear
    matrix[:3, 3] = centre + parameters[:3] - matrix[:3, :3] @ centre
    return matrix


def _hats(values: np.ndarray, knots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Piecewise linear basis functions at the values, (n, KNOTS), and their derivatives.

    Values beyond the first or last knot have the basis of that knot, so that their derivative is zero.
    """
    width = knots[1] - knots[0]
    exact = (values - knots[0]) / width
    position = np.clip(exact, 0, KNOTS - 1 - 1e-9)
    left, rows = position.astype(int), np.arange(len(values))
    part, slope = position - left, ((exact >= 0) & (exact < KNOTS - 1)) / width
    basis, rise = np.zeros((len(values), KNOTS)), np.zeros((len(values), KNOTS))
    basis[rows, left], basis[rows, left + 1] = 1 - part, part
    rise[rows, left], rise[rows, left + 1] = -slope, slope
    return basis, rise


def _masked(volume: Volume, mask: np.ndarray | None, name: str) -> np.ndarray:
    data = np.maximum(volume.data, 0) if mask is None else np.where(mask, np.maximum(volume.data, 0), 0)
    if data.max() == data.min():
        raise ValueError(f"the {name} volume is constant; there is nothing to register.")
    return data / np.float32(np.percentile(data[data > 0], 99))


def _foreground(data: np.ndarray) -> np.ndarray:
    return ndimage.gaussian_filter(data, 1) > 0.2


def _world_points(chosen: np.ndarray, volume: Volume) -> np.ndarray:
    """Centres of the chosen voxels, (n, 3) mm."""
    return np.argwhere(chosen) @ volume.affine[:3, :3].T + volume.affine[:3, 3]
