"""Plain BIDS: subjects, sessions, scans and diagnoses, by file name and header; no voxel is read.

A subject may have either modality alone: that is what synthesis completes. A file that cannot be used becomes a
`Rejection` and the cohort goes on; a dataset that cannot be understood as a whole raises `InputError`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from pdsynth.cohorts.cohort import Cohort, Rejection, Session, Subject, session_name
from pdsynth.cohorts.layout import Layout
from pdsynth.cohorts.names import FOLDER, SUFFIX, agreeing, refuse_twins
from pdsynth.cohorts.scans import best_run
from pdsynth.cohorts.tables import Row, Table
from pdsynth.types import Diagnosis, InputError, Modality

OASIS3 = re.compile(r"sub-OAS(IS)?3\d{4}")
SCORES = ("mmse", "moca", "weight")
NUMBERS = ("age", "education", *SCORES)
SEX = {"f": "F", "female": "F", "w": "F", "m": "M", "male": "M"}
CODES = {
    "nc": Diagnosis.NC,
    "cn": Diagnosis.NC,
    "hc": Diagnosis.NC,
    "control": Diagnosis.NC,
    "smc": Diagnosis.NC,  # a subjective memory complaint is no impairment
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
) -> Cohort:
    """Read a BIDS dataset: names, tables and headers.

    Of several runs of one modality in a session the one with most volumes is taken, then the first by name. A file
    that is named for another participant or session than its folder is left out.
    `diagnosis_column` is a column of participants.tsv or sessions.tsv (default: `diagnosis` or `dx`, in any case);
    `diagnosis_map` adds codes to the known ones (NC, CN, HC, MCI, EMCI, LMCI, AD, Dementia, in any case).
    Raises InputError where the folder is no BIDS dataset, a participant is listed twice, two participants or sessions
    differ in capital letters alone, or a diagnosis is unknown.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(root, "is no folder", "give the folder that holds participants.tsv and the sub-* folders")
    if not is_bids(root):
        raise InputError(root, "holds no sub-* folder", "give the root of a BIDS dataset")
    return read_trees(root, [root], diagnosis_column, diagnosis_map)


def is_bids(root: Path) -> bool:
    """Whether root holds a folder of a participant, sub-*."""
    return any(path.is_dir() for path in root.glob("sub-*"))


LAYOUT = Layout("bids", "sub-* folders", is_bids, bids, participants_tsv=True)


def read_trees(
    root: Path,
    trees: Sequence[Path],
    diagnosis_column: str | None = None,
    diagnosis_map: Mapping[str, Diagnosis] | None = None,
) -> Cohort:
    """The sub-* folders of several trees as one dataset, with the participants.tsv of root or else of the first tree.

    Raises what `bids` raises.
    """
    codes = CODES | {str(code).lower(): Diagnosis(value) for code, value in (diagnosis_map or {}).items()}
    tables = [tree / "participants.tsv" for tree in (root, *trees)]
    path = next((table for table in tables if table.exists()), tables[0])
    participants = _Table(path, "participant_id", diagnosis_column, codes)
    names = sorted({p.name for tree in trees for p in tree.glob("sub-*") if p.is_dir()})
    rejected: list[Rejection] = []
    subjects = [_subject([t / name for t in trees], participants, diagnosis_column, codes, rejected) for name in names]
    subjects = [subject for subject in subjects if subject.sessions]
    if not subjects and not rejected:
        raise InputError(root, "holds no *_bold.nii.gz and no *_dwi.nii.gz", "give the root of a BIDS dataset")
    cohort = Cohort(root, subjects, rejected, _is_simulated(root))
    refuse_twins(root, "participants", [(s.participant_id, s.participant_id) for s in subjects])
    # A folder sub-1_ses-2 beside sub-1/ses-2 would have its name.
    refuse_twins(root, "sessions", [(f"{p.participant_id}/{s.session_id}", session_name(p, s)) for p, s in cohort])
    if diagnosis_column is not None and all(session.diagnosis is None for _, session in cohort):
        raise InputError(
            participants.path, f"gives no diagnosis in a column {diagnosis_column!r}", "name another column"
        )
    return cohort


