"""Tables of results as tab-separated text, and tables whose rows are instances of one dataclass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar, get_type_hints

import pandas as pd

from pdsynth import files, schemas
from pdsynth.statistics.resampling import Estimate
from pdsynth.types import NA, InputError

Row = TypeVar("Row")
Kind = type[Any]
ENDS = ("", "_low", "_high")  # of the columns of an Estimate: value and 95 % interval
BOOLEANS = {"True": True, "False": False}
CELLS = {float: schemas.Score, bool: Literal["True", "False"]}  # types of the cells of a column
AGAIN = "run the command that wrote it again"


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table of results: tabs between columns, six significant digits, n/a for unknown values."""
    files.write_table(path, table, float_format="%.6g", na_rep=NA)


def read_table(path: Path, text: Sequence[str] = ()) -> pd.DataFrame:
    """Read a table that `write_table` wrote: "n/a" becomes NaN, other cells stay as they are.

    text: names of the columns that are read as text; the type of the others follows from their cells.
    """
    return schemas.read_table(path, dict.fromkeys(text, str), AGAIN, text=text, na_values=[NA])


def read_by_site(path: Path) -> pd.DataFrame:
    """Read a tab-separated table whose column `site` is read as text; an empty site or "n/a" becomes "n/a".

    In other columns, empty cells and "n/a" become NaN.
    """
    table = schemas.read_table(path, {"site": str}, AGAIN, text=["site"], na_values=["", NA])
    return table.assign(site=table["site"].fillna(NA))


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table, each as a dictionary of its cells by column.

    >>> records(pd.DataFrame({"name": ["a"], "n": [1]}))
    [{'name': 'a', 'n': 1}]
    """
    return [{str(name): cell for name, cell in row.items()} for row in table.to_dict("records")]


@dataclass(frozen=True)
class TableFile(Generic[Row]):
    """A table in a results folder whose rows are instances of one dataclass: how to write and to read it.

    name: file name. row: the dataclass. command: the command that writes the file, for error messages. Each field of
    the dataclass is one column of type str, int, float (unknown: nan, "n/a" in the file), bool or StrEnum. A field of
    type `Estimate` (a value with its interval) has three columns: name, name_low and name_high. The type of a text may
    be annotated with a rule of pydantic that its cells must fit.

    >>> @dataclass
    ... class Person:
    ...     name: str
    ...     slope: Estimate
    >>> TableFile("people.tsv", Person, "pdsynth roi").table([Person("a", Estimate(0.5, 0.1, 0.9))])
      name  slope  slope_low  slope_high
    0    a    0.5        0.1         0.9
    """

    name: str
    row: type[Row]
    command: str

    @property
    def kinds(self) -> dict[str, Kind]:
        """The type of each field of the dataclass of a row, by name: str, int, float, bool, a StrEnum, or Estimate."""
        hints = get_type_hints(self.row)
        return {field.name: hints[field.name] for field in fields(self.row)}  # type: ignore[arg-type]

    @property
    def columns(self) -> dict[str, Kind]:
        """The type of each column, by name, in the order of the file.

        A field of type Estimate (a value with its 95 % interval) has three columns: name, name_low and name_high.
        """
        found: dict[str, Kind] = {}
        for name, kind in self.kinds.items():
            found |= {f"{name}{end}": float for end in ENDS} if kind is Estimate else {name: kind}
        return found

    def table(self, rows: Sequence[Row]) -> pd.DataFrame:
        """The rows (instances of the dataclass) as a table with the columns of the file."""
        kinds = self.kinds
        cells = [
            {column: cell for name in kinds for column, cell in _cells(name, getattr(row, name)).items()}
            for row in rows
        ]
        table = pd.DataFrame(cells, columns=list(self.columns))
        return table.astype({name: kind for name, kind in self.columns.items() if kind in (int, float, bool)})

    def write(self, root: Path, rows: Sequence[Row]) -> None:
        """Write the rows (instances of the dataclass) as this file into the results folder `root`."""
        write_table(root / self.name, self.table(rows))

    def read(self, root: Path) -> list[Row]:
        """The rows of this file in the results folder `root`, as instances of the dataclass; [] if there is no file.

        Columns without a field are ignored. Raises InputError if a column is missing, or if a cell does not have the
        type of its column.
        """
        path, kinds = root / self.name, self.kinds
        if not path.exists():
            return []
        again, text = f"run `{self.command}` again", [n for n, kind in self.columns.items() if issubclass(kind, str)]
        schema = get_type_hints(self.row, include_extras=True)
        cells = {name: CELLS.get(kind) or schema[name] for name, kind in self.columns.items()}
        table = schemas.read_table(path, cells, again, text=text, na_values=[NA])
        try:
            return [
                self.row(**{name: _value(cells, name, kind) for name, kind in kinds.items()})
                for cells in records(table)
            ]
        except (ValueError, KeyError) as error:
            raise InputError(path, f"has a cell that cannot be read ({error})", again) from error


def _cells(name: str, value: Any) -> dict[str, Any]:
    if isinstance(value, Estimate):
        return value.columns(name)
    return {name: str(value) if isinstance(value, StrEnum) else value}


def _value(cells: dict[str, Any], name: str, kind: Kind) -> Any:
    """The value of a field from the cells of a row."""
    if kind is Estimate:
        return Estimate(*(float(cells[f"{name}{end}"]) for end in ENDS))
    cell = cells[name]
    if kind is bool:
        return BOOLEANS[str(cell)]
    if kind is str:
        return "" if pd.isna(cell) else str(cell)
    return kind(cell)
