"""The one rule by which a file that is read back is checked: it fits its schema, or it is refused.

A schema is a type for pydantic; that of a JSON object is a BaseModel. The refusal names the file, the entry or the cell
that does not fit, and the remedy. JSON values must have their exact types; the cells of a table are texts that are
converted. Entries and columns that a schema does not name are permitted.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, BaseModel, Field, TypeAdapter, ValidationError

from pdsynth.types import InputError

if TYPE_CHECKING:
    import pandas as pd

SIDES = (8, 512)  # range of the voxels along an axis of a grid, for voxels of more than 16 mm to less than .5 mm
MOST_MM = 1e6  # largest absolute value of an entry of an affine
LEAST_MM = 1e-3  # smallest edge of a voxel
MOST_SKEWED = 1e6  # largest condition number of an affine
MOST = 1_000_000_000  # largest count
LONGEST = 256 << 20  # bytes of a file, at most; the table of 1,000,000 scans has about 200 MB
SHOWN = 60  # characters of a value in a message
SETTINGS = "pdsynth.yaml"  # file of a user's settings
LONGEST_YAML = 1 << 20  # bytes; its reader is slow

Way = Literal["fmri_to_dmri", "dmri_to_fmri"]
Kind = Literal["fmri", "dmri"]
Count = Annotated[int, Field(ge=0, le=MOST)]
Real = Annotated[float, Field(allow_inf_nan=False)]
Number = Real | Literal["n/a"]  # of a cell
Score = float | Literal["n/a"]  # of a cell of results, which may be infinite
Side = Annotated[int, Field(ge=SIDES[0], le=SIDES[1])]
Shape = Annotated[list[Side], Field(min_length=3, max_length=3)]
Length = Annotated[float, Field(ge=-MOST_MM, le=MOST_MM, allow_inf_nan=False)]
AffineRow = Annotated[list[Length], Field(min_length=4, max_length=4)]


def _invertible(rows: list[list[float]]) -> list[list[float]]:
    affine = np.array(rows, float)
    edges = np.linalg.norm(affine[:3, :3], axis=0)
    if affine[3].tolist() != [0, 0, 0, 1] or edges.min() < LEAST_MM or np.linalg.cond(affine[:3, :3]) > MOST_SKEWED:
        raise ValueError("it can't be inverted")
    return rows


Affine = Annotated[list[AffineRow], Field(min_length=4, max_length=4), AfterValidator(_invertible)]


@cache
def _adapter(schema: Any) -> TypeAdapter[Any]:
    return TypeAdapter(schema)


def check(content: Any, schema: Any, path: Path, remedy: str) -> None:
    """Raise InputError, with the name of the first entry that does not fit, unless content fits the schema.

    content: values of JSON, which `path` contains. schema: a type for pydantic.

    >>> check({"seed": "a"}, dict[str, int], Path("a"), "copy it")
    Traceback (most recent call last):
    pdsynth.types.InputError: a: has an invalid entry seed (Input should be a valid integer). Remedy: copy it.
    """
    try:
        validate(content, schema)
    except ValidationError as error:
        place, reason = first_of(error)
        entry = f"an invalid entry {place}" if place else "invalid content"
        raise InputError(path, f"has {entry} ({reason})", remedy) from error


def validate(content: Any, schema: Any) -> None:
    """Raise pydantic's ValidationError unless values of JSON fit a schema, with exact types."""
    _adapter(schema).validate_python(content, strict=True)


def first_of(error: ValidationError) -> tuple[str, str]:
    """The place and the reason of the first error, such as ("card.seed", "Input should be a valid integer")."""
    first = error.errors(include_url=False, include_input=False)[0]
    return ".".join(str(part)[:SHOWN] for part in first["loc"]), first["msg"].removeprefix("Value error, ")


def read_object(path: Path, schema: Any, remedy: str) -> dict[str, Any]:
    """The object in a JSON file, whose entries fit the schema.

    Raises InputError if the file is missing, is not JSON or does not fit.
    """
    data = _bytes(path, remedy)
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InputError(path, f"is damaged ({_short(error)})", remedy) from error
    if not isinstance(content, dict):
        raise InputError(path, "is damaged (it has no entries)", remedy)
    check(content, schema, path, remedy)
    return content


