"""Selection of usable scans, by file name, header and gradient tables. No voxel is read."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from pdsynth.cohorts.cohort import Rejection, Scan
from pdsynth.files import sha256
from pdsynth.imaging.nifti import NAMES, ScanHeader, read_header
from pdsynth.imaging.plausible import check_field
from pdsynth.imaging.segments import B0_LIMIT, read_gradients
from pdsynth.resources import stops_run
from pdsynth.types import InputError, Modality

GRADIENTS = (("bval",), ("eddy_rotated_bvecs", "bvec"))  # gradients that FSL's eddy rotated with the head come first
FEAT_SERIES, FEAT_MATRIX = "filtered_func_data.nii", Path("reg") / "example_func2standard.mat"
SPACE = re.compile(r"_space-([A-Za-z0-9]+)_")
KIND = re.compile(r"(_desc-[A-Za-z0-9]+)?_(bold|dwi|boldref|dwiref)$")  # replaced by _desc-brain_mask in a mask's name


def single_scan(path: str | Path, modality: Modality | None = None) -> Scan:
    """A single scan outside a dataset: a 4D acquisition, or a 3D mean volume, which needs no b-values.

    The modality is taken from the file name (`bold`, `func` or `dwi`) or from a .bval file of the same name. Where
    these show none, `modality` is used. Raises InputError if the modality is unknown or is not `modality`, or if the
    file is unusable.
    """
    path = Path(path)
    name = path.name.lower()
    own, sign = None, ""
    if "dwi" in name:
        own, sign = Modality.DMRI, "by its name"
    elif _companion(path, "bval"):
        own, sign = Modality.DMRI, "by its .bval file"
    elif "bold" in name or "func" in name:
        own, sign = Modality.FMRI, "by its name"
    if own is not None and modality is not None:
        refuse_own_modality(path, own, modality.other, sign)
    modality = own or modality
    if modality is None:
        raise InputError(path, "may be fMRI or dMRI", "name it *_bold.nii.gz or *_dwi.nii.gz")
    scan = _scan(modality, path)
    _usable(scan, mean_allowed=True)
    return scan


def refuse_own_modality(path: Path, modality: Modality, to: Modality, sign: str) -> None:
    """Raise InputError if the target of a synthesis is the scan's own modality, which `sign` shows."""
    if to is modality:
        names = NAMES[modality], NAMES[modality.other]
        problem = f"is {names[0]} {sign}: {names[0]} cannot be synthesised from it"
        remedy = f"give --to {modality.other} or leave --to out; if the file is {names[1]}, rename it"
        raise InputError(path, problem, remedy)


def best_run(paths: Iterable[Path], modality: Modality, rejected: list[Rejection]) -> Scan | None:
    """The best usable scan among files: in MNI152 space, then with the most volumes, then the first by name.

    None if there is no usable scan. Unusable files are appended to `rejected`, whatever the error: one scan never stops
    the reading of a cohort. Only errors that would affect every scan, such as lack of memory, are raised.
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
    remedy = "check the file and its tables, or leave it out"
    return Rejection(path, f"cannot be read ({reason})".replace("\n", " "), remedy)


def _usable(scan: Scan, mean_allowed: bool = False) -> ScanHeader:
    """The header of a usable scan. Raises InputError with the reason if the scan is unusable."""
    header = read_header(scan.path)
    if header.synthetic:
        raise InputError(scan.path, "was synthesised, not acquired", "give the acquired scan")
    one_volume = len(header.shape) < 4 or header.shape[3] == 1
    if one_volume and not mean_allowed:
        raise InputError(scan.path, "contains one volume, not a series", "give the whole 4D acquisition")
    check_field(scan.path, header)
    if scan.modality is Modality.DMRI and not one_volume:
        _check_gradients(scan, header.shape[3])
    return header


def _check_gradients(scan: Scan, n_volumes: int) -> None:
    for kind, path in (("bval", scan.bval), ("bvec", scan.bvec)):
        if path is None:
            raise InputError(scan.path, f"has no .{kind} file", f"put {_stem(scan.path)}.{kind} into its folder")
    gradients = read_gradients(scan.bval, scan.bvec, n_volumes, scan.path)
    if not np.any(gradients.bvals > B0_LIMIT):
        raise InputError(scan.path, "has no volume with b > 0", "give the diffusion-weighted run, not a b0 or fieldmap")


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
    """The brain mask of fMRIPrep or QSIPrep in the scan's folder: the scan's name with _desc-brain_mask, or None."""
    stem = KIND.sub("", _stem(path))
    names = (path.with_name(f"{stem}_desc-brain_mask{ending}") for ending in (".nii.gz", ".nii"))
    return next((mask for mask in names if mask.exists()), None)


def _gradient_table(path: Path, kinds: tuple[str, ...]) -> Path | None:
    """The table with the scan's name and the first kind that exists; else FSL's `bvals` or `bvecs`; else None."""
    found = (_companion(path, kind) for kind in kinds)
    alone = path.parent / f"{kinds[-1]}s"
    return next((table for table in found if table is not None), alone if alone.exists() else None)


def sidecar(scan: Scan) -> dict[str, Any]:
    """Entries of the scan's JSON sidecar; empty if there is no sidecar, or it is not a JSON object."""
    path = _companion(scan.path, "json")
    if path is None:
        return {}
    try:
        content = json.loads(path.read_text())
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _companion(path: Path, kind: str) -> Path | None:
    """The file NAME.kind of a scan, or one that the scan inherits from a parent folder (BIDS inheritance principle)."""
    beside = path.with_name(f"{_stem(path)}.{kind}")
    if beside.exists():
        return beside
    if not _stem(path).startswith("sub-"):
        return None
    entities, suffix = set(_stem(path).split("_")), _stem(path).rpartition("_")[2]
    for folder in path.parents[:4]:
        candidates = (name for name in _files(folder, folder.stat().st_mtime_ns) if name.endswith(f"{suffix}.{kind}"))
        inherited = next((name for name in candidates if set(_stem(Path(name)).split("_")) <= entities), None)
        if inherited is not None:
            return folder / inherited
        if (folder / "dataset_description.json").exists():
            break
    return None


@lru_cache(maxsize=64)
def _files(folder: Path, changed: int) -> list[str]:
    """Sorted names of a folder's files, cached until it changes: thousands of scans have the same parent folder."""
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_file())


def _stem(path: Path) -> str:
    return re.sub(r"(\.nii(\.gz)?|\.bval|\.bvec|\.json)$", "", path.name)


def digests(scan: Scan) -> list[str]:
    """SHA-256 of each file that a volume is computed from: the image, the gradient tables and the brain mask."""
    return [sha256(path) for path in (scan.path, scan.bval, scan.bvec, scan.mask) if path is not None]


def place_digest(scan: Scan) -> str:
    """Digest of a scan's path. It distinguishes scans of different datasets and does not reveal the path."""
    return hashlib.sha256(os.fsencode(scan.path.resolve())).hexdigest()[:16]
