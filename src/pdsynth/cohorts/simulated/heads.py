"""Real heads: label maps with FreeSurfer's numbers, from which people are simulated with their true size and folding.

A label map shows neither the thin fluid inside a sulcus, nor the amount of fluid between this brain and its skull. Both
are drawn for each person (see `Head.tissues`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from scipy import ndimage

from pdsynth.imaging.nifti import Volume
from pdsynth.imaging.registration import register
from pdsynth.imaging.spatial import mni_grid
from pdsynth.imaging.template import EPI_CONTRAST, epi_template, tissue_template
from pdsynth.types import InputError

SUFFIXES = (".nii", ".nii.gz", ".mgz")
TISSUES = ("gm", "wm", "csf", "scalp", "fat", "eye", "hippocampus", "iron", "lesion")  # columns of CONTENT
# Labels of a structure, and its content: volume fractions, and 0..1 for iron and lesion. Deep structures are mixtures
# of grey and white matter, because both the relaxation and the diffusion of most lie between those of the two.
STRUCTURES: dict[str, tuple[tuple[int, ...], dict[str, float]]] = {
    "nothing": ((), {}),
    "cortex": ((3, 42, *range(1001, 1036), *range(2001, 2036)), {"gm": 1}),
    "white matter": ((2, 41, 85, *range(251, 256)), {"wm": 1}),
    "fluid": ((24,), {"csf": 1}),
    "ventricle": ((4, 5, 14, 15, 30, 31, 43, 44, 62, 63, 72), {"csf": 1}),
    "lesion": ((25, 57, 77), {"wm": 1, "lesion": 1}),
    "thalamus": ((10, 49), {"gm": 0.6, "wm": 0.4, "iron": 0.2}),
    "caudate": ((11, 50), {"gm": 0.9, "wm": 0.1, "iron": 0.35}),
    "putamen": ((12, 51, 26, 58), {"gm": 0.85, "wm": 0.15, "iron": 0.5}),
    "pallidum": ((13, 52), {"gm": 0.4, "wm": 0.6, "iron": 1}),
    "ventral diencephalon": ((28, 60), {"gm": 0.4, "wm": 0.6, "iron": 0.5}),
    "hippocampus": ((17, 53), {"gm": 1, "hippocampus": 1}),
    "amygdala": ((18, 54, 136, 137, 163, 164), {"gm": 1}),
    "brainstem": ((16, 512), {"gm": 0.15, "wm": 0.85, "iron": 0.15}),
    "cerebellar white matter": ((7, 46), {"wm": 1, "iron": 0.1}),
    "cerebellar cortex": ((8, 47), {"gm": 1}),
    "muscle": ((507, 508, 509, 530), {"scalp": 1}),
    "skin": ((511,), {"scalp": 0.3, "fat": 0.7}),
    "eye": ((506,), {"eye": 1}),
}
NAMES = tuple(STRUCTURES)
CONTENT = np.array([[content.get(t, 0) for t in TISSUES] for _, content in STRUCTURES.values()], np.float32)
OUTSIDE = ("nothing", "muscle", "skin", "eye")
WHITE = ("white matter", "lesion", "putamen", "hippocampus", "thalamus", "caudate")  # structures below the cortex
MARGIN_MM = 25  # kept around the brain
CLOSING_MM = 6  # a sulcus is narrower than twice this
BURIED_MM = 3.5  # cortex deeper below the hull lies in a sulcus
SULCUS_MM = 9.0  # fluid deeper below the hull fills sulci and cisterns, and does not vary with the rim
PARTIAL_MM = 0.9  # width of the transition from cortex to the fluid in a sulcus
FINE, COARSE = 10.0, 4.0  # steps per mm in which distances and depths are stored


@dataclass(frozen=True)
class Head:
    """The head of a real person: a label map, cropped around the brain.

    structure (x, y, z) uint8 is an index in NAMES, the names of the structures. distance (x, y, z) uint8, in 0.1 mm, is
    the distance of a voxel of the cortex from the white matter, and of another voxel from the brain's tissue. depth (x,
    y, z) uint8, in 0.25 mm, is the depth of a voxel below the brain's hull, 0 outside it. Both end at 255. index (4, 4)
    maps positions of the person in mm to voxel indices; the person has the size of the head and the orientation of the
    template. to_person (4, 4) maps the label map's mm to these positions, and to_template (4, 4) maps these positions
    to template mm. has_scalp: whether the map has labels outside the brain.
    """

    structure: np.ndarray
    distance: np.ndarray
    depth: np.ndarray
    index: np.ndarray
    to_person: np.ndarray
    to_template: np.ndarray
    has_scalp: bool

    def tissues(self, positions: np.ndarray, spacing_mm: np.ndarray, thickness_mm: float, rim_mm: float) -> np.ndarray:
        """Content of each voxel of a grid, (len(TISSUES) + 1, X, Y, Z) float32; the last is the fraction in the hull.

        The others are in the order of TISSUES, 0..1: volume fractions, and the maps of hippocampus, iron and lesion.
        positions (3, X, Y, Z) are those of the grid's voxels in the person, in mm; spacing_mm (3,) are the edges of a
        voxel. Each voxel is the mean of eight samples. thickness_mm is that of the cortex: cortex farther from the
        white matter inside a sulcus is fluid. rim_mm is the thickness of the fluid that covers the brain.
        """
        total = np.zeros((CONTENT.shape[1] + 1, positions[0].size), np.float32)
        limit = np.array(self.structure.shape)[:, None] - 1
        linear, origin = self.index[:3, :3].astype(np.float32), self.index[:3, 3:].astype(np.float32)
        for corner in np.ndindex(2, 2, 2):
            offset = ((np.array(corner) - 0.5) * spacing_mm / 2).astype(np.float32)
            voxel = np.rint(linear @ (positions.reshape(3, -1) + offset[:, None]) + origin).astype(np.int32)
            outside = ((voxel < 0) | (voxel > limit)).any(0)
            i, j, k = np.clip(voxel, 0, limit)
            structure = np.where(outside, 0, self.structure[i, j, k])
            distance, depth = self.distance[i, j, k] / FINE, self.depth[i, j, k] / COARSE
            content = CONTENT[structure].T.copy()
            cortex = (structure == NAMES.index("cortex")) & (depth > BURIED_MM)
            fluid = np.clip((distance - thickness_mm) / PARTIAL_MM, 0, 1) * cortex
            content[TISSUES.index("gm")] -= fluid
            content[TISSUES.index("csf")] += fluid
            far = (structure == NAMES.index("fluid")) & (depth < SULCUS_MM) & (distance > rim_mm)
            content[TISSUES.index("csf"), far] = 0
            total[:-1] += content / 8
            total[-1] += (~outside & (depth > 0)) / 8
        return total.reshape(-1, *positions.shape[1:])


def find_heads(folder: Path) -> list[Path]:
    """The label maps directly in a folder (.nii, .nii.gz, .mgz), sorted by name. Raises InputError if there is none."""
    found = sorted(p for p in folder.iterdir() if p.name.endswith(SUFFIXES)) if folder.is_dir() else []
    if not found:
        raise InputError(folder, "has no label map", f"give a folder with files that end in {', '.join(SUFFIXES)}")
    return found


@lru_cache(maxsize=16)  # 20 to 30 MB each
def read_head(path: Path) -> Head:
    """Read a label map with FreeSurfer's numbers and register it to the template, in 10 to 20 s.

    Numbers that are not in STRUCTURES count as background. The last 16 heads are kept in memory. Raises InputError for
    a file that cannot be read or is not 3D, and for one without the cortex or the white matter.
    """
    try:
        image: Any = nib.as_closest_canonical(nib.load(path))
        labels, affine = np.asarray(image.dataobj), image.affine
    except Exception as error:  # nibabel raises many kinds of errors for damaged files
        raise InputError(path, f"cannot be read ({type(error).__name__})", "copy or convert the file again") from error
    if labels.ndim != 3:
        raise InputError(path, f"has {labels.ndim} dimensions", "give a 3D label map such as FreeSurfer's aseg.mgz")
    structure = np.zeros(labels.shape, np.uint8)
    for number, (numbers, _) in enumerate(STRUCTURES.values()):
        structure[np.isin(labels, numbers)] = number
    for name in ("cortex", "white matter"):
        if not _is(structure, name).any():
            numbers = STRUCTURES[name][0][:2]
            raise InputError(
                path, f"has no voxel of the {name} (labels {numbers[0]} and {numbers[1]})", "give FreeSurfer's numbers"
            )
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    structure, affine = _cropped(structure, affine, spacing)
    solid = ~_is(structure, *OUTSIDE, "fluid")
    steps = int(np.ceil(CLOSING_MM / spacing.mean()))
    hull = ndimage.binary_closing(np.pad(solid, steps), iterations=steps)[(slice(steps, -steps),) * 3]
    depth = ndimage.distance_transform_edt(hull, sampling=spacing)
    distance = ndimage.distance_transform_edt(~solid, sampling=spacing)
    white = _is(structure, *WHITE)
    cortex = _is(structure, "cortex")
    from_white = ndimage.distance_transform_edt(~white, sampling=spacing)
    distance[cortex] = ndimage.gaussian_filter(from_white.astype(np.float32), 0.6 / spacing)[cortex]
    to_person, to_template = _placed(structure, affine, spacing)
    return Head(
        structure=structure,
        distance=np.minimum(distance * FINE, 255).astype(np.uint8),
        depth=np.minimum(np.ceil(depth * COARSE), 255).astype(np.uint8),
        index=np.linalg.inv(to_person @ affine),
        to_person=to_person,
        to_template=to_template,
        has_scalp=bool((structure >= NAMES.index("muscle")).any()),
    )


def _is(structure: np.ndarray, *names: str) -> np.ndarray:
    """Whether each voxel is of one of the named structures, of the shape of `structure`."""
    return np.isin(structure, [NAMES.index(name) for name in names])


def _cropped(structure: np.ndarray, affine: np.ndarray, spacing: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The part of the map around the brain, and its affine."""
    brain = ~_is(structure, *OUTSIDE, "fluid")
    where = np.argwhere(ndimage.binary_opening(brain))  # a single voxel far from the brain does not count
    margin = np.ceil(MARGIN_MM / spacing).astype(int)
    low = np.maximum(where.min(0) - margin, 0)
    high = np.minimum(where.max(0) + margin + 1, structure.shape)
    shifted = affine.copy()
    shifted[:3, 3] += affine[:3, :3] @ low
    return np.ascontiguousarray(structure[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]), shifted


