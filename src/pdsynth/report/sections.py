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
    """A table of text: `head` has the headings of the columns, and each row has one cell per column.

    marked: whether a row is highlighted. notes: a small line below the first cell of each row. meanings: an explanation
    of each column, which its heading shows as a tooltip.
    """

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    marked: Sequence[bool] = ()
    notes: Sequence[str] = ()
    meanings: Sequence[str] = ()


@dataclass(frozen=True)
class Figure:
    """A picture of the results folder. address: a data URL; alt: the alternative text."""

    alt: str
    address: str


@dataclass(frozen=True)
class Section:
    """A part of the report: an introduction (lead), findings as sentences, tables and figures.

    key: its anchor in the page. position: sections are sorted by it. label: a short title for the table of contents;
    "" if the title is short enough.
    """

    key: str
    title: str
    position: int
    lead: str
    findings: Sequence[str] = ()
    tables: Sequence[Table] = ()
    figures: Sequence[Figure] = field(default_factory=tuple)
    label: str = ""


class Claim(Protocol):
    """Interface of the module `section` of a claim (a package of `pdsynth.evidence` with its result files).

    ADDRESSES: topic by the key of a section. The report lists the topics whose sections have no table in this run.
    """

    ADDRESSES: Mapping[str, str]

    def sections(self, results: Results) -> Iterable[Section]:
        """The claim's sections, from its files in the results folder; none if it has no file there."""

    def facts(self, results: Results) -> Mapping[str, str]:
        """Facts about the method under test, by the names that checklists and cards use; "" if a fact is unknown."""


def figures(results: Results, names: Sequence[str], alt: str) -> list[Figure]:
    """Those of the named PNG files that exist in the results folder; alt: beginning of their alternative text."""
    existing = [results.root / name for name in names if (results.root / name).exists()]
    return [
        Figure(f"{alt} ({path.stem})", f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}")
        for path in existing
    ]
