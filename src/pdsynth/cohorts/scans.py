"""Which file holds a scan that can be used: by its name, its header and its gradient tables; no voxel is read."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from pdsynth.cohorts.cohort import Rejection, Scan
from pdsynth.files import sha256
from pdsynth.imaging.nifti import ScanHeader, read_header
from pdsynth.imaging.segments import B0_LIMIT, read_gradients
from pdsynth.resources import stops_run
from pdsynth.types import InputError, Modality

LEAST_HEIGHT_MM = 60.0  # a lower stack of slices is a slab, not a brain
LEAST_WIDTH_MM = 100.0
GRADIENTS = (("bval",), ("eddy_rotated_bvecs", "bvec"))  # directions that FSL's eddy turned with the head come first
FEAT_SERIES, FEAT_MATRIX = "filtered_func_data.nii", Path("reg") / "example_func2standard.mat"
SPACE = re.compile(r"_space-([A-Za-z0-9]+)_")
KIND = re.compile(
    r"(_desc-[A-Za-z0-9]+)?_(bold|dwi|boldref|dwiref)$"
)  # what a brain mask's name has other than its scan's


def single_scan(path: str | Path, modality: Modality | None = None) -> Scan:
    """One scan by path, outside any dataset: a 4D acquisition, or a 3D mean volume, which needs no b-values.

    The name (`bold`, `dwi`) or b-values beside the file say which modality it is, where none is given.
    Raises InputError where nothing says it or the file cannot be used.
    """
    path = Path(path)
    name = path.name.lower()
    if modality is None and ("dwi" in name or _companion(path, "bval")):
        modality = Modality.DMRI
    if modality is None and ("bold" in name or "func" in name):
        modality = Modality.FMRI
    if modality is None:
        raise InputError(path, "may be fMRI or dMRI", "name it *_bold.nii.gz or *_dwi.nii.gz")
    scan = _scan(modality, path)
    _usable(scan, mean_allowed=True)
    return scan


def best_run(paths: Iterable[Path], modality: Modality, rejected: list[Rejection]) -> Scan | None:
    """Of several files the usable one in MNI152 space, of those that with most volumes, then the first by name.

    What cannot be used goes into `rejected`, whatever is wrong with it: one scan never ends a cohort. Only what would
    hit every scan alike, such as lack of memory, is raised.
    """
    best, most = None, (False, 0)
    for path in sorted(paths):
        if not path.name.endswith((".nii", ".nii.gz")) or "_part-phase" in path.name:
            continue
        try:
            scan = _scan(modality, path)
            header = _usable(scan)
        except Exception as error:
            if stops_run(error):
                raise
            rejected.append(_rejection(path, error))
            continue
        if (scan.in_mni, header.shape[3]) > most:
            best, most = scan, (scan.in_mni, header.shape[3])
    return best


def _rejection(path: Path, error: Exception) -> Rejection:
    if isinstance(error, InputError):
        return Rejection(error.path, error.problem, error.remedy)
    reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
    remedy = "check the file and the tables beside it, or leave it out"
    return Rejection(path, f"cannot be read ({reason})".replace("\n", " "), remedy)


def _usable(scan: Scan, mean_allowed: bool = False) -> ScanHeader:
    """The header of a scan that can be used; InputError says why another can't."""
    header = read_header(scan.path)
    if header.synthetic:
        raise InputError(scan.path, "was synthesised, not acquired", "give the acquired scan")
    one_volume = len(header.shape) < 4 or header.shape[3] == 1
    if one_volume and not mean_allowed:
        raise InputError(scan.path, "holds one volume, not a series", "give the whole 4D acquisition")
    extent = extent_mm(header)
    if header.suspicious_zooms and min(extent[:2]) < LEAST_WIDTH_MM:
        size = "x".join(str(n) for n in header.shape[:3])
        raise InputError(
            scan.path,
            f"has voxels of 1x1x1 mm by its header, too small for a head at {size} voxels",
            "convert it again from DICOM, or write the true voxel size into the header",
        )
    if extent[2] < LEAST_HEIGHT_MM:
        raise InputError(
            scan.path, f"is a slab of {extent[2]:.0f} mm from foot to head", "give a scan of the whole brain"
        )
    if scan.modality is Modality.DMRI and not one_volume:
        _check_gradients(scan, header.shape[3])
    return header


