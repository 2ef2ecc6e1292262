"""Folders of any structure. The user describes them in pdsynth.yaml: path patterns of the scans, and a table.

An example of pdsynth.yaml:

fmri: "{participant}/{session}/rest*.nii.gz"
dmri: "{participant}/{session}/dti*.nii.gz"
table: patients.csv
columns: {participant: id, session: visit, diagnosis: dx, age: years, sex: sex, site: ward}
diagnoses: {1: NC, 2: MCI, 3: AD}
"""

from __future__ import annotations

import re
from collections.abc import Collection, Hashable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from pdsynth.cohorts.choice import ANY, Select
from pdsynth.cohorts.cohort import Cohort, Rejection, Scan, Session, Subject
from pdsynth.cohorts.kinds import COMMON, SERIES, Item, Kind, Rule, Verdict, classify
from pdsynth.cohorts.layout import Layout
from pdsynth.cohorts.ledger import Ledger, refused_in
from pdsynth.cohorts.names import REMEDY, bids_label, contradiction, refuse_twins
from pdsynth.cohorts.patients import COLUMNS, Key, Patients
from pdsynth.cohorts.walk import walk
from pdsynth.schemas import SETTINGS, read_yaml
from pdsynth.types import NA, Diagnosis, InputError, Modality

KEYS = {"fmri", "dmri", "table", "columns", "diagnoses", "site"}
WILDCARDS = re.compile(r"(\{participant\}|\{session\}|\*+)")
MOST_WILDCARDS = 50  # in a pattern
MOST_STEPS = 200_000  # of the comparison of a name with a pattern, about 0.2 s; an ordinary pattern needs hundreds


def folder(root: str | Path, select: Select = ANY, tables: bool = True) -> Cohort:
    """Read a folder of any structure by the path patterns in its file pdsynth.yaml.

    Its entries `fmri` and `dmri` are patterns; one of them is enough. A pattern is a path below the folder. In it,
    {participant} and {session} match part of a name, and * matches any text without a slash. {participant} is required.
    All other entries are optional. `table` is the path of a CSV or TSV file with one row per participant, or one row
    per participant and session. `columns`, which a table needs, maps our names, participant (required), session,
    diagnosis, age, sex, site, education, mmse and moca, to the columns of the table. `diagnoses` maps further codes to
    NC, MCI and AD, and to "n/a" for a participant in none of these groups. `site` is the site of participants for whom
    the table has none.

    A scan whose file name has a part sub-* or ses-* with other letters and digits than the pattern matches is rejected.
    Without a {session} in the pattern, ses-* is rejected only in a name that starts with "sub-". If the argument
    `tables` is false, the table is not read, and `site` is ignored. select: leaves out scans by the key-value pairs of
    their file names (option --select).

    A row that cannot be read or joined, and a participant without a row, do not stop the reading. The cohort lists each
    in `rejected`, with reason and remedy.

    Raises InputError for invalid settings, for patterns that match no file, for two participants or sessions whose
    letters and digits are the same but for capitals, for an id without a letter or digit, for a table that cannot be
    read or lacks a named column, and for a code of a diagnosis that is not known.
    """
    root = Path(root)
    settings = _settings(root / SETTINGS)
    verdicts = _verdicts(root, settings)
    if not any(isinstance(v.session, tuple) and v.kind is not Kind.NOT_NEEDED for v in verdicts):
        raise InputError(root / SETTINGS, "has patterns that match no file", "compare them with the names on disk")
    keys = [v.session for v in verdicts if isinstance(v.session, tuple) and v.kind is Kind.CANDIDATE]
    exact = {_lower(key): key for key in keys}
    verdicts = [replace(v, session=exact.get(_lower(v.session), v.session)) for v in verdicts]
    ids = _ids(root, keys)
    patients = Patients(root / SETTINGS, settings if tables else {}, set(keys))
    ledger = Ledger(select)
    scans: dict[Key, dict[Modality, Scan]] = {}
    refused: dict[Key, dict[Modality, str]] = {}
    people: dict[str, list[Verdict]] = {participant: [] for participant, _ in keys}
    for verdict in verdicts:
        people.setdefault(_participant(root, verdict, people), []).append(verdict)
    for own in people.values():
        chosen, reasons = ledger.participant(own, _conflict)
        for (key, modality), scan in chosen.items():
            if isinstance(key, tuple):
                scans.setdefault(key, {})[modality] = scan
        for key in {key for key, _ in chosen if isinstance(key, tuple)}:
            refused[key] = refused_in(key, reasons, scans[key])
    subjects: dict[str, Subject] = {}
    for (participant, session), session_scans in sorted(scans.items()):
        participant_id, session_id = ids[participant, session]
        if participant not in subjects:
            subjects[participant] = Subject(participant_id, [], **patients.person(participant))
        clinical = patients.visit(participant, session)
        visit = Session(session_id, session_scans, refused=refused[participant, session], **clinical)
        subjects[participant].sessions.append(visit)
    ledger.rejected += patients.rejections()
    return ledger.cohort(root, list(subjects.values()))


LAYOUT = Layout(
    "folder",
    f"a {SETTINGS} with patterns of its scans",
    lambda root: (root / SETTINGS).exists(),
    folder,
    scans=partial(folder, tables=False),
    preferred_to=lambda root, other: True,
)


