"""The interface between claims and pages: a claim gives sections to the report and facts to the cards.

The modules of `report` import no claim.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from pdsynth.results.folder import Results


@dataclass(frozen=True)
class Table:
    """A table of the report, with all cells as text.

    head: headings of the columns. rows: one sequence of cells per row, one cell per column. marked: for each row,
    whether it is highlighted. notes: for each row, a small line below its first cell. meanings: for each column, an
    explanation, which its heading shows as a tooltip. people: for each row, the number of participants in it, if rows
    are of groups of participants; within: for each row, the division whose groups exclude each other, such as "site".
    All sequences after rows may be empty.
    """

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    marked: Sequence[bool] = ()
    notes: Sequence[str] = ()
    meanings: Sequence[str] = ()
    people: Sequence[int] = ()
    within: Sequence[str] = ()


@dataclass(frozen=True)
class Figure:
    """A picture in the report. address: the image as a data URL; alt: its alternative text."""

    alt: str
    address: str


@dataclass(frozen=True)
class Section:
    """A part of the report: an introduction (lead), findings as sentences, tables and figures.

    key: name of its anchor in the page. position: the report sorts its sections by this number. label: a short title
    for the table of contents; "" if `title` is short enough. people: the smallest number of participants on which a
    sentence of it rests; None means all who were scored.
    """

    key: str
    title: str
    position: int
    lead: str
    findings: Sequence[str] = ()
    tables: Sequence[Table] = ()
    figures: Sequence[Figure] = field(default_factory=tuple)
    label: str = ""
    people: int | None = None


class Claim(Protocol):
    """Interface of a module that contributes to the report and the cards, from its own result files.

    It is the module `section` of a package of `pdsynth.evidence`. ADDRESSES: topics that its sections answer, by key of
    the section. The report lists the topics whose sections have no table in this run.
    """

    ADDRESSES: Mapping[str, str]

    def sections(self, results: Results) -> Iterable[Section]:
        """The sections that this module adds to the report; none if its files are not in the results folder."""

    def facts(self, results: Results) -> Mapping[str, str]:
        """Facts about the method under test, as text by name, for the checklists and cards; "" if a fact is unknown."""


def figures(results: Results, names: Sequence[str], alt: str) -> list[Figure]:
    """Those of the PNG files `names` that exist in the results folder, as figures of the report.

    alt: beginning of their alternative text; the name of the file, without .png, follows in parentheses.
    """
    existing = [results.root / name for name in names if (results.root / name).exists()]
    return [
        Figure(f"{alt} ({path.stem})", f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}")
        for path in existing
    ]
