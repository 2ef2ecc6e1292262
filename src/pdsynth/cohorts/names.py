"""Whose a scan is by its file name, where that speaks against its folder, and what a synthesised volume is called."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from pdsynth.cohorts.cohort import Rejection
from pdsynth.types import Direction, InputError, Modality

EXTENSION = re.compile(r"\.(nii(\.gz)?|json|bval|bvec|tsv)$")
SUFFIX = {Modality.FMRI: "bold", Modality.DMRI: "dwi"}
REFERENCE = {modality: f"{suffix}ref" for modality, suffix in SUFFIX.items()}  # of mean volumes
ENDING = re.compile(rf"_({'|'.join((*SUFFIX.values(), *REFERENCE.values()))})$")
FOLDER = {Modality.FMRI: "func", Modality.DMRI: "dwi"}
KEPT = ("space", "res")  # of the source: they describe its grid, on which the synthesised volume lies
VALUE = re.compile(r"[A-Za-z0-9+]+")  # of a BIDS entity
DRAW = "syntheticdraw"  # and a number: the description of one draw
LEVELS = 3  # sub-1/ses-2/func above a file
REMEDY = "rename it, or move it to the folder of its participant and session"


def entities(name: str) -> dict[str, str]:
    """The BIDS key-value pairs of a file name in their order, without suffix and extension; the first of a key counts.

    >>> entities("sub-1_ses-2_task-rest_bold.nii.gz")
    {'sub': '1', 'ses': '2', 'task': 'rest'}
    """
    found: dict[str, str] = {}
    for part in EXTENSION.sub("", name).split("_"):
        key, dash, value = part.partition("-")
        if key and dash:
            found.setdefault(key, value)
    return found


def plain(text: str) -> str:
    """The letters and digits of a text, as a BIDS label must be written.

    >>> plain("P-01_b")
    'P01b'
    """
    return re.sub(r"[^A-Za-z0-9]", "", text)


def contradiction(path: Path, participant_id: str, session_id: str, by_label: bool = False) -> str | None:
    """What in a file's name speaks against the participant ("sub-1") and session ("ses-2", or "") it was found under.

    None where nothing does: a name that does not begin with "sub-", or that names no session, contradicts nothing.
    `by_label` compares letters and digits alone, for folders that are not named as BIDS names them.

    >>> contradiction(Path("sub-2/func/sub-1_bold.nii.gz"), "sub-2", "")
    'is named for sub-1 but lies in the folder of sub-2'
    """
    if not path.name.startswith("sub-"):
        return None
    said = f"_{EXTENSION.sub('', path.name)}_"
    for own in (participant_id, session_id):
        # An id may hold an underscore (sub-a_b). One that holds a session (sub-1_ses-2) is no participant's:
        # one person would be two.
        if own and "_ses-" not in own:
            said = said.replace(f"_{own}_", "_")
    agreed = {plain(participant_id), plain(session_id)} if by_label else set()
    others = [part for part in said.split("_") if part[:4] in ("sub-", "ses-") and plain(part) not in agreed]
    if not others:
        return None
    other = next((part for part in others if part.startswith("sub-")), others[0])
    if other.startswith("sub-"):
        return f"is named for {other} but lies in the folder of {participant_id}"
    place = f"the folder of {session_id}" if session_id else f"no session's folder of {participant_id}"
    return f"is named for {other} but lies in {place}"


def agreeing(
    paths: Iterable[Path], participant_id: str, session_id: str, rejected: list[Rejection], by_label: bool = False
) -> list[Path]:
    """The files whose names do not contradict participant and session, sorted; the others go into `rejected`.

    >>> refused: list[Rejection] = []
    >>> [path.name for path in agreeing([Path("sub-1_bold.nii"), Path("sub-2_bold.nii")], "sub-2", "", refused)]
    ['sub-2_bold.nii']
    >>> refused[0].path.name
    'sub-1_bold.nii'
    """
    kept = []
    for path in sorted(paths):
        problem = contradiction(path, participant_id, session_id, by_label)
        if problem is None:
            kept.append(path)
        else:
            rejected.append(Rejection(path, problem, REMEDY))
    return kept


def refuse_twins(root: Path, kind: str, ids: Iterable[tuple[str, str]]) -> None:
    """Raise InputError where two of `kind`, each (its name on disk, its id), have one id, written in any case.

    Many disks take no notice of capital letters: there two such ids are one folder.

    >>> refuse_twins(Path("study"), "participants", [("P-01", "sub-P01"), ("P01", "sub-P01")])
    Traceback (most recent call last):
    pdsynth.types.InputError: study: has participants P-01 and P01, both sub-P01. Remedy: rename one of them.
    """
    seen: dict[str, tuple[str, str]] = {}
    for name, own in sorted(set(ids)):
        other, their = seen.setdefault(own.casefold(), (name, own))
        if (other, their) != (name, own):
            same = f"both {own}" if own == their else "which differ in capital letters alone"
            raise InputError(root, f"has {kind} {other} and {name}, {same}", "rename one of them")


def synthetic_stem(participant_id: str, session_id: str, target: Modality, source: Path) -> str:
    """The name of a volume synthesised for a participant and session, as far as its `desc` entity.

    The ids are kept as the cohort has them. `space` and `res` are the source's, as the volume lies on its grid; `run`,
    `acq`, `dir` and the like are not copied: they describe the acquisition of another modality.

    >>> synthetic_stem("sub-1", "ses-2", Modality.FMRI, Path("sub-1_ses-2_space-T1w_dir-AP_desc-preproc_dwi.nii.gz"))
    'sub-1_ses-2_task-rest_space-T1w'
    """
    said = entities(source.name)
    parts = [participant_id, session_id, "task-rest" if target is Modality.FMRI else ""]
    parts += [f"{key}-{said[key]}" for key in KEPT if VALUE.fullmatch(said.get(key, ""))]
    return "_".join(filter(None, parts))


def synthetic_name(stem: str, description: str, target: Modality) -> str:
    """The file name of a synthesised volume by its description, a BIDS label: see `synthetic_paths`.

    >>> synthetic_name("sub-1_task-rest", "synthetic", Modality.FMRI)
    'sub-1_task-rest_desc-synthetic_boldref.nii.gz'
    """
    return f"{stem}_desc-{description}_{REFERENCE[target]}.nii.gz"


def lone_participant(path: Path) -> tuple[str, str]:
    """Participant and session of one scan outside of any cohort: ("sub-1", "ses-2"), or "" for no session.

    By the nearest folders above it named sub-* and ses-*, by the name where it begins with "sub-", or else by the
    letters and digits of the name. Raises InputError where folder and name contradict each other, and where the name
    holds no letter or digit.

    >>> lone_participant(Path("mean_dwi.nii.gz"))
    ('sub-mean', '')
    """
    by_name = plain(ENDING.sub("", EXTENSION.sub("", path.name)))
    said = entities(path.name) if path.name.startswith("sub-") else {"sub": by_name}
    above = [parent.name.removesuffix(".feat") for parent in path.absolute().parents[:LEVELS]]  # FEAT's sub-1.feat
    sources = [*(entities(name) for name in above if name.startswith(("sub-", "ses-"))), said]

    def own(key: str) -> str:
        return next((f"{key}-{found[key]}" for found in sources if found.get(key)), "")

    participant_id, session_id = own("sub"), own("ses")
    if not participant_id:
        raise InputError(path, "has no letter or digit in its name that could name a participant", "rename it")
    if problem := contradiction(path, participant_id, session_id):
        raise InputError(path, problem, REMEDY)
    return participant_id, session_id


class SyntheticPaths(NamedTuple):
    """Where a synthesised volume, its uncertainty and its draws lie."""

    volume: Path
    uncertainty: Path
    draws: list[Path]


def synthetic_paths(
    out: Path, participant_id: str, session_id: str, source: Path, direction: Direction, draws: int = 0
) -> SyntheticPaths:
    """Where a synthesised volume, its uncertainty and so many draws lie in a folder.

    BIDS has no entity for a draw, so its number is part of the description.

    >>> found = synthetic_paths(Path(), "sub-1", "", Path("sub-1_dwi.nii.gz"), Direction.DMRI_TO_FMRI, draws=2)
    >>> [path.name for path in found.draws][1]
    'sub-1_task-rest_desc-syntheticdraw002_boldref.nii.gz'
    """
    stem = synthetic_stem(participant_id, session_id, direction.target, source)
    folder = out / participant_id / session_id / FOLDER[direction.target]

    def named(description: str) -> Path:
        return folder / synthetic_name(stem, description, direction.target)

    numbers = range(1, draws + 1)
    return SyntheticPaths(named("synthetic"), named("syntheticstd"), [named(f"{DRAW}{n:03d}") for n in numbers])


def other_draws(volume: Path, draws: list[Path]) -> list[Path]:
    """Draws beside a synthesised volume that are none of these, with their sidecars: of a run that made more."""
    before, after = volume.name.removesuffix(".nii.gz").split("_desc-synthetic")
    ours = {path.name.removesuffix(".nii.gz") for path in draws}
    there = re.compile(rf"({re.escape(before)}_desc-{DRAW}\d+{re.escape(after)})\.(nii\.gz|json)")
    matches = ((path, there.fullmatch(path.name)) for path in volume.parent.glob(f"*_desc-{DRAW}*"))
    return [path for path, match in matches if match is not None and match[1] not in ours]
