"""Manifests, digests, and folders that are complete or not there."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

import pdsynth
from pdsynth import manifest
from pdsynth.types import InputError


def test_digest_of_a_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_bytes(b"participant_id\nsub-01\n")
    assert manifest.sha256(path) == hashlib.sha256(b"participant_id\nsub-01\n").hexdigest()


def test_digest_of_a_folder_sees_names_sizes_and_small_contents(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    small, large = tmp_path / "sub" / "a.json", tmp_path / "b.nii"
    small.write_text("1")
    large.write_bytes(bytes(manifest.SMALL + 1))
    first = manifest.sha256(tmp_path)
    assert manifest.sha256(tmp_path) == first
    small.write_text("2")
    changed = manifest.sha256(tmp_path)
    large.write_bytes(bytes(manifest.SMALL + 2))
    grown = manifest.sha256(tmp_path)
    small.rename(tmp_path / "sub" / "c.json")
    assert len({first, changed, grown, manifest.sha256(tmp_path)}) == 4


def test_digest_of_nothing_names_the_path(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere: does not exist\. Remedy:"):
        manifest.sha256(tmp_path / "nowhere")


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
    assert kept["parameters"] == {"recipe": "unet", "run": str(out)}
    assert kept["inputs"] == {str(source): hashlib.sha256(b"x").hexdigest()}
    assert kept["note"] == "added"
    assert kept["started"] <= kept["finished"]
    assert 0 <= kept["seconds"] < 60


def test_recorded_leaves_no_trace_of_work_that_made_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError), manifest.recorded(tmp_path / "out", "train"):
        raise InputError("a", "is bad", "mend it")
    assert list(tmp_path.iterdir()) == []


def test_recorded_marks_broken_work_as_unfinished(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(RuntimeError), manifest.recorded(out, "train"):
        (out / "metrics.csv").write_text("stage\n")
        raise RuntimeError
    assert manifest.read(out)["finished"] is None
    manifest.clear(out, overwrite=True)
    assert not out.exists()


def test_a_folder_of_someone_else_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    for overwrite in (False, True):
        with pytest.raises(InputError, match="was not written by pdsynth"):
            manifest.clear(tmp_path, overwrite)
    assert (tmp_path / "thesis.tex").exists()


def test_a_folder_of_ours_is_replaced_on_request_only(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with manifest.recorded(out, "simulate"):
        pass
    with pytest.raises(InputError, match="--overwrite"):
        manifest.refuse_occupied(out, overwrite=False)
    manifest.clear(out, overwrite=True)
    assert not out.exists()


def test_the_inputs_of_a_run_are_never_replaced(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with manifest.recorded(out, "simulate"):
        (out / "bids").mkdir()
    with pytest.raises(InputError, match="holds what this run reads"):
        manifest.clear(out, overwrite=True, inputs=[out / "bids"])
    assert (out / "bids").is_dir()


def test_complete_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    with pytest.raises(RuntimeError), manifest.complete_folder(out, overwrite=False) as folder:
        (folder / "half").write_text("")
        raise RuntimeError
    assert list(out.parent.iterdir()) == []
    with manifest.complete_folder(out, overwrite=False) as folder, manifest.recorded(folder, "simulate"):
        (folder / "whole").write_text("1")
        assert not out.exists()
    assert (out / "whole").read_text() == "1"
    with manifest.complete_folder(out, overwrite=True) as folder:
        (folder / "new").write_text("2")
    assert [p.name for p in out.iterdir()] == ["new"]
    assert [p.name for p in out.parent.iterdir()] == ["out"]


def test_write_json_leaves_no_temporary_file(tmp_path: Path) -> None:
    manifest.write_json(tmp_path / "a.json", {"b": [1, 2]})
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
    assert json.loads((tmp_path / "a.json").read_text()) == {"b": [1, 2]}
