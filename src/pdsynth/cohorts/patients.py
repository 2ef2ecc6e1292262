"""The table of a folder of any structure: fields of participants and sessions, by the columns in pdsynth.yaml."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from pdsynth.cohorts.cells import AGE, EDUCATION, SCORE, Kind, Text
from pdsynth.cohorts.cohort import Rejection
from pdsynth.cohorts.join import Clinical, clinical, join
from pdsynth.cohorts.participants import diagnosis_codes, meaning, sex_of
from pdsynth.cohorts.tables import Column, Row, Table, listed
from pdsynth.types import NA, InputError

KINDS: dict[str, Kind] = {"age": AGE, "education": EDUCATION, "mmse": SCORE, "moca": SCORE}
COLUMNS = ("participant", "session", "diagnosis", "age", "sex", "site", "education", "mmse", "moca")
Key = tuple[str, str]  # participant and session as the paths write them; "" for no session


class Patients:
    """Clinical data of a folder of any structure: the table that its settings name, joined to the scans on disk.

    settings: the content of the settings file `path` (pdsynth.yaml). Without a table in them, at most their `site` is
    known. keys: participant and session of each scan as the paths write them; session "" where there is none.

    Raises InputError if the settings name a table but no column of participants, if the table cannot be read or lacks a
    column that they name, or if a participant on disk has an unknown code of a diagnosis.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any], keys: Collection[Key]) -> None:
        site = settings.get("site")
        self.site = None if site is None else str(site)
        self.codes = diagnosis_codes(settings.get("diagnoses"))
        self.table: Table | None = None
        sessions: dict[str, list[str]] = {}
        for participant, session in sorted(keys):
            sessions.setdefault(participant, []).append(session)
        self._found = {name: Clinical(Row(), dict.fromkeys(own, Row())) for name, own in sessions.items()}
        if "table" not in settings:
            return
        columns = {str(word): str(name) for word, name in (settings.get("columns") or {}).items()}
        if "participant" not in columns:
            raise InputError(path, "has a table but no column of participants", "add the column to columns")
        schema = {
            word: Column((name,), KINDS.get(word, Text()), needed=True, identity=word in ("participant", "session"))
            for word, name in columns.items()
        }
        self.table = Table(path.parent / str(settings["table"]), schema)
        rows = join(self.table, self.table.rows, "participant", sessions, "sub")
        for name, own in rows.items():
            self._found[name] = clinical(self.table, own, name, sessions[name], strict=True)
        self._refuse_unknown(path, self.table, [row for own in rows.values() for row in own])

    def person(self, participant: str) -> dict[str, Any]:
        """Sex ("F" or "M"), site and education (years) of a participant, by these names; None where unknown.

        site is that of the table, else that of the settings. participant: the id as the paths on disk write it. Raises
        KeyError for another id.
        """
        row = self._found[participant].person
        return {"sex": sex_of(row), "site": row.text("site") or self.site, "education": row.number("education")}

    def visit(self, participant: str, session: str) -> dict[str, Any]:
        """Diagnosis (NC, MCI or AD), age (years) and scores of a session, by the names diagnosis, age and scores.

        An unknown diagnosis or age is None, and so is the diagnosis of a participant in none of these groups. scores
        holds those of "mmse" and "moca" that are known. participant, session: as the paths on disk write them; session
        "" where there is none. The data are those of the table's row for this session, else of the participant's row
        without a session. They are unknown without such a row, and, for a session without its own row, also if another
        row of the participant names a session that is not on disk. Raises KeyError if the participant or the session is
        not on disk.
        """
        row = self._found[participant].sessions[session]
        scores = {score: value for score in ("mmse", "moca") if (value := row.number(score)) is not None}
        code = row.text("diagnosis")
        return {
            "diagnosis": None if code is None else meaning(code, self.codes),
            "age": row.number("age"),
            "scores": scores,
        }

    def rejections(self) -> list[Rejection]:
        """The problems of the table's rows and cells that were found, with remedies; empty without a table.

        Cells are checked when `person` and `visit` read them, so call it after these.
        """
        return [] if self.table is None else self.table.notes.rejections()

    def _knows(self, code: str) -> bool:
        try:
            meaning(code, self.codes)
        except KeyError:
            return False
        return True

    def _refuse_unknown(self, path: Path, table: Table, rows: list[Row]) -> None:
        unknown = {code: row for row in rows if (code := row.text("diagnosis")) and not self._knows(code)}
        if unknown:
            codes = listed([f"{code!r} (line {row.line})" for code, row in unknown.items()])
            problem = f"has unknown codes of a diagnosis in the column {table.names['diagnosis']}: {codes}"
            remedy = f"map each code to NC, MCI, AD or {NA} in `diagnoses` of {path.name}"
            known = ", ".join(sorted(self.codes))
            raise InputError(table.path, problem, f"{remedy}, or leave the cells empty (codes that are known: {known})")
