"""Joins the rows of a table to the participants and sessions on disk, and records rows and folders without a partner.

Spreadsheets remove leading zeros from ids, and people remove or add prefixes. Such an id is joined only if one id of
the table and one name on disk are alike. Equal ids come first.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from pdsynth.cohorts.cells import EMPTY, Number, amount
from pdsynth.cohorts.cohort import NOTHING_NEEDED
from pdsynth.cohorts.tables import Row, Table, listed

PREFIX = {"sub": r"sub(?:j|ject)?", "ses": r"sess?(?:ion)?"}
KINDS = {"sub": "participants", "ses": "sessions"}
ISO_DATE = re.compile(r"(\d{4})-(\d{2})-(\d{2})")
REPEATED = (
    "if the rows are visits, give each session its row in sessions.tsv; if an id is mistyped, correct it; else remove "
    "the wrong row"
)


def bare(text: str, kind: str) -> str:
    """An id without the prefix "sub-" or "ses-" (kind is "sub" or "ses"), and without spaces around it.

    Characters of compatible forms, such as full-width digits, become the usual ones (Unicode's NFKC).

    >>> bare("sub-01", "sub"), bare("01", "sub")
    ('01', '01')
    """
    return unicodedata.normalize("NFKC", text).strip().removeprefix(f"{kind}-")


def label(text: str, kind: str) -> str:
    """An id in a form for comparison: lower case, no prefix such as "sub-", no spaces, hyphens and underscores.

    Between digits, spaces, hyphens and underscores stay, but not those of a date. kind is "sub" for a participant's id,
    or "ses" for a session's.

    >>> label("Sub_P-01", "sub"), label("027_S_0074", "sub"), label("1-2", "sub"), label("2011-02-03", "ses")
    ('p01', '027s0074', '1-2', '20110203')
    """
    text = bare(text, kind).casefold()
    text = ISO_DATE.sub(r"\1\2\3", text)
    text = re.sub(rf"^(?:{PREFIX[kind]})(?:[\s_-]+(?=\w)|(?=\d))", "", text)
    return re.sub(r"(?<!\d)[\s_-]+|[\s_-]+(?!\d)", "", text)


def number(text: str, kind: str) -> str:
    """An id in the form of `label`, but without leading zeros and the decimals that a spreadsheet adds.

    It is in lower case, without a prefix such as "sub-", and without spaces, hyphens and underscores except between
    digits. Zeros are removed only from an id with a single number, at its end. kind is "sub" for a participant's id, or
    "ses" for a session's.

    >>> number("007", "sub"), number("7.0", "sub"), number("P-07", "sub"), number("027_S_0074", "sub")
    ('7', '7', 'p7', '027s0074')
    """
    text = re.sub(r"^(\d+)[.,]0{1,2}$", r"\1", label(text, kind))  # three zeros may be thousands
    match = re.fullmatch(r"(\D*?)0*(\d+)", text)
    return f"{match[1]}{match[2]}" if match else text


@dataclass(frozen=True)
class Matches:
    """The names on disk to which the ids of a table belong.

    names: the name on disk of each id that belongs to one. several: for each id that is like a name but was not joined,
    all names that it is like: two or more, or only one if another id belongs to this name or is like it too. An id that
    is like no name is in neither.
    """

    names: dict[str, str]
    several: dict[str, list[str]]


def matches(ids: Iterable[str], names: Iterable[str], kind: str) -> Matches:
    """Find the name on disk to which each id of a table belongs; kind is "sub" (participants) or "ses" (sessions).

    Three comparisons are made in turn: of ids without the prefix; of ids without prefix, capitals and separators (see
    `label`); and of ids also without leading zeros and the decimals of a spreadsheet (see `number`). Ids that are equal
    without their prefix belong to the same name. In the other comparisons, an id is joined only if no other id and no
    other name are like it, and if no id belongs to the name yet. See `Matches` for the ids that are not joined.

    >>> matches(["1", "sub-2"], ["sub-01", "sub-02"], "sub").names
    {'1': 'sub-01', 'sub-2': 'sub-02'}
    >>> matches(["1"], ["sub-01", "sub-001"], "sub")
    Matches(names={}, several={'1': ['sub-001', 'sub-01']})
    """
    ids, names = sorted(set(ids)), sorted(set(names))
    exact = {bare(name, kind): name for name in names}
    joined = {text: exact[bare(text, kind)] for text in ids if bare(text, kind) in exact}
    several: dict[str, list[str]] = {}
    for form in (label, number):
        alike_ids, alike_names = _by(form, {bare(text, kind) for text in ids}, kind), _by(form, names, kind)
        taken = set(joined.values())
        for text in ids:
            found = alike_names.get(form(text, kind), [])
            if text in joined or not found:
                continue
            if len(found) == 1 and found[0] not in taken and len(alike_ids[form(text, kind)]) == 1:
                joined[text] = found[0]
            else:
                several[text] = found
    return Matches(joined, {text: found for text, found in several.items() if text not in joined})


def _by(form: Callable[[str, str], str], texts: Iterable[str], kind: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for text in texts:
        found[form(text, kind)].append(text)
    return found


def join(
    table: Table, rows: Sequence[Row], word: str, names: Collection[str], kind: str, whose: str = "", every: bool = True
) -> dict[str, list[Row]]:
    """The rows of a table that belong to each name on disk, by their ids. Names without a row are absent.

    rows: those of the table to join. word: the program's word for the column of ids, a key of the table's schema.
    names: ids on disk, of participants (kind "sub") or sessions ("ses"). whose: for sessions, the participant, for
    messages. Rows and names without a partner, and filled rows without an id, are recorded in the notes (problems) of
    the table; names without a row are not, if `every` is false.
    """
    found = matches((row.cells[word] for row in rows), names, kind)
    result: dict[str, list[Row]] = {}
    plural, of = KINDS[kind], f" of {whose}" if whose else ""
    example = min(names, default=f"{kind}-01")
    first = {row.cells[word]: row for row in reversed(rows)}  # a message names an id once
    for row in rows:
        text = row.cells[word]
        if text.lower() in EMPTY:
            if any(row.text(other) is not None for other in row.cells):
                row.note(f"has rows without {table.names[word]}", "write the id, or remove the row")
        elif text in found.names:
            result.setdefault(found.names[text], []).append(row)
        elif text in found.several:
            alike = f"{text} (line {first[text].line}) is like {listed(found.several[text])}"
            problem = (
                f"has rows of {plural}{of} whose ids are like several on disk or in the table, and were not joined"
            )
            table.notes.add(problem, alike, "find out whose row it is, and write this id in full, as on disk")
        else:
            remedy = (
                f"{NOTHING_NEEDED} if their scans are elsewhere; if you expect the scans here, check that the folder "
                f"was copied and has the same id, written like {example}"
            )
            first[text].note(f"has rows of {plural}{of} that are not on disk", remedy, text)
    absent = sorted(set(names) - result.keys())
    if absent and every:
        remedy = (
            f"{NOTHING_NEEDED} if diagnosis and age are unknown; otherwise add a row for each, or check how its id is "
            "written"
        )
        table.notes.add(f"has no row for the {plural}{of} {listed(absent)}", "", remedy)
    return result


def merged(rows: Sequence[Row], whose: str, quiet: bool = False) -> Row:
    """One row for several rows of one id: cells that differ between them are conflicts, whose value is unknown.

    Conflicts are recorded in the notes (problems) of the table under the name `whose`, unless `quiet` is true. An empty
    and a filled cell differ, too; texts that differ in capitals and equal numbers do not. In columns of ids, which may
    differ, the first row counts. Without a row the result is Row(), which has no cell; a single row is returned as it
    is.
    """
    if len(rows) < 2:
        return rows[0] if rows else Row()
    first, table = rows[0], rows[0].table
    assert table is not None
    words = [word for word in first.cells if not table.schema[word].identity]
    conflicts = [word for word in words if not all(_equal(first, row, word) for row in rows)]
    if conflicts and not quiet:
        lines = " and ".join(str(row.line) for row in rows)
        names = ", ".join(table.names[word] for word in conflicts)
        problem = f"has rows of one id that contradict each other in {names}; these cells were not read"
        table.notes.add(problem, f"{whose} (lines {lines})", REPEATED)
    return Row(table, first.cells, first.line, conflicts)


def _equal(one: Row, other: Row, word: str) -> bool:
    """Whether two rows have the same cell in the column of the word.

    The cells are compared as text without regard to case, and in a column of numbers also as numbers.
    """
    texts = [row.cells.get(word, "") for row in (one, other)]
    if texts[0].lower() == texts[1].lower():
        return True
    kind = one.table.schema[word].kind if one.table is not None else None
    if not isinstance(kind, Number):
        return False
    values = [amount(text, kind) for text in texts]
    return values[0] is not None and values[0] == values[1]


@dataclass(frozen=True)
class Clinical:
    """The rows of a table for one participant: one for data of the person, and one per session, by its name on disk."""

    person: Row
    sessions: Mapping[str, Row]


def clinical(table: Table, rows: Sequence[Row], whose: str, sessions: Collection[str], strict: bool) -> Clinical:
    """Divide the rows of one participant among the sessions on disk, by the table's column of sessions.

    rows: the participant's. whose: the participant's id, for messages. sessions: names on disk. If no row names a
    session, or without sessions on disk (sessions is [""]), the rows are merged into one, which each session has.
    Unless `strict`, the same applies to a participant with a single row. Otherwise a session has the row of its name,
    or several such rows merged. A session without a row of its name has the merged rows that name no session, or Row()
    if there are none; but if a row of the participant fits no session on disk, all its cells are unknown, because that
    row may be its own. The row of the person merges the rows that name no session, or else all, whose conflicts are
    then not recorded.
    """
    visits = [row for row in rows if row.text("session") is not None]
    if not visits or list(sessions) == [""] or (len(rows) == 1 and not strict):
        person = merged(rows, whose)
        return Clinical(person, dict.fromkeys(sessions, person))
    whole = [row for row in rows if row.text("session") is None]
    found = join(table, visits, "session", sessions, "ses", whose)
    default = merged(whole, whose)
    if sum(map(len, found.values())) < len(visits):
        default = unknown(table)
    by_session = {s: merged(found[s], f"{whose} {s}") if s in found else default for s in sessions}
    return Clinical(merged(whole or rows, whose, quiet=True), by_session)


def unknown(table: Table) -> Row:
    """A row of the table whose cells all count as filled but unknown, for data that exist but cannot be assigned."""
    return Row(table, {}, 0, table.schema)
