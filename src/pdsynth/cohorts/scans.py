"""Selection of usable scans, by file name, header and gradient tables. No voxel is read."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from pdsynth.cohorts.choice import ANY, Candidate, Select, best
from pdsynth.cohorts.cohort import NotNeeded, Rejection, Scan
from pdsynth.cohorts.inheritance import GRADIENTS, Neighbourhood, sidecar, stem
from pdsynth.files import sha256
from pdsynth.imaging.nifti import NAMES, ScanHeader, read_header
from pdsynth.imaging.plausible import check_field
from pdsynth.imaging.segments import B0_LIMIT, read_gradients
from pdsynth.resources import stops_run
from pdsynth.types import InputError, Modality, Space

FEAT_SERIES, FEAT_MATRIX = "filtered_func_data.nii", Path("reg") / "example_func2standard.mat"
SPACE = re.compile(r"_space-([A-Za-z0-9]+)_")
MS_PER_S = 1000.0
PLACEHOLDERS = (  # the first bytes of a file that stands for a scan, the reason, and the remedy
    (b"", "is empty (0 bytes)", "copy it again"),
    (b"/annex/objects/", "is a pointer of git-annex, without the content", "fetch it with `datalad get`"),
    (b"version https://git-lfs", "is a pointer of Git LFS, without the content", "fetch it with `git lfs pull`"),
    (b"<!doctype html", "is a web page, not an image", "download it again; the page may hold an error"),
    (b"<?xml", "is an XML text, not an image", "download it again; the text may hold an error"),
    (b"<html", "is a web page, not an image", "download it again; the page may hold an error"),
)


def single_scan(path: str | Path, modality: Modality | None = None) -> Scan:
    """A single scan outside a dataset: a 4D acquisition, or a 3D mean volume, which needs no b-values.

    The modality is taken from the first sign: `dwi` in the file name (in any case, anywhere), a .bval file that belongs
    to the scan (dMRI), or `bold` or `func` in the file name. Without a sign, `modality` is used. Raises InputError if
    the modality is unknown or is not `modality`, or if the file is unusable: damaged, synthesised, not a whole head, or
    a 4D dMRI without gradient tables.
    """
    path = Path(path)
    own, sign = signed_modality(path)
    if own is not None and modality is not None:
        refuse_own_modality(path, own, modality.other, sign)
    modality = own or modality
    if modality is None:
        raise InputError(path, "may be fMRI or dMRI", "name it *_bold.nii.gz or *_dwi.nii.gz")
    scan = _scan(modality, path)
    _usable(scan, mean_allowed=True)
    return scan


def signed_modality(path: Path) -> tuple[Modality | None, str]:
    """The modality of a single scan by its first sign, and the sign in words; (None, "") without a sign.

    The signs are those of `single_scan`.

    >>> signed_modality(Path("sub-1_task-rest_bold.nii.gz"))
    (<Modality.FMRI: 'fmri'>, 'by its name')
    """
    name = path.name.lower()
    if "dwi" in name:
        return Modality.DMRI, "by its name"
    if Neighbourhood(path).most_specific("bval"):
        return Modality.DMRI, "by its .bval file"
    if "bold" in name or "func" in name:
        return Modality.FMRI, "by its name"
    return None, ""


def refuse_own_modality(path: Path, modality: Modality, to: Modality, sign: str) -> None:
    """Raise InputError if `to`, the target of a synthesis, is the scan's own modality; otherwise do nothing.

    path: the scan. modality: its own modality. sign: how this modality is known, such as "by its name".
    """
    if to is modality:
        names = NAMES[modality], NAMES[modality.other]
        problem = f"is {names[0]} {sign}: {names[0]} cannot be synthesised from it"
        remedy = f"give --to {modality.other} or leave --to out; if the file is {names[1]}, rename it"
        raise InputError(path, problem, remedy)


def lacks_space(path: Path, space: Space) -> bool:
    """Whether a volume on the grid of a scan has to be resampled to be in a standard space as well.

    path: the scan. space: "native" asks for no standard space. False also for a scan that is in MNI152 space already.
    """
    return space is not Space.NATIVE and not _scan(Modality.FMRI, path).in_mni


def refuse_other_space(path: Path, space: Space) -> None:
    """Raise InputError for a scan in MNI152 space if `space` is another version of it.

    path: the scan, whose name has its space. No affine transform leads from one version to another. A synthesised
    volume is in the space of its source, so that "native" refuses no scan.
    """
    scan = _scan(Modality.FMRI, path)
    if scan.in_mni and space not in (Space.NATIVE, scan.space):
        problem = f"is in {scan.space} already, another template than {space}"
        raise InputError(path, problem, f"leave out --space: the synthesised volume is in {scan.space} too")


def best_run(
    paths: Iterable[Path],
    modality: Modality,
    rejected: list[Rejection],
    not_needed: list[NotNeeded] | None = None,
    select: Select = ANY,
) -> Scan | None:
    """Choose one scan among the files of one session and modality; None if none is usable and selected.

    Preprocessed scans and the resting state are preferred, for example: `pdsynth.cohorts.choice` lists the criteria.
    Files that cannot be used are appended to `rejected`, whatever the error: one scan never stops the reading of a
    cohort. If the cause is a gradient table, this table is rejected, and the scan is not needed. The other files that
    are not chosen are appended to `not_needed`, if given. select: leaves out files by the key-value pairs of their
    names (option --select). Such files are not needed, but rejected if all files are left out. Only errors that would
    affect every scan, such as lack of memory, are raised.
    """
    candidates, unneeded, refusals = [], [], []
    left_out: list[tuple[Path, str]] = []
    for path in sorted(paths):
        if (part := select.left_out(path.name)) is not None:
            left_out.append((path, part))
            continue
        try:
            candidates.append(_candidate(path, modality, select))
        except Exception as error:
            if stops_run(error):
                raise
            refusal = _rejection(path, error)
            refusals.append(refusal)
            if refusal.path != path:
                unneeded.append(NotNeeded(path, "scan whose gradient table was refused"))
    best_scan = None
    if candidates:
        chosen, rules = best(candidates, modality)
        unneeded += [NotNeeded(Path(path), rule) for path, rule in rules.items()]
        best_scan = chosen.scan
    if best_scan is None and not refusals:
        remedy = "give another value of --select, or leave this scan out"
        refusals += [Rejection(path, f"is left out by --select {part}", remedy) for path, part in left_out]
    else:
        unneeded += [NotNeeded(path, f"left out by --select {part}") for path, part in left_out]
    rejected += refusals
    if not_needed is not None:
        not_needed += unneeded
    return best_scan


def _candidate(path: Path, modality: Modality, select: Select) -> Candidate:
    """A usable scan with the facts for the choice. Raises InputError with the reason if the scan is unusable."""
    scan = _scan(modality, path)
    candidate = Candidate(scan, _usable(scan).n_volumes, preference=select.lacks(path.name))
    if candidate.echo is None:
        return candidate
    seconds = sidecar(scan).get("EchoTime")
    if isinstance(seconds, int | float) and 0 < seconds < 1:
        return replace(candidate, echo_ms=MS_PER_S * seconds)
    return candidate


def _rejection(path: Path, error: Exception) -> Rejection:
    for start, reason, remedy in PLACEHOLDERS:
        if _begins(path, start):
            return Rejection(path, reason, remedy)
    if isinstance(error, InputError):
        return Rejection(error.path, error.problem, error.remedy)
    if isinstance(error, OSError) and error.strerror:
        file = Path(os.fsdecode(error.filename)) if error.filename else path  # perhaps a table of the scan
        return Rejection(file, f"cannot be read ({error.strerror})", "ask for permission to read it, or copy it again")
    reason = f"{type(error).__name__}: {error}"
    remedy = "check the file and its tables, or leave it out"
    return Rejection(path, f"cannot be read ({reason})".replace("\n", " "), remedy)


def _begins(path: Path, start: bytes) -> bool:
    """Whether a file begins with some bytes; for no bytes, whether it is empty. False if it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(max(1, len(start))).lower() == start
    except OSError:
        return False


def _usable(scan: Scan, mean_allowed: bool = False) -> ScanHeader:
    """The header of a usable scan. Raises InputError with the reason if the scan is unusable.

    A single volume is usable only if `mean_allowed`.
    """
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
            raise InputError(scan.path, f"has no .{kind} file", f"put {stem(scan.path)}.{kind} into its folder")
    gradients = read_gradients(scan.bval, scan.bvec, n_volumes, scan.path)
    if not np.any(gradients.bvals > B0_LIMIT):
        raise InputError(scan.path, "has no volume with b > 0", "give the diffusion-weighted run, not a b0 or fieldmap")


def _scan(modality: Modality, path: Path) -> Scan:
    near = Neighbourhood(path)
    match = SPACE.search(path.name)
    space = None if match is None else match[1]
    if modality is Modality.FMRI:
        flirt = path.parent / FEAT_MATRIX if path.name.startswith(FEAT_SERIES) else None
        flirt = flirt if flirt is not None and flirt.exists() else None
        return Scan(modality, path, space=space, flirt=flirt, mask=near.brain_mask())
    bval, bvec = (near.gradient_table(kinds) for kinds in GRADIENTS)
    return Scan(modality, path, bval, bvec, space, mask=near.brain_mask())


def digests(scan: Scan) -> list[str]:
    """SHA-256, in hexadecimal digits, of each file of a scan: image, .bval, .bvec and brain mask, in this order.

    A file that the scan does not have (None) is left out. Raises InputError if a file or the target of a link does not
    exist, and OSError if an existing file cannot be read.
    """
    return [sha256(path) for path in scan.files]


def path_digest(scan: Scan) -> str:
    """An identifier of a scan by its absolute path, after links are resolved.

    It has 16 hexadecimal digits, the beginning of the path's SHA-256. A scan that is moved gets another identifier.
    Identifiers of scans of different datasets differ, and do not reveal the path.
    """
    return hashlib.sha256(os.fsencode(scan.path.resolve())).hexdigest()[:16]
