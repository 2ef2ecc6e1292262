"""Template maps that all simulated people share: tissue, distances, deep nuclei, functional regions and fibres."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import ndimage, special

from pdsynth.cohorts.simulated.bundles import fibres
from pdsynth.cohorts.simulated.fields import signed_distance, smooth, world
from pdsynth.imaging.spatial import Grid, mni_grid
from pdsynth.imaging.template import tissue_template

FINE_MM = 2.0  # voxels of the tissue maps
COARSE_MM = 4.0  # voxels of all other maps, which are smooth
REGIONS_FILE = "seitzman_2018_ROIs_300inVol_MNI_allInfo.txt"  # Seitzman et al. 2020
NETWORKS = ("DefaultMode", "DorsalAttention", "FrontoParietal", "CinguloOpercular", "SomatomotorDorsal", "Visual")
DIPOLES = (((0, 36, -44), 15.0), ((56, -20, -44), 13.0), ((-56, -20, -44), 13.0))  # air spheres: centre, radius (mm)


@dataclass(frozen=True)
class Priors:
    """Template maps. tissues (3, X, Y, Z) holds gm, wm and csf on the fine grid; all others are on the coarse grid.

    Voxels of the fine grid have 2 mm, those of the coarse grid 4 mm. outside is the distance to the brain's hull in mm,
    negative inside. ventricle_push and hippocampus_pull (3, X, Y, Z) are displacement fields that grow the ventricles
    and shrink the hippocampi by about 1 mm. hippocampus, default_mode and periventricular are soft masks, 0..1. iron,
    0..1, marks the iron-rich nuclei. fibres holds the two fibre directions of each voxel, the share of the first, and
    the bundles that degenerate, by the keys first, second, share and vulnerable. dipoles (3, X, Y, Z) are the fields of
    the three air spheres in DIPOLES. folded is 1 where the cortex has gyri and 0 in deep nuclei and brainstem. regions
    holds 0, or 1 + the index of a functional region, whose network has the index region_network[index] in NETWORKS.
    """

    fine: Grid
    coarse: Grid
    tissues: np.ndarray
    outside: np.ndarray
    ventricle_push: np.ndarray
    hippocampus_pull: np.ndarray
    hippocampus: np.ndarray
    default_mode: np.ndarray
    periventricular: np.ndarray
    iron: np.ndarray
    folded: np.ndarray
    regions: np.ndarray
    region_network: np.ndarray
    fibres: dict[str, np.ndarray]
    dipoles: np.ndarray


@lru_cache(maxsize=1)
def priors() -> Priors:
    """The template maps, built once per process in about a second."""
    fine, coarse = mni_grid(FINE_MM), mni_grid(COARSE_MM)
    maps = tissue_template(fine)
    tissues = np.stack([maps[k] for k in ("gm", "wm", "csf")])
    low = tissue_template(coarse)
    xyz = world(coarse)
    hull = ndimage.binary_closing(low["brain"] > 0.5, iterations=5)
    box = (abs(xyz[0]) < 38) & (xyz[1] > -52) & (xyz[1] < 36) & (xyz[2] > -12) & (xyz[2] < 34)
    ventricles = (low["csf"] > 0.5) & box & (signed_distance(hull, COARSE_MM) < -16)
    ventricle_distance = signed_distance(ventricles, COARSE_MM)
    hippocampus = _hippocampi(xyz)
    regions, region_network, default_mode = _regions(coarse, low["gm"])
    deep = _blob(xyz, (0, -14, 4), (34, 34, 18))
    brainstem = _blob(xyz, (0, -30, -34), (16, 16, 30))
    return Priors(
        fine=fine,
        coarse=coarse,
        tissues=tissues,
        outside=signed_distance(hull, COARSE_MM),
        ventricle_push=_outward(coarse, ventricle_distance, reach_mm=10),
        hippocampus_pull=-_outward(coarse, signed_distance(hippocampus > 0.5, COARSE_MM), reach_mm=5),
        hippocampus=hippocampus,
        default_mode=default_mode,
        periventricular=np.exp(-np.clip(ventricle_distance, 0, None) / 6).astype(np.float32),
        iron=_iron(xyz),
        folded=np.clip(1 - deep - brainstem, 0, 1).astype(np.float32),
        regions=regions,
        region_network=region_network,
        fibres=fibres(coarse),
        dipoles=np.stack([_dipole(xyz, centre, radius) for centre, radius in DIPOLES]),
    )


def _outward(grid: Grid, distance: np.ndarray, reach_mm: float) -> np.ndarray:
    """Vectors that point away from a surface; their length is largest on it, at most 1, and falls off: (3, X, Y, Z).

    distance is the signed distance to the surface in mm; reach_mm is the SD of the Gaussian decay.
    """
    softened = smooth(distance, grid, 8.0)
    gradient = np.stack(np.gradient(softened, COARSE_MM))
    gradient /= np.linalg.norm(gradient, axis=0) + 0.2
    return np.asarray(gradient * np.exp(-0.5 * np.square(distance / reach_mm)), np.float32)


def _blob(xyz: np.ndarray, centre: tuple[float, ...], radii: tuple[float, ...]) -> np.ndarray:
    """An ellipsoid with a soft border: near 1 inside and 0 outside, 0.5 at the radii (mm)."""
    scaled = np.sqrt(sum(np.square((xyz[i] - centre[i]) / radii[i]) for i in range(3)))
    return np.asarray(special.expit((1 - scaled) * 10), np.float32)


def _hippocampi(xyz: np.ndarray) -> np.ndarray:
    """Both hippocampi, 0..1, each as a chain of soft spheres from head to tail."""
    centres = [(24, -10, -20), (27, -17, -18), (29, -24, -14), (28, -31, -8), (24, -37, -2)]
    spheres = zip(centres, (7.5, 7, 6.5, 6, 5.5), strict=True)
    parts = [
        _blob(xyz, (side * x, y, z), (radius, radius, radius)) for (x, y, z), radius in spheres for side in (-1, 1)
    ]
    return np.asarray(np.max(parts, axis=0), np.float32)


def _iron(xyz: np.ndarray) -> np.ndarray:
    """Iron-rich nuclei, 0..1: pallidum, putamen (at half weight), substantia nigra, red nucleus and dentate nucleus."""
    nuclei = [((19, -4, -1), (6, 9, 6), 1.0), ((26, 3, 1), (6, 14, 9), 0.5), ((9, -18, -11), (4, 6, 4), 1.0),
              ((5, -21, -8), (3.5, 3.5, 3.5), 0.8), ((14, -56, -36), (7, 6, 4), 0.7)]  # fmt: skip
    parts = [amount * _blob(xyz, (side * c[0], c[1], c[2]), r) for c, r, amount in nuclei for side in (-1, 1)]
    return np.asarray(np.max(parts, axis=0), np.float32)


def _regions(grid: Grid, grey: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Functional regions of grey matter by the nearest centre within 16 mm.

    Returns the region labels (X, Y, Z), the network of each region (R,) and a smooth map of the default mode (X, Y, Z)
    in 0..1.
    """
    spec = find_spec("nilearn")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("nilearn, which ships region coordinates, is not installed; install pdsynth again.")
    path = Path(spec.submodule_search_locations[0]) / "datasets" / "data" / REGIONS_FILE
    table = pd.read_csv(path, sep=r"\s+", usecols=["x", "y", "z", "netName"])
    table = table[table["netName"].isin(NETWORKS)]
    centres = table[["x", "y", "z"]].to_numpy(np.float32)
    network = table["netName"].map(NETWORKS.index).to_numpy()
    points = world(grid).reshape(3, -1).T
    near = grey.ravel() > 0.1
    distance = np.linalg.norm(points[near, None] - centres[None], axis=2)
    regions = np.zeros(grey.size, np.int16)
    regions[near] = np.where(distance.min(1) < 16, distance.argmin(1) + 1, 0)
    default = np.zeros(grey.size, np.float32)
    default[near] = np.exp(-0.5 * np.square(distance[:, network == 0].min(1) / 9))
    return regions.reshape(grid.shape), network, default.reshape(grid.shape)


def _dipole(xyz: np.ndarray, centre: tuple[int, int, int], radius: float) -> np.ndarray:
    """Field of an air sphere in B0 along z, without unit, (X, Y, Z): (R / r)^3 (3 cos^2 - 1).

    R is the radius, r the distance from the centre, at least R, and cos the cosine of the angle to z. xyz (3, X, Y, Z),
    centre and radius are in mm.
    """
    offset = xyz - np.asarray(centre, np.float32)[:, None, None, None]
    r = np.sqrt(np.square(offset).sum(0)) + 1e-6
    cosine = offset[2] / r
    return np.asarray((radius / np.maximum(r, radius)) ** 3 * (3 * cosine**2 - 1), np.float32)
