"""Plain BIDS: participants, sessions, scans and diagnoses, from file names, tables and headers. No voxel is read.

A session may have one modality only; synthesis can supply the other. An unusable file becomes a `Rejection`, and the
other files are read. A dataset that is unusable as a whole raises `InputError`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pdsynth.cohorts import participant
from pdsynth.cohorts.choice import ANY, Select
from pdsynth.cohorts.cohort import Cohort, Session, Subject, session_name
from pdsynth.cohorts.layout import Layout
from pdsynth.cohorts.ledger import Ledger
from pdsynth.cohorts.names import refuse_twins
from pdsynth.cohorts.participants import DiagnosisMap, Participants, diagnosis_codes
from pdsynth.types import InputError


def bids(
    root: str | Path,
    diagnosis_column: str | None = None,
    diagnosis_map: DiagnosisMap | None = None,
    select: Select = ANY,
    tables: bool = True,
) -> Cohort:
    """Read a BIDS dataset: participants, sessions, scans and diagnoses, from names, tables and headers.

    If a session has several scans of one modality, fixed criteria choose one, such as the resting state before other
    tasks. `select` leaves out scans by the key-value pairs of their file names (option --select). A scan whose name
    contains another participant or session than its folder is rejected, and so is a scan at the wrong level of the
    tree, such as one in sub-1/func beside sub-1/ses-2.

    `diagnosis_column` is a column of participants.tsv or sessions.tsv (default: `diagnosis` or `dx`, in any case).
    `diagnosis_map` maps further codes to NC, MCI and AD, and to "n/a" for a participant in none of these groups. The
    known codes, in any case, are NC, CN, NL, HC, control, SMC, MCI, EMCI, LMCI, AD and dementia. Of a change such as
    "NL to MCI", the state after "to" counts. If `tables` is false, no table is read: diagnosis, age, sex, site,
    education and scores are unknown.

    A row that cannot be read or joined, and a folder without a row, do not stop the reading. The cohort lists each in
    `rejected`, with reason and remedy.

    Raises InputError if the folder has no sub-* folder, if there is neither a scan nor a rejected file, if
    participants.tsv is not a table, if dataset_description.json is not a JSON object, if the names of two participants
    or sessions differ only in capital letters, if a table has a code of a diagnosis that is not known, or if the given
    column has no diagnosis. An empty cell is not an error: the diagnosis is then None. Raises ValueError if
    `diagnosis_map` names another group.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(root, "is not a folder", "give the folder with participants.tsv and the sub-* folders")
    if not is_bids(root):
        raise InputError(root, "contains no sub-* folder", "give the root of a BIDS dataset")
    return read_trees(root, [root], diagnosis_column, diagnosis_map, select, tables)


def is_bids(root: Path) -> bool:
    """Whether root directly contains a participant's folder, sub-*."""
    return any(path.is_dir() for path in root.glob("sub-*"))


LAYOUT = Layout("bids", "sub-* folders", is_bids, bids, participants_tsv=True, scans=partial(bids, tables=False))


def read_trees(
    root: Path,
    trees: Sequence[Path],
    diagnosis_column: str | None = None,
    diagnosis_map: DiagnosisMap | None = None,
    select: Select = ANY,
    tables: bool = True,
) -> Cohort:
    """Read the participants' folders (sub-*) of several folders, the trees, as one BIDS dataset.

    participants.tsv is read from root, or else from the first tree that has it. diagnosis_column: column of the
    diagnosis, by default `diagnosis` or `dx`. diagnosis_map: further codes of a diagnosis, with NC, MCI, AD or "n/a"
    for each. select: leaves out scans by the key-value pairs of their names (option --select). tables: if false, no
    table is read.

    Raises InputError if there is neither a scan nor a rejected file, participants.tsv is not a table, root's
    dataset_description.json is not a JSON object, the names of two participants or sessions differ only in capital
    letters, a table has a code of a diagnosis that is not known, or no diagnosis is in the given column. Raises
    ValueError if `diagnosis_map` names another group.
    """
    ledger = Ledger(select)
    names = participant.participants(trees, ledger)
    people = None
    if tables:
        people = Participants(root, trees, names, diagnosis_column, diagnosis_codes(diagnosis_map))
    folders = {name: [tree / name for tree in trees if (tree / name).is_dir()] for name in names}
    subjects = [_subject(folders[name], people, ledger) for name in names]
    subjects = [subject for subject in subjects if subject.sessions]
    if not subjects and not ledger.rejected:
        raise InputError(root, "contains no *_bold.nii.gz and no *_dwi.nii.gz", "give the root of a BIDS dataset")
    if people is not None:
        ledger.rejected += people.rejections()
        refused = {rejection.path for rejection in ledger.rejected}
        ledger.used += [path for path in people.of_sessions if path not in refused]
    cohort = ledger.cohort(root, subjects, _is_simulated(root))
    refuse_twins(root, "participants", [(s.participant_id, s.participant_id) for s in subjects])
    # The session name of a folder sub-1_ses-2 would be equal to that of sub-1/ses-2.
    refuse_twins(root, "sessions", [(f"{p.participant_id}/{s.session_id}", session_name(p, s)) for p, s in cohort])
    if people is not None and diagnosis_column is not None and not people.coded:
        raise InputError(people.path, f"gives no diagnosis in a column {diagnosis_column!r}", "name another column")
    return cohort


def _subject(folders: Sequence[Path], people: Participants | None, ledger: Ledger) -> Subject:
    name = folders[0].name
    person: dict[str, Any] = {}
    clinical: dict[str, dict[str, Any]] = {}
    if people is not None:
        visits = sorted({p.name for folder in folders for p in folder.glob("ses-*") if p.is_dir()})
        person, clinical = people.of(name, folders, visits or [""])
    recorded = people.recorded if people is not None else ()
    sessions = [
        Session(visit, files.scans, refused=files.refused, **clinical.get(visit, {}))
        for visit, files in participant.visits(folders, ledger, recorded).items()
    ]
    return Subject(name, sessions, **person)


def _is_simulated(root: Path) -> bool:
    description = root / "dataset_description.json"
    if not description.exists():
        return False
    try:
        return bool(json.loads(description.read_text()).get("Simulated", False))
    except (ValueError, AttributeError, RecursionError):
        raise InputError(description, "is not a JSON object", "repair the file") from None
