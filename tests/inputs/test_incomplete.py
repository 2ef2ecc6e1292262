"""Sidecars and gradient tables whose image is missing: perhaps a download was not complete."""

from __future__ import annotations

from pathlib import Path

import pytest

from fixture_trees import write_scan
from pdsynth.cli import main
from pdsynth.cohorts import read
from pdsynth.cohorts.kinds import WITHOUT_IMAGE
from verdicts import rules


def test_a_sidecar_without_its_image_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_scan(tmp_path / "sub-01" / "func" / "sub-01_task-rest_bold.nii.gz")
    dwi = tmp_path / "sub-01" / "dwi"
    dwi.mkdir()
    lone = ("sub-01_dwi.json", "sub-01_dwi.bval", "sub-01_dwi.bvec")
    for name in lone:
        (dwi / name).write_text("{}")
    shared = tmp_path / "sub-01" / "func" / "sub-01_bold.json"  # it applies to the scan of the task
    shared.write_text("{}")
    (tmp_path / "dwi.json").write_text("{}")  # applies to the scans of other people
    found = rules(read(tmp_path))
    assert [found[name] for name in lone] == [WITHOUT_IMAGE] * 3
    assert WITHOUT_IMAGE not in [rule for name, rule in found.items() if name not in lone]
    with pytest.raises(SystemExit):
        main(["inspect", str(tmp_path)])
    err = capsys.readouterr().err
    assert "sub-01_dwi.bval is a sidecar or gradient table without its image (and 2 more" in err
    assert "The download may be incomplete" in err