PREFIX = {"participant_id": "sub-", "session_id": "ses-"}


class _Table:
    """A participants.tsv or sessions.tsv, by id: diagnosis, age, sex, site. Absent files and cells are None."""

    def __init__(self, path: Path, key: str, diagnosis_column: str | None, codes: Mapping[str, Diagnosis]) -> None:
        self.path, self.codes = path, codes
        self.rows: dict[str, Row] = {}
        self.diagnosis_columns = ("diagnosis", "dx") if diagnosis_column is None else (diagnosis_column.lower(),)
        for row in Table(path, (key,)) if path.exists() else ():
            name = row.cells[key].strip()
            name = name if name.startswith(PREFIX[key]) else f"{PREFIX[key]}{name}"
            if name in self.rows:
                raise InputError(path, f"lists {name} twice", "keep one row for each")
            self.rows[name] = row

    def cell(self, name: str, *columns: str) -> str | None:
        """The first of the columns that the table has, or None where it is empty or n/a."""
        return self.rows[name].text(*columns) if name in self.rows else None

    def diagnosis(self, name: str) -> Diagnosis | None:
        code = self.cell(name, *self.diagnosis_columns)
        if code is not None and code.lower() not in self.codes:
            known = ", ".join(sorted(self.codes))
            raise InputError(
                self.path,
                f"gives {name} the diagnosis {code!r}, which is none of {known}",
                "map this code to NC, MCI or AD with diagnosis_map, or write n/a",
            )
        return None if code is None else self.codes[code.lower()]

    def number(self, name: str, column: str, rejected: list[Rejection]) -> float | None:
        """A number; '89+', as BIDS writes high ages, is 89."""
        text = self.cell(name, column)
        if text is None:
            return None
        try:
            return float(text.rstrip("+"))
        except ValueError:
            rejected.append(Rejection(self.path, f"{column} {text!r} of {name} is no number", "write one, or n/a"))
            return None


def _subject(
    folders: Sequence[Path],
    participants: _Table,
    diagnosis_column: str | None,
    codes: Mapping[str, Diagnosis],
    rejected: list[Rejection],
) -> Subject:
    name = folders[0].name
    tables = [folder / f"{name}_sessions.tsv" for folder in folders]
    path = next((table for table in tables if table.exists()), tables[0])
    visits = _Table(path, "session_id", diagnosis_column, codes)
    if visits.rows and OASIS3.fullmatch(name):
        problem = "may be Clinica's, which merges scores of OASIS-3 across participants; it was not read"
        rejected.append(Rejection(path, problem, "give the archive's tables and --layout oasis3"))
        visits.rows.clear()
    diagnosis = participants.diagnosis(name)
    numbers = {column: participants.number(name, column, rejected) for column in NUMBERS}
    sessions = []
    there = sorted({p.name for folder in folders for p in folder.glob("ses-*") if p.is_dir()}) or [""]
    for visit in there:
        places = [folder / visit for folder in folders]
        files = {m: [p for place in places for p in (place / FOLDER[m]).glob(f"*_{SUFFIX[m]}.nii*")] for m in Modality}
        found = {m: best_run(agreeing(paths, name, visit, rejected), m, rejected) for m, paths in files.items()}
        scans = {modality: scan for modality, scan in found.items() if scan is not None}
        if scans:
            then = {column: visits.number(visit, column, rejected) for column in NUMBERS}
            known = {c: then[c] if then[c] is not None else numbers[c] for c in NUMBERS}
            scores = {score: value for score in SCORES if (value := known[score]) is not None}
            sessions.append(Session(visit, scans, visits.diagnosis(visit) or diagnosis, known["age"], scores=scores))
    sex = SEX.get((participants.cell(name, "sex", "gender") or "").lower())
    site = participants.cell(name, "site", "site_id", "scanner")
    return Subject(name, sessions, sex, site, numbers["education"])


def _is_simulated(root: Path) -> bool:
    description = root / "dataset_description.json"
    if not description.exists():
        return False
    try:
        return bool(json.loads(description.read_text()).get("Simulated", False))
    except (ValueError, AttributeError):
        raise InputError(description, "is no JSON object", "repair the file") from None