def _check_gradients(scan: Scan, n_volumes: int) -> None:
    for kind, path in (("bval", scan.bval), ("bvec", scan.bvec)):
        if path is None:
            raise InputError(scan.path, f"has no .{kind} file", f"put {_stem(scan.path)}.{kind} beside it")
    gradients = read_gradients(scan.bval, scan.bvec, n_volumes, scan.path)
    if not np.any(gradients.bvals > B0_LIMIT):
        raise InputError(scan.path, "has no volume with b > 0", "give the diffusion-weighted run, not a b0 or fieldmap")


def extent_mm(header: ScanHeader) -> tuple[float, float, float]:
    """Field of view left-right, back-front, foot-head, of the voxel axes nearest to these."""
    sizes = np.linalg.norm(header.affine[:3, :3], axis=0)
    order = nib.orientations.io_orientation(header.affine)[:, 0].astype(int)
    extent = np.empty(3)
    extent[order] = sizes * np.asarray(header.shape[:3])
    return float(extent[0]), float(extent[1]), float(extent[2])


def _scan(modality: Modality, path: Path) -> Scan:
    match = SPACE.search(path.name)
    space = None if match is None else match[1]
    if modality is Modality.FMRI:
        flirt = path.parent / FEAT_MATRIX if path.name.startswith(FEAT_SERIES) else None
        flirt = flirt if flirt is not None and flirt.exists() else None
        return Scan(modality, path, space=space, flirt=flirt, mask=_brain_mask(path))
    bval, bvec = (_gradient_table(path, kinds) for kinds in GRADIENTS)
    return Scan(modality, path, bval, bvec, space, mask=_brain_mask(path))


def _brain_mask(path: Path) -> Path | None:
    """The mask beside a scan, under the name that fMRIPrep and QSIPrep give it: the scan's, with desc-brain_mask."""
    stem = KIND.sub("", _stem(path))
    names = (path.with_name(f"{stem}_desc-brain_mask{ending}") for ending in (".nii.gz", ".nii"))
    return next((mask for mask in names if mask.exists()), None)


def _gradient_table(path: Path, kinds: tuple[str, ...]) -> Path | None:
    """The first of the kinds that is there under the scan's name, or one that FSL names alone."""
    found = (_companion(path, kind) for kind in kinds)
    alone = path.parent / f"{kinds[-1]}s"
    return next((table for table in found if table is not None), alone if alone.exists() else None)


def sidecar(scan: Scan) -> dict[str, Any]:
    """What the scan's JSON sidecar says of its acquisition; empty where there is none, or it is no JSON object."""
    path = _companion(scan.path, "json")
    if path is None:
        return {}
    try:
        said = json.loads(path.read_text())
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _companion(path: Path, kind: str) -> Path | None:
    """The file beside the scan, or one that it inherits from a folder above (BIDS inheritance principle)."""
    beside = path.with_name(f"{_stem(path)}.{kind}")
    if beside.exists():
        return beside
    if not _stem(path).startswith("sub-"):
        return None
    entities, suffix = set(_stem(path).split("_")), _stem(path).rpartition("_")[2]
    for folder in path.parents[:4]:
        named = (name for name in _files(folder, folder.stat().st_mtime_ns) if name.endswith(f"{suffix}.{kind}"))
        inherited = next((name for name in named if set(_stem(Path(name)).split("_")) <= entities), None)
        if inherited is not None:
            return folder / inherited
        if (folder / "dataset_description.json").exists():
            break
    return None


@lru_cache(maxsize=64)
def _files(folder: Path, changed: int) -> list[str]:
    """The files of a folder by name, listed once until it changes: above thousands of scans lies the same folder."""
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_file())


def _stem(path: Path) -> str:
    return re.sub(r"(\.nii(\.gz)?|\.bval|\.bvec|\.json)$", "", path.name)


def digests(scan: Scan) -> list[str]:
    """Of the files that a volume is made from: the image, the gradient tables of dMRI and the brain mask given."""
    return [sha256(path) for path in (scan.path, scan.bval, scan.bvec, scan.mask) if path is not None]


def place_digest(scan: Scan) -> str:
    """Digest of where a scan lies, which tells it from one of another dataset and names no folder."""
    return hashlib.sha256(os.fsencode(scan.path.resolve())).hexdigest()[:16]
