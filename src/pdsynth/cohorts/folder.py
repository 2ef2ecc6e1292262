"""Folders of any structure. The user describes them in pdsynth.yaml: path patterns of the scans, and a table.

An example of pdsynth.yaml:

fmri: "{participant}/{session}/rest*.nii.gz"
dmri: "{participant}/{session}/dti*.nii.gz"
table: patients.csv
columns: {participant: id, session: visit, diagnosis: dx, age: years, sex: sex, site: ward}
diagnoses: {1: NC, 2: MCI, 3: AD}
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from pdsynth.cohorts.cohort import Cohort, Rejection, Session, Subject
from pdsynth.cohorts.layout import Layout
from pdsynth.cohorts.names import bids_label, consistent_files, refuse_twins
from pdsynth.cohorts.patients import COLUMNS, Patients
from pdsynth.cohorts.scans import best_run
from pdsynth.types import NA, Diagnosis, InputError, Modality

SETTINGS = "pdsynth.yaml"
KEYS = {"fmri", "dmri", "table", "columns", "diagnoses", "site"}
WILDCARDS = re.compile(r"(\{participant\}|\{session\}|\*+)")
MOST_WILDCARDS = 50  # in a pattern
Key = tuple[str, str]  # participant and session as the paths and the table write them; "" for no session


def folder(root: str | Path, tables: bool = True) -> Cohort:
    """Read a folder by the patterns in its pdsynth.yaml.

    A pattern is a path below the folder. In it, {participant} and {session} match part of a name, and * matches any
    text without a slash. {participant} is required. `table` is a CSV or TSV file with one row per participant, or one
    row per participant and session. `columns` maps our column names to the table's. `diagnoses` maps further codes to
    NC, MCI and AD, and to "n/a" for a participant in none of these groups. A file whose name contains another sub-* or
    ses-* than the pattern matches is rejected. If `tables` is false, the table is not read.

    A row that cannot be read or joined, and a participant without a row, become a `Rejection`.

    Raises InputError for invalid settings, for patterns that match no file, for two participants or sessions that have
    the same letters and digits, and for an unknown diagnosis.
    """
    root = Path(root)
    settings = _settings(root / SETTINGS)
    files: dict[Key, dict[Modality, list[Path]]] = {}
    for modality in Modality:
        for path, parts in _matching(root, settings, modality):
            key = parts["participant"], parts.get("session", "")
            files.setdefault(key, {}).setdefault(modality, []).append(path)
    if not files:
        raise InputError(root / SETTINGS, "has patterns that match no file", "compare them with the names on disk")
    ids = _ids(root, files)
    patients = Patients(root / SETTINGS, settings if tables else {}, files)
    rejected: list[Rejection] = []
    subjects: dict[str, Subject] = {}
    for (participant, session), by_modality in sorted(files.items()):
        own = f"sub-{_bare(participant)}", f"ses-{_bare(session)}" if session else ""
        found = {
            m: best_run(consistent_files(p, *own, rejected, by_label=True), m, rejected) for m, p in by_modality.items()
        }
        scans = {m: scan for m, scan in found.items() if scan is not None}
        if not scans:
            continue
        participant_id, session_id = ids[participant, session]
        if participant not in subjects:
            subjects[participant] = Subject(participant_id, [], **patients.person(participant))
        visit = Session(session_id, scans, **patients.visit(participant, session))
        subjects[participant].sessions.append(visit)
    return Cohort(root, list(subjects.values()), rejected + patients.rejections())


LAYOUT = Layout(
    "folder",
    f"a {SETTINGS} with patterns of its scans",
    lambda root: (root / SETTINGS).exists(),
    folder,
    scans=partial(folder, tables=False),
    preferred_to=lambda root, other: True,
)


def _settings(path: Path) -> dict[str, Any]:
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except Exception as error:  # the YAML reader raises errors of many types
        raise InputError(path, f"cannot be read ({error})".replace("\n", " "), "write it as in the docs") from None
    if not isinstance(settings, dict) or not {"fmri", "dmri"} & settings.keys():
        raise InputError(path, "has no pattern for fmri or dmri", "write one such as fmri: '{participant}/rest.nii.gz'")
    for unknown in sorted(set(map(str, settings)) - KEYS):
        raise InputError(path, f"has an unknown entry {unknown!r}", f"choose among {', '.join(sorted(KEYS))}")
    _check_kinds(path, settings)
    for unknown in sorted(set(map(str, settings.get("columns") or {})) - set(COLUMNS)):
        raise InputError(path, f"has a column for {unknown!r}, which is unknown", f"choose among {', '.join(COLUMNS)}")
    for code, value in (settings.get("diagnoses") or {}).items():
        if value not in (*Diagnosis, NA):
            raise InputError(path, f"maps the code {code!r} to {_described(value)}", f"map it to NC, MCI, AD or {NA}")
    return settings


def _check_kinds(path: Path, settings: dict[str, Any]) -> None:
    """Raise InputError if an entry has the wrong type, such as a list instead of a text."""
    for key in settings.keys() & {"fmri", "dmri", "table"}:
        if not isinstance(settings[key], str):
            raise InputError(path, f"has {_described(settings[key])} as {key}", "write a text, in quotes")
    site, examples = settings.get("site"), {"columns": "{participant: id}", "diagnoses": "{1: NC}"}
    if site is not None and not _is_word(site):
        raise InputError(path, f"has {_described(site)} as site", "write a text, in quotes")
    for key, example in examples.items():
        if not isinstance(settings.get(key), dict | None):
            raise InputError(path, f"has {_described(settings[key])} as {key}", f"write it as {key}: {example}")
    for word, column in (settings.get("columns") or {}).items():
        if not _is_word(column):
            raise InputError(path, f"has {_described(column)} as the column of {word}", "write its name, in quotes")


def _is_word(value: object) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)  # `no` is a bool in YAML


def _described(value: object) -> str:
    """A value as text for a message; only the type of a list or mapping, which may be long."""
    if value is None:
        return "nothing"
    return repr(value) if isinstance(value, str | int | float) else f"a {type(value).__name__}"


def _matching(root: Path, settings: dict[str, Any], modality: Modality) -> list[tuple[Path, dict[str, str]]]:
    """The files that match the modality's pattern, sorted, each with the texts that its placeholders match."""
    if modality.value not in settings:
        return []
    pattern = settings[modality.value]
    tokens = [token for token in WILDCARDS.split(pattern) if token]
    if "{participant}" not in tokens:
        raise InputError(
            root / SETTINGS, f"has no {{participant}} in its pattern {pattern!r}", "write it in place of the id"
        )
    if len(tokens) > 2 * MOST_WILDCARDS:
        raise InputError(root / SETTINGS, f"has more than {MOST_WILDCARDS} stars in a pattern", "write fewer of them")
    paths = sorted(Path(parent, name) for parent, _, names in os.walk(root) for name in names)
    matches = [(path, _match(tokens, path.relative_to(root).as_posix())) for path in paths]
    return [(path, match) for path, match in matches if match is not None]


