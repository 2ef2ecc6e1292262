"""Tables of participants and visits: each has a schema, and each problem of a cell or row is recorded by its line.

A cell that its column cannot have gives no value, and costs nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from pdsynth.cohorts.cells import EMPTY, Code, Date, Kind, Number, Text, amount, day_of, is_missing, order_of, whole
from pdsynth.cohorts.cohort import Rejection
from pdsynth.cohorts.text import NAMES, SEPARATORS, read_text
from pdsynth.types import InputError

DATED = r"(_\d{1,2}[A-Za-z]{3}\d{4})?( ?\(\d+\))?"  # date of the download, and the number that a browser adds
LONGEST = 40  # characters of a cell that a message quotes
LISTED = 10  # cells, lines or ids that one message lists
K = TypeVar("K", Number, Code, Date)
UNKNOWN_CODE = ""  # a cell with a code that its column does not have


@dataclass(frozen=True)
class Column:
    """A column that the program reads from a table.

    names: the names that it may have in the file, in the order of preference; capitals do not matter. kind: the values
    that its cells may hold. needed: whether a file without this column is refused. identity: whether its cells are ids,
    which may differ between rows of one participant without a contradiction.
    """

    names: tuple[str, ...]
    kind: Kind = field(default_factory=Text)
    needed: bool = False
    identity: bool = False


Schema = Mapping[str, Column]  # by our word for the column


class Notes:
    """The problems of one table's file, collected for the report of rejected files.

    A problem that occurs at several places of the file (lines or cells) becomes one item of the report, a `Rejection`.
    It lists the first ten places, and the number of the others.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.places: dict[tuple[str, str], list[str]] = {}

    def add(self, problem: str, place: str, remedy: str) -> None:
        """Record a problem, its place in the file (such as "line 7", or "" for the whole file) and its remedy.

        A place that is among the last ten recorded places of this problem is not recorded again.
        """
        places = self.places.setdefault((problem, remedy), [])
        if place and place not in places[-LISTED:]:
            places.append(place)

    def rejections(self) -> list[Rejection]:
        return [
            Rejection(self.path, " ".join((f"{problem}: {listed(places)}" if places else problem).split()), remedy)
            for (problem, remedy), places in self.places.items()
        ]


def listed(places: Sequence[str]) -> str:
    """The first ten texts, separated by commas, and the number of the others.

    >>> listed(["a", "b"]), listed(list("abcdefghijklm"))
    ('a, b', 'a, b, c, d, e, f, g, h, i, j and 3 more')
    """
    more = len(places) - LISTED
    return ", ".join(places[:LISTED]) + (f" and {more} more" if more > 0 else "")


