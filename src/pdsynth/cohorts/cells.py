"""Kinds of a table's columns, and the values of their cells: numbers in a plausible range, codes, dates and texts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date

EMPTY = {
    *("", "n/a", "na", "nan", "n.a.", "#n/a", "<na>", "none", "null", "unknown", "missing", "not available"),
    *("-", "--", ".", "?"),
}
MISSING = frozenset(  # codes of archives and clinics for a missing number, where the number is out of its range
    map(float, (-1, -4, -8, -9, -99, -999, -9999, 77, 88, *range(95, 100), 777, 888, *range(995, 1000), 9999))
)
AMOUNT = re.compile(r"[<>≤≥=]*\s*([+-]?\d+(?:[.,]\d+)?(?:e[+-]?\d{1,3})?)\s*\+?\s*([a-z]*)\.?", re.IGNORECASE)
UNITS = {  # of an age, in years
    **dict.fromkeys(("", "y", "yr", "yrs", "year", "years", "yo"), 1.0),
    **dict.fromkeys(("m", "mo", "mos", "month", "months"), 1 / 12),
    **dict.fromkeys(("w", "wk", "wks", "week", "weeks"), 7 / 365.25),
    **dict.fromkeys(("d", "day", "days"), 1 / 365.25),
}
FIRST_YEAR = 1900
MONTHS = {
    name: number
    for number, name in enumerate(
        ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"], 1
    )
}
ISO = re.compile(r"(\d{4})([-/.]?)(\d{1,2})\2(\d{1,2})(?:[T ].*)?")
POINTS = re.compile(r"(\d{1,2})\.(\d{1,2})\.(\d{4})(?: .*)?")
SLASHES = re.compile(r"(\d{1,2})[/-](\d{1,2})[/-](\d{4})(?: .*)?")
WORDS = re.compile(r"(\d{1,2})[-/ .]+([A-Za-z]{3})[a-z]*[-/ ., ]+(\d{4})(?: .*)?")


@dataclass(frozen=True)
class Text:
    """The kind of a column whose cells may hold any text."""


@dataclass(frozen=True)
class Number:
    """The kind of a column whose cells hold numbers from low to high, both included.

    age: whether they are ages; low and high are then in years. A cell may give an age with a unit, such as "840
    months"; it is converted to years before it is compared with low and high. unit: the unit of an age whose cell gives
    none: "month", "week" or "day"; "" or "year" for years.
    """

    low: float
    high: float
    age: bool = False
    unit: str = ""

    def __str__(self) -> str:
        return f"numbers from {self.low:g} to {self.high:g}{' (years)' if self.age else ''}"


@dataclass(frozen=True)
class Code:
    """The kind of a column whose cells hold codes, which are whole numbers or words.

    known: the valid codes. missing: the codes that stand for a missing value. Both are in lower case and without
    decimals; a cell such as "1.0" or "AD" is compared as "1" or "ad". A code in neither set is recorded as a problem of
    the table (see `Row.code`).
    """

    known: frozenset[str]
    missing: frozenset[str] = frozenset()

    def __str__(self) -> str:
        return f"the codes {', '.join(sorted(self.known | self.missing))}"


@dataclass(frozen=True)
class Date:
    """The kind of a column whose cells hold dates, from 1 January 1900 until today.

    day_first: whether the day comes before the month in a date such as 2/3/2011, if no date of the column shows the
    order. None if this is unknown: such a date is then not read.
    """

    day_first: bool | None = None

    def __str__(self) -> str:
        return f"dates from {FIRST_YEAR} until today, such as 2011-02-03"


Kind = Text | Number | Code | Date
AGE, SCORE = Number(0, 120, age=True), Number(0, 30)  # MMSE and MoCA
EDUCATION, WEIGHT = Number(0, 40), Number(1, 400)  # years, kg


def amount(text: str, kind: Number) -> float | None:
    """The number in a cell, an age in years; None if it is not a number, or is out of the range of the column.

    kind: the kind of the column, with its range and, for an age, the unit of cells that give none. The decimal sign is
    a point or a comma. A cell with a comma before exactly three digits gives None, because the comma may separate
    thousands. Only an age may have a unit (years, months, weeks or days). A + after the number is ignored (BIDS writes
    high ages as 89+), and so is a sign such as < before it.

    >>> [amount(text, AGE) for text in ("70,5", "89+", "070Y", "840 months", "1,000", "840", "old")]
    [70.5, 89.0, 70.0, 70.0, None, None, None]
    """
    match = AMOUNT.fullmatch(text)
    if match is None or re.search(r",\d{3}(?!\d)", text):
        return None
    unit = match[2].lower() or kind.unit
    if unit not in UNITS or (unit and not kind.age):
        return None
    value = float(match[1].replace(",", ".")) * (UNITS[unit] if kind.age else 1.0)
    return value if kind.low <= value <= kind.high else None


def is_missing(text: str) -> bool:
    """Whether a cell holds a number, such as -4 or 999, that archives write for a missing value.

    These are -1, -4, -8, -9, -99, -999, -9999, 77, 88, 95 to 99, 777, 888, 995 to 999 and 9999 (MISSING). Some, such as
    88, may be a value: call this function only for a number out of the column's range.

    >>> is_missing("-4.0"), is_missing("70")
    (True, False)
    """
    match = AMOUNT.fullmatch(text)
    return match is not None and not match[2] and float(match[1].replace(",", ".")) in MISSING


def whole(text: str) -> str:
    """A code in lower case, without the decimals .0, .00, ,0 or ,00 that a spreadsheet adds to a whole number.

    >>> whole("1.0"), whole("AD")
    ('1', 'ad')
    """
    return re.sub(r"^(-?\d+)[.,]0{1,2}$", r"\1", text).lower()


def day_of(text: str, day_first: bool | None) -> int | None:
    """The day number of a date, as `date.toordinal` counts; None if it is ambiguous or not from 1900 until today.

    The forms are year-month-day (also with points, slashes or nothing in place of the hyphens), day.month.year, day
    month year with the month in English letters, and two numbers with slashes or hyphens before the year. The year has
    four digits; a time after the date is ignored. day_first: whether the first of the two numbers before the year is
    the day, if either of them can be the month; None if this is unknown.

    >>> [day_of(text, None) for text in ("2011-02-03", "3.2.2011", "03-Feb-2011", "2/28/2011")]
    [734171, 734171, 734171, 734196]
    >>> day_of("2/3/2011", None), day_of("2/3/2011", True), day_of("2/3/11", True), day_of("2011-13-03", None)
    (None, 734198, None, None)
    """
    if match := ISO.fullmatch(text):
        year, month, day = int(match[1]), int(match[3]), int(match[4])
        if not match[2] and len(match[3] + match[4]) < 4:
            return None
    elif match := POINTS.fullmatch(text):
        day, month, year = (int(part) for part in match.groups())
    elif match := WORDS.fullmatch(text):
        day, month, year = int(match[1]), MONTHS.get(match[2].lower(), 0), int(match[3])
    elif match := SLASHES.fullmatch(text):
        one, two, year = (int(part) for part in match.groups())
        order = order_of(text) if order_of(text) is not None else day_first
        if order is None and one != two:
            return None
        day, month = (one, two) if order else (two, one)
    else:
        return None
    try:
        found = date(year, month, day)
    except ValueError:
        return None
    return found.toordinal() if found.year >= FIRST_YEAR and found <= date.today() else None


def order_of(text: str) -> bool | None:
    """Whether the day comes first in a date of two numbers with slashes or hyphens and a year, such as 13/2/2011.

    None if both numbers or neither can be the month (at most 12), and for a text of another form.
    """
    match = SLASHES.fullmatch(text)
    if match is None or (int(match[1]) > 12) == (int(match[2]) > 12):
        return None
    return int(match[1]) > 12
