"""Cells of tables: ages, scores and dates that are read, and those that are refused, each by itself."""

from __future__ import annotations

import json
from datetime import date, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixture_trees import write_scan
from pdsynth.cohorts import read
from pdsynth.cohorts.cells import Date
from pdsynth.cohorts.tables import Column, Table
from pdsynth.types import Diagnosis

NC, MCI, AD = Diagnosis
HEADER = "participant_id\tage\tsex\tdiagnosis\n"
SCHEMA = {"id": Column(("participant_id",), needed=True, identity=True), "day": Column(("day",), Date())}


def study(root: Path, table: str, people: tuple[str, ...] = ("sub-01", "sub-02")) -> Path:
    for name in people:
        write_scan(root / name / "func" / f"{name}_task-rest_bold.nii", 2)
    (root / "participants.tsv").write_text(table)
    return root


def found(root: Path) -> list[tuple]:
    return [(p.participant_id, v.diagnosis, v.age) for p, v in read(root)]


def reasons(root: Path) -> list[str]:
    return [r.reason for r in read(root).rejected]


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        *(("70", 70), ("70.5", 70.5), ("70,5", 70.5), ("89+", 89), (">89", 89), ("070Y", 70), ("846 months", 70.5)),
        *((" 70 ", 70), ("n/a", None), ("", None), ("-9", None), ("999", None), ("-4.0", None), ("#N/A", None)),
    ],
)
def test_ages_that_are_read(tmp_path, cell, expected) -> None:
    """Input: an age such as 70, 70.5, 70,5, 89+, 070Y (DICOM) or 846 months, or a code for a missing value such as -9
    or 999. Result: read, in years; a code gives no age."""
    root = study(tmp_path, f"{HEADER}sub-01\t{cell}\tF\tNC\n", ("sub-01",))
    assert found(root) == [("sub-01", NC, expected)] and reasons(root) == []


@pytest.mark.parametrize("cell", ["846", "25700", "1950", "1,000", "-18090", "old", "65-70", "#REF!", "28-Jan", "7_0"])
def test_ages_that_are_refused(tmp_path, cell) -> None:
    """Input: an age in months or days without its unit, a year of birth, a range, an error of a spreadsheet, or any
    other cell that is not a number from 0 to 120. Result: refused, the cell alone, with its line, column and range."""
    root = study(tmp_path, f"{HEADER}sub-01\t{cell}\tF\tNC\nsub-02\t71\tM\tAD\n")
    assert found(root) == [("sub-01", NC, None), ("sub-02", AD, 71)]
    assert reasons(root) == [
        f"has cells in the column age, which holds numbers from 0 to 120 (years), that were not read: {cell!r} (line 2)"
    ]


@pytest.mark.parametrize(("unit", "cell"), [("months", "840"), ("Days", "25567.5"), ("year", "70")])
def test_the_unit_of_the_age_in_the_json_file(tmp_path, unit, cell) -> None:
    """Input: participants.json gives the unit of the age as months, weeks or days. Result: read, in years."""
    root = study(tmp_path, f"{HEADER}sub-01\t{cell}\tF\tNC\n", ("sub-01",))
    (root / "participants.json").write_text(json.dumps({"age": {"Units": unit}}))
    assert found(root) == [("sub-01", NC, 70)]


@pytest.mark.parametrize("cell", ["31", "-2", "28/30", "280"])
def test_scores_out_of_their_range(tmp_path, cell) -> None:
    """Input: an MMSE or MoCA that is not 0 to 30, or another score out of its range. Result: refused, the cell
    alone."""
    root = study(tmp_path, f"participant_id\tmmse\tmoca\tdiagnosis\nsub-01\t{cell}\t25\tNC\n", ("sub-01",))
    ((_, session),) = list(read(root))
    assert (session.scores, session.diagnosis) == ({"moca": 25}, NC)
    assert "column mmse, which holds numbers from 0 to 30" in reasons(root)[0]


def test_many_bad_cells_are_one_message(tmp_path) -> None:
    """Input: a column whose cells are all out of range. Result: refused, in one row that lists the first ten cells and
    counts the others."""
    people = tuple(f"sub-{i:02d}" for i in range(1, 15))
    root = study(tmp_path, HEADER + "".join(f"{p}\t{800 + i}\tF\tNC\n" for i, p in enumerate(people)), people)
    (reason,) = reasons(root)
    assert reason.endswith("'808' (line 10), '809' (line 11) and 4 more")


DATES = [
    ("2011-02-03", date(2011, 2, 3)),
    ("2011-02-03T10:00:00", date(2011, 2, 3)),
    ("20110203", date(2011, 2, 3)),
    ("3.2.2011", date(2011, 2, 3)),
    ("3-Feb-2011", date(2011, 2, 3)),
    ("2/28/2011", date(2011, 2, 28)),
    ("28/2/2011", date(2011, 2, 28)),
    *((text, None) for text in ("2/3/2011", "2/3/11", "2011-13-01", "1850-01-01", "2911-01-01", "40577", "soon")),
]


@pytest.mark.parametrize(("text", "expected"), DATES)
def test_dates(tmp_path, text, expected) -> None:
    """Input: a date such as 2011-02-03, 3.2.2011, 3-Feb-2011 or 2/28/2011. Result: read; a date before 1900 or in the
    future is refused, and one whose day and month can be exchanged, unless other dates of the column show the order."""
    (tmp_path / "x.csv").write_text(f"participant_id,day\n1,{text}\n")
    (row,) = table = Table(tmp_path / "x.csv", SCHEMA)
    assert row.day("day") == (None if expected is None else expected.toordinal())
    assert len(table.notes.rejections()) == (expected is None)


@given(st.lists(st.dates(date(1900, 1, 1), date(2020, 1, 1)), min_size=1, max_size=6), st.booleans())
@settings(max_examples=50)
def test_the_order_of_day_and_month_is_never_guessed(days, day_first) -> None:
    """Input: a column of dates such as 13/2/2011 and 2/3/2011. Result: read if one of them shows the order of day and
    month; otherwise those that can be read in two ways are refused."""
    texts = [f"{d.day}/{d.month}/{d.year}" if day_first else f"{d.month}/{d.day}/{d.year}" for d in days]
    table = written("participant_id,day\n" + "".join(f"{i},{text}\n" for i, text in enumerate(texts)))
    shown = any(d.day > 12 for d in days)
    for row, day in zip(table, days, strict=True):
        assert row.day("day") == (day.toordinal() if shown or day.day == day.month else None)


def written(text: str) -> Table:
    with TemporaryDirectory() as folder:
        (Path(folder) / "x.csv").write_text(text)
        return Table(Path(folder) / "x.csv", SCHEMA)


def test_future_dates_are_refused(tmp_path) -> None:
    """Input: a date after today. Result: refused, the cell alone."""
    tomorrow = date.today() + timedelta(days=1)
    (tmp_path / "x.csv").write_text(f"participant_id,day\n1,{tomorrow}\n2,{date.today()}\n")
    one, two = Table(tmp_path / "x.csv", SCHEMA)
    assert (one.day("day"), two.day("day")) == (None, date.today().toordinal())
