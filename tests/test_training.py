"""The trainer itself: budgets, the learning rate, the journal. What holds for every method is in test_conformance."""

from __future__ import annotations

import csv
import json
import logging
import math
import threading
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pdsynth import api, resources
from pdsynth.data.pairs import Pairs
from pdsynth.journal import COLUMNS, Journal
from pdsynth.methods import create
from pdsynth.methods.conditioning import COMPONENTS, CONDITION, FEATURES
from pdsynth.options import TrainOptions
from pdsynth.stage_training import StageModule, StepBatches
from pdsynth.training import flushed_denormals, quiet_lightning, train
from pdsynth.types import InputError
from tiny import SHORT_PAPER

TWO_STAGES = SHORT_PAPER | {"epochs": 9, "refiner_epochs": 1}


def mlp(pairs):
    torch.manual_seed(0)
    return create("voxel-mlp", {"grid_shape": list(pairs.grid.shape), "width": 8})


def pds_paper(pairs):
    torch.manual_seed(0)
    return create("pds-paper", {"grid_shape": list(pairs.grid.shape), **TWO_STAGES})


def cut_after(method, calls):
    """The method, whose loss fails once it was taken `calls` times."""
    stages = method.stages()
    loss, left = stages[0].objectives[0].loss, iter(range(calls))

    def failing(batch, generator):
        if next(left, None) is None:
            raise RuntimeError("power cut")
        return loss(batch, generator)

    stages[0].objectives[0].loss = failing
    method.stages = lambda: stages
    return method


def logged_rows(run):
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.reader(file))


def logged_steps(run):
    return [int(row[1]) for row in logged_rows(run) if row[3] == "mse/mse_fmri_to_dmri"]


def test_wall_time_ends_training(prepared, tmp_path):
    pairs = prepared.split("train")
    train(mlp(pairs), pairs, tmp_path, TrainOptions(seed=0, budget=3.0, device="cpu"))
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["term"] for row in rows} == {"mse/mse_fmri_to_dmri", "mse/mse_dmri_to_fmri"}
    last = max(int(row["step"]) for row in rows)
    # the last step is the one in which the budget ends, however long a busy machine takes for it
    assert all(float(row["seconds"]) >= 3.0 for row in rows if int(row["step"]) == last)
    assert all(float(row["seconds"]) <= 3.0 for row in rows if int(row["step"]) < last)
    assert [int(row["step"]) for row in rows] == sorted(int(row["step"]) for row in rows)


def test_training_lowers_the_loss(prepared, tmp_path):
    pairs = prepared.split("train")
    train(mlp(pairs), pairs, tmp_path, TrainOptions(seed=0, steps=200, device="cpu"))
    with (tmp_path / "metrics.csv").open() as file:
        values = [float(row["value"]) for row in csv.DictReader(file) if row["term"] == "mse/mse_fmri_to_dmri"]
    assert values[-1] < 0.7 * values[0]


def test_nothing_to_limit_a_run_is_an_error(prepared, tmp_path):
    pairs = prepared.split("train")
    with pytest.raises(ValueError, match="--steps or --budget"):
        train(mlp(pairs), pairs, tmp_path, TrainOptions(seed=0, device="cpu"))


def test_unknown_precision_is_an_error(prepared, tmp_path):
    pairs = prepared.split("train")
    with pytest.raises(ValueError, match="no precision '16-true'"):
        train(mlp(pairs), pairs, tmp_path, TrainOptions(seed=0, steps=1, device="cpu", precision="16-true"))


def test_bf16_takes_the_place_of_fp16_on_a_cpu_that_has_it(prepared, tmp_path, monkeypatch):
    monkeypatch.setattr(resources, "native_bf16", lambda: True)
    pairs = prepared.split("train")
    made = {
        precision: train(
            mlp(pairs), pairs, tmp_path / precision, TrainOptions(seed=0, steps=3, device="cpu", precision=precision)
        )
        for precision in ("16-mixed", "bf16-mixed", "32-true")
    }
    states = [dict(method.named_parameters()) for method in made.values()]
    assert all(torch.equal(states[0][name], value) for name, value in states[1].items())
    assert any(not torch.equal(states[0][name], value) for name, value in states[2].items())


def test_a_cluster_job_of_several_tasks_trains_as_any_other(prepared, tmp_path, monkeypatch):
    pairs = prepared.split("train")
    job = {"JOB_ID": "17", "JOB_NAME": "fit", "NTASKS": "4", "PROCID": "0", "LOCALID": "0", "NODEID": "0"}
    outside = train(mlp(pairs), pairs, tmp_path / "outside", TrainOptions(seed=0, steps=2, device="cpu"))
    for name, value in job.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    inside = train(mlp(pairs), pairs, tmp_path / "inside", TrainOptions(seed=0, steps=2, device="cpu"))
    assert all(torch.equal(a, b) for a, b in zip(outside.parameters(), inside.parameters(), strict=True))


