"""What earlier versions wrote: read to the same values, or refused by the name of the pdsynth that reads it.

tests/formats/README.md says what each fixture is.
"""

from __future__ import annotations

import json
import re
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from pdsynth import __version__, api, formats, manifest
from pdsynth.cli import app
from pdsynth.data.pairs import Pairs
from pdsynth.evidence.claims import write_report
from pdsynth.files import read_json, write_json
from pdsynth.methods import checkpoint
from pdsynth.options import FitOptions, TrainOptions
from pdsynth.results.folder import Results, read_metrics
from pdsynth.training import train
from pdsynth.types import Direction, InputError

FORMATS = {path.name.removesuffix(".tar.xz"): path for path in sorted(Path(__file__).parent.glob("formats/*.tar.xz"))}
READ = ("0.1.0", "folder-2")  # fixtures of which all is read


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """unpacked(name): the folders of a fixture, prepared/ (4 SIMULATED people), run/model/ and results/."""

    def unpack(name: str) -> Path:
        folder = tmp_path_factory.mktemp("older")
        with tarfile.open(FORMATS[name]) as archive:
            archive.extractall(folder, filter="data")
        return folder

    return unpack


@pytest.fixture(scope="module", params=READ)
def older(request, unpacked) -> Path:
    return unpacked(request.param)


@pytest.fixture(scope="module")
def first(unpacked) -> Path:
    """The folders of 0.1.0, with the checkpoints of the run."""
    return unpacked("0.1.0")


def test_each_format_has_its_fixture():
    assert set(FORMATS) == {*READ, "model-1", "model-2"}
    assert {*formats.MODEL.unread, formats.MODEL.number} == {1, 2, 3}
    assert formats.FOLDER.number == 2 and not formats.FOLDER.unread
    assert sum(path.stat().st_size for path in FORMATS.values()) < 2e6


def test_an_older_model_predicts_from_older_pairs_what_it_did_then(older):
    pairs, model = Pairs.open(older / "prepared").test, api.load(older / "run" / "model", "cpu")
    assert model.card["n_participants"] == 2 and model.card["scans_sha256"]
    for direction in Direction:
        then = np.load(older / "results" / "predictions" / f"{model.method.name}_{direction}.npy").astype(np.float32)
        with torch.inference_mode():
            now = model.method.predict(pairs.batch(np.arange(len(pairs))), direction)[:, 0].numpy()
        assert then.std() > 0.1 and np.abs(now - then).max() < 2e-3


def test_a_model_is_trained_and_scored_on_an_older_prepared_folder(older, tmp_path):
    pairs = Pairs.open(older / "prepared")
    run = CliRunner().invoke(app, ["train", str(older / "prepared"), str(tmp_path / "run"), "--recipe", "local-ridge"])
    assert run.exit_code == 0, run.output
    scored = ["--model", str(tmp_path / "run" / "model"), "--out", str(tmp_path / "scores"), "--no-controls"]
    assert CliRunner().invoke(app, ["evaluate", str(older / "prepared"), *scored]).exit_code == 0
    found = Results.read(tmp_path / "scores")
    assert set(found.table["participant_id"]) == set(pairs.test.table["participant_id"])
    assert all(8 < found.methods["run (local-ridge)"][d]["psnr_brain"]["mean"] < 60 for d in Direction)


def test_an_older_checkpoint_is_gone_on_with(first, tmp_path):
    run = shutil.copytree(first / "run", tmp_path / "run")
    pairs, model = Pairs.open(first / "prepared").train, api.load(run / "model", "cpu")
    fresh = api.untrained("voxel-mlp", pairs, FitOptions(seed=1, settings={"width": "16"}))
    train(fresh, pairs, run, TrainOptions(seed=0, steps=20, device="cpu", resume=True))
    state = model.method.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in fresh.state_dict().items())
    assert json.loads((run / "training.json").read_text()) == {"precision": "bf16-mixed"}  # the only one of then


@pytest.mark.parametrize("name", FORMATS)
def test_older_results_become_a_report(unpacked, name):
    results = unpacked(name) / "results"
    page = write_report(results).read_text()
    found = read_metrics(results)
    (method,) = set(found["methods"]) - {"oracle"}
    assert "SIMULATED" in page and method in page
    assert f"<strong>{found['methods'][method]['fmri_to_dmri']['psnr_brain']['mean']:.1f}</strong>" in page
    assert f">{found['times'][method]['fmri_to_dmri']['seconds_per_volume']:.2f}<" in page


