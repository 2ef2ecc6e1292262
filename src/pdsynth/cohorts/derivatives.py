"""Output of fMRIPrep and QSIPrep, read as one dataset. Their folders may be siblings, or below derivatives/."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import chain
from pathlib import Path

from pdsynth.cohorts.bids import read_trees
from pdsynth.cohorts.choice import ANY, Select
from pdsynth.cohorts.cohort import Cohort
from pdsynth.cohorts.layout import Layout
from pdsynth.cohorts.names import FOLDER, SUFFIX
from pdsynth.cohorts.participants import DiagnosisMap
from pdsynth.types import InputError, Modality

PREPROCESSED = ("*_desc-preproc_bold.nii*", "*_desc-preproc_dwi.nii*")
TOOLS = ("fmriprep", "qsiprep")


def derivatives(
    root: str | Path,
    diagnosis_column: str | None = None,
    diagnosis_map: DiagnosisMap | None = None,
    select: Select = ANY,
    tables: bool = True,
) -> Cohort:
    """Read the output of fMRIPrep and QSIPrep as one dataset.

    Of several scans of a session and task, one in MNI152 space is chosen, if there is one. Preparation resamples such a
    scan. It registers a scan in the participant's own space (QSIPrep writes ACPC or T1w) like a raw scan.
    participants.tsv may be in root, or in either tool's output folder. If one tool dropped the session level, its scan
    belongs to the session in its name, else to the participant's only session. With several sessions and none in its
    name, it is rejected.

    diagnosis_column: column of the diagnosis in the tables, by default `diagnosis` or `dx`. diagnosis_map: further
    codes of a diagnosis, with NC, MCI, AD or "n/a" for each. select: leaves out scans by the key-value pairs of their
    names (option --select). tables: if false, no table is read.

    Raises InputError if no output folder is found, if two of them contain scans of the same modality of one
    participant, and in all cases in which `read_trees` does, such as a code of a diagnosis that is not known. Raises
    ValueError if `diagnosis_map` names another group.
    """
    root = Path(root)
    trees = find_trees(root)
    if not trees:
        problem = "contains no *_desc-preproc_bold.nii.gz and no *_desc-preproc_dwi.nii.gz of fMRIPrep or QSIPrep"
        raise InputError(root, problem, "give the folder that contains their output folders")
    _refuse_copies(root, trees)
    return read_trees(root, trees, diagnosis_column, diagnosis_map, select, tables)


def find_trees(root: Path) -> list[Path]:
    """Output folders of fMRIPrep and QSIPrep: root itself, and folders named fmriprep or qsiprep below it.

    The latter lie one to three levels below root. Only folders whose sub-* folders contain preprocessed scans
    (*_desc-preproc_bold or _dwi) are returned.
    """
    candidates = chain([root], *(root.glob(f"{above}{tool}") for tool in TOOLS for above in ("", "*/", "*/*/")))
    return [folder for folder in dict.fromkeys(candidates) if _preprocessed(folder)]


def _preprocessed(tree: Path) -> bool:
    folders = (f"sub-*/{session}{kind}" for session in ("", "ses-*/") for kind in FOLDER.values())
    return any(next(tree.glob(f"{folder}/{name}"), None) for folder in folders for name in PREPROCESSED)


def _preferred_to(root: Path, other: str) -> bool:
    """Whether this layout comes before the one named `other`: before "bids", if root is the output folder of a tool.

    Its sub-* folders are then not a raw dataset.
    """
    return other == "bids" and _preprocessed(root)


LAYOUT = Layout(
    "derivatives",
    "scans that fMRIPrep or QSIPrep wrote",
    lambda root: bool(find_trees(root)),
    derivatives,
    participants_tsv=True,
    scans=partial(derivatives, tables=False),
    preferred_to=_preferred_to,
)


def _refuse_copies(root: Path, trees: Sequence[Path]) -> None:
    """Raise InputError if two trees contain scans of the same modality of one participant.

    The trees may be two runs of a tool, or two sites that gave the same label to different people. The files do not
    show which.
    """
    for kind, suffix in ((FOLDER[modality], SUFFIX[modality]) for modality in Modality):
        holder: dict[str, Path] = {}
        for tree in {tree.resolve(): tree for tree in trees}.values():  # a link to a tree is the same tree
            scans = chain(*(tree.glob(f"sub-*/{session}{kind}/*_{suffix}.nii*") for session in ("", "ses-*/")))
            for name in sorted({path.relative_to(tree).parts[0] for path in scans}):
                other = holder.setdefault(name, tree)
                if other != tree:
                    problem = f"contains {suffix} scans of {name} in {other} and in {tree}, perhaps of two people"
                    raise InputError(root, problem, "give one of these folders, or move the other elsewhere")
