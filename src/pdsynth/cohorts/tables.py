"""Tables of an archive: found by name with or without a download date, headers in any case, codes column by column."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from pdsynth.types import InputError

DATED = r"(_\d{1,2}[A-Za-z]{3}\d{4})?"
EMPTY = {"", "n/a", "na", "nan", "none", "null", "unknown"}


class Row:
    """One row of a table; a cell is asked for by its column in any case."""

    def __init__(self, path: Path, cells: dict[str, str]) -> None:
        self.path, self.cells = path, cells

    def text(self, *columns: str) -> str | None:
        """The first of the columns that the table has; None where it is empty or the table has none of them."""
        value = next((self.cells[c.lower()].strip() for c in columns if c.lower() in self.cells), "")
        return None if value.lower() in EMPTY else value

    def number(self, column: str, low: float, high: float, missing: frozenset[float] = frozenset()) -> float | None:
        """A number from low to high; None where it is empty or one of the column's codes for a missing value.

        Raises InputError for anything else: a code that is not known is no measurement.
        """
        text = self.text(column)
        if text is None:
            return None
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if value in missing:
            return None
        if not low <= value <= high:
            problem = (
                f"has {text!r} in the column {column}, which is neither {low:g} to {high:g} nor a code for missing"
            )
            raise InputError(self.path, problem, "correct the cell, or leave it empty")
        return value

    def code(self, column: str, known: frozenset[str], missing: frozenset[str]) -> str | None:
        """A code that the column's form knows, written as a whole number; None where it is empty or means missing.

        Raises InputError for any other.
        """
        text = self.text(column)
        code = None if text is None else text.removesuffix(".0")
        if code is None or code in missing:
            return None
        if code not in known:
            problem = f"has {text!r} in the column {column}, where the form knows {', '.join(sorted(known | missing))}"
            raise InputError(self.path, problem, "correct the cell, or leave it empty")
        return code


class Table:
    """A CSV file, or a TSV file by its name, by row."""

    def __init__(self, path: Path, needed: tuple[str, ...] = ()) -> None:
        self.path = path
        separator, kind = ("\t", "tab-separated text") if path.suffix == ".tsv" else (",", "CSV")
        try:
            content = pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False, encoding="utf-8-sig")
        except (ValueError, OSError) as error:
            raise InputError(path, f"is no table ({error})", f"save it as {kind} in UTF-8") from None
        self.columns = [str(column).strip().lower() for column in content.columns]
        lacking = [column for column in needed if column.lower() not in self.columns]
        if lacking:
            raise InputError(
                path, f"has no column {lacking[0]}", f"add the column, save it as {kind}, or download it again"
            )
        self.content = content.to_numpy().tolist()

    def __iter__(self) -> Iterator[Row]:
        for cells in self.content:
            yield Row(self.path, dict(zip(self.columns, cells, strict=True)))


def find_table(folder: Path, name: str, needed: tuple[str, ...] = ()) -> Table | None:
    """The table NAME.csv or NAME_<download date>.csv, in the folder or one of the folders in it; None without one.

    Raises InputError where there is more than one: which of them is true can't be known.
    """
    pattern = re.compile(f"{re.escape(name)}{DATED}\\.csv", re.IGNORECASE)
    places = [*folder.glob("*.csv"), *folder.glob("*/*.csv"), *folder.glob("*.CSV"), *folder.glob("*/*.CSV")]
    found = sorted({path for path in places if pattern.fullmatch(path.name)})
    if len(found) > 1:
        names = " and ".join(path.name for path in found)
        raise InputError(folder, f"holds {names}", "keep the newest of them alone")
    return Table(found[0], needed) if found else None
