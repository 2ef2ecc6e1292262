"""Files that belong to a scan: its gradient tables, sidecars and mask, by the inheritance principle of BIDS.

A file applies to a scan if it has the scan's suffix, no entity that the scan lacks, and lies in the scan's folder or in
a folder above it, up to the root of the dataset. The nearest folder comes first, and in one folder the file with the
most entities.
"""

from __future__ import annotations

import json
import os
import re
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from pdsynth.cohorts.cohort import Rejection, Scan
from pdsynth.resources import stops_run
from pdsynth.types import InputError

_Entries = tuple[frozenset[str], dict[str, list[str]]]
LEVELS = 4  # the folders from a scan's own to the root: func, ses-2, sub-1, root
GRADIENTS = (("bval",), ("eddy_rotated_bvecs", "bvec"))  # gradients that FSL's eddy rotated with the head come first
KIND = re.compile(r"(_desc-[A-Za-z0-9]+)?_(bold|dwi|boldref|dwiref)$")  # replaced by _desc-brain_mask in a mask's name
ENDING = re.compile(r"(\.nii(\.gz)?|\.bval|\.bvec|\.json)$")


class _Applicable(NamedTuple):
    """A file that applies to a scan: level 0 is the scan's own folder; entities is the number of parts of its name."""

    level: int
    entities: int
    path: Path


def stem(path: Path) -> str:
    """The file name without its extension (.nii, .nii.gz, .bval, .bvec or .json).

    >>> stem(Path("sub-1_dwi.nii.gz"))
    'sub-1_dwi'
    """
    return ENDING.sub("", path.name)