def read_yaml(path: Path, remedy: str) -> Any:
    """The content of a YAML file of at most 1 MiB. Raises InputError if it cannot be read."""
    import yaml

    try:
        if path.stat().st_size > LONGEST_YAML:
            raise ValueError("it is longer than 1 MiB")
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except Exception as error:  # the YAML reader raises errors of many types
        raise InputError(path, f"cannot be read ({error})", remedy) from None


def read_table(
    path: Path,
    columns: Mapping[str, Any],
    remedy: str,
    *,
    others: Any = None,
    text: Sequence[str] = (),
    na_values: Sequence[str] = (),
) -> pd.DataFrame:
    """Read a tab-separated table whose cells fit the types of their columns.

    columns: the type of each needed column, for pydantic. others: that of all other columns; None permits any. text:
    names of the columns that are read as text; the type of the others follows from their cells. na_values: texts that
    are read as unknown. Raises InputError, with line and column, if the file is missing, is not a table, lacks a column
    or has a cell that does not fit.
    """
    content = _bytes(path, remedy)
    cells = _parsed(path, content, remedy, dtype=str)
    if missing := [name for name in columns if name not in cells]:
        raise InputError(path, f"lacks the columns {', '.join(missing)}", remedy)
    for name in map(str, cells.columns):
        if (kind := columns.get(name, others)) is not None:
            _check_column(cells[name].tolist(), name, kind, path, remedy)
    return _parsed(path, content, remedy, dtype=dict.fromkeys(text, str), na_values=list(na_values))


def _check_column(cells: list[str], name: str, kind: Any, path: Path, remedy: str) -> None:
    try:
        _adapter(list[kind]).validate_python(cells)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        row = int(first["loc"][0])
        problem = f"has {cells[row][:SHOWN]!r} in line {row + 2}, column {name} ({first['msg']})"
        raise InputError(path, problem, remedy) from error


def _parsed(path: Path, content: bytes, remedy: str, **options: Any) -> pd.DataFrame:
    import pandas as pd  # late: it takes half a second, which a manifest does not need

    try:
        table = pd.read_csv(io.BytesIO(content), sep="\t", keep_default_na=False, **options)
    except (ValueError, OverflowError) as error:  # pandas raises errors of several types, most of them ValueErrors
        raise InputError(path, f"is not a table ({_short(error)})", remedy) from error
    if not isinstance(table.index, pd.RangeIndex):
        raise InputError(path, "is not a table (it has more cells in a line than columns)", remedy)
    return table


def _bytes(path: Path, remedy: str) -> bytes:
    try:
        if path.stat().st_size > LONGEST:
            raise InputError(path, f"is larger than {LONGEST >> 20} MiB", remedy)
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise InputError(path, "is missing", remedy) from error


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


class Stamp(BaseModel):
    """Size, times and digest of an input file, by which a change is noticed (see `freshness`)."""

    size: int
    mtime_ns: int
    ctime_ns: int | None = None
    inode: int = 0
    sha256: str


class _Parameters(BaseModel):
    """Those of a command that a later run compares with its own, entry by entry."""

    made_as: dict[str, Any] = {}
    begun_as: dict[str, Any] = {}
    terms: dict[str, Any] = {}


class Manifest(BaseModel):
    """The entries of manifest.json that any command reads back."""

    format: Count = 1
    version: str = ""
    command: str = ""
    parameters: _Parameters = _Parameters()
    seed: int | None = None
    inputs: dict[str, str] = {}
    started: str = ""
    finished: str | None = None
    seconds: float | None = None
    files: dict[str, str] = {}
    seal: str = ""
    added: list[dict[str, Any]] = []
    notes: list[str] = []
    stamps: dict[str, list[Stamp | None]] = {}
    simulated: bool = False
    n_train: Count = 0
    machine: str = ""
