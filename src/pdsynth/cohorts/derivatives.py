"""What fMRIPrep and QSIPrep wrote: their trees, side by side or below a dataset's derivatives/, as one dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path

from pdsynth.cohorts.bids import read_trees
from pdsynth.cohorts.cohort import Cohort
from pdsynth.cohorts.layout import Layout
from pdsynth.cohorts.names import FOLDER, SUFFIX
from pdsynth.types import Diagnosis, InputError, Modality

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
    is found, where two trees hold the same kind of scan of one participant, and what `bids` raises.
    """
    root = Path(root)
    trees = find_trees(root)
    if not trees:
        problem = "holds no *_desc-preproc_bold.nii.gz and no *_desc-preproc_dwi.nii.gz of fMRIPrep or QSIPrep"
        raise InputError(root, problem, "give the folder that holds their output folders")
    _refuse_copies(root, trees)
    return read_trees(root, trees, diagnosis_column, diagnosis_map)


def find_trees(root: Path) -> list[Path]:
    """The folders, root itself or at most three below, whose sub-* folders hold preprocessed scans."""
    places = chain([root], *(root.glob(f"{above}{tool}") for tool in TOOLS for above in ("", "*/", "*/*/")))
    return [place for place in dict.fromkeys(places) if _preprocessed(place)]


def _preprocessed(tree: Path) -> bool:
    folders = (f"sub-*/{session}{kind}" for session in ("", "ses-*/") for kind in FOLDER.values())
    return any(next(tree.glob(f"{folder}/{name}"), None) for folder in folders for name in PREPROCESSED)


def _rather_than(root: Path, other: str) -> bool:
    """The sub-* folders that a tool wrote are no raw BIDS dataset."""
    return other == "bids" and _preprocessed(root)


LAYOUT = Layout(
    "derivatives",
    "scans that fMRIPrep or QSIPrep wrote",
    lambda root: bool(find_trees(root)),
    derivatives,
    participants_tsv=True,
    preferred_to=_rather_than,
)


def _refuse_copies(root: Path, trees: Sequence[Path]) -> None:
    """Raise InputError where two trees hold one kind of scan of one participant.

    These may be two runs of a tool, or two sites whose participants have the same labels: which can't be known.
    """
    for kind, suffix in ((FOLDER[modality], SUFFIX[modality]) for modality in Modality):
        holder: dict[str, Path] = {}
        for tree in {tree.resolve(): tree for tree in trees}.values():  # a link to a tree is no other tree
            scans = chain(*(tree.glob(f"sub-*/{session}{kind}/*_{suffix}.nii*") for session in ("", "ses-*/")))
            for name in sorted({path.relative_to(tree).parts[0] for path in scans}):
                other = holder.setdefault(name, tree)
                if other != tree:
                    problem = f"holds {suffix} scans of {name} in {other} and in {tree}, perhaps of two people"
                    raise InputError(root, problem, "give one of these folders, or move the other elsewhere")
