"""Where the source enters PDS, and where it must not."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from pdsynth.methods import checkpoint, create
from pdsynth.methods.base import Method
from pdsynth.methods.pds import MICROSTRUCTURE_EVERY, PDSConfig
from pdsynth.options import TrainOptions
from pdsynth.recipes import RECIPES
from pdsynth.training import train
from pdsynth.types import Direction
from tiny import draws

SMALL = {"width": 8, "patch": 8, "batch_size": 4}


@pytest.fixture(scope="module", params=["pds", "pds-unconditioned"])
def trained(request, prepared, tmp_path_factory) -> Method:
    torch.manual_seed(0)
    pairs, settings = prepared.split("train"), RECIPES[request.param].settings | SMALL
    method = create("pds", settings | {"grid_shape": list(pairs.grid.shape)})
    return train(method, pairs, tmp_path_factory.mktemp("run"), TrainOptions(seed=0, steps=20, device="cpu"))


def drafts(method: Method, batch, direction: Direction) -> list[torch.Tensor]:
    with torch.inference_mode():
        drawn = method.drafter.sample(batch, direction, torch.Generator().manual_seed(0), 2)
        return [*method.drafter.posterior(batch, direction), drawn]


@pytest.mark.parametrize("direction", Direction)
def test_the_draft_follows_the_source_where_it_is_told_of_it(trained, prepared, direction):
    """`pds-unconditioned` fails this, as the paper's public code does: that is what it is there to show."""
    own, other = (prepared.split("test").batch(np.array([row])) for row in (0, 1))
    misled = replace(own, sources=other.sources)
    blind = not trained.config.conditioned
    for right, wrong in zip(drafts(trained, own, direction), drafts(trained, misled, direction), strict=True):
        assert torch.equal(right, wrong) == blind
    with torch.inference_mode():  # refinement is told of it in both
        assert not torch.equal(trained.predict(own, direction), trained.predict(misled, direction))


@pytest.mark.parametrize("direction", Direction)
def test_the_residual_is_taken_from_the_stem_or_from_the_mean(trained, prepared, direction):
    batch = prepared.split("test").batch(np.array([0]))
    start = trained.drafter.stem_estimate(batch, direction)
    mean = trained.drafter.voxels.target_mean(batch, direction)
    assert torch.equal(start, mean) != trained.config.conditioned
    assert torch.equal(start, trained.drafter.stem(batch, direction)) == trained.config.conditioned


@pytest.mark.parametrize("direction", Direction)
def test_draws_stand_around_the_refined_mean_as_they_did_around_the_draft(trained, prepared, direction):
    batch = prepared.split("test").batch(np.array([0]))
    with torch.inference_mode():
        mean, sd = trained.drafter.posterior(batch, direction)
        draw = trained.drafter.sample(batch, direction, torch.Generator().manual_seed(3), 2)
        remaining, inside = trained.refiner.residual_sd_ratio(direction), trained.drafter.stem.inside(batch, direction)
        refined, refined_sd = trained.estimate(batch, direction)
        expected = trained.refiner(mean, batch, direction) + remaining * (draw - mean)
        found = trained.draw(batch, direction, torch.Generator().manual_seed(3), 2)
    torch.testing.assert_close(refined, (trained.refiner(mean, batch, direction) * inside).clamp(0, 1))
    torch.testing.assert_close(refined_sd, sd * remaining * inside)
    torch.testing.assert_close(found, (expected * inside).clamp(0, 1))
    assert 0 < remaining < 1  # the fixture's two modalities share half of their variance


def test_without_refinement_the_draft_is_the_estimate(prepared):
    pairs = prepared.split("train")
    method = create("pds", RECIPES["pds-ne"].settings | SMALL | {"grid_shape": list(pairs.grid.shape)})
    method.fit(pairs, torch.Generator())
    method.eval().complete(pairs)
    batch = pairs.batch(np.array([0]))
    for direction in Direction:
        stem = method.drafter.stem(batch, direction)  # the denoiser's output is zero before training
        torch.testing.assert_close(method.predict(batch, direction), stem.clamp(0, 1))


def test_what_complete_leaves_behind_is_an_ordinary_module(trained, prepared, tmp_path):
    """It can be trained on, loaded into, and kept in half precision."""
    batch = prepared.split("test").batch(np.array([0]))
    for direction in Direction:
        assert trained.predict(batch, direction).requires_grad  # outside inference_mode, or it would raise
    trained.load_state_dict(trained.state_dict())
    assert trained.refiner.ridge.weights.dtype == torch.float16
    checkpoint.save(trained, tmp_path / "half", {}, half=True)
    loaded, _ = checkpoint.load(tmp_path / "half")
    assert {k: v.dtype for k, v in loaded.state_dict().items()} == {k: v.dtype for k, v in trained.state_dict().items()}
    with torch.inference_mode():
        for direction in Direction:
            torch.testing.assert_close(
                loaded.predict(batch, direction), trained.predict(batch, direction), rtol=0, atol=5e-3
            )


def test_another_networks_refinement_is_forgotten(trained, prepared):
    """Fine-tuning on fewer participants than a refinement can be fitted on leaves the drafts as they are."""
    method = copy.deepcopy(trained)
    few = prepared.train.where(np.arange(len(prepared.train)) < 3)
    method.fit(few, torch.Generator())
    method.eval().complete(few)
    assert not method.refiner.ridge.weights.numel() and method.refiner.residual_sd_ratio(Direction.FMRI_TO_DMRI) == 1


def test_the_microstructure_loss_visits_all_patches_and_keeps_its_weight_on_average(prepared):
    train_pairs = prepared.split("train")
    method = create("pds", SMALL | {"grid_shape": list(train_pairs.grid.shape)})
    structure, direction = method.drafter.structure, Direction.FMRI_TO_DMRI
    structure.fit(train_pairs, method.regions(train_pairs.grid))
    patches, steps, numbers = PDSConfig().batch_size, 24_000, draws()
    chosen = [structure.sample_patch(numbers, patches) for _ in range(steps)]
    visits = np.bincount([rows.start for rows, share in chosen if share], minlength=patches)
    expected = steps / MICROSTRUCTURE_EVERY / patches  # so that it sees noised z_t as often as the batch holds them
    assert len(visits) == patches and np.abs(visits - expected).max() < 5 * expected**0.5
    batch = train_pairs.patches((8, 8, 8), 2, (0,), 0)
    estimate = batch.targets[direction].flip(-1)
    name = f"microstructure_{direction}"
    drawn = ((slice(0, 1), 1.0), (slice(1, 2), 1.0), (slice(2, 2), 0.0))
    first, second, skipped = (structure(estimate, batch, direction, each)[name].item() for each in drawn)
    whole = structure.microstructure(estimate, batch.targets[direction]).item()
    assert skipped == 0 and first != second
    expected = method.config.microstructure_weight * whole  # of all patches at every step
    assert (first + second) / 2 / MICROSTRUCTURE_EVERY == pytest.approx(expected)