def test_the_times_of_the_first_results_stand_apart(first):
    then = json.loads((first / "results" / "metrics.json").read_text())
    assert "times" not in then
    now = read_metrics(first / "results")
    for name, entry in then["methods"].items():
        for direction in Direction:
            scores = entry[direction]
            assert now["times"][name][direction] == {"seconds_per_volume": scores.pop("seconds_per_volume")}
            assert now["methods"][name][direction] == scores


def test_older_scans_are_known_to_a_model_that_was_trained_on_them(older):
    pairs, model = Pairs.open(older / "prepared"), api.load(older / "run" / "model", "cpu")
    assert set(model.card["scans_sha256"]) == set(pairs.train.scan_digests())
    assert api.unchecked({model.method.name: model}, pairs) == []


@pytest.mark.parametrize(("name", "reader"), [("model-1", "f1a1ad1"), ("model-2", "e258981")])
def test_a_model_that_is_too_old_names_the_pdsynth_that_reads_it(unpacked, name, reader):
    folder = unpacked(name) / "run" / "model"
    problem = rf"config.json: is of format {name[-1]},.*open it with pdsynth of commit {reader}"
    with pytest.raises(InputError, match=problem):
        api.load(folder, "cpu")


@pytest.mark.parametrize("name", ["model-1", "model-2"])
def test_prepared_arrays_of_all_sessions_name_the_pdsynth_that_reads_them(unpacked, name, tmp_path):
    prepared, problem = (
        unpacked(name) / "prepared",
        r"is .* one array .* open it with pdsynth of commit 9ccc6c6, or make",
    )
    with pytest.raises(InputError, match=problem):
        Pairs.open(prepared)


def test_a_folder_of_a_later_format_is_refused_by_every_verb_before_anything_is_read(older, tmp_path):
    later = shutil.copytree(older, tmp_path / "later")
    for folder in ("prepared", "results"):
        path = later / folder / manifest.NAME
        odd = read_json(path) | {"format": formats.FOLDER.number + 1, "version": "0.9.0", "stamps": "in another way"}
        write_json(path, odd)
    before = {path: path.read_bytes() for path in later.rglob("*") if path.is_file()}
    prepared, results, model = (str(later / name) for name in ("prepared", "results", "run/model"))
    out = str(tmp_path / "out")
    for words in (
        ["train", prepared, out],
        ["evaluate", prepared, "--model", model, "--out", out],
        ["calibrate", model, prepared, out],
        ["report", prepared],
        ["report", results],
        ["roi", results],
        ["diagnose", results],
    ):
        run = CliRunner().invoke(app, words)
        found = re.sub(r"\s+", " ", str(run.exception))
        assert isinstance(run.exception, InputError), words
        reads = f"and pdsynth {__version__} reads formats up to 2"
        assert found.endswith(f"is of format 3, {reads}. Remedy: install pdsynth 0.9.0 or later."), words
        assert not Path(out).exists()
    assert {path: path.read_bytes() for path in later.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("number", "version", "remedy"),
    [
        (4, "0.9.0", "install pdsynth 0.9.0 or later"),
        (4, __version__, f"install a pdsynth later than {__version__}"),
        (4, "$(run me)", f"install a pdsynth later than {__version__}"),
        (4, 7, f"install a pdsynth later than {__version__}"),
        ("4", "0.9.0", "restore it"),
        (True, "0.9.0", "restore it"),
        (0, "0.9.0", "restore it"),
    ],
)
def test_a_model_of_a_later_format_names_the_pdsynth_that_it_needs(older, tmp_path, number, version, remedy):
    model = shutil.copytree(older / "run" / "model", tmp_path / "model")
    config = read_json(model / "config.json")
    write_json(model / "config.json", config | {"format": number, "card": config["card"] | {"version": version}})
    with pytest.raises(InputError, match=re.escape(f"Remedy: {remedy}.")):
        api.load(model, "cpu")


def test_what_is_written_today_has_the_numbers(older, tmp_path):
    model = api.load(older / "run" / "model", "cpu")
    checkpoint.save(model.method, tmp_path / "again", dict(model.card))
    assert read_json(tmp_path / "again" / "config.json")["format"] == formats.MODEL.number
    assert manifest.begin("prepare")["format"] == formats.FOLDER.number