def test_a_run_counts_its_steps_and_their_operations(prepared, tmp_path):
    pairs = prepared.split("train")
    train(mlp(pairs), pairs, tmp_path, TrainOptions(seed=0, steps=3, device="cpu"))
    spent = json.loads((tmp_path / "cost.json").read_text())["regression"]
    assert spent["steps"] == 3 and spent["seconds"] > 0
    patches, voxels, cells = 128, 128 * 4**3, 6 * 7 * 6
    inner = 8 * 8 + 8 * 8 + 8  # weights that each voxel meets after the first layer, whose input needs no gradient
    products = 2 * voxels * (2 * FEATURES * 8 + 3 * inner)
    described = 2 * patches * (2 * CONDITION * 8 + cells * COMPONENTS)
    assert spent["gflop_per_step"] * 1e9 == pytest.approx(2 * (products + described), rel=1e-9)  # two directions


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
    train(mlp(pairs), pairs, tmp_path, TrainOptions(seed=0, steps=1, device="cpu"))
    assert not denormals_are_zero()


def denormals_are_zero():
    return torch.tensor(1e-310, dtype=torch.float64).mul(0.5).item() == 0


def test_switches_of_the_process_are_set_back_to_what_they_were():
    logs = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning_fabric")]
    before = warnings.filters[:], [log.level for log in logs]
    with pytest.raises(KeyError), quiet_lightning(), flushed_denormals():
        with flushed_denormals():
            assert denormals_are_zero()
        assert denormals_are_zero() and all(log.level == logging.WARNING for log in logs)
        with warnings.catch_warnings(record=True) as heard:
            warnings.warn("2 modules in eval mode", stacklevel=1)
            warnings.warn("heard", stacklevel=1)
        assert [str(each.message) for each in heard] == ["heard"]
        raise KeyError
    assert (warnings.filters, [log.level for log in logs]) == before
    assert not denormals_are_zero()


@pytest.mark.parametrize("limit", [{"budget": -1.0}, {"steps": -1}])
def test_a_negative_budget_is_refused(prepared, tmp_path, limit):
    pairs = prepared.split("train")
    with pytest.raises(ValueError, match="is negative"):
        train(mlp(pairs), pairs, tmp_path, TrainOptions(device="cpu", **limit))


def test_a_larger_budget_trains_every_stage_further(prepared, tmp_path):
    """The checkpoint of stage 2 holds stage 1's old network: it must not bring that back."""
    pairs = prepared.split("train")
    first, second = tmp_path / "checkpoints" / "0-diffusion.ckpt", tmp_path / "checkpoints" / "1-refinement.ckpt"
    short = train(pds_paper(pairs), pairs, tmp_path, TrainOptions(seed=0, steps=20, device="cpu")).state_dict()
    longer = train(pds_paper(pairs), pairs, tmp_path, TrainOptions(seed=0, steps=40, device="cpu", resume=True))
    steps = [torch.load(path, weights_only=True)["pdsynth"]["step"] for path in (first, second)]
    assert steps == [36, 4]
    averages = torch.load(first, weights_only=True)["pdsynth"]["ema"]["averages"]
    for name, parameter in longer.stages()[0].objectives[0].module.named_parameters():
        assert torch.equal(parameter, averages[f"0.{name}"]), name
    assert any(not torch.equal(short[name], tensor) for name, tensor in longer.state_dict().items())
    again = train(pds_paper(pairs), pairs, tmp_path, TrainOptions(seed=0, steps=40, device="cpu", resume=True))
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in longer.state_dict().items())


def test_a_method_is_completed_on_its_averaged_weights(prepared, tmp_path):
    pairs, seen = prepared.split("train"), []
    method = mlp(pairs)

    def complete(rows):
        assert rows is pairs and not method.training
        seen.append({name: value.clone() for name, value in method.named_parameters()})

    method.complete = complete
    train(method, pairs, tmp_path, TrainOptions(seed=0, steps=30, device="cpu"))
    (then,) = seen
    kept = torch.load(tmp_path / "checkpoints" / "0-regression.ckpt", weights_only=True)
    averages = kept["pdsynth"]["ema"]["averages"]
    assert {value.sum().item() for value in then.values()} == {value.sum().item() for value in averages.values()}
    last = [value.sum().item() for name, value in kept["state_dict"].items() if name.removeprefix("method.") in then]
    assert set(last) != {value.sum().item() for value in then.values()}  # the average is another than the last step


def test_the_journal_holds_each_step_of_this_run_once(prepared, tmp_path):
    pairs = prepared.split("train")
    with pytest.raises(RuntimeError, match="power cut"):
        train(
            cut_after(mlp(pairs), 60), pairs, tmp_path, TrainOptions(seed=0, steps=100, device="cpu")
        )  # before any checkpoint
    assert logged_steps(tmp_path) == [25, 50]
    train(mlp(pairs), pairs, tmp_path, TrainOptions(seed=0, steps=50, device="cpu", resume=True))
    with pytest.raises(RuntimeError, match="power cut"):
        train(cut_after(mlp(pairs), 30), pairs, tmp_path, TrainOptions(seed=0, steps=100, device="cpu", resume=True))
    assert logged_steps(tmp_path) == [25, 50, 75]
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("regression,9")  # as a killed process leaves it
    train(mlp(pairs), pairs, tmp_path, TrainOptions(seed=0, steps=100, device="cpu", resume=True))
    assert logged_steps(tmp_path) == [25, 50, 75, 100]
    train(mlp(pairs), pairs, tmp_path, TrainOptions(seed=0, steps=25, device="cpu"))
    assert logged_steps(tmp_path) == [25]
    assert (tmp_path / "metrics.csv").read_text().splitlines()[0] == ",".join(COLUMNS)


