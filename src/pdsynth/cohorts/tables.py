"""Tables of a data archive: their file names may end in a download date, and column names may have any case."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from pdsynth.types import InputError

DATED = r"(_\d{1,2}[A-Za-z]{3}\d{4})?"
EMPTY = {"", "n/a", "na", "nan", "none", "null", "unknown"}


class Row:
    """One row of a table. Column names are matched without regard to case."""

    def __init__(self, path: Path, cells: dict[str, str]) -> None:
        self.path, self.cells = path, cells

    def text(self, *columns: str) -> str | None:
        """The cell of the first of the columns that the table has; None if it is empty or no column exists."""
        value = next((self.cells[c.lower()].strip() for c in columns if c.lower() in self.cells), "")
        return None if value.lower() in EMPTY else value

    def number(self, column: str, low: float, high: float, missing: frozenset[float] = frozenset()) -> float | None:
        """A number from low to high; None if the cell is empty or one of the column's codes for a missing value.

        Raises InputError for any other cell, because an unknown code is not a measurement.
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
                f"has {text!r} in the column {column}, which is neither {low:g} to {high:g} nor a missing-value code"
            )
            raise InputError(self.path, problem, "correct the cell, or leave it empty")
        return value

    def code(self, column: str, known: frozenset[str], missing: frozenset[str]) -> str | None:
        """A code of the column, written as a whole number; None if the cell is empty or a code for a missing value.

        Raises InputError for an unknown code.
        """
        text = self.text(column)
        code = None if text is None else text.removesuffix(".0")
        if code is None or code in missing:
            return None
        if code not in known:
            codes = ", ".join(sorted(known | missing))
            problem = f"has {text!r} in the column {column}, whose codes are {codes}"
            raise InputError(self.path, problem, "correct the cell, or leave it empty")
        return code


class Table:
    """The rows of a CSV file, or of a TSV file if its name ends in .tsv.

    Raises InputError if it is not a table, or if a column of `needed` is missing.
    """

    def __init__(self, path: Path, needed: tuple[str, ...] = ()) -> None:
        self.path = path
        separator, kind = ("\t", "tab-separated text") if path.suffix == ".tsv" else (",", "CSV")
        try:
            content = pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False, encoding="utf-8-sig")
        except (ValueError, OSError) as error:
            raise InputError(path, f"is not a table ({error})", f"save it as {kind} in UTF-8") from None
        self.columns = [str(column).strip().lower() for column in content.columns]
        missing = [column for column in needed if column.lower() not in self.columns]
        if missing:
            raise InputError(
                path, f"has no column {missing[0]}", f"add the column, save it as {kind}, or download it again"
            )
        self.content = content.to_numpy().tolist()

    def __iter__(self) -> Iterator[Row]:
        for cells in self.content:
            yield Row(self.path, dict(zip(self.columns, cells, strict=True)))


def find_table(folder: Path, name: str, needed: tuple[str, ...] = ()) -> Table | None:
    """The table NAME.csv or NAME_<download date>.csv in a folder or its direct subfolders; None without such a file.

    Raises InputError if there is more than one, because it is unknown which is valid.
    """
    pattern = re.compile(f"{re.escape(name)}{DATED}\\.csv", re.IGNORECASE)
    candidates = [*folder.glob("*.csv"), *folder.glob("*/*.csv"), *folder.glob("*.CSV"), *folder.glob("*/*.CSV")]
    matches = sorted({path for path in candidates if pattern.fullmatch(path.name)})
    if len(matches) > 1:
        names = " and ".join(path.name for path in matches)
        raise InputError(folder, f"contains {names}", "keep only the newest of them")
    return Table(matches[0], needed) if matches else None
