"""The names that the Python example in docs/reference/python.md uses."""

from __future__ import annotations

from pathlib import Path

import pdsynth
from pdsynth.cohorts.cohort import Cohort


def test_a_cohort_is_read_by_the_name_in_the_readme(tmp_path: Path) -> None:
    scan = tmp_path / "sub-01" / "func" / "sub-01_task-rest_bold.nii.gz"
    scan.parent.mkdir(parents=True)
    scan.touch()
    cohort = pdsynth.cohorts.bids(tmp_path)
    assert isinstance(cohort, Cohort)
    assert cohort.root == tmp_path
