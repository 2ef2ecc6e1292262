"""participants.tsv and sessions.tsv of a BIDS dataset: the fields of its participants and sessions."""

from __future__ import annotations

import filecmp
import json
import os
import re
import shlex
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from pdsynth.cohorts.cells import AGE, EDUCATION, SCORE, WEIGHT, Number, whole
from pdsynth.cohorts.cohort import Rejection
from pdsynth.cohorts.join import Clinical, clinical, join, merged, unknown
from pdsynth.cohorts.tables import Column, Row, Schema, Table, listed
from pdsynth.types import NA, Diagnosis, InputError

OASIS3 = re.compile(r"sub-OAS(IS)?3\d{4}")
SCORES = ("mmse", "moca", "weight")
SEX = {"f": "F", "female": "F", "w": "F", "woman": "F", "m": "M", "male": "M", "man": "M"}
CODES: dict[str, Diagnosis | None] = {
    "nc": Diagnosis.NC,
    "cn": Diagnosis.NC,
    "nl": Diagnosis.NC,
    "hc": Diagnosis.NC,
    "control": Diagnosis.NC,
    "smc": Diagnosis.NC,  # a subjective memory complaint is not an impairment
    "mci": Diagnosis.MCI,
    "emci": Diagnosis.MCI,
    "lmci": Diagnosis.MCI,
    "ad": Diagnosis.AD,
    "dementia": Diagnosis.AD,
}
DIAGNOSIS = ("diagnosis", "dx")
PEOPLE = "participants.tsv"
DiagnosisMap = Mapping[str, Diagnosis | None]


def diagnosis_codes(further: Mapping[Any, Any] | None) -> dict[str, Diagnosis | None]:
    """The diagnosis of each known code, in lower case: those in `CODES`, such as "cn" or "dementia", and further ones.

    further: by code, the diagnosis (NC, MCI, AD, or "n/a" or None for a participant in none of these groups, which
    becomes None); None for no further codes. Its codes may replace known ones; 1.0 is the code "1". Raises ValueError
    for another diagnosis, also for "nc" in lower case.
    """
    return CODES | {
        whole(str(code)): None if value is None or str(value).lower() == NA else Diagnosis(value)
        for code, value in (further or {}).items()
    }


def meaning(code: str, codes: DiagnosisMap) -> Diagnosis | None:
    """The diagnosis of a code in a table; None for a participant in none of the groups NC, MCI and AD.

    codes: the diagnosis of each code, in lower case. Of a change such as "NL to MCI", the state after "to" counts.
    Raises KeyError if the code, or the state before the change, is unknown.

    >>> meaning("MCI to Dementia", CODES)
    <Diagnosis.AD: 'AD'>
    """
    text = whole(code)
    if text not in codes and " to " in text:
        before, _, text = text.rpartition(" to ")
        codes[whole(before)]
    return codes[whole(text)]


def schema(key: str, diagnosis_column: str | None, age_unit: str) -> Schema:
    """The columns that are read from participants.tsv or sessions.tsv, by the program's word for each.

    key: name of the column of ids, "participant_id" or "session_id". diagnosis_column: name of the column of diagnoses;
    None for "diagnosis" or "dx". age_unit: unit of ages whose cell gives none, such as "month"; "" for years.
    """
    return {
        key: Column((key,), needed=True, identity=True),
        "session": Column(("session_id", "session") if key == "participant_id" else (), identity=True),
        "diagnosis": Column(DIAGNOSIS if diagnosis_column is None else (diagnosis_column,)),
        "age": Column(("age",), Number(AGE.low, AGE.high, age=True, unit=age_unit)),
        "sex": Column(("sex", "gender")),
        "site": Column(("site", "site_id", "scanner")),
        "education": Column(("education",), EDUCATION),
        "mmse": Column(("mmse",), SCORE),
        "moca": Column(("moca",), SCORE),
        "weight": Column(("weight",), WEIGHT),
    }


