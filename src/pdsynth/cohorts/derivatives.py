"""What fMRIPrep and QSIPrep wrote: their trees, side by side or below a dataset's derivatives/, as one dataset."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from pathlib import Path

from pdsynth.cohorts.bids import read_trees
from pdsynth.cohorts.cohort import Cohort
from pdsynth.types import Diagnosis, InputError

PREPROCESSED = ("*_desc-preproc_bold.nii*", "*_desc-preproc_dwi.nii*")
TOOLS = ("fmriprep", "qsiprep")


def derivatives(
    root: str | Path,
    diagnosis_column: str | None = None,
    diagnosis_map: Mapping[str, Diagnosis] | None = None,
) -> Cohort:
    """Read preprocessed scans: of each session the one in MNI152 space, where there is one.

    A scan in MNI152 is resampled; one in its participant's own space (QSIPrep writes ACPC or T1w) is registered, as a
    raw scan is. participants.tsv may lie in root or beside either tool's sub-* folders. Raises InputError where no tree
    is found, and what `bids` raises.
    """
    root = Path(root)
    trees = find_trees(root)
    if not trees:
        problem = "holds no *_desc-preproc_bold.nii.gz and no *_desc-preproc_dwi.nii.gz of fMRIPrep or QSIPrep"
        raise InputError(root, problem, "give the folder that holds their output folders")
    return read_trees(root, trees, diagnosis_column, diagnosis_map)


def find_trees(root: Path) -> list[Path]:
    """The folders, root itself or at most three below, whose sub-* folders hold preprocessed scans."""
    places = chain([root], *(root.glob(f"{above}{tool}") for tool in TOOLS for above in ("", "*/", "*/*/")))
    return [place for place in dict.fromkeys(places) if _preprocessed(place)]


def _preprocessed(tree: Path) -> bool:
    folders = (f"sub-*/{session}{kind}" for session in ("", "ses-*/") for kind in ("func", "dwi"))
    return any(next(tree.glob(f"{folder}/{name}"), None) for folder in folders for name in PREPROCESSED)
