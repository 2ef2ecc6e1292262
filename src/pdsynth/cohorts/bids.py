"""Plain BIDS: participants, sessions, scans and diagnoses, from file names, tables and headers. No voxel is read.

A session may have one modality only; synthesis can supply the other. An unusable file becomes a `Rejection`, and the
other files are read. A dataset that is unusable as a whole raises `InputError`.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from pdsynth.cohorts import participant
from pdsynth.cohorts.choice import ANY, Select
from pdsynth.cohorts.cohort import Cohort, Rejection, Session, Subject, session_name
from pdsynth.cohorts.layout import Layout
from pdsynth.cohorts.ledger import Ledger
from pdsynth.cohorts.names import refuse_twins
from pdsynth.cohorts.tables import Row, Table
from pdsynth.types import Diagnosis, InputError

OASIS3 = re.compile(r"sub-OAS(IS)?3\d{4}")
SCORES = ("mmse", "moca", "weight")
NUMBERS = ("age", "education", *SCORES)
SEX = {"f": "F", "female": "F", "w": "F", "m": "M", "male": "M"}
CODES = {
    "nc": Diagnosis.NC,
    "cn": Diagnosis.NC,
    "hc": Diagnosis.NC,
    "control": Diagnosis.NC,
    "smc": Diagnosis.NC,  # a subjective memory complaint is not an impairment
    "mci": Diagnosis.MCI,
    "emci": Diagnosis.MCI,
    "lmci": Diagnosis.MCI,
    "ad": Diagnosis.AD,
    "dementia": Diagnosis.AD,
}


def bids(
    root: str | Path,
    diagnosis_column: str | None = None,
    diagnosis_map: Mapping[str, Diagnosis] | None = None,
    select: Select = ANY,
) -> Cohort:
    """Read a BIDS dataset: names, tables and headers.

    If a session has several scans of one modality, `choice.CRITERIA` choose one; `select` restricts them. A file whose
    name contains another participant or session than its folder is rejected, and so is a scan at the wrong level of
    the tree, such as sub-1/func beside sub-1/ses-2.

    `diagnosis_column` is a column of participants.tsv or sessions.tsv (default: `diagnosis` or `dx`, in any case).
    `diagnosis_map` maps further codes to NC, MCI and AD. The known codes, in any case, are NC, CN, HC, control, SMC,
    MCI, EMCI, LMCI, AD and dementia.

    Raises InputError if the folder is not a BIDS dataset, a table lists an id twice, the names of two participants or
    sessions differ only in capital letters, or a diagnosis is unknown.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(root, "is not a folder", "give the folder with participants.tsv and the sub-* folders")
    if not is_bids(root):
        raise InputError(root, "contains no sub-* folder", "give the root of a BIDS dataset")
    return read_trees(root, [root], diagnosis_column, diagnosis_map, select)


def is_bids(root: Path) -> bool:
    """Whether root contains a participant's folder, sub-*."""
    return any(path.is_dir() for path in root.glob("sub-*"))


LAYOUT = Layout("bids", "sub-* folders", is_bids, bids, participants_tsv=True)


def read_trees(
    root: Path,
    trees: Sequence[Path],
    diagnosis_column: str | None = None,
    diagnosis_map: Mapping[str, Diagnosis] | None = None,
    select: Select = ANY,
) -> Cohort:
    """Read the sub-* folders of several folders (trees) as one dataset.

    participants.tsv is read from root, or else from the first tree that has it. Raises InputError as `bids` does.
    """
    codes = CODES | {str(code).lower(): Diagnosis(value) for code, value in (diagnosis_map or {}).items()}
    tables = [tree / "participants.tsv" for tree in (root, *trees)]
    path = next((table for table in tables if table.exists()), tables[0])
    participants = _Table(path, "participant_id", diagnosis_column, codes)
    ledger = Ledger(select)
    names = participant.participants(trees, ledger)
    folders = {name: [tree / name for tree in trees if (tree / name).is_dir()] for name in names}
    subjects = [_subject(folders[name], participants, diagnosis_column, codes, ledger) for name in names]
    subjects = [subject for subject in subjects if subject.sessions]
    if not subjects and not ledger.rejected:
        raise InputError(root, "contains no *_bold.nii.gz and no *_dwi.nii.gz", "give the root of a BIDS dataset")
    cohort = ledger.cohort(root, subjects, _is_simulated(root))
    refuse_twins(root, "participants", [(s.participant_id, s.participant_id) for s in subjects])
    # The session name of a folder sub-1_ses-2 would be equal to that of sub-1/ses-2.
    refuse_twins(root, "sessions", [(f"{p.participant_id}/{s.session_id}", session_name(p, s)) for p, s in cohort])
    if diagnosis_column is not None and all(session.diagnosis is None for _, session in cohort):
        raise InputError(
            participants.path, f"gives no diagnosis in a column {diagnosis_column!r}", "name another column"
        )
    return cohort


