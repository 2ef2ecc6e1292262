"""Training on several devices, here processes on a CPU, and in parts: both equal one process with the whole batch."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import time

import pytest
import torch

from pdsynth import api, journal, ranks
from pdsynth.cli import main
from pdsynth.methods import create, registry
from pdsynth.methods.voxel_mlp import VoxelPerceptron
from pdsynth.options import TrainOptions
from pdsynth.resources import refuse_more_devices
from pdsynth.training import train
from pdsynth.types import InputError
from tiny import Cut, Watched, die, fall_silent

HOW = {"seed": 3, "device": "cpu", "precision": "32-true"}
HALVED = {"ldm": {"autoencoder_batch_size": 2}, "pds-paper": {"batch_size": 2, "refiner_batch_size": 2}}


def made(name, pairs):
    torch.manual_seed(0)
    settings = registry()[name].tiny | HALVED.get(name, {})
    return create(name, settings | {"grid_shape": list(pairs.grid.shape)})


def perceptron(pairs, kind=VoxelPerceptron):
    method = made("voxel-mlp", pairs)
    method.__class__ = kind
    return method


def parameters(method):
    return torch.cat([p.detach().flatten() for p in method.parameters()])


def losses(run):
    with (run / "metrics.csv").open(newline="") as file:
        return {(row["stage"], row["step"], row["term"]): float(row["value"]) for row in csv.DictReader(file)}


def assert_equal_but_for_rounding(name, pairs, folder, **how):
    """The losses at the last of 6 steps are the same to 1e-5, in one part and divided as `how` says; weights are close.

    Where a gradient is near 0, rounding turns its sign, and the first steps of Adam follow the sign.
    """
    runs = {"whole": {}, "divided": how}
    trained = [train(made(name, pairs), pairs, folder / k, TrainOptions(**HOW, steps=6, **v)) for k, v in runs.items()]
    whole, divided = (losses(folder / run) for run in runs)
    assert divided == pytest.approx(whole, abs=1e-5) and max(map(abs, whole.values())) > 1e-3
    before, weights, others = map(parameters, (made(name, pairs), *trained))
    assert (others - weights).abs().mean() < 0.01 * (weights - before).abs().mean()


@pytest.mark.parametrize(("name", "accumulate"), [("pds", 2), ("unet", 1), ("gan", 1)])
def test_two_processes_train_as_one_with_the_same_batch(name, accumulate, prepared, tmp_path):
    assert_equal_but_for_rounding(name, prepared.train, tmp_path, devices=2, accumulate=accumulate)


@pytest.mark.parametrize("name", sorted(registry()))
def test_a_batch_in_parts_trains_as_the_whole(name, prepared, tmp_path):
    if made(name, prepared.train).stages():
        assert_equal_but_for_rounding(name, prepared.train, tmp_path, accumulate=2)


def test_a_cut_training_goes_on_to_the_same_bytes(prepared, tmp_path, monkeypatch):
    monkeypatch.setattr(journal, "SAVE_EVERY", journal.SAVE_EVERY)  # `Cut` changes it
    pairs, how = prepared.train, {**HOW, "steps": 6, "devices": 2, "accumulate": 2}
    whole = train(perceptron(pairs), pairs, tmp_path / "whole", TrainOptions(**how))
    with pytest.raises(RuntimeError, match="power cut"):
        train(perceptron(pairs, Cut), pairs, tmp_path / "cut", TrainOptions(**how))
    assert losses(tmp_path / "cut") == {}
    for name in ("devices", "accumulate"):
        with pytest.raises(ValueError, match=rf"was begun with --{name} 2, not 1. Give --{name} 2"):
            train(perceptron(pairs), pairs, tmp_path / "cut", TrainOptions(**how | {name: 1}, resume=True))
    resumed = train(perceptron(pairs), pairs, tmp_path / "cut", TrainOptions(**how, resume=True))
    assert all(torch.equal(value, resumed.state_dict()[name]) for name, value in whole.state_dict().items())
    assert torch.isfinite(parameters(whole)).all()
    for run in (tmp_path / "whole", tmp_path / "cut"):
        # a row per direction, by the first process alone
        assert [(step, value > 0) for (_, step, _), value in losses(run).items()] == [("6", True)] * 2
        assert json.loads((run / "cost.json").read_text())["regression"]["steps"] == 6


@pytest.mark.parametrize(
    ("end", "patience", "problem"), [(die, 600.0, "lost process 2 of 2"), (fall_silent, 20.0, "did not answer")]
)
def test_a_process_that_ends_ends_all(end, patience, problem, prepared, tmp_path, monkeypatch):
    monkeypatch.setattr(ranks, "PATIENCE", ranks.PATIENCE)  # `Watched` changes it
    method = perceptron(prepared.train, Watched)
    method.notes, method.end, method.patience = tmp_path, end, patience
    before = multiprocessing.active_children()  # of other tests
    with pytest.raises(InputError, match=rf"run.*{problem}.* with --resume"):
        train(method, prepared.train, tmp_path / "run", TrainOptions(**HOW, steps=6, devices=2))
    assert (
        time.time() - float((tmp_path / "ended").read_text()) < 120
    )  # of which 20 are patience; the machine may be busy
    assert set(multiprocessing.active_children()) <= set(before)
    assert (tmp_path / "prepared").read_text() == f"{os.getpid()}\n"  # estimates are cached once, for both


def test_batches_that_cannot_be_divided_are_refused_before_a_file_is_written(prepared, tmp_path):
    pairs, run = prepared.train, tmp_path / "run"
    with pytest.raises(ValueError, match=r"of the stage regression, of 4, .* into 6 equal parts .*multiple of 6"):
        train(made("unet", pairs), pairs, run, TrainOptions(**HOW, steps=1, devices=3, accumulate=2))
    with pytest.raises(ValueError, match="--accumulate 1 or more"):
        train(made("unet", pairs), pairs, run, TrainOptions(**HOW, steps=1, accumulate=0))
    assert not run.exists()


@pytest.mark.slow
def test_the_verb_trains_a_gan_on_two_and_its_folder_is_whole(prepared, tmp_path, capsys):
    out = tmp_path / "run"
    words = ["train", prepared.root, out, "--recipe", "gan", "--steps", "2", "--device", "cpu"]
    for setting in ("width=8", "patch=8", "batch_size=4", "discriminator_width=4"):
        words += ["--set", setting]
    with pytest.raises(SystemExit) as ended:
        main([*map(str, words), "--devices", "2", "--accumulate", "2"])
    assert ended.value.code == 0, capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["run"]  # no workspace is left
    written = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert written == set(json.loads((out / "manifest.json").read_text())["files"]) | {"manifest.json"}
    card = api.load(out / "model", "cpu").card
    assert (card["devices"], card["accumulate"]) == (2, 2)


def test_more_gpus_than_there_are_is_an_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    refuse_more_devices("cuda", 2)
    refuse_more_devices("cpu", 3)
    with pytest.raises(ValueError, match=r"torch sees 2 CUDA devices here, not 3. Give --devices 2"):
        refuse_more_devices("cuda", 3)
