"""What a claim gives to the pages: sections of the report, and facts for the cards. The pages know no claim."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from pdsynth.results.folder import Results


@dataclass(frozen=True)
class Table:
    """A table as text: the headings of its columns, then rows of as many cells; a marked row stands out.

    notes: a small line below the first cell of each row. meanings: what each column means, shown by its heading.
    """

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    marked: Sequence[bool] = ()
    notes: Sequence[str] = ()
    meanings: Sequence[str] = ()


@dataclass(frozen=True)
class Figure:
    """A picture of the results folder, as an address that holds its data."""

    alt: str
    address: str


@dataclass(frozen=True)
class Section:
    """A part of the report: the question (lead), findings as sentences, tables and figures.

    key: its anchor in the page. place: sections stand in the order of their places. label: its name in the list of
    contents, where the title is too long.
    """

    key: str
    title: str
    place: int
    lead: str
    found: Sequence[str] = ()
    tables: Sequence[Table] = ()
    figures: Sequence[Figure] = field(default_factory=tuple)
    label: str = ""


class Claim(Protocol):
    """What the module `section` of a claim has.

    ADDRESSES: the question of a section by its key; the report names the questions that a run leaves open.
    """

    ADDRESSES: Mapping[str, str]

    def sections(self, results: Results) -> Iterable[Section]:
        """The claim's sections, of the files that are in the results folder."""

    def facts(self, results: Results) -> Mapping[str, str]:
        """What the claim found of the method under test, by the names that checklists and cards use; "" is unknown."""


def figures(results: Results, names: Sequence[str], alt: str) -> list[Figure]:
    """The PNG files of these names that are in the results folder."""
    there = [results.root / name for name in names if (results.root / name).exists()]
    return [
        Figure(f"{alt} ({path.stem})", f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}")
        for path in there
    ]