def _match(tokens: list[str], text: str) -> dict[str, str] | None:
    """The texts that {participant} and {session} match, if `text` matches the whole pattern; None otherwise.

    A star matches as many characters as possible, a placeholder as few as possible. A placeholder that occurs twice
    must match the same text. Failed states are remembered, so that the time is polynomial in the number of stars.

    >>> _match(["scans/", "{participant}", "/", "*", "rest.nii"], "scans/P-01/a_rest.nii")
    {'participant': 'P-01'}
    """
    failed = set()

    def rest(i: int, start: int, taken: dict[str, str]) -> dict[str, str] | None:
        if i == len(tokens):
            return taken if start == len(text) else None
        state = (i, start, *(taken[name] for name in taken if f"{{{name}}}" in tokens[i:]))
        if state in failed:
            return None
        for end in _ends(tokens[i], text, start, taken):
            name = tokens[i][1:-1] if tokens[i].startswith("{") else None
            found = rest(i + 1, end, taken if name is None else taken | {name: text[start:end]})
            if found is not None:
                return found
        failed.add(state)
        return None

    return rest(0, 0, {})


def _ends(token: str, text: str, start: int, taken: dict[str, str]) -> Iterable[int]:
    """The possible end positions of a token that starts at `start`, in order of preference."""
    slash = text.find("/", start)
    last = len(text) if slash < 0 else slash
    if token.startswith("*"):
        return range(last, start - 1, -1)
    fixed = token if token not in ("{participant}", "{session}") else taken.get(token[1:-1])
    if fixed is None:
        return range(start + 1, last + 1)
    return [start + len(fixed)] if text.startswith(fixed, start) else []


def _ids(root: Path, keys: Collection[Key]) -> dict[Key, tuple[str, str]]:
    """BIDS identifiers of participant and session (letters and digits only) by their names on disk."""
    ids = {(p, s): (_id(root, "sub", p), _id(root, "ses", s) if s else "") for p, s in keys}
    refuse_twins(root, "participants", [(p, ids[p, s][0]) for p, s in keys])
    refuse_twins(root, "sessions", [(f"{p} {s}".strip(), "_".join(ids[p, s])) for p, s in keys])
    return ids


def _id(root: Path, kind: str, name: str) -> str:
    label = bids_label(_bare(name))
    if not label:
        raise InputError(root, f"has a name {name!r} without any letter or digit (a to z, 0 to 9)", "rename it")
    return f"{kind}-{label}"


def _bare(text: str) -> str:
    return re.sub(r"^(sub|ses)-", "", text)
