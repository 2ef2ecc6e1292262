"""What every registered method must do, whatever it is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from pdsynth import journal
from pdsynth.data.pairs import Pairs
from pdsynth.methods import REGISTRY, checkpoint, create
from pdsynth.methods.base import Method
from pdsynth.training import train
from pdsynth.types import Direction
from tiny import SHORT_PAPER

SMALL = {
    "voxel-mlp": {"width": 8},
    "gradient-boosting": {"voxels": 200, "trees": 5, "depth": 3},
    "unet": {"width": 8, "patch": 8, "batch_size": 4},
    "conditional-diffusion": {"width": 8, "heads": 2, "eta": 1.0, "steps": 2, "patch": 8, "batch_size": 4},
    "adm": {"width": 8, "discriminator_width": 4, "patch": 8, "batch_size": 4},
    "dit": {"width": 8, "heads": 2, "depth": 1, "steps": 2, "patch": 8, "batch_size": 2},
    "ldm": {
        "autoencoder_width": 8,
        "width": 16,
        "batch_size": 2,
        "steps": 2,
    },
    "gan": {"width": 8, "heads": 2, "perceptual_weight": 0.1, "discriminator_width": 4, "patch": 8, "batch_size": 4},
    "pds-paper": SHORT_PAPER | {"learning_rate": 1e-3},
    "pds-refiner-only": {"width": 8, "patch": 8, "batch_size": 4},
    "pds": {"width": 8, "patch": 8, "batch_size": 4},
}
BLIND = {"zeros", "population-mean", "site-mean", "oracle"}  # controls that do not look at the source
STEPS = 20  # so that every stage has two at least


def small(name: str, pairs: Pairs) -> Method:
    torch.manual_seed(0)
    return create(name, {**SMALL.get(name, {}), "grid_shape": list(pairs.grid.shape)})


@pytest.fixture(scope="module", params=sorted(REGISTRY))
def trained(request, prepared, tmp_path_factory):
    pairs = prepared.split("train")
    run = tmp_path_factory.mktemp("run")
    return train(small(request.param, pairs), pairs, run, seed=1, steps=STEPS, device="cpu"), run


@pytest.fixture
def batch(prepared):
    return prepared.split("test").batch(np.arange(2))


@pytest.mark.parametrize("direction", Direction)
def test_prediction_has_the_grid_and_range_of_the_target(trained, batch, direction):
    with torch.inference_mode():
        predicted = trained[0].predict(batch, direction)
    assert predicted.shape == batch.targets[direction].shape
    assert torch.isfinite(predicted).all()
    assert predicted.min() >= 0 and predicted.max() <= 1


@pytest.mark.parametrize("direction", Direction)
def test_output_changes_when_the_source_changes(trained, prepared, batch, direction):
    method = trained[0]
    other = prepared.split("test").batch(np.array([1, 0]))
    mixed = replace(other, site=batch.site, oracle=batch.oracle)
    with torch.inference_mode():
        same = torch.equal(method.predict(batch, direction), method.predict(mixed, direction))
    assert same == (method.name in BLIND)


@pytest.mark.parametrize("direction", Direction)
def test_output_ignores_the_target(trained, batch, direction):
    method = trained[0]
    blank = replace(batch, targets={d: torch.rand_like(t) for d, t in batch.targets.items()}, masks={})
    with torch.inference_mode():
        assert torch.equal(method.predict(batch, direction), method.predict(blank, direction))


def test_training_is_reproducible_and_ignores_diagnosis(trained, prepared, tmp_path):
    method = trained[0]
    pairs = prepared.split("train")
    permuted = pairs.where(np.ones(len(pairs), bool))
    permuted.table["diagnosis"] = permuted.table["diagnosis"].to_numpy()[::-1]
    again = train(small(method.name, pairs), permuted, tmp_path, seed=1, steps=STEPS, device="cpu")
    for name, tensor in method.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


def test_another_seed_trains_another_network(trained, prepared, tmp_path):
    method = trained[0]
    if not method.stages():
        return
    pairs = prepared.split("train")
    other = train(small(method.name, pairs), pairs, tmp_path, seed=2, steps=STEPS, device="cpu")
    assert any(not torch.equal(a, b) for a, b in zip(method.parameters(), other.parameters(), strict=True))


def test_losses_are_finite_and_change_the_weights(trained, prepared):
    method = trained[0]
    pairs = prepared.split("train")
    for stage in method.stages():
        rows = stage.prepare(pairs) if stage.prepare else pairs
        batch = rows.patches(stage.patch, stage.batch_size, [0], 0)
        for objective in stage.objectives:
            terms = objective.loss(batch, torch.Generator().manual_seed(0))
            assert terms and all(torch.isfinite(t) and t.ndim == 0 for t in terms.values())
            torch.stack(list(terms.values())).sum().backward()
            assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in objective.module.parameters())


def test_saved_method_predicts_the_same(trained, batch, tmp_path):
    method = trained[0]
    checkpoint.save(method, tmp_path, {"note": "a card"})
    loaded, card = checkpoint.load(tmp_path)
    assert card == {"note": "a card"} | method.notes()
    with torch.inference_mode():
        for direction in Direction:
            assert torch.equal(method.predict(batch, direction), loaded.predict(batch, direction))


def test_resumed_training_equals_uninterrupted(trained, prepared, tmp_path, monkeypatch):
    """Cut each stage in turn in its middle, resume, and compare every tensor."""
    method = trained[0]
    pairs = prepared.split("train")
    monkeypatch.setattr(journal, "SAVE_EVERY", 0.0)
    for number in range(len(method.stages())):
        interrupted = small(method.name, pairs)
        cut = interrupted.stages
        calls = 0

        def stages(cut=cut, number=number):
            nonlocal calls
            stages = cut()
            loss = stages[number].objectives[0].loss

            def failing(batch, generator):
                nonlocal calls
                calls += 1
                if calls == 2:
                    raise RuntimeError("power cut")
                return loss(batch, generator)

            stages[number].objectives[0].loss = failing
            return stages

        interrupted.stages = stages
        run = tmp_path / str(number)
        with pytest.raises(RuntimeError, match="power cut"):
            train(interrupted, pairs, run, seed=1, steps=STEPS, device="cpu")
        resumed = train(small(method.name, pairs), pairs, run, seed=1, steps=STEPS, device="cpu", resume=True)
        for name, tensor in method.state_dict().items():
            assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_samples_are_seeded_and_differ(trained, batch):
    method = trained[0]
    if not method.generative:
        with pytest.raises(TypeError, match="no samples"):
            method.sample(batch, Direction.FMRI_TO_DMRI, torch.Generator(), 2)
        return
    with torch.inference_mode():
        for direction in Direction:
            first, again, other = (
                method.sample(batch, direction, torch.Generator().manual_seed(seed), 2) for seed in (0, 0, 1)
            )
            assert torch.equal(first, again)
            assert not torch.equal(first, other)


def test_the_card_names_the_network_that_gives_features(trained):
    """Random VGG16 weights are never passed off as ImageNet's."""
    layer = {"pds": "conv2_2", "pds-refiner-only": "conv2_2", "gan": "conv2_2", "pds-paper": "conv1_1"}
    notes = trained[0].notes()
    if trained[0].name in layer:
        assert notes == {"loss_features": f"VGG16 of fixed random weights (seed 0), to {layer[trained[0].name]}"}
    else:
        assert notes == {}
