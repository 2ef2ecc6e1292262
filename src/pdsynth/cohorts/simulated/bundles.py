"""Fibre directions of the template brain from hand-placed splines along the major white-matter bundles."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.spatial import cKDTree

from pdsynth.cohorts.simulated.fields import world
from pdsynth.imaging.spatial import Grid

WIDTH_MM = 5.0  # SD of the Gaussian profile of a bundle
ISOTROPIC = 0.03  # weight of the radial direction, which dominates where there is no bundle

# Waypoints in MNI mm. CROSSING holds bundles across the midline; PAIRED holds right bundles, which are mirrored.
CROSSING = {
    "genu": [(-30, 52, 4), (-14, 38, 8), (0, 27, 8), (14, 38, 8), (30, 52, 4)],
    "splenium": [(-26, -84, 8), (-22, -56, 16), (0, -38, 14), (22, -56, 16), (26, -84, 8)],
    "callosum_anterior": [(-36, 22, 44), (-18, 14, 32), (0, 12, 24), (18, 14, 32), (36, 22, 44)],
    "callosum_middle": [(-40, -8, 56), (-20, -6, 36), (0, -6, 27), (20, -6, 36), (40, -8, 56)],
    "callosum_posterior": [(-34, -46, 56), (-20, -34, 36), (0, -26, 26), (20, -34, 36), (34, -46, 56)],
    "anterior_commissure": [(-42, -6, -20), (-22, 2, -8), (0, 3, -4), (22, 2, -8), (42, -6, -20)],
}
PAIRED = {
    "cingulum": [(9, 36, 4), (9, 30, 22), (9, 6, 36), (9, -24, 38), (11, -46, 26), (22, -44, 2), (26, -26, -14)],
    "corticospinal": [(30, -26, 64), (25, -20, 36), (22, -15, 12), (15, -16, -8), (7, -24, -34), (4, -36, -56)],
    "corona_frontal": [(24, 52, 22), (22, 30, 18), (20, 8, 12), (14, -8, 0)],
    "corona_parietal": [(28, -58, 50), (26, -42, 34), (24, -28, 14), (18, -22, 2)],
    "slf_upper": [(38, 34, 26), (36, 8, 34), (36, -24, 36), (38, -54, 36)],
    "arcuate": [(46, 18, 18), (38, -4, 26), (36, -36, 26), (42, -44, 8), (50, -28, -6)],
    "ifof": [(24, 48, 2), (28, 22, -2), (32, -4, -6), (36, -36, 0), (30, -66, 2), (20, -88, 4)],
    "ilf": [(44, -2, -30), (42, -26, -14), (38, -54, -4), (28, -86, -2)],
    "uncinate": [(22, 42, -8), (26, 20, -10), (34, 4, -16), (38, -2, -30)],
    "fornix": [(2, 4, 2), (3, -8, 16), (6, -28, 16), (18, -38, 4), (28, -30, -8), (26, -16, -18)],
    "anterior_thalamic": [(18, 46, 14), (16, 24, 12), (12, 4, 8), (8, -14, 8)],
    "optic_radiation": [(22, -24, -2), (38, -32, -2), (36, -56, 4), (14, -88, 4)],
    "cerebellar": [(5, -30, -24), (14, -42, -32), (24, -58, -36)],
    "middle_peduncle": [(2, -24, -36), (18, -36, -36), (30, -58, -40)],
    "frontal_aslant": [(10, 10, 56), (24, 12, 40), (40, 14, 20)],
    "vertical_occipital": [(28, -76, 34), (32, -76, 10), (32, -72, -12)],
}
VULNERABLE = ("cingulum", "fornix", "uncinate", "splenium")  # bundles that lose axons with severity


def curves() -> dict[str, list[np.ndarray]]:
    """Curves of every fibre bundle, in MNI mm, as points about 1 mm apart: name of the bundle -> [(n, 3)].

    A bundle across the midline has one curve, another one has a right and a left one.
    """
    bundles = {name: [_spline(points)] for name, points in CROSSING.items()}
    for name, points in PAIRED.items():
        right = _spline(points)
        bundles[name] = [right, right * np.array([-1, 1, 1])]
    return bundles


def _spline(points: list[tuple[int, int, int]]) -> np.ndarray:
    """Cubic spline through the points, sampled in steps of about 1 mm: (n, 3)."""
    waypoints = np.asarray(points, float)
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(waypoints, axis=0), axis=1))])
    return np.asarray(CubicSpline(length, waypoints)(np.arange(0, length[-1], 1.0)))


@lru_cache(maxsize=2)
def fibres(grid: Grid) -> dict[str, np.ndarray]:
    """The two fibre populations of each voxel on a grid in MNI space, as a dict of maps.

    Its keys first and second (3, X, Y, Z) are unit directions. share (X, Y, Z) is the weight of the first, in 0.5..1.
    vulnerable (X, Y, Z), in 0..1, marks the bundles that degenerate with severity. The directions are the two leading
    eigenvectors of the sum over bundles of w t t', with the tangent t and the weight w = exp(-d^2 / (2 WIDTH_MM^2)) at
    the distance d (WIDTH_MM is 5 mm). A small radial term, which is added, decides where there is no bundle.
    """
    points = world(grid).reshape(3, -1).T
    radial = points - np.array([0, -20, 8], np.float32)
    radial /= np.linalg.norm(radial, axis=1, keepdims=True) + 1e-6
    dyadic = ISOTROPIC * radial[:, :, None] * radial[:, None, :]
    vulnerable = np.zeros(len(points), np.float32)
    for name, parts in curves().items():
        for curve in parts:
            tangent = np.gradient(curve, axis=0)
            tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
            distance, nearest = cKDTree(curve).query(points, distance_upper_bound=3 * WIDTH_MM)
            near = np.isfinite(distance)
            weight = np.exp(-0.5 * np.square(distance[near] / WIDTH_MM))
            along = tangent[nearest[near]]
            dyadic[near] += weight[:, None, None] * along[:, :, None] * along[:, None, :]
            if name in VULNERABLE:
                vulnerable[near] = np.maximum(vulnerable[near], weight)
    values, vectors = np.linalg.eigh(dyadic.astype(np.float32))
    share = values[:, 2] / (values[:, 1] + values[:, 2])
    return {
        "first": vectors[:, :, 2].T.reshape(3, *grid.shape),
        "second": vectors[:, :, 1].T.reshape(3, *grid.shape),
        "share": share.reshape(grid.shape).astype(np.float32),
        "vulnerable": vulnerable.reshape(grid.shape),
    }
