"""Training on several devices: here processes on a CPU, which average their gradients."""

from __future__ import annotations

import csv
import json

import pytest
import torch
from torch import nn

from pdsynth import api, journal
from pdsynth.cli import main
from pdsynth.methods import create
from pdsynth.methods.voxel_mlp import VoxelPerceptron
from pdsynth.options import TrainOptions
from pdsynth.resources import refuse_more_devices
from pdsynth.stage_training import CLIP
from pdsynth.training import train
from tiny import Cut

HOW = {"seed": 3, "device": "cpu", "precision": "32-true"}


def perceptron(pairs, kind=VoxelPerceptron):
    torch.manual_seed(0)
    made = create("voxel-mlp", {"grid_shape": list(pairs.grid.shape), "width": 8})
    made.__class__ = kind
    return made


def parameters(method):
    return torch.cat([p.detach().flatten() for p in method.parameters()])


def after_one_step(pairs, ranks):
    """AdamW's first step by the gradient averaged over these ranks' batches, then the moving average, by hand."""
    method = perceptron(pairs)
    method.fit(pairs, torch.Generator().manual_seed(HOW["seed"]))
    stage, seed = method.stages()[0], HOW["seed"]
    objective, before = stage.objectives[0], parameters(method)
    for rank in ranks:
        batch = pairs.patches(stage.patch, stage.batch_size, [seed, rank], 0)
        terms = objective.loss(batch, torch.Generator().manual_seed(seed * 1_000_003 + rank))
        (torch.stack(list(terms.values())).sum() / len(ranks)).backward()
    nn.utils.clip_grad_norm_(method.parameters(), CLIP)
    rate = objective.learning_rate * 1e-3  # it begins to rise
    torch.optim.AdamW(method.parameters(), lr=rate, weight_decay=objective.weight_decay).step()
    return 0.1 * before + 0.9 * parameters(method)


def test_a_step_is_by_the_mean_gradient_of_the_batches_of_both(prepared, tmp_path):
    pairs = prepared.train
    together = train(perceptron(pairs), pairs, tmp_path, TrainOptions(**HOW, steps=1, devices=2))
    torch.testing.assert_close(parameters(together), after_one_step(pairs, [0, 1]), rtol=0, atol=1e-7)  # a step is 1e-6
    for rank in (0, 1):
        assert (parameters(together) - after_one_step(pairs, [rank])).abs().max() > 5e-7


@pytest.mark.slow
def test_a_cut_training_goes_on_to_the_same_bytes(prepared, tmp_path, monkeypatch):
    monkeypatch.setattr(journal, "SAVE_EVERY", journal.SAVE_EVERY)  # `Cut` changes it
    pairs = prepared.train
    whole = train(perceptron(pairs), pairs, tmp_path / "whole", TrainOptions(**HOW, steps=6, devices=2))
    with pytest.raises(RuntimeError, match="power cut"):
        train(perceptron(pairs, Cut), pairs, tmp_path / "cut", TrainOptions(**HOW, steps=6, devices=2))
    with pytest.raises(ValueError, match=r"was begun on 2 devices, not 1. Give --devices 2"):
        train(perceptron(pairs), pairs, tmp_path / "cut", TrainOptions(**HOW, steps=6, resume=True))
    resumed = train(perceptron(pairs), pairs, tmp_path / "cut", TrainOptions(**HOW, steps=6, devices=2, resume=True))
    assert all(torch.equal(value, resumed.state_dict()[name]) for name, value in whole.state_dict().items())
    assert torch.isfinite(parameters(whole)).all()
    for run in (tmp_path / "whole", tmp_path / "cut"):
        with (run / "metrics.csv").open(newline="") as file:
            rows = list(csv.reader(file))[1:]
        assert [row[1] for row in rows] == ["6", "6"]  # a row per direction, by the first process alone
        assert json.loads((run / "cost.json").read_text())["regression"]["steps"] == 6


@pytest.mark.slow
def test_the_verb_trains_a_gan_on_two_and_its_folder_is_whole(prepared, tmp_path, capsys):
    out = tmp_path / "run"
    words = ["train", prepared.root, out, "--recipe", "gan", "--steps", "2", "--device", "cpu"]
    for setting in ("width=8", "patch=8", "batch_size=4", "discriminator_width=4"):
        words += ["--set", setting]
    with pytest.raises(SystemExit) as ended:
        main([*map(str, words), "--devices", "2"])
    assert ended.value.code == 0, capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["run"]  # no workspace is left
    made = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert made == set(json.loads((out / "manifest.json").read_text())["files"]) | {"manifest.json"}
    assert api.load(out / "model", "cpu").card["devices"] == 2


def test_more_gpus_than_there_are_is_an_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    refuse_more_devices("cuda", 2)
    refuse_more_devices("cpu", 3)
    with pytest.raises(ValueError, match=r"torch sees 2 CUDA devices here, not 3. Give --devices 2"):
        refuse_more_devices("cuda", 3)