class Row:
    """One row of a table, with methods that read its cells.

    Their argument `word` is the program's own name of a column, the key in the table's schema, such as "age". Row() has
    no cell. table: the row's table, with its schema and notes. cells: the text of each cell by word. line: number of
    the row's first line in the file, so that the row after a header in line 1 has 2; 0 for Row(). conflicts: words of
    the cells that count as unknown, because rows of the same id contradict each other.
    """

    def __init__(
        self,
        table: Table | None = None,
        cells: Mapping[str, str] | None = None,
        line: int = 0,
        conflicts: Iterable[str] = (),
    ) -> None:
        self.table, self.cells, self.line, self.conflicts = table, dict(cells or {}), line, frozenset(conflicts)

    def text(self, word: str) -> str | None:
        """The text of the row's cell in the column `word`.

        None if there is no such column, if the cell is empty or says "n/a", "unknown" or the like, or if rows of the
        same id contradict each other in it.
        """
        value = self.cells.get(word, "")
        return None if word in self.conflicts or value.lower() in EMPTY else value

    def filled(self, word: str) -> bool:
        """Whether the row's cell in the column `word` holds something, even if it is not valid.

        It is also true if the cell counts as unknown because rows of the same id contradict each other. A cell with
        "n/a", "unknown" or the like is not filled, nor is the cell of a column that the table lacks.
        """
        return word in self.conflicts or self.text(word) is not None

    def number(self, word: str) -> float | None:
        """The number in the row's cell of the column `word`; an age is in years.

        None if the cell has no text (see `text`), if this is not a number in the column's range, and if the column is
        absent or not one of numbers. A text that is not a number in the range is recorded in the table's notes, unless
        it is a number such as -4 or 999 that stands for a missing value.
        """
        text, kind = self.text(word), self._kind(word, Number)
        if text is None or kind is None:
            return None
        value = amount(text, kind)
        if value is None and not is_missing(text):
            self._note(word, text, kind)
        return value

    def code(self, word: str) -> str | None:
        """The code in the row's cell of the column `word`, in lower case.

        None if the cell has no text (see `text`), its code stands for a missing value, or there is no such column of
        codes. UNKNOWN_CODE, which is "", if the column does not have this code; this is recorded in the table's notes.
        """
        text, kind = self.text(word), self._kind(word, Code)
        if text is None or kind is None or (code := whole(text)) in kind.missing:
            return None
        if code in kind.known:
            return code
        self._note(word, text, kind)
        return UNKNOWN_CODE

    def day(self, word: str) -> int | None:
        """The day number, as `date.toordinal` counts, of the date in the row's cell of the column `word`.

        None if the cell has no text (see `text`), if its date is not valid, ambiguous, or not from 1900 until today, or
        if there is no such column of dates. A date that cannot be read is recorded in the table's notes.
        """
        text, kind = self.text(word), self._kind(word, Date)
        if text is None or kind is None or self.table is None:
            return None
        value = day_of(text, self.table.day_first(word))
        if value is None:
            self._note(word, text, kind)
        return value

    def note(self, problem: str, remedy: str, text: str = "") -> None:
        """Record a problem of the row, with its line number and the remedy, in the notes of its table.

        text: the content of the cell with the problem, which is quoted up to 40 characters; "" for none. Without a
        table nothing is recorded.
        """
        if self.table is not None:
            quoted = f"{text[:LONGEST]!r} " if text else ""
            self.table.notes.add(problem, f"{quoted}(line {self.line})", remedy)

    def _kind(self, word: str, expected: type[K]) -> K | None:
        column = self.table.schema.get(word) if self.table is not None else None
        return column.kind if column is not None and isinstance(column.kind, expected) else None

    def _note(self, word: str, text: str, kind: Kind) -> None:
        assert self.table is not None
        problem = f"has cells in the column {self.table.names[word]}, which holds {kind}, that were not read"
        self.note(problem, "correct these cells, or leave them empty", text)


