"""Atlases: label images with region names and networks, and the region means of volumes."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from pdsynth.imaging.nifti import read_volume
from pdsynth.imaging.spatial import Grid, resample
from pdsynth.imaging.template import bundled_file
from pdsynth.types import InputError

NETWORKS = ("default", "fronto-parietal", "cingulo-opercular")
RADIUS_MM = 5.0
DOSENBACH, SEITZMAN = "dosenbach_2010.csv", "seitzman_2018_ROIs_300inVol_MNI_allInfo.txt"
SEITZMAN_ANATOMY = "seitzman_2018_ROIs_anatomicalLabels.txt"
MEDIAL_TEMPORAL = {3: "hippocampus", 4: "amygdala"}  # the numbers of SEITZMAN_ANATOMY
SPLITS_HIPPOCAMPUS_Y = -25.0  # mm


@dataclass(frozen=True, eq=False)
class Atlas:
    """R regions on a grid, each with a name and the name of its brain network. `len` of the atlas is R.

    labels (X, Y, Z) int16: 0 outside all regions, else the number of the region, 1 to R, in the order of `names` and
    `networks`. A network is "" if it is not known.
    """

    labels: np.ndarray
    names: list[str]
    networks: list[str]

    def __len__(self) -> int:
        return len(self.names)

    def centres(self, affine: np.ndarray) -> np.ndarray:
        """Centre of mass of each region in mm, (R, 3), in the order of `names`; nan for a region without a voxel.

        affine (4, 4): from voxels of the grid to mm.
        """
        voxels = ndimage.center_of_mass(self.labels > 0, self.labels, np.arange(1, len(self) + 1))
        return np.asarray(voxels) @ affine[:3, :3].T + affine[:3, 3]


@dataclass(frozen=True)
class _Sphere:
    centre: tuple[float, float, float]
    name: str
    network: str


def network_spheres(grid: Grid, networks: Sequence[str] = NETWORKS, radius_mm: float = RADIUS_MM) -> Atlas:
    """Atlas of spheres around the regions of some brain networks, the regions A_f of fMRI and A_d of dMRI in the paper.

    networks: some of the six networks of the Dosenbach-160 regions (Dosenbach et al. 2010): "cerebellum",
    "cingulo-opercular", "default" (the default mode network), "fronto-parietal", "occipital" and "sensorimotor"; by
    default those of `NETWORKS`, the second to the fourth. Regions are in the order of Dosenbach-160, with its number
    and name as name, such as "1 vmPFC". Their centres are in MNI space, and nilearn ships them. radius_mm: radius of
    the spheres, mm. A voxel in two spheres belongs to the nearer centre. A sphere that contains no voxel of a coarse
    grid gets the nearest voxel that is in no sphere, or in a region of two voxels or more. Raises ValueError for an
    unknown network, and for a grid that is too coarse to give each region a voxel.
    """
    spheres = _dosenbach()
    known = sorted({sphere.network for sphere in spheres})
    unknown = sorted(set(networks) - set(known))
    if unknown:
        raise ValueError(f"there is no network {unknown[0]!r} in Dosenbach-160; choose among {', '.join(known)}.")
    return _spheres(grid, [sphere for sphere in spheres if sphere.network in networks], radius_mm)


def evidence_regions(grid: Grid) -> Atlas:
    """Atlas of the regions that evaluation uses by default: those of the paper, with hippocampi and amygdalae.

    All regions are spheres with a radius of 5 mm. The regions of the paper are those of three networks of
    Dosenbach-160, as `network_spheres` gives them by default. Dosenbach-160 lacks hippocampus and amygdala, in which
    Alzheimer's disease begins. The centres of these two are those of Seitzman et al. (2020), and their network has the
    name "medial-temporal". Raises ValueError for a grid that is too coarse to give each region a voxel.
    """
    return _spheres(grid, [*(s for s in _dosenbach() if s.network in NETWORKS), *_medial_temporal()], RADIUS_MM)


def _spheres(grid: Grid, spheres: Sequence[_Sphere], radius_mm: float) -> Atlas:
    centres = np.array([sphere.centre for sphere in spheres])
    voxels = np.indices(grid.shape).reshape(3, -1).T
    world = voxels @ grid.affine[:3, :3].T + grid.affine[:3, 3]
    distance, nearest = cKDTree(centres).query(world, distance_upper_bound=radius_mm)
    labels = np.where(np.isfinite(distance), nearest + 1, 0).astype(np.int16)
    tree = cKDTree(world)
    for region in np.setdiff1d(np.arange(len(spheres)), labels[labels > 0] - 1):
        near = tree.query(centres[region], k=27)[1]
        sizes = np.bincount(labels, minlength=len(spheres) + 1)
        spare = near[(labels[near] == 0) | (sizes[labels[near]] > 1)]  # excludes the only voxel of a region
        if len(spare) == 0:
            raise ValueError(f"the grid is too coarse to separate {len(spheres)} regions; choose a finer one.")
        labels[spare[0]] = region + 1
    names, networks = [sphere.name for sphere in spheres], [sphere.network for sphere in spheres]
    return Atlas(labels.reshape(grid.shape), names, networks)


def read_atlas(path: str | Path, grid: Grid) -> Atlas:
    """Read a 3D label image in MNI space and resample it to the grid by nearest neighbour.

    Labels are whole numbers above 0; all other voxels are outside the regions. Labels are renumbered 1 to R in
    ascending order, and labels without a voxel on the grid are left out.

    Region names come from a CSV file in the same folder, if there is one: `<image>.csv`, or the part of the name before
    the first underscore, such as `AAL.csv` for `AAL_space-MNI.nii.gz`. Its columns are label, name and, optionally,
    network, in this order; a row that does not start with a label, such as a header, is not used. A label without a row
    is called "region <label>". Raises InputError if the image cannot be read, has several volumes, contains fractions,
    or has no label on the grid.
    """
    path = Path(path)
    volume = read_volume(path)
    if not np.array_equal(volume.data, np.round(volume.data)):
        raise InputError(path, "contains fractions, so that it is not a label image", "give an image of whole numbers")
    resampled = resample(volume, grid, order=0)
    values = np.unique(resampled[resampled > 0]).astype(int)
    if len(values) == 0:
        raise InputError(path, "has no region on the grid", "give a label image in MNI space")
    table = _names_beside(path)
    labels = np.searchsorted(values, resampled).astype(np.int16) + np.int16(1)
    labels[resampled <= 0] = 0
    entries = [table.get(int(v), (f"region {v}", "")) for v in values]
    return Atlas(labels, [name for name, _ in entries], [network for _, network in entries])


def region_means(volumes: np.ndarray, atlas: Atlas) -> np.ndarray:
    """Mean of volumes (..., X, Y, Z) in each region, (..., R) float64; 0 in a region without a voxel.

    Raises ValueError if X, Y and Z are not those of the atlas.

    >>> atlas = Atlas(np.array([[[0, 1, 1, 2]]], np.int16), ["a", "b"], ["", ""])
    >>> region_means(np.array([[[9.0, 1.0, 3.0, 5.0]]]), atlas).tolist()
    [2.0, 5.0]
    """
    volumes = np.asarray(volumes)
    if volumes.shape[-3:] != atlas.labels.shape:
        raise ValueError(f"volumes of shape {volumes.shape[-3:]} do not fit the atlas grid {atlas.labels.shape}.")
    flat = volumes.reshape(int(np.prod(volumes.shape[:-3])), atlas.labels.size)
    labels = atlas.labels.ravel()
    inside = labels > 0
    counts = np.bincount(labels[inside], minlength=len(atlas) + 1)[1:]
    sums = [np.bincount(labels[inside], row[inside], minlength=len(atlas) + 1)[1:] for row in flat]
    return (np.array(sums).reshape(-1, len(atlas)) / np.maximum(counts, 1)).reshape(*volumes.shape[:-3], len(atlas))


def _dosenbach() -> list[_Sphere]:
    with open(bundled_file(DOSENBACH), newline="", encoding="utf-8") as file:
        return [
            _Sphere(
                (float(row["x"]), float(row["y"]), float(row["z"])), f"{row['number']} {row['name']}", row["network"]
            )
            for row in csv.DictReader(file)
        ]


def _medial_temporal() -> list[_Sphere]:
    coordinates = np.loadtxt(bundled_file(SEITZMAN), skiprows=1, usecols=(0, 1, 2))
    anatomy = np.loadtxt(bundled_file(SEITZMAN_ANATOMY), skiprows=1, dtype=int, usecols=0)
    spheres = []
    for kind, name in MEDIAL_TEMPORAL.items():
        for x, y, z in coordinates[anatomy == kind].tolist():
            end = "anterior" if y > SPLITS_HIPPOCAMPUS_Y else "posterior"
            part = f"{end} {name}" if name == "hippocampus" else name
            spheres.append(_Sphere((x, y, z), f"{part} {'right' if x > 0 else 'left'}", "medial-temporal"))
    return spheres


def _names_beside(path: Path) -> dict[int, tuple[str, str]]:
    """Name and network of each label, from the CSV file in the folder of an atlas; empty if there is no such file."""
    stem = path.name.removesuffix(".gz").removesuffix(".nii")
    candidates = [path.with_name(name + ".csv") for name in (stem, stem.split("_")[0])]
    table = next((file for file in candidates if file.is_file()), None)
    if table is None:
        return {}
    names = {}
    with open(table, newline="", encoding="utf-8-sig") as file:
        for row in csv.reader(file):
            if len(row) > 1 and row[0].strip().isdigit():
                names[int(row[0])] = (row[1].strip(), row[2].strip() if len(row) > 2 else "")
    return names
