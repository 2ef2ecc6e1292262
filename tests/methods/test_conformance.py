"""What every registered method must do, whatever it is."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from pdsynth import journal
from pdsynth.data.pairs import Pairs
from pdsynth.imaging.spatial import COARSEST_MM, mni_grid
from pdsynth.methods import checkpoint, create, registry
from pdsynth.methods.base import Method
from pdsynth.methods.correction import COLUMNS, corrected, no_places, no_source, no_trees
from pdsynth.options import TrainOptions
from pdsynth.recipes import RECIPES
from pdsynth.training import train
from pdsynth.types import Direction
from tiny import draws

STEPS = 20  # so that every stage has two at least


def small(name: str, pairs: Pairs) -> Method:
    torch.manual_seed(0)
    return create(name, {**registry()[name].tiny, "grid_shape": list(pairs.grid.shape)})


@pytest.fixture(scope="module", params=sorted(registry()))
def trained(request, prepared, tmp_path_factory):
    pairs = prepared.split("train")
    run = tmp_path_factory.mktemp("run")
    return train(small(request.param, pairs), pairs, run, TrainOptions(seed=1, steps=STEPS, device="cpu")), run


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
        outputs = [method.predict(each, direction) for each in (batch, mixed)]
        if method.generative:  # which follows from the source: alone it makes a difference
            seeds = (torch.Generator().manual_seed(0) for _ in range(2))
            outputs = [method.draw(b.only(0), direction, g, 2) for b, g in zip((batch, mixed), seeds, strict=True)]
    assert torch.equal(*outputs) == method.blind


@pytest.mark.parametrize("direction", Direction)
def test_a_person_has_the_same_output_alone_and_in_a_batch(trained, batch, direction):
    """To the byte where it is drawn. Elsewhere a convolution or a product rounds differently for two people."""
    method = trained[0]

    def both(output):
        return output(batch), torch.cat([output(batch.only(i)) for i in range(len(batch))])

    with torch.inference_mode():
        torch.testing.assert_close(*both(lambda b: method.predict(b, direction)), rtol=0, atol=1e-5)
        if method.estimate(batch, direction)[1] is not None:
            torch.testing.assert_close(*both(lambda b: method.estimate(b, direction)[1]), rtol=0, atol=1e-5)
        if method.generative:
            together, alone = both(lambda b: method.sample(b, direction, torch.Generator().manual_seed(5), 2))
            assert torch.equal(together, alone)


@pytest.mark.parametrize("direction", Direction)
def test_the_correction_for_a_new_scanner_is_applied_once(trained, batch, direction):
    """Also where the estimate is a sample; the prediction itself stays as it is."""
    method, weights = copy.deepcopy(trained[0]), torch.zeros(COLUMNS)
    weights[0] = 0.05
    with torch.inference_mode():
        before = method.estimate(batch, direction)[0]
        method.correction[direction.index] = weights
        places, local = no_places()
        of_none = places, *(each[direction.index] for each in (local, no_trees(), no_source()))
        expected = corrected(before, batch.sources[direction], weights, *of_none)
        assert torch.equal(method.estimate(batch, direction)[0], expected) and not torch.equal(expected, before)
        assert torch.equal(method.predict(batch, direction), before)


@pytest.mark.parametrize("direction", Direction)
def test_two_people_have_different_noise(trained, batch, direction, monkeypatch):
    method, seeds = trained[0], []
    if not method.generative:
        return

    def draw(one, direction, generator, steps):
        seeds.append(generator.initial_seed())
        return one.sources[direction].volume

    monkeypatch.setattr(method, "draw", draw)
    for people, seed in ((batch, 0), (batch.only(1), 0), (batch, 1)):
        method.sample(people, direction, torch.Generator().manual_seed(seed), 2)
    first, second, again, *others = seeds
    assert again == second and len({first, second, *others}) == 4


@pytest.mark.parametrize("direction", Direction)
def test_output_ignores_the_target(trained, batch, direction):
    method = trained[0]
    blank = replace(batch, targets={d: torch.rand_like(t) for d, t in batch.targets.items()}, masks={})
    with torch.inference_mode():
        assert torch.equal(method.predict(batch, direction), method.predict(blank, direction))


@pytest.fixture(scope="module")
def larger(make_prepared):
    """The pairs of 16 people, none of whom is in `prepared`."""
    return make_prepared(20, seed=3).train


def fitted(method: Method, pairs: Pairs) -> Method:
    """All closed forms of a method, which needs no training for them."""
    method.fit(pairs, torch.Generator().manual_seed(0))
    method.eval().complete(pairs)
    return method


@pytest.mark.parametrize("people", [1, 2, 6, 16])
@pytest.mark.parametrize("name", sorted(registry()))
def test_fitting_twice_equals_fitting_once(name, people, prepared, larger):
    """On more people than before, on fewer, and on too few for a regression."""
    before, after = (larger, prepared.train) if people < 16 else (prepared.train, larger)
    few = after.where(np.arange(len(after)) < people)
    once = fitted(small(name, few), few).state_dict()
    twice = fitted(fitted(small(name, few), before), few).state_dict()
    assert once.keys() == twice.keys()
    for entry, tensor in once.items():
        assert torch.equal(tensor, twice[entry]), entry


def test_a_fit_forgets_what_training_left_in_a_buffer(trained, prepared):
    """`train --init` begins with a trained method: its networks are kept, and nothing else."""
    few = prepared.train.where(np.arange(len(prepared.train)) < 2)
    fresh, again = small(trained[0].name, few), copy.deepcopy(trained[0])
    for method in (fresh, again):
        method.fit(few, torch.Generator().manual_seed(0))
    expected = dict(fresh.named_buffers())
    for entry, tensor in again.named_buffers():
        assert torch.equal(tensor, expected[entry]), entry


def test_training_is_reproducible_and_ignores_diagnosis(trained, prepared, tmp_path):
    method = trained[0]
    pairs = prepared.split("train")
    permuted = pairs.where(np.ones(len(pairs), bool))
    permuted.table["diagnosis"] = permuted.table["diagnosis"].to_numpy()[::-1]
    again = train(small(method.name, pairs), permuted, tmp_path, TrainOptions(seed=1, steps=STEPS, device="cpu"))
    for name, tensor in method.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


def test_another_seed_trains_another_network(trained, prepared, tmp_path):
    method = trained[0]
    if not method.stages():
        return
    pairs = prepared.split("train")
    other = train(small(method.name, pairs), pairs, tmp_path, TrainOptions(seed=2, steps=STEPS, device="cpu"))
    assert any(not torch.equal(a, b) for a, b in zip(method.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("name", RECIPES)
def test_patches_fit_into_the_coarsest_grid(name):
    recipe, grid = RECIPES[name], mni_grid(COARSEST_MM).shape
    for size in ({}, recipe.small or {}):
        with torch.device("meta"):
            method = create(recipe.method, recipe.settings | size | {"grid_shape": grid})
        for stage in method.stages():
            assert (np.asarray(stage.patch) <= grid).all()


def test_losses_are_finite_and_change_the_weights(trained, prepared):
    method = trained[0]
    pairs = prepared.split("train")
    for stage in method.stages():
        rows = stage.prepare(pairs) if stage.prepare else pairs
        batch = rows.patches(stage.patch, stage.batch_size, [0], 0)
        for objective in stage.objectives:
            terms = objective.loss(batch, draws())
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
            train(interrupted, pairs, run, TrainOptions(seed=1, steps=STEPS, device="cpu"))
        resumed = train(
            small(method.name, pairs), pairs, run, TrainOptions(seed=1, steps=STEPS, device="cpu", resume=True)
        )
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
    loss, notes = trained[0].feature_loss(), trained[0].notes()
    assert notes == ({} if loss is None else {"loss_features": loss.features.source})
    layer = {"pds": "conv2_2", "pds-refiner-only": "conv2_2", "gan": "conv2_2", "pds-paper": "conv1_1"}
    if trained[0].name in layer:
        assert notes == {"loss_features": f"VGG16 of fixed random weights (seed 0), to {layer[trained[0].name]}"}
