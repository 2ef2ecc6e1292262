"""manifest.json: command, inputs and times of a folder."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

import pdsynth
from pdsynth import manifest
from pdsynth.types import InputError


def test_recorded_keeps_command_seed_inputs_and_time(tmp_path: Path) -> None:
    source = tmp_path / "in.txt"
    source.write_text("x")
    out = tmp_path / "out"
    with manifest.recorded(out, "train", inputs=[source], seed=3, recipe="unet", run=out) as entries:
        assert json.loads((out / "manifest.json").read_text())["finished"] is None
        entries["note"] = "added"
    kept = manifest.read(out)
    assert kept["command"] == "train"
    assert kept["version"] == pdsynth.__version__
    assert kept["seed"] == 3
    assert kept["parameters"] == {"recipe": "unet", "run": "out"}  # a path says its last name only
    assert kept["inputs"] == {"in.txt": hashlib.sha256(b"x").hexdigest()}
    assert kept["made_by"] == "pdsynth"
    assert kept["note"] == "added"
    assert kept["started"] <= kept["finished"]
    assert 0 <= kept["seconds"] < 60


def test_recorded_removes_the_folder_of_failed_work_without_output(tmp_path: Path) -> None:
    with pytest.raises(InputError), manifest.recorded(tmp_path / "out", "train"):
        raise InputError("a", "is bad", "mend it")
    assert list(tmp_path.iterdir()) == []


def test_recorded_marks_broken_work_as_unfinished(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(RuntimeError), manifest.recorded(out, "train"):
        (out / "metrics.csv").write_text("stage\n")
        raise RuntimeError
    assert manifest.read(out)["finished"] is None


def test_inputs_with_the_same_name_are_numbered(tmp_path: Path) -> None:
    for person in ("a", "b"):
        (tmp_path / person).mkdir()
        (tmp_path / person / "model").write_text(person)
    inputs = manifest.begin("evaluate", inputs=[tmp_path / "a" / "model", tmp_path / "b" / "model"])["inputs"]
    assert inputs == {
        "model": hashlib.sha256(b"a").hexdigest(),
        "model (2)": hashlib.sha256(b"b").hexdigest(),
    }


def test_a_manifest_of_pdsynth_is_recognised_by_more_than_its_version(tmp_path: Path) -> None:
    assert manifest.made_by_pdsynth(manifest.begin("train"))
    older = {k: v for k, v in manifest.begin("train").items() if k != "made_by"}
    assert manifest.made_by_pdsynth(older)
    assert not manifest.made_by_pdsynth({"manifest_version": 3, "name": "an extension", "version": "1.0"})
    assert not manifest.made_by_pdsynth({})


def test_the_seal_reveals_an_edited_manifest(tmp_path: Path) -> None:
    entries = manifest.begin("train", seed=3)
    sealed = entries | {"seal": manifest.seal_of(entries)}
    assert manifest.seal_of(sealed) == sealed["seal"]
    assert manifest.seal_of(sealed | {"seed": 4}) != sealed["seal"]
