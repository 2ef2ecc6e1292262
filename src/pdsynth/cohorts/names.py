"""Participant and session in file names: conflicts with the folders, and the names of synthesised volumes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from pdsynth.types import Direction, InputError, Modality, Space

EXTENSION = re.compile(r"\.(nii(\.gz)?|json|bval|bvec|tsv)$")
SUFFIX = {Modality.FMRI: "bold", Modality.DMRI: "dwi"}
REFERENCE = {modality: f"{suffix}ref" for modality, suffix in SUFFIX.items()}  # of mean volumes
ENDING = re.compile(rf"_({'|'.join((*SUFFIX.values(), *REFERENCE.values()))})$")
FOLDER = {Modality.FMRI: "func", Modality.DMRI: "dwi"}
GRID_ENTITIES = ("space", "res")  # in the native space copied from the source's name: the volume is on its grid
RESOLUTION = "2"  # of volumes in a standard space, in mm and as fMRIPrep writes it
VALUE = re.compile(r"[A-Za-z0-9+]+")  # of a BIDS entity
DRAW = "syntheticdraw"  # the description of a draw, without its number
LEVELS = 3  # folders above a file: sub-1/ses-2/func
REMEDY = "find out whose scan it is; then rename it, or move it to the folder of its participant and session"


def entities(name: str) -> dict[str, str]:
    """The BIDS key-value pairs (entities) of a file name, in order. Of a repeated key, the first value is returned.

    Parts without a hyphen, such as bold, and the extension are left out.

    >>> entities("sub-1_ses-2_task-rest_bold.nii.gz")
    {'sub': '1', 'ses': '2', 'task': 'rest'}
    """
    found: dict[str, str] = {}
    for part in EXTENSION.sub("", name).split("_"):
        key, dash, value = part.partition("-")
        if key and dash:
            found.setdefault(key, value)
    return found


def bids_label(text: str) -> str:
    """Remove all characters that a BIDS label cannot have; it has letters (a-z, A-Z) and digits only.

    >>> bids_label("P-01_b")
    'P01b'
    """
    return re.sub(r"[^A-Za-z0-9]", "", text)


def contradiction(path: Path, participant_id: str, session_id: str, by_label: bool = False) -> str | None:
    """How a file's name contradicts the participant and the session of its folder, in words; None if it does not.

    Every part of the name between underscores that begins with sub- or ses- is compared. participant_id: that of the
    folder, such as "sub-1". session_id: that of the folder, such as "ses-2", or "" for a folder without sessions. A
    name without a participant or a session contradicts none. A name with a session contradicts a folder without
    sessions only if it starts with "sub-". by_label: compare letters and digits only, for folders without BIDS names.

    >>> contradiction(Path("sub-2/func/sub-1_bold.nii.gz"), "sub-2", "")
    'is named for sub-1 but lies in the folder of sub-2'
    """
    parts = f"_{EXTENSION.sub('', path.name)}_"
    for own in (participant_id, session_id):
        # A participant's id may contain an underscore (sub-a_b) but not a session (sub-1_ses-2): one person would
        # then count as two.
        if own and "_ses-" not in own:
            parts = parts.replace(f"_{own}_", "_")
    agreed = {bids_label(participant_id), bids_label(session_id)} if by_label else set()
    # Of a name such as rest_ses-1, only BIDS says that it belongs to a folder of sessions.
    kinds = ("sub-", "ses-") if session_id or path.name.startswith("sub-") else ("sub-",)
    others = [part for part in parts.split("_") if part.startswith(kinds) and bids_label(part) not in agreed]
    if not others:
        return None
    other = next((part for part in others if part.startswith("sub-")), others[0])
    if other.startswith("sub-"):
        return f"is named for {other} but lies in the folder of {participant_id}"
    folder = f"the folder of {session_id}" if session_id else f"a folder of {participant_id} without sessions"
    return f"is named for {other} but lies in {folder}"


def refuse_twins(root: Path, kind: str, ids: Iterable[tuple[str, str]]) -> None:
    """Raise InputError if two names have the same id, or ids that differ only in capital letters.

    root is the dataset, for the message. kind is the plural noun for the names in this message, such as "participants".
    ids are pairs (name on disk, id); equal pairs count once. On a file system that ignores case, two such ids would be
    the same folder.

    >>> refuse_twins(Path("study"), "participants", [("P-01", "sub-P01"), ("P01", "sub-P01")])
    Traceback (most recent call last):
    pdsynth.types.InputError: study: has participants P-01 and P01, both sub-P01. Remedy: rename one of them.
    """
    first: dict[str, tuple[str, str]] = {}
    for name, own in sorted(set(ids)):
        other, their = first.setdefault(own.casefold(), (name, own))
        if (other, their) != (name, own):
            same = f"both {own}" if own == their else "which differ only in capital letters"
            raise InputError(root, f"has {kind} {other} and {name}, {same}", "rename one of them")


def synthetic_stem(
    participant_id: str, session_id: str, target: Modality, source: Path, space: Space = Space.NATIVE
) -> str:
    """The beginning of a synthesised volume's file name: participant, session, task, space and resolution.

    participant_id: such as "sub-1". session_id: such as "ses-2", or "". target: the synthesised modality; fMRI gets
    task-rest. source: path of the source scan. space: of the volume. In the native space, `space` and `res` are copied
    from the source's name, if it has them, because the volume is on the source's grid. Entities (key-value pairs) such
    as `run`, `acq` and `dir` are not copied: they describe an acquisition of the other modality.

    >>> synthetic_stem("sub-1", "ses-2", Modality.FMRI, Path("sub-1_ses-2_space-T1w_dir-AP_desc-preproc_dwi.nii.gz"))
    'sub-1_ses-2_task-rest_space-T1w'
    """
    of_grid = entities(source.name) if space is Space.NATIVE else {"space": str(space), "res": RESOLUTION}
    parts = [participant_id, session_id, "task-rest" if target is Modality.FMRI else ""]
    parts += [f"{key}-{of_grid[key]}" for key in GRID_ENTITIES if VALUE.fullmatch(of_grid.get(key, ""))]
    return "_".join(filter(None, parts))


def synthetic_name(stem: str, description: str, target: Modality) -> str:
    """The file name of a synthesised volume.

    stem: the beginning of the name, with participant and session. description: the value of `desc`, letters and digits
    only: "synthetic" for the volume, "syntheticstd" for its SD map, "syntheticdraw001" for a random sample.

    >>> synthetic_name("sub-1_task-rest", "synthetic", Modality.FMRI)
    'sub-1_task-rest_desc-synthetic_boldref.nii.gz'
    """
    return f"{stem}_desc-{description}_{REFERENCE[target]}.nii.gz"


def lone_participant(path: Path) -> tuple[str, str]:
    """Participant and session of a single scan outside a cohort: ("sub-1", "ses-2"), with "" for no session.

    Each is taken from the three folders above the file that are named sub-* or ses-*, the nearest first. If these do
    not show it, it is taken from the file name, if this has a part sub-*. Without any sub-*, the participant is the
    letters and digits of the file name, without the extension and a final _bold, _dwi, _boldref or _dwiref, and a part
    ses-* of the name is not read as a session. Raises InputError if folder and name contradict each other, and if
    neither gives a letter or digit.

    >>> lone_participant(Path("mean_dwi.nii.gz"))
    ('sub-mean', '')
    """
    by_name = bids_label(ENDING.sub("", EXTENSION.sub("", path.name)))
    named = entities(path.name)
    of_file = named if "sub" in named else {"sub": by_name}
    above = [parent.name.removesuffix(".feat") for parent in path.absolute().parents[:LEVELS]]  # FEAT's sub-1.feat
    sources = [*(entities(name) for name in above if name.startswith(("sub-", "ses-"))), of_file]

    def own(key: str) -> str:
        return next((f"{key}-{found[key]}" for found in sources if found.get(key)), "")

    participant_id, session_id = own("sub"), own("ses")
    if not participant_id:
        raise InputError(path, "has no letter or digit in its name, from which to name a participant", "rename it")
    if problem := contradiction(path, participant_id, session_id):
        raise InputError(path, problem, REMEDY)
    return participant_id, session_id


class SyntheticPaths(NamedTuple):
    """Paths of a synthesised volume, of its SD map (uncertainty) and of its draws, the random samples of a model."""

    volume: Path
    uncertainty: Path
    draws: list[Path]


def synthetic_paths(
    out: Path,
    participant_id: str,
    session_id: str,
    source: Path,
    direction: Direction,
    draws: int = 0,
    space: Space = Space.NATIVE,
) -> SyntheticPaths:
    """Paths of the files of a synthesis: the volume, its SD map, and `draws` random samples (draws) of the model.

    The files lie in `out`/participant/session/func for fMRI and dwi for dMRI, without a folder for the session "".
    participant_id: such as "sub-1". session_id: such as "ses-2", or "". source: path of the source scan; the space and
    resolution in its name are copied. direction: its target is the modality of the files. space: of the files. BIDS has
    no entity (key-value pair) for a draw, so the number of a draw is part of its description. Nothing is written.

    >>> found = synthetic_paths(Path(), "sub-1", "", Path("sub-1_dwi.nii.gz"), Direction.DMRI_TO_FMRI, draws=2)
    >>> [path.name for path in found.draws][1]
    'sub-1_task-rest_desc-syntheticdraw002_boldref.nii.gz'
    """
    stem = synthetic_stem(participant_id, session_id, direction.target, source, space)
    folder = out / participant_id / session_id / FOLDER[direction.target]

    def named(description: str) -> Path:
        return folder / synthetic_name(stem, description, direction.target)

    numbers = range(1, draws + 1)
    return SyntheticPaths(named("synthetic"), named("syntheticstd"), [named(f"{DRAW}{n:03d}") for n in numbers])


class TransformPaths(NamedTuple):
    """Paths of the transforms between a synthesised volume in the native space and a standard space, in each direction.

    A path is named by the image that the transform moves and the space that the image gets.
    """

    to_standard: Path
    to_native: Path


def transform_paths(
    out: Path, participant_id: str, session_id: str, direction: Direction, space: Space
) -> TransformPaths:
    """Paths of the two transforms of a synthesis in the folder of its volumes (see `synthetic_paths`).

    Nothing is written. Their names are those of a BIDS proposal (BEP 14), as fMRIPrep writes them.

    >>> transform_paths(Path(), "sub-1", "", Direction.FMRI_TO_DMRI, Space.MNI152NLIN6ASYM).to_standard.name
    'sub-1_from-dwiref_to-MNI152NLin6Asym_mode-image_xfm.txt'
    """
    target = direction.target
    stem = synthetic_stem(participant_id, session_id, target, Path())
    folder, native = out / participant_id / session_id / FOLDER[target], REFERENCE[target]
    ways = ((native, space), (space, native))
    return TransformPaths(*(folder / f"{stem}_from-{start}_to-{end}_mode-image_xfm.txt" for start, end in ways))


def outdated_draws(volume: Path, draws: list[Path]) -> list[Path]:
    """Files of random samples (draws) that an earlier run with more samples left beside a synthesised volume.

    volume: the path of the volume, as `synthetic_paths` names it. draws: the paths of the samples of this run; [] for
    none. Returns the images and JSON files of further samples of the same volume that exist on disk.
    """
    before, after = volume.name.removesuffix(".nii.gz").split("_desc-synthetic")
    ours = {path.name.removesuffix(".nii.gz") for path in draws}
    pattern = re.compile(rf"({re.escape(before)}_desc-{DRAW}\d+{re.escape(after)})\.(nii\.gz|json)")
    matches = ((path, pattern.fullmatch(path.name)) for path in volume.parent.glob(f"*_desc-{DRAW}*"))
    return [path for path, match in matches if match is not None and match[1] not in ours]
