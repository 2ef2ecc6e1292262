"""Text of a table on disk: its encoding, and its lines as lists of cells.

TSV is read as BIDS defines it: a tab separates cells, and quotes have no meaning. CSV is read as spreadsheets write it.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pdsynth.types import InputError

SIGNATURES = (  # first bytes of files that are often renamed to .csv or .tsv
    (b"PK\x03\x04", "is a spreadsheet or a zip archive, not text", "save it as text from the spreadsheet program"),
    (b"\xd0\xcf\x11\xe0", "is a spreadsheet of Excel, not text", "save it as text from the spreadsheet program"),
    (b"\x1f\x8b", "is compressed", "decompress it"),
    (b"%PDF", "is a PDF, not a table", "export the table as text"),
)
BYTE_ORDER_MARKS = {  # the longer ones first: that of UTF-32 starts with that of UTF-16
    b"\xff\xfe\x00\x00": "utf-32",
    b"\x00\x00\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
POINTERS = ("version https://git-lfs", "/annex/objects/", "../.git/annex/objects/")
INVISIBLE = re.compile("[\ufeff\u200b\u200c\u200d\u2060]")  # byte order marks and spaces of no width
SEPARATORS = (",", ";", "\t", "|")
NAMES = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
MOST_LINES = 100  # of one record of a CSV file, whose quoted cells may contain line breaks


@dataclass(frozen=True)
class TableText:
    """The header and the rows of a table's file, as texts.

    header: the names of all columns. names: the names of the columns that the caller knows, in the order of the file.
    rows: line number in the file, where the first line is 1, and the cells of these columns, one item per row. refused:
    line number and problem of each line that cannot be read as a row.
    """

    header: list[str]
    names: list[str]
    rows: list[tuple[int, list[str]]]
    refused: list[tuple[int, str]]


def read_text(path: Path, known: frozenset[str]) -> TableText:
    """Read the header and rows of a table: TSV if its name ends in .tsv, otherwise CSV.

    known: names, in lower case, of the columns to return. The separator of a CSV file is the comma, semicolon, tab or
    vertical bar that splits most of these names from the header, or that of a line such as "sep=;" at the beginning.
    Empty rows are ignored. Empty cells beyond the header are removed. Rows with fewer cells than the header, or with
    filled cells beyond it, are in `refused`.

    Raises InputError if the file cannot be read as text or is empty, or if its header has a quote that is not closed.
    """
    lines = re.split(r"\r\n|\r|\n", decoded(path))
    tsv = path.suffix.lower() == ".tsv"
    named = re.fullmatch(r"\"?sep=([,;|\t:])\"?", lines[0].strip()) if not tsv else None  # written by Excel
    blank = re.compile(r"[\s\"]*" if tsv else r"[\s\",;|]*")
    texts = enumerate(INVISIBLE.sub("", line) for line in lines)
    first = next((i for i, text in texts if not blank.fullmatch(text) and not (i == 0 and named)), None)
    if first is None:
        raise InputError(path, "is not a table (it is empty)", "write a header and rows, or remove the file")
    if tsv:
        separator, (header, used) = "\t", (lines[first].split("\t"), 1)
    else:
        separator = named[1] if named else _separator(lines, first, known)
        header, used = _record(lines, first, separator)
        if header is None:
            raise InputError(path, f"has a quote in line {first + 1}, its header, that is not closed", "close it")
    header = [clean(name) for name in header]
    while header and not header[-1]:
        header.pop()
    places = [place for place, name in enumerate(header) if name.lower() in known]
    rows, refused = [], []
    for number, cells, problem in _records(lines, first + used, separator, tsv, len(header)):
        if problem is not None:
            refused.append((number, problem))
        elif any(clean(cell) for cell in cells):
            if len(cells) < len(header) or any(clean(cell) for cell in cells[len(header) :]):
                count = "1 cell" if len(cells) == 1 else f"{len(cells)} cells"
                refused.append((number, f"has {count}, and the header {len(header)}"))
            else:
                rows.append((number, [clean(cells[place]) for place in places]))
    return TableText(header, [header[place] for place in places], rows, refused)


def decoded(path: Path) -> str:
    """Read a text file whose encoding is not known.

    It is read as UTF-16 or UTF-32 if it begins with a byte order mark of these, and as UTF-16 if every second byte of
    its beginning is zero. Otherwise it is read as UTF-8, if that fails as Windows-1252, else as Latin-1. A byte order
    mark is removed. Raises InputError if the file cannot be read or is not text, such as a spreadsheet, a compressed
    file, a web page, or a pointer to a file that was not fetched.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        if path.is_symlink() and not path.exists():
            raise InputError(path, "is a link to a file that is not here", "fetch its content") from None
        if isinstance(error, FileNotFoundError):
            raise InputError(path, "does not exist", "check its name, or put it there") from None
        raise InputError(path, f"cannot be read ({error.strerror})", "allow to read it, or replace it") from None
    for start, problem, remedy in SIGNATURES:
        if content.startswith(start):
            raise InputError(path, problem, remedy)
    marked = next((name for mark, name in BYTE_ORDER_MARKS.items() if content.startswith(mark)), None)
    if marked is None and b"\0" in content:
        marked = _without_mark(content)
        if marked is None:
            raise InputError(path, "is not text (it contains zero bytes)", "copy it again, or save it as UTF-8")
    for encoding in (marked,) if marked else ("utf-8", "cp1252", "latin-1"):
        try:
            text = content.decode(encoding).lstrip("\ufeff")
        except UnicodeError:
            continue
        _refuse_pages(path, text[:1000])
        return text
    raise InputError(path, "is not text in UTF-16 or UTF-32", "save it as UTF-8")