def test_the_progress_stops_when_training_breaks_off(prepared, tmp_path, monkeypatch):
    def drawing():
        return {thread for thread in threading.enumerate() if "(tell)" in thread.name}  # of `progress`, in a log

    running = set()

    def failing(module, batch, index):
        running.update(drawing())
        raise RuntimeError("power cut")

    monkeypatch.setattr(StageModule, "training_step", failing)
    pairs = prepared.split("train")
    with pytest.raises(RuntimeError, match="power cut"):
        train(mlp(pairs), pairs, tmp_path, TrainOptions(seed=0, steps=2, device="cpu"))
    assert len(running) >= 1
    for thread in running:
        thread.join(timeout=10)
    assert drawing() == set()


def test_ranks_keep_the_clock_of_the_slowest(prepared):
    """Each stops, saves and sets its learning rate by it, so none waits for one that has gone."""
    pairs = prepared.split("train")
    module = StageModule(mlp(pairs), mlp(pairs).stages()[0], 0, steps=None, budget=10.0)
    other = {"max": lambda mine: torch.maximum(mine, torch.tensor(9.5, dtype=mine.dtype))}
    strategy = SimpleNamespace(reduce=lambda mine, reduce_op: other[reduce_op](mine))
    module._trainer = SimpleNamespace(world_size=2, strategy=strategy)
    assert module._longest(3.0) == 9.5
    assert module._longest(9.7) == 9.7
    module._trainer.world_size = 1
    assert module._longest(3.0) == 3.0


def test_only_the_first_rank_writes_rows(prepared, tmp_path):
    pairs = prepared.split("train")
    module = StageModule(mlp(pairs), mlp(pairs).stages()[0], 0, steps=1, budget=None)
    module.step, module.latest = 1, lambda: {"mse": 0.5}
    for first in (False, True):
        journal = Journal(tmp_path, tmp_path / "0.ckpt")
        trainer = SimpleNamespace(is_global_zero=first, save_checkpoint=lambda path: path.touch())
        journal.on_train_start(trainer, module)
        journal.on_train_batch_end(trainer, module, None, None, 0)
        journal.on_train_end(trainer, module)
        assert (tmp_path / "metrics.csv").exists() == first
    assert logged_rows(tmp_path) == [COLUMNS, ["regression", "1", "0.0", "mse", "0.5"]]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_estimates_for_a_later_stage_are_made_where_it_trains(prepared, tmp_path):
    pairs = prepared.split("train")
    method, seen = pds_paper(pairs), []
    cache_drafts = method.cache_drafts
    method.cache_drafts = lambda rows: seen.append(next(method.parameters()).device.type) or cache_drafts(rows)
    train(method, pairs, tmp_path, TrainOptions(seed=0, steps=20, device="cuda"))
    assert seen == ["cuda"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
def test_a_device_that_is_not_here_is_an_error(prepared, tmp_path):
    pairs = prepared.split("train")
    with pytest.raises(ValueError, match="no CUDA device"):
        train(mlp(pairs), pairs, tmp_path / "run", TrainOptions(seed=0, steps=1, device="cuda"))
    assert not (tmp_path / "run").exists()


def test_a_model_whose_scoring_fails_is_kept(prepared, tmp_path, monkeypatch):
    train_pairs, val = prepared.split("train"), prepared.split("test")
    scored = api.fit("population-mean", train_pairs, val=val, run=tmp_path / "scored", device="cpu")
    assert set(scored.card["validation_psnr_brain"]) == {"fmri_to_dmri", "dmri_to_fmri"}
    monkeypatch.setattr(api.scoring, "evaluate", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        api.fit("population-mean", train_pairs, val=val, run=tmp_path / "unscored", device="cpu")
    kept = api.load(tmp_path / "unscored" / "model", "cpu")
    assert kept.sha256 == scored.sha256
    assert "validation_psnr_brain" not in kept.card


def test_the_oracle_is_no_recipe_to_train(prepared, tmp_path):
    with pytest.raises(ValueError, match="oracle reads a simulated cohort's truth"):
        api.fit("oracle", prepared.split("train"), run=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_model_of_another_grid_is_no_beginning(prepared, tmp_path):
    pairs = prepared.split("train")
    api.fit("population-mean", pairs, run=tmp_path, device="cpu")
    affine = np.diag([7.9, 7.9, 7.9, 1.0]).tolist()
    finer = Pairs(pairs.root, pairs.table, pairs.manifest | {"grid_affine": affine}, pairs.volumes)
    with pytest.raises(InputError, match=r"has a grid of 7\.9 mm .* a grid of 8 mm .* prepare with --grid-mm 8\."):
        api.fit("population-mean", finer, run=tmp_path / "run", init=tmp_path / "model")