class Table:
    """The rows of a CSV file, or of a TSV file if its name ends in .tsv.

    schema: the columns to read, by the program's own word for each; other columns are dropped. `rows`, and iteration,
    give the rows in the order of the file. `names` gives the names of the columns in the file, by word. Rows with fewer
    cells than the header, or with filled cells beyond it, are left out. A column whose name occurs twice over different
    cells is left out, too. Both are recorded in `notes`, the problems of the file.

    Raises InputError if the file is not a table, or if a needed column is missing or left out.
    """

    def __init__(self, path: Path, schema: Schema) -> None:
        self.path, self.schema, self.notes = path, schema, Notes(path)
        text = read_text(path, frozenset(name.lower() for column in schema.values() for name in column.names))
        self.names: dict[str, str] = {}  # by our words, the names of the columns in the file
        places: dict[str, int] = {}
        header = [name.lower() for name in text.names]
        for word, column in schema.items():
            name = next((name.lower() for name in column.names if name.lower() in header), None)
            if name is None and column.needed:
                raise InputError(path, *_no_column(path, column.names[0], text.header))
            if name is not None:
                places[word] = header.index(name)
                self.names[word] = text.names[places[word]]
                self._check_twin(word, [i for i, other in enumerate(header) if other == name], text.rows)
        self._note_lines(text.refused, len(text.header))
        self.rows = [
            Row(self, {word: cells[place] for word, place in places.items() if word in self.names}, line)
            for line, cells in text.rows
        ]
        self.refused = len(text.refused)
        self._day_first: dict[str, bool | None] = {}

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def day_first(self, word: str) -> bool | None:
        """Whether the day comes before the month in those dates of a column that are written as 2/3/2011.

        word: key of the column in the schema. The dates that can be read in one way only, such as 13/2/2011, decide. If
        there is none, it is the order that the schema states, or None if it states none. None if these dates disagree.
        """
        if word not in self._day_first:
            kind = self.schema[word].kind
            orders = {order_of(row.cells.get(word, "")) for row in self.rows} - {None}
            default = kind.day_first if isinstance(kind, Date) and not orders else None
            self._day_first[word] = orders.pop() if len(orders) == 1 else default
        return self._day_first[word]

    def _check_twin(self, word: str, places: list[int], rows: list[tuple[int, list[str]]]) -> None:
        """Drop a column whose name stands twice in the header over different cells.

        Raises InputError if the column is needed.
        """
        if all(len({cells[place] for place in places}) == 1 for _, cells in rows):
            return
        problem, remedy = f"has {len(places)} columns {self.names[word]} with different cells", "keep one of them"
        if self.schema[word].needed:
            raise InputError(self.path, problem, remedy)
        self.notes.add(f"{problem}; none was read", "", remedy)
        del self.names[word]

    def _note_lines(self, refused: list[tuple[int, str]], width: int) -> None:
        tsv = self.path.suffix.lower() == ".tsv"
        remedy = (
            "separate its cells by tabs, and write n/a for a missing one"
            if tsv
            else "write a separator per cell, and quotes around a text with one"
        )
        longer = f"has {width + 1} cells, and the header {width}"
        if len(refused) > 1 and all(problem == longer for _, problem in refused):
            remedy = "name each column in the header, also that of row numbers, and write decimals with a point"
        for line, problem in refused:
            self.notes.add(f"has rows that were not read, because a row {problem}", f"line {line}", remedy)


def _no_column(path: Path, name: str, header: list[str]) -> tuple[str, str]:
    """Problem and remedy for a header without a needed column."""
    problem = f"has no column {name}; its columns are {listed(header)}"
    if path.suffix.lower() == ".tsv" and len(header) == 1:
        words = {**{NAMES[s]: header[0].lower().split(s) for s in SEPARATORS}, "blanks": header[0].lower().split()}
        kind = next((kind for kind, parts in words.items() if len(parts) > 1 and name.lower() in parts), None)
        if kind is not None:
            return f"{problem}; it is separated by {kind}", "save it with tabs between the cells"
    return problem, "name the column so in the header, its first line, or download the table again"


def locate(folder: Path, name: str) -> Path | None:
    """The path of the table NAME.csv or NAME_<download date>.csv in a folder or its direct subfolders.

    NAME is `name`, in any case; the date is as in NAME_27Mar2024.csv. None if there is no such file. Raises InputError
    if there are several, because it is unknown which is valid, or if only a file of another format, such as NAME.xlsx,
    is there.
    """
    pattern = re.compile(f"{re.escape(name)}{DATED}\\.(csv|tsv|txt|xlsx?|ods|csv\\.gz|zip)", re.IGNORECASE)
    candidates = [*folder.glob("*.*"), *folder.glob("*/*.*")]
    matches = sorted(path for path in candidates if pattern.fullmatch(path.name))
    tables = [path for path in matches if path.suffix.lower() == ".csv"]
    if len(tables) > 1:
        names = " and ".join(path.name for path in tables)
        raise InputError(folder, f"contains {names}", "keep only the newest of them")
    if not tables and matches:
        raise InputError(matches[0], "is not a .csv file", "save it as CSV, or download it as CSV")
    return tables[0] if tables else None


def find_table(folder: Path, name: str, schema: Schema) -> Table | None:
    """Read the table NAME.csv or NAME_<download date>.csv in a folder or its direct subfolders; None without it.

    NAME is `name`. schema: the columns to read, by the program's own word for each. Raises InputError if there are
    several such files, if only a file of another format, such as NAME.xlsx, is there, if the file is not a table, or if
    it lacks a needed column.
    """
    path = locate(folder, name)
    return None if path is None else Table(path, schema)