PREFIX = {"participant_id": "sub-", "session_id": "ses-"}


class _Table:
    """Cells of a participants.tsv or sessions.tsv by id. A cell that is empty or in no table is None."""

    def __init__(
        self, path: Path, key: str, diagnosis_column: str | None, codes: Mapping[str, Diagnosis], empty: bool = False
    ) -> None:
        self.path, self.codes = path, codes
        self.rows: dict[str, Row] = {}
        self.diagnosis_columns = ("diagnosis", "dx") if diagnosis_column is None else (diagnosis_column.lower(),)
        for row in Table(path, (key,)) if not empty and os.path.exists(path) else ():
            name = row.cells[key].strip()
            name = name if name.startswith(PREFIX[key]) else f"{PREFIX[key]}{name}"
            if name in self.rows:
                raise InputError(path, f"lists {name} twice", "keep one row per id")
            self.rows[name] = row

    def cell(self, name: str, *columns: str) -> str | None:
        """The cell of the first of the columns that the table has; None if it is empty or n/a."""
        return self.rows[name].text(*columns) if name in self.rows else None

    def diagnosis(self, name: str) -> Diagnosis | None:
        code = self.cell(name, *self.diagnosis_columns)
        if code is not None and code.lower() not in self.codes:
            known = ", ".join(sorted(self.codes))
            raise InputError(
                self.path,
                f"gives {name} the diagnosis {code!r}, which is not one of {known}",
                "map this code to NC, MCI or AD with diagnosis_map, or write n/a",
            )
        return None if code is None else self.codes[code.lower()]

    def number(self, name: str, column: str, rejected: list[Rejection]) -> float | None:
        """A cell as a number; None, with a Rejection, if it is not one. BIDS writes high ages as '89+', read as 89."""
        text = self.cell(name, column)
        if text is None:
            return None
        try:
            return float(text.rstrip("+"))
        except ValueError:
            problem = f"{column} {text!r} of {name} is not a number"
            rejected.append(Rejection(self.path, problem, "write a number, or n/a"))
            return None


def _subject(
    folders: Sequence[Path],
    participants: _Table,
    diagnosis_column: str | None,
    codes: Mapping[str, Diagnosis],
    ledger: Ledger,
) -> Subject:
    name, rejected = folders[0].name, ledger.rejected
    tables = [folder / f"{name}_sessions.tsv" for folder in folders]
    path = next((table for table in tables if os.path.exists(table)), tables[0])  # False without permission
    before, exists = len(rejected), os.path.exists(path)
    visits = _sessions_table(path, diagnosis_column, codes, rejected)
    if visits.rows and OASIS3.fullmatch(name):
        problem = "may be written by Clinica, which mixes up scores of OASIS-3 participants; it was not read"
        rejected.append(Rejection(path, problem, "use the archive's tables with --layout oasis3"))
        visits.rows.clear()
    if exists and len(rejected) == before:
        ledger.used.append(path)
    diagnosis = participants.diagnosis(name)
    numbers = {column: participants.number(name, column, rejected) for column in NUMBERS}
    sessions = []
    for visit, files in participant.visits(folders, ledger, [path] if exists else []).items():
        then = {column: visits.number(visit, column, rejected) for column in NUMBERS}
        known = {c: then[c] if then[c] is not None else numbers[c] for c in NUMBERS}
        scores = {score: value for score in SCORES if (value := known[score]) is not None}
        diagnosed = visits.diagnosis(visit) or diagnosis
        sessions.append(Session(visit, files.scans, diagnosed, known["age"], scores=scores, refused=files.refused))
    sex = SEX.get((participants.cell(name, "sex", "gender") or "").lower())
    site = participants.cell(name, "site", "site_id", "scanner")
    return Subject(name, sessions, sex, site, numbers["education"])


def _sessions_table(
    path: Path, diagnosis_column: str | None, codes: Mapping[str, Diagnosis], rejected: list[Rejection]
) -> _Table:
    """The table of a participant's sessions; without rows, and with a Rejection, if it cannot be read."""
    try:
        return _Table(path, "session_id", diagnosis_column, codes)
    except InputError as error:
        rejected.append(Rejection(error.path, error.problem, error.remedy))
        return _Table(path, "session_id", diagnosis_column, codes, empty=True)


def _is_simulated(root: Path) -> bool:
    description = root / "dataset_description.json"
    if not description.exists():
        return False
    try:
        return bool(json.loads(description.read_text()).get("Simulated", False))
    except (ValueError, AttributeError, RecursionError):
        raise InputError(description, "is not a JSON object", "repair the file") from None
