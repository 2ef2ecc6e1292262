"""The trainer itself: budgets, the learning rate, the journal. What holds for every method is in test_conformance."""

from __future__ import annotations

import csv
import math
import time

import pytest
import torch

from pdsynth.methods import create
from pdsynth.training import StageModule, StepBatches, train


def mlp(pairs):
    torch.manual_seed(0)
    return create("voxel-mlp", {"grid_shape": list(pairs.grid.shape), "width": 8})


def test_wall_time_ends_training(prepared, tmp_path):
    pairs = prepared.split("train")
    began = time.monotonic()
    train(mlp(pairs), pairs, tmp_path, seed=0, budget=3.0, device="cpu")
    assert 3.0 < time.monotonic() - began < 30.0
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["term"] for row in rows} == {"mse/mse_fmri_to_dmri", "mse/mse_dmri_to_fmri"}
    assert max(float(row["seconds"]) for row in rows) <= 4.0
    assert [int(row["step"]) for row in rows] == sorted(int(row["step"]) for row in rows)


def test_training_lowers_the_loss(prepared, tmp_path):
    pairs = prepared.split("train")
    train(mlp(pairs), pairs, tmp_path, seed=0, steps=200, device="cpu")
    with (tmp_path / "metrics.csv").open() as file:
        values = [float(row["value"]) for row in csv.DictReader(file) if row["term"] == "mse/mse_fmri_to_dmri"]
    assert values[-1] < 0.7 * values[0]


def test_nothing_to_limit_a_run_is_an_error(prepared, tmp_path):
    pairs = prepared.split("train")
    with pytest.raises(ValueError, match="--steps or --budget"):
        train(mlp(pairs), pairs, tmp_path, seed=0, device="cpu")


def test_unknown_precision_is_an_error(prepared, tmp_path):
    pairs = prepared.split("train")
    with pytest.raises(ValueError, match="16-mixed"):
        train(mlp(pairs), pairs, tmp_path, seed=0, steps=1, device="cpu", precision="16-mixed")


def test_progress_is_the_larger_of_steps_and_time(prepared):
    pairs = prepared.split("train")
    module = StageModule(mlp(pairs), mlp(pairs).stages()[0], 0, steps=10, budget=100.0)
    module.step, module.elapsed = 3, 20.0
    assert module.progress == pytest.approx(0.3)
    module.elapsed = 70.0
    assert module.progress == pytest.approx(0.7)
    module.elapsed = math.inf
    assert module.progress == 1.0


def test_batches_depend_on_the_step_alone(prepared):
    pairs = prepared.split("train")
    stage = mlp(pairs).stages()[0]
    whole = iter(StepBatches(pairs, stage, seed=4, first=0))
    late = iter(StepBatches(pairs, stage, seed=4, first=2))
    for _ in range(2):
        next(whole)
    expected, found = next(whole), next(late)
    assert torch.equal(expected.corner, found.corner)
    assert all(torch.equal(expected.targets[d], found.targets[d]) for d in expected.targets)


def test_training_leaves_denormals_to_the_rest_of_the_process(prepared, tmp_path):
    pairs = prepared.split("train")
    train(mlp(pairs), pairs, tmp_path, seed=0, steps=1, device="cpu")
    assert torch.tensor(1e-310, dtype=torch.float64).mul(0.5).item() > 0
