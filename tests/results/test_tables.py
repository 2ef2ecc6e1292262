"""A table of typed rows comes back as it was written, and what is no such table is refused by name."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

from pdsynth.results.tables import TableFile
from pdsynth.statistics.resampling import Estimate
from pdsynth.types import Direction, InputError


@dataclass(frozen=True)
class Found:
    """A row with a field of each kind."""

    method: str
    direction: Direction
    n: int
    slope: Estimate
    p: float
    worst: bool


FILE = TableFile("found.tsv", Found, "pdsynth roi")
ROWS = [
    Found("pds", Direction.FMRI_TO_DMRI, 12, Estimate(0.5, 0.25, 0.75), 0.125, True),
    Found("", Direction.DMRI_TO_FMRI, 3, Estimate(*[float("nan")] * 3), float("nan"), False),
]


def test_rows_come_back_as_they_were_written(tmp_path):
    FILE.write(tmp_path, ROWS)
    names = "method direction n slope slope_low slope_high p worst"
    assert (tmp_path / "found.tsv").read_text().split("\n")[0] == names.replace(" ", "\t")
    first, second = FILE.read(tmp_path)
    assert first == ROWS[0]
    assert (second.method, second.direction, second.n, second.worst) == ("", Direction.DMRI_TO_FMRI, 3, False)
    assert np.isnan([second.p, second.slope.value, second.slope.low, second.slope.high]).all()


def test_a_site_named_by_a_number_stays_text(tmp_path):
    FILE.write(tmp_path, [Found("007", Direction.FMRI_TO_DMRI, 1, Estimate(1.0, 1.0, 1.0), 1.0, False)])
    assert FILE.read(tmp_path)[0].method == "007"


def test_no_file_has_no_rows_and_no_rows_have_columns(tmp_path):
    assert FILE.read(tmp_path) == []
    FILE.write(tmp_path, [])
    assert FILE.read(tmp_path) == [] and list(pd.read_csv(tmp_path / "found.tsv", sep="\t")) == list(FILE.columns)


def test_a_further_column_is_left_alone_and_a_missing_one_is_named(tmp_path):
    table = FILE.table(ROWS)
    table.assign(more=1).to_csv(tmp_path / "found.tsv", sep="\t", index=False, na_rep="n/a")
    assert FILE.read(tmp_path)[0] == ROWS[0]
    table.drop(columns=["slope_low", "p"]).to_csv(tmp_path / "found.tsv", sep="\t", index=False)
    with pytest.raises(InputError, match=r"found\.tsv: lacks the columns slope_low, p\. Remedy: run `pdsynth roi`"):
        FILE.read(tmp_path)


@pytest.mark.parametrize(("column", "cell"), [("direction", "up"), ("n", "many"), ("worst", "perhaps"), ("p", "low")])
def test_a_cell_of_another_type_is_refused(tmp_path, column, cell):
    table = FILE.table(ROWS).astype(object).assign(**{column: cell})
    table.to_csv(tmp_path / "found.tsv", sep="\t", index=False, na_rep="n/a")
    with pytest.raises(InputError, match=rf"found\.tsv: has '{cell}' in line 2, column {column} \(.*pdsynth roi"):
        FILE.read(tmp_path)