class Neighbourhood:
    """Finds the files that belong to a scan (gradient tables, JSON files, brain mask) by BIDS's inheritance principle.

    path: the scan. Its folder and the folders above it, up to the root of its dataset, are listed once. If the scan's
    folder, or one at most two levels above it, is named sub-*, the root is the folder that contains this folder.
    Otherwise it is the nearest folder with dataset_description.json, at most three levels above the scan's own. Without
    either of them the root is unknown, and only the scan's own folder is searched.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, stem(path)
        self.folders = _folders(os.path.dirname(path))
        self.own = _entries(self.folders[0])[0]

    def applicable(self, kind: str) -> list[_Applicable]:
        """The files with the extension `kind`, such as "bval", that apply to the scan, the most specific first.

        A file applies if its name has the scan's suffix and no part that the scan's name lacks. A file in a nearer
        folder is more specific and, in one folder, one with more parts in its name. To a scan whose name does not begin
        with "sub-", only the file of the same name beside it applies. Each result has the attributes path, level (of
        its folder; 0 is the scan's own) and entities (number of parts of its name).
        """
        if not self.name.startswith("sub-"):
            beside = f"{self.name}.{kind}"
            return [_Applicable(0, 0, self.path.with_name(beside))] if beside in self.own else []
        parts, ending = set(self.name.split("_")), f".{kind}"
        found = []
        for level, folder in enumerate(self.folders):
            for file in self._by_suffix[level].get(f"{self.name.rpartition('_')[2]}{ending}", ()):
                entities = file.removesuffix(ending).split("_")
                if parts.issuperset(entities):
                    found.append(_Applicable(level, len(entities), Path(folder, file)))
        return sorted(found, key=lambda each: (each.level, -each.entities, each.path))

    @cached_property
    def _by_suffix(self) -> list[dict[str, list[str]]]:
        return [_entries(folder)[1] for folder in self.folders]

    def most_specific(self, kind: str) -> Path | None:
        """The most specific file with the extension `kind`, such as "bval", that applies to the scan, or None.

        A file in a nearer folder is more specific and, in one folder, one with more parts in its name. Raises
        InputError if the two most specific files are equally specific, and if the file is a link to a file that does
        not exist.
        """
        found = self.applicable(kind)
        if not found:
            return None
        first = found[0]
        if len(found) > 1 and found[1][:2] == first[:2]:
            both = f"{first.path.name} and {found[1].path.name}"
            problem = f"has two .{kind} files that apply equally, {both}"
            raise InputError(self.path, problem, f"name one of them {self.name}.{kind}, or remove it")
        if not first.path.exists():
            raise InputError(first.path, "is a link to a file that does not exist", "fetch or copy the file")
        return first.path

    def gradient_table(self, kinds: tuple[str, ...]) -> Path | None:
        """The scan's table of b-values or of gradient directions; None if there is none.

        kinds: its possible extensions, in the order of preference, such as ("eddy_rotated_bvecs", "bvec"). Of the first
        extension with a file that applies to the scan, the most specific file is returned; without any, the file bvals
        or bvecs beside the scan, as FSL names them. Raises InputError if two files apply equally, and if the file is a
        link to a file that does not exist; the files bvals and bvecs are not checked.
        """
        found = (self.most_specific(kind) for kind in kinds)
        alone = f"{kinds[-1]}s"
        return next(
            (table for table in found if table is not None), self.path.with_name(alone) if alone in self.own else None
        )

    def brain_mask(self) -> Path | None:
        """The brain mask of fMRIPrep or QSIPrep beside the scan; None if there is none.

        It has the name of the scan with _desc-brain_mask in place of the end (_bold, _dwi, _boldref or _dwiref, with a
        _desc-* before it), and is a .nii.gz or .nii file.
        """
        name = KIND.sub("", self.name)
        masks = (f"{name}_desc-brain_mask{ending}" for ending in (".nii.gz", ".nii"))
        return next((self.path.with_name(mask) for mask in masks if mask in self.own), None)


def _folders(folder: str) -> list[str]:
    folders = [folder]
    while len(folders) < LEVELS and (above := os.path.dirname(folders[-1])) != folders[-1]:
        folders.append(above)
    for level, place in enumerate(folders[:-1]):
        if os.path.basename(place).startswith("sub-"):
            return folders[: level + 2]
    described = (os.path.exists(os.path.join(place, "dataset_description.json")) for place in folders)
    root = next((level for level, found in enumerate(described) if found), 0)
    return folders[: root + 1]


def _entries(folder: str) -> _Entries:
    try:
        return _listed(folder, os.stat(folder or ".").st_mtime_ns)
    except (FileNotFoundError, NotADirectoryError, PermissionError):  # the scan itself is refused then
        return frozenset(), {}


@lru_cache(maxsize=64)
def _listed(folder: str, changed: int) -> _Entries:
    """Names of a folder's entries, and these names by suffix and extension, such as dwi.bval.

    They are cached until the folder changes, because many scans have the same parent folders.
    """
    names = os.listdir(folder or ".")
    by_suffix: dict[str, list[str]] = {}
    for name in names:
        if not name.startswith("._"):
            by_suffix.setdefault(name.rpartition("_")[2], []).append(name)
    return frozenset(names), by_suffix


def sidecar(scan: Scan) -> dict[str, Any]:
    """The content of a scan's JSON sidecars, merged from the root of the dataset to the scan; empty if there are none.

    The value of a key in a more specific file (in a nearer folder, or with more parts in its name) replaces others. A
    key on which two equally specific files differ is left out, and so is a file that cannot be read.
    """
    return _merged(Neighbourhood(scan.path).applicable("json"), [])


def sidecars(scan: Scan, rejected: list[Rejection]) -> list[Path]:
    """The paths of the JSON sidecars that apply to a scan, the most specific first.

    Those that cannot be read are appended to `rejected`, with reason and remedy, and not returned.
    """
    files = Neighbourhood(scan.path).applicable("json")
    refusals: list[Rejection] = []
    _merged(files, refusals)
    rejected += refusals
    refused = {refusal.path for refusal in refusals}
    return [each.path for each in files if each.path not in refused]


def _merged(files: list[_Applicable], rejected: list[Rejection]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    source: dict[str, tuple[int, int]] = {}
    for each in reversed(files):
        try:
            content = _content(str(each.path), os.stat(each.path).st_mtime_ns)
        except Exception as error:  # a sidecar of any content must not stop the cohort
            if stops_run(error):
                raise
            reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
            problem = f"is a sidecar that cannot be read ({reason})".replace("\n", " ")
            rejected.append(Rejection(each.path, problem, "repair it, or remove it; its scan is used without it"))
            continue
        for key, value in content.items():
            if source.get(key) == each[:2] and merged.get(key) != value:
                merged.pop(key, None)
                continue
            merged[key], source[key] = value, each[:2]
    return merged


@lru_cache(maxsize=256)
def _content(path: str, changed: int) -> dict[str, Any]:
    content = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    if not isinstance(content, dict):
        raise ValueError("it contains no JSON object")
    return content
