"""Table I of a cohort."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fixture_trees import write_dwi, write_scan, write_table
from pdsynth.cohorts import bids
from pdsynth.cohorts.demographics import acquisition, table1


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Two controls, one patient with two sessions, and one participant without any data."""
    for name in ("sub-1", "sub-2", "sub-4"):
        write_scan(tmp_path / f"{name}/func/{name}_task-rest_bold.nii.gz", spacing=8.0)
    for visit in ("a", "b"):
        write_dwi(tmp_path / f"sub-3/ses-{visit}/dwi/sub-3_ses-{visit}_dwi.nii.gz")
    write_table(
        tmp_path / "participants.tsv",
        """participant_id age sex diagnosis mmse education weight
        sub-1 60 F CN 30 12 55
        sub-2 70 M CN 28 n/a n/a
        sub-3 80 F AD n/a 9 70""",
        "\t",
    )
    write_table(tmp_path / "sub-3/sub-3_sessions.tsv", "session_id mmse\nses-a n/a\nses-b 21", "\t")
    said = {"RepetitionTime": 2.5, "EchoTime": 0.03, "FlipAngle": 80}
    (tmp_path / "task-rest_bold.json").write_text(json.dumps(said))
    (tmp_path / "sub-3/ses-a/dwi/sub-3_ses-a_dwi.json").write_text(json.dumps({"SliceThickness": 2.7, "EchoTime": "?"}))
    return tmp_path


def test_people_by_group(study):
    found = table1(bids(study))
    assert list(found.columns) == ["NC", "AD", "no diagnosis"]
    assert found.loc["participants"].tolist() == ["2", "1", "1"]
    assert found.loc["F / M"].tolist() == ["1 / 1", "1 / 0", "0 / 0 (1 missing)"]
    assert found.loc["age, years"].tolist() == ["65.0 ± 7.1", "80.0", "n/a"]
    assert found.loc["MMSE"].tolist() == ["29.0 ± 1.4", "21.0", "n/a"]  # sub-3's is of the second session
    assert found.loc["education, years"].tolist() == ["12.0 (1 missing)", "9.0", "n/a"]
    assert found.loc["weight, kg"].tolist() == ["55.0 (1 missing)", "70.0", "n/a"]
    assert found.loc["MoCA"].tolist() == ["n/a"] * 3


def test_acquisition_by_group(study):
    found = table1(bids(study))
    assert found.loc["fmri scans"].tolist() == ["2", "0", "1"] and found.loc["dmri scans"].tolist() == ["0", "2", "0"]
    assert found.loc["fmri TR, s"].tolist() == ["2.5 ± 0.0", "n/a", "2.5"]  # inherited from the dataset's root
    assert found.loc["fmri TE, ms"].tolist() == ["30.0 ± 0.0", "n/a", "30.0"]
    assert found.loc["dmri slice thickness, mm"].tolist() == ["n/a", "2.7 (1 missing)", "n/a"]
    assert found.loc["dmri TE, ms", "AD"] == "n/a"  # what is no number is not measured


def test_without_a_sidecar_the_parameters_come_from_the_header(tmp_path):
    write_scan(tmp_path / "sub-1/func/sub-1_bold.nii.gz", spacing=8.0)
    (subject,) = bids(tmp_path).subjects
    found = acquisition(subject.sessions[0].scans["fmri"])
    assert found == {"field of view, mm": 192.0, "slices": 20.0, "TR, s": 1.0}