class Participants:
    """The clinical tables of a BIDS dataset, with their rows joined to the folders of its participants.

    participants.tsv is read from root, or else from the first of the folders `trees` that has it; without it, only the
    sessions.tsv of the participants are read (see `of`). names: the participants' folders (sub-*), to which its rows
    are joined. diagnosis_column: name of the column of diagnoses; None for "diagnosis" or "dx". codes: the diagnosis of
    each code, in lower case. Raises InputError if participants.tsv is not a table, or if `codes` lacks the code of a
    participant on disk.
    """

    def __init__(
        self,
        root: Path,
        trees: Sequence[Path],
        names: Collection[str],
        diagnosis_column: str | None,
        codes: DiagnosisMap,
    ) -> None:
        self.root, self.codes, self.diagnosis_column = root, codes, diagnosis_column
        self.of_sessions: list[Path] = []  # the tables of sessions that were read
        self.recorded: set[Path] = set()  # the files on which there is a verdict: these tables, and refused files
        self._rejected: list[Rejection] = []
        self._tables: list[Table] = []
        self._rows: dict[str, list[Row]] = {}
        self._unknown: Counter[str] = Counter()
        self.coded = False  # whether a participant or session has a code of a diagnosis
        self.path = self._find(list(dict.fromkeys((root, *trees))), PEOPLE)
        if _present(self.path):
            table = Table(self.path, schema("participant_id", diagnosis_column, self._age_unit(self.path)))
            self._tables.append(table)
            self._rows = join(table, table.rows, "participant_id", names, "sub")
            for row in (row for rows in self._rows.values() for row in rows):
                self._diagnosis(row)
            self._refuse_unknown(self.path)

    def of(
        self, name: str, folders: Sequence[Path], sessions: Sequence[str]
    ) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
        """The data of a participant, and those of each of its sessions, from participants.tsv and its sessions.tsv.

        Returns a dict with sex ("F" or "M"), site and education, and a dict by session of dicts with diagnosis, age and
        scores ("mmse", "moca", and "weight" in kg). name: the participant's folder, sub-*. folders: its paths in all
        trees of the dataset. sessions: names of its sessions, or [""] without a session level. Age and education are in
        years. A filled cell of sessions.tsv comes before one of participants.tsv, even if it is not valid. Unknown
        values are None; unknown scores are absent. For a code of a diagnosis that is not known, the diagnosis is None
        here, and `rejections` raises an error.
        """
        rows = self._rows.get(name, [])
        found = Clinical(Row(), dict.fromkeys(sessions, Row()))
        if rows:
            found = clinical(self._tables[0], rows, name, sessions, strict=False)
        person = found.person
        visits = self._visits(name, folders, sessions)
        fields = {s: self._session_fields(visits.get(s, Row()), found.sessions[s]) for s in sessions}
        return {"sex": sex_of(person), "site": person.text("site"), "education": person.number("education")}, fields

    def _refuse(self, path: Path, problem: str, remedy: str) -> None:
        self._rejected.append(Rejection(path, problem, remedy))
        self.recorded.add(path)

    def rejections(self) -> list[Rejection]:
        """The problems of the tables, with remedies.

        Raises InputError if a sessions.tsv has a code of a diagnosis that is not known. It is to be called after `of`
        has been called for all participants, which reads their sessions.tsv.
        """
        self._refuse_unknown(self.root)
        return self._rejected + [rejection for table in self._tables for rejection in table.notes.rejections()]

    def _visits(self, name: str, folders: Sequence[Path], sessions: Sequence[str]) -> dict[str, Row]:
        """The rows of sessions.tsv by session. The rows of a table that cannot be read are unknown."""
        path = self._find(folders, f"{name}_sessions.tsv")
        if not _present(path):
            return {}
        if OASIS3.fullmatch(name):
            problem = "may be written by Clinica, which mixes up scores of OASIS-3 participants; it was not read"
            self._refuse(path, problem, "use the archive's tables with --layout oasis3")
            return {}
        try:
            table = Table(path, schema("session_id", self.diagnosis_column, self._age_unit(path)))
        except InputError as error:
            self._refuse(path, error.problem, error.remedy)
            return dict.fromkeys(sessions, Row(conflicts=schema("session_id", None, "")))
        self._tables.append(table)
        self.of_sessions.append(path)
        self.recorded.add(path)
        if list(sessions) == [""]:
            return {"": merged(table.rows, name)}
        rows = join(table, table.rows, "session_id", sessions, "ses")
        joined = sum(map(len, rows.values())) == len(table.rows) and not table.refused
        visits = {session: merged(found, session) for session, found in rows.items()}
        return ({} if joined else dict.fromkeys(sessions, unknown(table))) | visits

    def _session_fields(self, visit: Row, person: Row) -> dict[str, Any]:
        def source(word: str) -> Row:
            return visit if visit.filled(word) else person

        scores = {score: value for score in SCORES if (value := source(score).number(score)) is not None}
        return {"diagnosis": self._diagnosis(source("diagnosis")), "age": source("age").number("age"), "scores": scores}

    def _diagnosis(self, row: Row) -> Diagnosis | None:
        code = row.text("diagnosis")
        self.coded |= code is not None
        try:
            return None if code is None else meaning(code, self.codes)
        except KeyError:
            self._unknown[str(code)] += 1
            return None

    def _refuse_unknown(self, path: Path) -> None:
        if not self._unknown:
            return
        codes = listed([repr(code) for code in self._unknown])
        problem = f"gives {self._unknown.total()} participants or sessions a diagnosis that is unknown: {codes}"
        example = ",".join(f"{code}=..." for code in list(self._unknown)[:3])
        remedy = (
            "look up the codes in the study's codebook, and map each to NC, MCI, AD or, for none of these, "
            f"{NA} (--diagnosis-map {shlex.quote(example)}), "
            f"or choose another column with --diagnosis-column (codes that are known: {', '.join(sorted(self.codes))})"
        )
        raise InputError(path, problem, remedy)

    def _find(self, folders: Sequence[Path], name: str) -> Path:
        """The table in the first folder that has it. Records tables that are not read.

        These are others of its name that differ from it, and files such as participants.csv beside none.
        """
        paths = [folder / name for folder in folders]
        found = next((path for path in paths if _present(path)), None)
        if found is not None:
            for path in paths:
                if path != found and _present(path) and not _same_content(path, found):
                    self._refuse(path, f"differs from {found}, and was not read", "join the two")
            return found
        stem = name.removesuffix(".tsv")
        for path in (path for folder in folders for path in _files(folder)):
            if path.stem.lower() in (stem.lower(), stem.rpartition("_")[2]) and path.suffix.lower() in SPREADSHEETS:
                problem = f"was not read, because the table of BIDS is {name}"
                remedy = f"save it as tab-separated text with the name {name}"
                self._refuse(path, problem, remedy)
        return paths[0]

    def _age_unit(self, path: Path) -> str:
        """The unit of the column age in the table's JSON file, or "" for years."""
        for sidecar in (path.with_suffix(".json"), self.root / "sessions.json"):
            try:
                unit = str(json.loads(sidecar.read_text(encoding="utf-8-sig"))["age"]["Units"]).lower()
            except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
                continue
            match = re.search("year|month|week|day", unit)
            return match[0] if match else ""
        return ""


def sex_of(row: Row) -> str | None:
    """The sex in a row of a table, "F" or "M"; None if it is not known, or the cell says "other".

    It is read from f, female, w, woman, m, male and man, in any case. Another text, such as 1, is recorded in the notes
    (problems) of the table, and gives None.
    """
    text = row.text("sex")
    if text is not None and text.lower() not in {*SEX, "o", "other"}:
        row.note("has cells in the column of the sex that are not F or M, and were not read", "write F or M", text)
    return SEX.get((text or "").lower())


SPREADSHEETS = {".tsv", ".csv", ".txt", ".xls", ".xlsx", ".ods"}


def _present(path: Path) -> bool:
    """Whether a file exists, even as a link to content that was not fetched. False in a folder without permission."""
    return os.path.lexists(path)


def _same_content(one: Path, other: Path) -> bool:
    try:
        return filecmp.cmp(one, other, shallow=False)
    except OSError:
        return False


def _files(folder: Path) -> list[Path]:
    """The entries of a folder; none without permission to read it."""
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []
