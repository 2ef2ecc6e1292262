"""Uploaded files: their names, which are checked before they become names on disk, and the scans among them."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from pdsynth.cohorts.inheritance import stem
from pdsynth.cohorts.scans import signed_modality, single_scan
from pdsynth.imaging.nifti import NAMES, SUFFIXES, read_header
from pdsynth.types import InputError, Modality

MOST_FILES = 1000  # of one upload
LONGEST = 200  # bytes of a name; a file system allows 255, and pdsynth adds to it
TABLES = (".json", ".bval", ".bvec", ".eddy_rotated_bvecs")  # endings of the files that belong to a scan
FSL_TABLES = ("bvals", "bvecs")  # their names where FSL wrote them
MASK = "_desc-brain_mask"
REPLACED = re.compile(r"[^A-Za-z0-9._+-]")
NO_TABLE = re.compile(r"has no \.bv(al|ec) file")  # the problem of a dMRI that was dropped alone
HOW = "drop a NIfTI scan (.nii or .nii.gz) with its .json, .bval and .bvec files"


def stored_name(name: str) -> str:
    """The name under which an uploaded file is stored: `name`, with _ for unusual characters such as spaces.

    Raises InputError for a name that is a path, hidden, too long or empty, or has a control character, and for a file
    that is neither a NIfTI image nor a file that belongs to one.

    >>> stored_name("rest bold (1).nii.gz")
    'rest_bold__1_.nii.gz'
    """
    if not name or re.search(r"[/\\\x00-\x1f\x7f]", name) or name.startswith("."):
        raise InputError(repr(name)[1:-1], "is not a plain file name", "rename the file")
    if len(name.encode(errors="replace")) > LONGEST:
        raise InputError(name[:20] + "...", f"has a name of more than {LONGEST} bytes", "rename the file")
    if not name.endswith((*SUFFIXES, *TABLES)) and name not in FSL_TABLES:
        dicom = "convert DICOM files with dcm2niix, then " if name.lower().endswith((".dcm", ".ima")) else ""
        raise InputError(name, "is not a file of a NIfTI scan", dicom + HOW)
    return REPLACED.sub("_", name)


async def store(chunks: AsyncIterator[bytes], path: Path, take: Callable[[int], None]) -> None:
    """Write an upload to a new file. After an error no file is left.

    take: called with the number of bytes of each piece before it is written, and with minus their sum after an error;
    it raises an error for a piece that is too much. Raises FileExistsError if the file exists.
    """
    taken = 0
    with path.open("xb") as file:
        try:
            async for chunk in chunks:
                taken += len(chunk)
                take(len(chunk))
                file.write(chunk)
        except BaseException:
            path.unlink()
            take(-taken)
            raise


def found_scans(folder: Path) -> list[dict[str, Any]]:
    """The scans in a folder, one dict per NIfTI image that is not a brain mask, in the order of their names.

    Keys: name; modality, "fmri", "dmri" or None if it is not known; sign, by which it is known; about, the size in
    words; single, whether it is one volume; problem, why it cannot be used, as one line, or "".
    """
    paths = sorted(path for path in folder.iterdir() if path.name.endswith(SUFFIXES))
    return [_found(path) for path in paths if not stem(path).endswith(MASK)]


def _found(path: Path) -> dict[str, Any]:
    modality: Modality | None = None
    sign = about = problem = ""
    single = False
    try:
        header = read_header(path)
        single = header.n_volumes == 1
        voxels, edges = (" \N{MULTIPLICATION SIGN} ".join(each) for each in _texts(header.shape, header.zooms))
        about = f"{voxels} voxels of {edges} mm, {'one volume' if single else f'{header.n_volumes} volumes'}"
        modality, sign = signed_modality(path)
        single_scan(path, modality or Modality.FMRI)  # of an unknown one, the checks that need none
    except InputError as error:
        problem = problem_line(error)
    return {
        "name": path.name,
        "modality": modality,
        "label": modality and NAMES[modality],
        "sign": sign,
        "about": about,
        "single": single,
        "problem": problem,
    }


def _texts(shape: tuple[int, ...], zooms: tuple[float, ...]) -> tuple[list[str], list[str]]:
    return [str(number) for number in shape[:3]], [f"{edge:.3g}" for edge in zooms[:3]]


def problem_line(error: InputError) -> str:
    """The line of an error as the page shows it, which names the file without its folder on this machine.

    A scan without its gradient tables has another remedy than in a folder of the user.

    >>> problem_line(InputError("folder/a.nii.gz", "is truncated", "copy it again"))
    'a.nii.gz: is truncated. Remedy: copy it again.'
    """
    together = "drop its .bval and .bvec files together with the scan"
    remedy = together if NO_TABLE.fullmatch(error.problem) else error.remedy
    return str(InputError(error.path.name, error.problem, remedy))
