"""The report on effects of disease in a study with missing scans, and the facts for the cards."""

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
    """The report's section on effects of disease if half of the scans are missing.

    There is none without completed_effects.tsv.
    """
    rows = COMPLETED.read(results.root)
    if not rows:
        return
    head = [
        "Direction",
        "Missing scans",
        "scans synthesised by",
        "slope",
        "error, SD",
        "interval width",
        "worth in real scans",
    ]
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
        "How close does a study with missing scans come to the effects (AD minus NC, by region, within sites, in SD "
        "of real scans) of a study with all scans? The target scans of half of the AD and NC participants "
        f"({rows[0].n_hidden}) are hidden; they are drawn at random several times, and results are averaged. These "
        "participants are left out (complete-cases), get a synthesised scan that counts as a real one (as if real), "
        "or get a synthesised scan whose error is corrected with participants who have both scans (rectified). The "
        "slope is that of the effects with missing scans on those with all scans, over regions. A slope of 1 shows "
        "that the difference between AD and NC is kept in full. The error is the root mean square difference from the "
        "effects of all scans, over regions and draws, in SD of the real scans. The width is that of the 95 % "
        "interval of an effect, divided by the width for complete cases (1 = no gain, below 1 = gain). The worth is "
        "the number of real scans that would narrow the interval as much as one synthesised scan. It is 0 or slightly "
        "below for a method that knows nothing about individuals, and 0 if too few participants have both scans to "
        "estimate it."
    )
    found = [
        f"{words.DIRECTIONS[row.direction]}: in a comparison of groups, one scan synthesised by {row.method} and "
        f"rectified with participants who have both scans is worth {spread(row.worth)} of a real scan."
        for row in rows
        if row.arm == RECTIFIED and row.method == results.tested and not isnan(row.worth.value)
    ]
    marked = [row.method == results.tested for row in rows]
    table = Table("Effects if half of the scans are missing", head, cells, marked)
    fewest = min(min(row.n_left, row.n_hidden) for row in rows)
    yield Section("completed-effects", "Effects of disease with missing scans", 20, lead, found, [table], people=fewest)


def facts(results: Results) -> Mapping[str, str]:
    """One fact for the cards, "worth": how many real scans one synthesised scan is worth in a comparison of AD and NC.

    It is a text with a number per direction of synthesis, for the method under test and corrected ("rectified") scans;
    "" if it is not known.
    """
    own = [row for row in COMPLETED.read(results.root) if row.method == results.tested and row.arm == RECTIFIED]
    return {"worth": by_direction(own, lambda row: "" if isnan(row.worth.value) else spread(row.worth))}