def _placed(structure: np.ndarray, affine: np.ndarray, spacing: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Maps from the map's world mm to positions of the person, and from those to template mm, (4, 4) each.

    The first is the rigid part of the second after the first, so that the person keeps the size of the head.
    """
    step = np.maximum(np.round(3 / spacing).astype(int), 1)
    thinned = tuple(slice(None, None, int(s)) for s in step)
    coarse = affine @ np.diag([*step, 1.0])
    content = CONTENT[structure[thinned]]
    head = sum(np.float32(contrast) * content[..., TISSUES.index(name)] for name, contrast in EPI_CONTRAST.items())
    brain = content[..., :3].sum(-1) > 0.5
    grid = mni_grid(4.0)
    matrix = register(
        Volume(np.asarray(head, np.float32), coarse),
        epi_template(grid),
        "affine",
        moving_mask=brain,
        fixed_mask=tissue_template(grid)["brain"] > 0.5,
    )
    left, _, right = np.linalg.svd(matrix[:3, :3])
    rotation = left @ right
    centre = coarse[:3, :3] @ np.argwhere(brain).mean(0) + coarse[:3, 3]
    to_person = np.eye(4)
    to_person[:3, :3] = rotation
    to_person[:3, 3] = matrix[:3, :3] @ centre + matrix[:3, 3] - rotation @ centre
    return to_person, matrix @ np.linalg.inv(to_person)
