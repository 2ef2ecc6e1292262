"""What version 0.1.0 wrote is read, to the same values: a prepared folder, a model, a checkpoint, results."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from pdsynth import api
from pdsynth.data.pairs import Pairs
from pdsynth.evidence.claims import write_report
from pdsynth.options import FitOptions, TrainOptions
from pdsynth.results.folder import read_metrics
from pdsynth.training import train
from pdsynth.types import Direction

FORMATS = sorted(Path(__file__).parent.glob("formats/*.tar.xz"))


@pytest.fixture(scope="module", params=FORMATS, ids=lambda path: path.name.removesuffix(".tar.xz"))
def older(request, tmp_path_factory) -> Path:
    """The folders that a version wrote: prepared/ (4 SIMULATED people), run/ (a voxel-mlp), results/."""
    folder = tmp_path_factory.mktemp("older")
    with tarfile.open(request.param) as archive:
        archive.extractall(folder, filter="data")
    return folder


def test_each_format_has_its_fixture():
    assert [path.name for path in FORMATS] == ["0.1.0.tar.xz"]


def test_an_older_model_predicts_from_older_pairs_what_it_did_then(older):
    pairs, model = Pairs.open(older / "prepared").test, api.load(older / "run" / "model", "cpu")
    assert model.card["n_participants"] == 2 and model.card["scans_sha256"]
    for direction in Direction:
        then = np.load(older / "results" / "predictions" / f"voxel-mlp_{direction}.npy").astype(np.float32)
        with torch.inference_mode():
            now = model.method.predict(pairs.batch(np.arange(len(pairs))), direction)[:, 0].numpy()
        assert then.std() > 0.1 and np.abs(now - then).max() < 2e-3


def test_an_older_checkpoint_is_gone_on_with(older, tmp_path):
    run = shutil.copytree(older / "run", tmp_path / "run")
    pairs, model = Pairs.open(older / "prepared").train, api.load(run / "model", "cpu")
    fresh = api.untrained("voxel-mlp", pairs, FitOptions(seed=1, settings={"width": "16"}))
    train(fresh, pairs, run, TrainOptions(seed=0, steps=20, device="cpu", resume=True))
    state = model.method.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in fresh.state_dict().items())
    assert json.loads((run / "training.json").read_text()) == {"precision": "bf16-mixed"}  # the only one of then


def test_older_results_become_a_report(older, tmp_path):
    results = shutil.copytree(older / "results", tmp_path / "results")
    page = write_report(results).read_text()
    assert "SIMULATED" in page and "voxel-mlp" in page
    median = json.loads((results / "metrics.json").read_text())["methods"]["voxel-mlp"]["fmri_to_dmri"]
    assert f">{median['seconds_per_volume']:.2f}<" in page  # it stood among the scores then


def test_the_times_of_older_results_stand_apart(older):
    then = json.loads((older / "results" / "metrics.json").read_text())
    assert "times" not in then
    now = read_metrics(older / "results")
    for name, entry in then["methods"].items():
        for direction in Direction:
            scores = entry[direction]
            assert now["times"][name][direction] == {"seconds_per_volume": scores.pop("seconds_per_volume")}
            assert now["methods"][name][direction] == scores


def test_older_scans_are_known_to_a_model_that_was_trained_on_them(older):
    pairs, model = Pairs.open(older / "prepared"), api.load(older / "run" / "model", "cpu")
    assert set(model.card["scans_sha256"]) == set(pairs.train.scan_digests())
    assert api.unchecked({"voxel-mlp": model}, pairs) == []