def _settings(path: Path) -> dict[str, Any]:
    settings = read_yaml(path, "write it as in the docs")
    if isinstance(settings, dict) and "cluster" in settings:
        remedy = f"move the entry `cluster` to a {SETTINGS} in the folder in which you start pdsynth"
        raise InputError(path, "has settings of a cluster, which do not belong into a dataset", remedy)
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


def _verdicts(root: Path, settings: dict[str, Any]) -> list[Verdict]:
    """The verdicts on all files below root. The session of a verdict is a `Key`, or None without a match.

    A file that matches a pattern only without regard to case or extension is a stand-in (see `Kind`), not a candidate.
    """
    patterns = [(m, *_tokens(root, settings[m.value])) for m in Modality if m.value in settings]
    verdicts = []
    for found in walk(root):
        matches = 0
        for modality, exact, loose in patterns:
            item = Item(found)
            try:
                parts = None if found.whole else _match(exact, "/".join((*found.dirs, found.name)))
                exactly = parts is not None
                if parts is None and item.is_image:
                    parts = _match(loose, "/".join((*found.dirs, item.stem)).lower())
            except _TooLongError:
                problem = f"has the pattern {settings[modality.value]!r}, which takes too long for {found.name}"
                raise InputError(root / SETTINGS, problem, "write fewer stars") from None
            if parts is not None:
                key = parts["participant"], parts.get("session", "")
                verdict = classify(replace(item, session=key, series=modality), SERIES)
                verdicts.append(verdict if exactly else _inexact(verdict, settings[modality.value]))
                matches += 1
        if not matches:
            verdicts.append(classify(Item(found), OTHERS))
    return verdicts


def _inexact(verdict: Verdict, pattern: str) -> Verdict:
    """The verdict on a file that fits a pattern but for capitals or its extension: a candidate becomes a stand-in."""
    if verdict.kind is not Kind.CANDIDATE:
        return verdict
    reason = f"fits the pattern {pattern!r} but for capitals or its extension"
    remedy = f"rename it, or change the pattern in {SETTINGS}"
    return replace(verdict, kind=Kind.STAND_IN, rule="another name than the pattern's", reason=reason, remedy=remedy)


OTHERS = (*COMMON, Rule(f"matches no pattern of {SETTINGS}", lambda item: True))


def _tokens(root: Path, pattern: str) -> tuple[list[str], list[str]]:
    """The tokens of a pattern, and those of the pattern in lower case without its extension.

    A token is a placeholder, one or more stars, or the text between them. Raises InputError for an invalid pattern.
    """
    tokens = [token for token in WILDCARDS.split(pattern) if token]
    if "{participant}" not in tokens:
        raise InputError(
            root / SETTINGS, f"has no {{participant}} in its pattern {pattern!r}", "write it in place of the id"
        )
    if len(tokens) > 2 * MOST_WILDCARDS:
        raise InputError(root / SETTINGS, f"has more than {MOST_WILDCARDS} stars in a pattern", "write fewer of them")
    bare = re.sub(r"\.(nii|img)(\.gz|\*)?$", "", pattern.lower())
    return tokens, [token for token in WILDCARDS.split(bare) if token]


def _lower(key: Hashable) -> Hashable:
    """Participant and session in lower case, as in a match without regard to case."""
    return (str(key[0]).lower(), str(key[1]).lower()) if isinstance(key, tuple) else None


def _participant(root: Path, verdict: Verdict, people: Collection[str]) -> str:
    """The participant of a file: that of its pattern, or one of `people` who names a folder above it; else ""."""
    if isinstance(verdict.session, tuple):
        return str(verdict.session[0])
    return next((part for part in verdict.path.relative_to(root).parts if part in people), "")


def _conflict(verdict: Verdict) -> Rejection | None:
    """The refusal of a scan whose name has another sub-* or ses-* than its pattern matches; None for any other scan."""
    participant, session = verdict.session if isinstance(verdict.session, tuple) else ("", "")
    own = f"sub-{_bare(participant)}", f"ses-{_bare(session)}" if session else ""
    problem = contradiction(verdict.path, *own, by_label=True)
    return None if problem is None else Rejection(verdict.path, problem, REMEDY)


class _TooLongError(Exception):
    """A pattern needs too many steps for a name."""


def _match(tokens: list[str], text: str) -> dict[str, str] | None:
    """The texts that {participant} and {session} match, if `text` matches the whole pattern; None otherwise.

    A star matches as many characters as possible, a placeholder as few as possible. A placeholder that occurs twice
    must match the same text. Failed states are remembered, so that the time is polynomial in the number of stars.
    Raises _TooLongError after MOST_STEPS steps.

    >>> _match(["scans/", "{participant}", "/", "*", "rest.nii"], "scans/P-01/a_rest.nii")
    {'participant': 'P-01'}
    """
    failed = set()
    steps = 0

    def rest(i: int, start: int, taken: dict[str, str]) -> dict[str, str] | None:
        nonlocal steps
        steps += 1
        if steps > MOST_STEPS:
            raise _TooLongError
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
    """The possible end positions in `text` of a token that starts at `start`, in order of preference.

    taken: the text that each placeholder has matched up to now.
    """
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
