"""Where the header of a NIfTI image puts its voxels, and how it contradicts itself.

A contradiction that leaves left and right, or the voxel size, unknown is refused. One that has a single sensible
reading is corrected, with a note. Units follow the header, unless only another unit makes the image as large as a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.spatialimages import HeaderDataError

from pdsynth.types import InputError

# Condition number of the unit axes: 1 at right angles, 1.7 with a gantry tilt of 30 degrees, 115 for axes 1 degree off.
WORST_CONDITION = 100.0
EDGES_MM = (0.01, 1000.0)  # voxel edges; resampling pads to whole blocks, which are huge for tiny voxels
FIELD_MM = (20.0, 2000.0)  # largest field of view of a scan, in the right unit; units differ by a factor of 1000
SECONDS = (0.1, 30.0)  # repetition times
LENGTHS = {0: ("an unknown unit", 1.0), 1: ("m", 1000.0), 2: ("mm", 1.0), 3: ("um", 0.001)}  # codes of NIfTI, in mm
TIMES = {0: ("an unknown unit", 1.0), 8: ("s", 1.0), 16: ("ms", 1e-3), 24: ("us", 1e-6)}  # in seconds
UNIT_EDGES = 1e-3  # tolerance, in mm, of voxels of 1 mm
SAME_MM = 1e-2  # rounding of the numbers of sform and qform
NOTED_MM = 10.0  # distance between the places of a voxel by sform and qform from which it is noted
NOTED_RATIO, WORST_RATIO = 1.1, 1.5  # of a voxel edge by the affine and by pixdim
NO_ORIENTATION = (
    "convert it again from DICOM; or copy the affine and its code from the scan that it was computed from, only if the "
    "voxels of both have the same order"
)


@dataclass(frozen=True, eq=False)
class Geometry:
    """Where an image lies: affine (4, 4) from voxel index to world mm, and voxel edges `zooms` in mm.

    The zooms are those of the header's entry pixdim. They differ from the edges by the affine by at most a factor of
    1.5, unless pixdim is 1 on all axes, a default value, or holds a number that is 0 or not finite. notes: doubtful
    entries of the header and how they were read, in words.
    """

    affine: np.ndarray
    zooms: tuple[float, ...]
    notes: tuple[str, ...]


def geometry(path: Path, header: Any, shape: Sequence[int]) -> Geometry:
    """Where the voxels of an image lie, by its nibabel header: by the sform if its code is set, else by the qform.

    shape is that of the image, with the three axes of space first. path: the file, for messages. Lengths are in the
    header's unit. If the image is as large as a head (20 to 2000 mm along its longest axis) only in another unit (m, mm
    or um), that one is used, with a note. Raises InputError if the header gives no orientation, contradicts itself on
    left and right or on the voxel size, has a singular affine, or voxel edges below 0.01 mm or above 1000 mm. Raises
    ValueError or HeaderDataError of nibabel if there is only a qform, and it is not a rotation.
    """
    sform, qform = _coded(header, "sform"), _coded(header, "qform")
    affine = sform if sform is not None else qform
    if affine is None:
        problem = "gives no orientation in its header (sform_code and qform_code are 0): left and right are not known"
        raise InputError(path, problem, NO_ORIENTATION)
    pixdim = np.abs(np.asarray(header["pixdim"][1:4], np.float64))
    factor, notes = _unit(header, affine, shape)
    unit = np.array([[factor], [factor], [factor], [1.0]])
    affine = unit * affine
    check_affine(path, affine)
    notes += _edges(path, affine, factor * pixdim)
    if not affine[:3, 3].any() and np.count_nonzero(affine[:3, :3]) == 3 and affine[:3, :3].diagonal().all():
        notes.append("its affine holds voxel sizes alone, without an origin: left and right may be exchanged")
    if sform is not None and qform is not None:
        notes += _agree(path, affine, unit * qform, shape)
    return Geometry(affine, tuple(float(z) for z in factor * pixdim), tuple(notes))


def repetition_time(header: Any) -> tuple[float, str]:
    """Repetition time of a series in seconds, and a note in words if the header is doubtful, else "".

    header: a nibabel NIfTI header. If the time is outside 0.1 to 30 s in the header's unit, but not in another (s, ms
    or us), the other unit is used, with a note. The time is 0 if it is unknown, or outside this range in all units; the
    note then says that 2 s is assumed. A negative time is converted to seconds by the header's unit, and returned
    without a note.
    """
    value = float(header["pixdim"][4])
    unit, factor = TIMES.get(int(header["xyzt_units"]) & 0x38, TIMES[0])
    if value < 0 or SECONDS[0] <= value * factor <= SECONDS[1]:
        return value * factor, ""
    if value == 0:
        return 0.0, "its header gives no repetition time; 2 s is assumed"
    for other, per_second in list(TIMES.values())[1:]:
        if SECONDS[0] <= value * per_second <= SECONDS[1]:
            wrong = f"its header gives a repetition time of {value:g} in {unit}"
            return value * per_second, f"{wrong}; {value * per_second:g} s is used, as if it were in {other}"
    return 0.0, f"its header gives a repetition time of {value:g} in {unit}, which no scan has; 2 s is assumed"


def scaling(header: Any) -> tuple[float, float, str]:
    """Slope and intercept by which stored values become intensities, and a note if the header is doubtful, else "".

    header: a nibabel NIfTI header. If the slope is 0 or not finite, values are not scaled, as NIfTI defines: the result
    is (1, 0, ""). An intercept that is not finite counts as 0, as for the tools that are based on niftilib.
    """
    slope, inter = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or not np.isfinite(slope):
        return 1.0, 0.0, ""
    if not np.isfinite(inter):
        return slope, 0.0, f"scl_inter is {inter:g} beside scl_slope {slope:g} in its header; 0 is used"
    return slope, inter, ""


def check_affine(path: Path, affine: np.ndarray) -> None:
    """Raise InputError if an affine (4, 4) is singular, or if a voxel edge is below 0.01 mm or above 1000 mm.

    The edge is measured by the largest number in its column of the affine. Singular means that its numbers are not
    finite, or its axes are zero or almost parallel. path: the file, for the message.
    """
    largest = np.abs(affine[:3, :3]).max(0)
    singular = not np.isfinite(affine).all() or not largest.all()
    if not singular:
        axes = affine[:3, :3] / largest  # before the norm, because the squares of large numbers overflow
        singular = not np.linalg.cond(axes / np.linalg.norm(axes, axis=0)) <= WORST_CONDITION
    if singular:
        raise InputError(path, "has a singular affine", "repair its sform or qform")
    if largest.min() < EDGES_MM[0] or largest.max() > EDGES_MM[1]:
        raise InputError(path, f"has voxels of {largest.min():g} to {largest.max():g} mm", "repair its sform or qform")


def _coded(header: Any, form: str) -> np.ndarray | None:
    """The sform or qform, (4, 4) in the header's unit; None if its code says that it is not set."""
    if int(header[f"{form}_code"]) <= 0:
        return None
    if form == "sform":
        return np.asarray(header.get_sform(), np.float64)
    try:
        return np.asarray(header.get_qform(), np.float64)
    except (HeaderDataError, ValueError):  # no rotation; it matters only if there is no sform
        if int(header["sform_code"]) > 0:
            return None
        raise


