"""The report on effects where scans are missing, and the facts for the cards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import isnan

from pdsynth.evidence.group_effects.files import COMPLETED, RECTIFIED
from pdsynth.report import words
from pdsynth.report.cells import by_direction, number, spread
from pdsynth.report.sections import Section, Table
from pdsynth.results.folder import Results

ADDRESSES: Mapping[str, str] = {}


def sections(results: Results) -> Iterator[Section]:
    """Effects where half of the scans are hidden."""
    rows = COMPLETED.read(results.root)
    if not rows:
        return
    head = ["Direction", "Missing scans", "by", "slope", "error, SD", "interval's width", "worth in real scans"]
    cells = [
        [
            words.DIRECTIONS[row.direction],
            row.arm,
            row.method,
            spread(row.slope),
            number(row.rmse, 3),
            spread(row.width),
            spread(row.worth),
        ]
        for row in rows
    ]
    lead = (
        "How near do a study's effects come to those of all scans where half of the AD and NC participants "
        f"({rows[0].n_hidden}) lack the target scan, hidden at random and repeatedly? Participants without the scan "
        "are left out (complete-cases), or get a synthesised scan that counts as a real one (as if real) or is "
        "corrected by participants who have both (rectified). The slope over regions is 1 where nothing is lost; the "
        "error is the root mean square distance in the real scans' SD; the width is that of the 95 % interval, 1 in "
        "complete cases. The worth is the number of real scans that one synthesised scan replaces: 0 for a method "
        "that knows nothing about individuals, and where too few participants have both scans to estimate it."
    )
    found = [
        f"{words.DIRECTIONS[row.direction]}: a scan by {row.method}, rectified by participants who have both, is worth "
        f"{spread(row.worth)} of a real one to a study of groups."
        for row in rows
        if row.arm == RECTIFIED and row.method == results.tested and not isnan(row.worth.value)
    ]
    marked = [row.method == results.tested for row in rows]
    table = Table("Effects where half of the scans are missing", head, cells, marked)
    yield Section("completed-effects", "Effects where scans are missing", 20, lead, found, [table])


def facts(results: Results) -> Mapping[str, str]:
    """The worth of the tested method's scans, rectified."""
    own = [row for row in COMPLETED.read(results.root) if row.method == results.tested and row.arm == RECTIFIED]
    return {"worth": by_direction(own, lambda row: "" if isnan(row.worth.value) else spread(row.worth))}
