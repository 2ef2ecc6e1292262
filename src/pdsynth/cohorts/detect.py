"""Which adapter reads a folder, and why."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pdsynth.cohorts.adni import adni, is_adni
from pdsynth.cohorts.bids import bids
from pdsynth.cohorts.cohort import Cohort
from pdsynth.cohorts.derivatives import derivatives, find_trees
from pdsynth.cohorts.folder import SETTINGS, folder
from pdsynth.cohorts.oasis3 import DIAGNOSES, is_oasis3, oasis3
from pdsynth.cohorts.tables import find_table
from pdsynth.types import Diagnosis, InputError

LAYOUTS = ("bids", "adni", "oasis3", "derivatives", "folder")


def detect(root: str | Path) -> tuple[str, str]:
    """The layout of a folder and what shows it, by names alone.

    Raises InputError where no layout fits, and where two do.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(root, "is no folder", "give the folder that holds the participants")
    if (root / SETTINGS).exists():
        return "folder", f"{SETTINGS} says how to read it"
    signs: dict[str, str] = {}
    if is_adni(root):
        signs["adni"] = "its folders are named as ADNI names participants (027_S_0074)"
    if is_oasis3(root) and find_table(root, DIAGNOSES) is not None:
        signs["oasis3"] = f"its scans are named as OASIS-3 names them, and {DIAGNOSES}.csv is there"
    if trees := find_trees(root):
        signs["derivatives"] = f"{trees[0].name} holds scans that fMRIPrep or QSIPrep wrote"
    raw = root not in trees and any(path.is_dir() for path in root.glob("sub-*"))
    if raw and ("oasis3" not in signs or (root / "participants.tsv").exists()):
        signs["bids"] = "it holds sub-* folders"
    if len(signs) > 1:
        both = "; as ".join(f"{name}: {why}" for name, why in signs.items())
        raise InputError(root, f"can be read as {both}", f"say which by --layout {' or --layout '.join(signs)}")
    if not signs:
        problem = "holds neither sub-* folders, nor ADNI's participants, nor OASIS-3's scans with their tables"
        raise InputError(root, problem, f"give the folder that holds the participants, or put a {SETTINGS} there")
    return next(iter(signs.items()))


def read(
    root: str | Path,
    layout: str | None = None,
    diagnosis_column: str | None = None,
    diagnosis_map: Mapping[str, Diagnosis] | None = None,
) -> Cohort:
    """A cohort in any known layout, found by `detect` where none is given.

    The column and the map of diagnoses are of participants.tsv: the archives have tables and codes of their own.
    Raises InputError for what the adapter refuses, ValueError for an unknown layout or an option that does not fit.
    """
    layout = detect(root)[0] if layout is None else layout
    if layout not in LAYOUTS:
        raise ValueError(f"there is no layout {layout!r}. Choose {', '.join(LAYOUTS)}.")
    if layout in ("bids", "derivatives"):
        reader = bids if layout == "bids" else derivatives
        return reader(root, diagnosis_column, diagnosis_map)
    if diagnosis_column or diagnosis_map:
        raise ValueError(
            f"--diagnosis-column and --diagnosis-map are for participants.tsv; {layout} has tables of its own."
        )
    return {"adni": adni, "oasis3": oasis3, "folder": folder}[layout](root)