def _without_mark(content: bytes) -> str | None:
    """The byte order of UTF-16 without a mark, if every second byte of the start is zero; otherwise None."""
    start = content[:200]
    if not any(start[0::2]):
        return "utf-16-be"
    return None if any(start[1::2]) else "utf-16-le"


def _refuse_pages(path: Path, start: str) -> None:
    if start.lstrip().startswith(POINTERS):
        raise InputError(path, "is a pointer to a file that was not fetched", "fetch it with git lfs or datalad")
    if start.lstrip().lower().startswith(("<!doctype html", "<html", "<?xml")):
        raise InputError(path, "is a web page, not a table", "download it again after logging in")


def clean(cell: str) -> str:
    """Remove invisible characters, spaces around a cell's text, and a pair of double quotes around the whole.

    Invisible are byte order marks and characters of no width (U+FEFF, U+200B to U+200D and U+2060). Spaces within the
    quotes, at their ends, are removed too.

    >>> clean(' "sub-01" ')
    'sub-01'
    """
    cell = INVISIBLE.sub("", cell).strip()
    return cell[1:-1].strip() if len(cell) > 1 and cell[0] == cell[-1] == '"' else cell


def _separator(lines: Sequence[str], first: int, known: frozenset[str]) -> str:
    """The separator that splits most known names from the header, and then most cells."""

    def score(separator: str) -> tuple[int, int]:
        header, _ = _record(lines, first, separator)
        names = [clean(name).lower() for name in header or ()]
        return len(known.intersection(names)), len(names)

    return max(SEPARATORS, key=score)


def _records(
    lines: Sequence[str], first: int, separator: str, tsv: bool, width: int
) -> Iterator[tuple[int, list[str], str | None]]:
    """Line number, cells and problem of each record from line `first`, which is counted from 0."""
    number = first
    while number < len(lines):
        line = lines[number]
        if tsv or '"' not in line:
            yield number + 1, line.split(separator), None
            number += 1
            continue
        cells, used = _record(lines, number, separator)
        whole = [line.count(separator) + 1 >= width for line in lines[number : number + used]]
        if cells is None:
            yield number + 1, [], "has a quote that is not closed"
        elif used > 1 and all(whole):
            for each in range(number, number + used):  # these lines may be rows, each with a stray quote
                yield each + 1, [], "has a quote that is closed in another row"
        else:
            yield number + 1, cells, None
        number += used


def _record(lines: Sequence[str], first: int, separator: str) -> tuple[list[str] | None, int]:
    """The cells of the CSV record that starts in a line, and its number of lines; None and 1 if its quotes are wrong.

    >>> _record(['1,"a,', 'b"', "2"], 0, ",")
    (['1', 'a,\\nb'], 2)
    """
    for used in range(1, min(MOST_LINES, len(lines) - first) + 1):
        text = "\n".join(lines[first : first + used])
        cells = _parsed(text, separator)
        if cells is not None:
            return cells, used
        if _parsed(f'{text}"', separator) is None:  # no quote is open at the end of the line: it is wrong before it
            break
    return None, 1


def _parsed(text: str, separator: str) -> list[str] | None:
    if '"' not in text:
        return text.split(separator)
    try:
        records = list(csv.reader([text], delimiter=separator, strict=True, skipinitialspace=True))
    except csv.Error:
        return None
    return records[0] if len(records) == 1 else None
