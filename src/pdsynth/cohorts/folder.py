"""A hospital's folders, as they are: patterns for the scans and a table, all named in one pdsynth.yaml.

fmri: "{participant}/{session}/rest*.nii.gz"
dmri: "{participant}/{session}/dti*.nii.gz"
table: patients.csv
columns: {participant: id, session: visit, diagnosis: dx, age: years, sex: sex, site: ward}
diagnoses: {1: NC, 2: MCI, 3: AD}
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import yaml

from pdsynth.cohorts.bids import CODES, SEX
from pdsynth.cohorts.cohort import Cohort, Rejection, Session, Subject
from pdsynth.cohorts.scans import best_run
from pdsynth.cohorts.tables import Row, Table
from pdsynth.types import Diagnosis, InputError, Modality

SETTINGS = "pdsynth.yaml"
KEYS = {"fmri", "dmri", "table", "columns", "diagnoses", "site"}
COLUMNS = ("participant", "session", "diagnosis", "age", "sex", "site", "education", "mmse", "moca")
Key = tuple[str, str]  # participant and session as the folders write them; "" where there is no session


def folder(root: str | Path) -> Cohort:
    """Read a folder by the patterns in its pdsynth.yaml.

    A pattern is a path below the folder in which {participant}, which each needs, and {session} stand for a part of a
    name and * for anything but a slash. `table` is a CSV or TSV file with a row a participant, or a participant and
    session; `columns` says which of its columns is which; `diagnoses` adds codes to the known ones.
    Raises InputError for settings that are not understood, a pattern that no file fits, and an unknown diagnosis.
    """
    root = Path(root)
    settings = _settings(root / SETTINGS)
    files: dict[Key, dict[Modality, list[Path]]] = {}
    for modality in Modality:
        for path, match in _matching(root, settings, modality):
            parts = match.groupdict()
            key = parts["participant"], parts.get("session") or ""
            files.setdefault(key, {}).setdefault(modality, []).append(path)
    if not files:
        raise InputError(root / SETTINGS, "has patterns that no file fits", "compare them with the names on disk")
    names = _names(root, {participant for participant, _ in files})
    table = _rows(root, settings)
    rejected: list[Rejection] = []
    subjects: dict[str, Subject] = {}
    for (participant, session), by_modality in sorted(files.items()):
        found = {m: best_run(paths, m, rejected) for m, paths in by_modality.items()}
        scans = {m: scan for m, scan in found.items() if scan is not None}
        if not scans:
            continue
        row = table.get((participant, session)) or table.get((participant, "")) or Row(root, {})
        if participant not in subjects:
            site = row.text("site") or settings.get("site")
            sex = SEX.get((row.text("sex") or "").lower())
            subjects[participant] = Subject(names[participant], [], sex, site, row.number("education", 0, 40))
        numbers = {score: row.number(score, 0, 30) for score in ("mmse", "moca")}
        visit = Session(
            f"ses-{_label(session)}" if session else "",
            scans,
            _diagnosis(row, settings, participant),
            row.number("age", 0, 120),
            scores={score: value for score, value in numbers.items() if value is not None},
        )
        subjects[participant].sessions.append(visit)
    return Cohort(root, list(subjects.values()), rejected)


def _settings(path: Path) -> dict[str, Any]:
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(path, f"cannot be read ({error})".replace("\n", " "), "write it as the docs show") from None
    if not isinstance(settings, dict) or not {"fmri", "dmri"} & settings.keys():
        raise InputError(
            path, "names no pattern for fmri or dmri", "write one such as fmri: '{participant}/rest.nii.gz'"
        )
    for unknown in sorted(set(map(str, settings)) - KEYS):
        raise InputError(path, f"has an entry {unknown!r}", f"choose among {', '.join(sorted(KEYS))}")
    for unknown in sorted(set(settings.get("columns") or {}) - set(COLUMNS)):
        raise InputError(path, f"names a column for {unknown!r}", f"choose among {', '.join(COLUMNS)}")
    for code, value in (settings.get("diagnoses") or {}).items():
        if value not in list(Diagnosis):
            raise InputError(path, f"maps the code {code!r} to {value!r}", "map it to NC, MCI or AD")
    return settings


def _matching(root: Path, settings: dict[str, Any], modality: Modality) -> list[tuple[Path, re.Match[str]]]:
    """The files that fit the modality's pattern, in the order of their names."""
    if modality.value not in settings:
        return []
    pattern = str(settings[modality.value])
    parts = re.split(r"(\{participant\}|\{session\}|\*)", pattern)
    seen: set[str] = set()
    expression = ""
    for part in parts:
        name = part.strip("{}")
        if part == "*":
            expression += "[^/]*"
        elif part in ("{participant}", "{session}"):
            expression += f"(?P={name})" if name in seen else f"(?P<{name}>[^/]+?)"
            seen.add(name)
        else:
            expression += re.escape(part)
    if "participant" not in seen:
        raise InputError(
            root / SETTINGS, f"has no {{participant}} in its pattern {pattern!r}", "say where its id stands"
        )
    compiled = re.compile(expression)
    paths = sorted(Path(place, name) for place, _, names in os.walk(root) for name in names)
    matches = [(path, compiled.fullmatch(path.relative_to(root).as_posix())) for path in paths]
    return [(path, match) for path, match in matches if match]


def _rows(root: Path, settings: dict[str, Any]) -> dict[Key, Row]:
    """The table's rows by participant and session, their cells by our words."""
    if "table" not in settings:
        return {}
    columns = settings.get("columns") or {}
    path = root / str(settings["table"])
    if "participant" not in columns:
        raise InputError(root / SETTINGS, "names a table but not its column of participants", "add it to columns")
    found: dict[Key, Row] = {}
    for row in Table(path, tuple(str(column) for column in columns.values())):
        cells = {word: row.text(str(column)) or "" for word, column in columns.items()}
        key = cells["participant"], cells.get("session", "")
        if key in found:
            raise InputError(path, f"lists {' '.join(key).strip()} twice", "keep one row for each")
        found[key] = Row(path, cells)
    return found


def _diagnosis(row: Row, settings: dict[str, Any], participant: str) -> Diagnosis | None:
    code = row.text("diagnosis")
    codes = CODES | {str(code).lower(): Diagnosis(value) for code, value in (settings.get("diagnoses") or {}).items()}
    if code is not None and code.lower() not in codes:
        problem = f"gives {participant} the diagnosis {code!r}, which is none of {', '.join(sorted(codes))}"
        raise InputError(row.path, problem, f"add the code to diagnoses in {SETTINGS}, or leave the cell empty")
    return None if code is None else codes[code.lower()]


def _names(root: Path, participants: set[str]) -> dict[str, str]:
    """BIDS's names, of letters and digits, by the folders' own."""
    names: dict[str, str] = {}
    for participant in sorted(participants):
        name = f"sub-{_label(participant)}"
        if name in names.values():
            other = next(p for p, n in names.items() if n == name)
            raise InputError(root, f"has participants {other} and {participant}, both {name}", "rename one of them")
        names[participant] = name
    return names


def _label(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]", "", re.sub(r"^(sub|ses)-", "", text))