def _unit(header: Any, affine: np.ndarray, shape: Sequence[int]) -> tuple[float, list[str]]:
    """Number of mm per unit of length of the header, and notes.

    Another unit than the header's is taken if the image is as large as a head (FIELD_MM) in that unit, but not in the
    header's.
    """
    with np.errstate(over="ignore"):
        edges = np.linalg.norm(affine[:3, :3], axis=0)
        field = float(np.max(edges * np.asarray(shape[:3])))
    name, factor = LENGTHS.get(int(header["xyzt_units"]) & 0x07, LENGTHS[0])
    if FIELD_MM[0] <= field * factor <= FIELD_MM[1]:
        return factor, []
    for other, millimetres in list(LENGTHS.values())[1:]:
        if FIELD_MM[0] <= field * millimetres <= FIELD_MM[1] and edges.min() * millimetres >= EDGES_MM[0]:
            note = f"by its header it is {field:g} wide in {name}; {other} is taken as the unit"
            return millimetres, [note]
    return factor, []


def _agree(path: Path, sform: np.ndarray, qform: np.ndarray, shape: Sequence[int]) -> list[str]:
    """A note if sform and qform put a voxel at places more than NOTED_MM apart; no note for a useless qform.

    Raises InputError if the two have opposite handedness.
    """
    if np.abs(sform - qform).max() < SAME_MM:
        return []
    axes = qform[:3, :3]
    if not np.isfinite(qform).all() or np.linalg.det(axes) == 0:
        return []
    if np.linalg.det(sform[:3, :3]) * np.linalg.det(axes) < 0:
        problem = "has an sform and a qform of opposite handedness: left and right are not known"
        remedy = (
            "convert it again from DICOM; or find out which of the two is right, and set the code of the other to 0"
        )
        raise InputError(path, problem, remedy)
    corners = np.array([[*corner, 1] for corner in product(*[(0, n - 1) for n in shape[:3]])]).T
    apart = float(np.linalg.norm(((sform - qform) @ corners)[:3], axis=0).max())
    return [f"its sform and qform differ by up to {apart:.0f} mm; the sform is used"] if apart > NOTED_MM else []


def _edges(path: Path, affine: np.ndarray, pixdim: np.ndarray) -> list[str]:
    """A note if the voxel edges by affine and by pixdim, in mm, differ by more than the factor NOTED_RATIO.

    Raises InputError if they differ by more than WORST_RATIO, unless pixdim has its default value, 1.
    """
    edges = np.linalg.norm(affine[:3, :3], axis=0)
    if not (np.isfinite(pixdim).all() and pixdim.all()):
        return []
    ratio = float(np.maximum(edges / pixdim, pixdim / edges).max())
    if ratio <= NOTED_RATIO:
        return []
    differ = f"voxels of {_size(edges)} mm by its affine, but of {_size(pixdim)} mm by its pixdim"
    unset = np.abs(pixdim - 1).max() < UNIT_EDGES  # the default of programs that do not set pixdim
    if ratio > WORST_RATIO and not unset:
        remedy = "convert it again from DICOM; a head is about 200 mm wide, which shows the right size of the two"
        raise InputError(path, f"has {differ}: the voxel size is doubtful", remedy)
    return [f"it has {differ}; the affine is used"]


def _size(edges: np.ndarray) -> str:
    return "x".join(f"{edge:.3g}" for edge in edges)
