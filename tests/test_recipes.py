"""Every recipe as it is named on the command line, at its full size, for a few steps."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pdsynth.benchmark.tables import rows_of
from pdsynth.methods import registry
from pdsynth.methods.pds_paper import readings
from pdsynth.methods.recipe import Role
from pdsynth.options import TrainOptions
from pdsynth.recipes import CONTROLS, RECIPES, build
from pdsynth.training import train
from pdsynth.types import Direction, Modality

CPU = {"pds-paper": "small"}  # its full size takes minutes a step on a CPU, and 3 GB


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_trains_and_predicts(name, prepared, tmp_path):
    pairs, recipe = prepared.split("train"), RECIPES[name]
    method = build(name, pairs, size=CPU.get(name, "full"))
    before = [p.detach().clone() for p in method.parameters()]
    steps = 2 * max(1, len(method.stages()))
    train(method, pairs, tmp_path, TrainOptions(seed=0, steps=steps, device="cpu"))
    changed = [not torch.equal(old, new) for old, new in zip(before, method.parameters(), strict=True)]
    assert any(changed) == bool(method.stages()) == bool(recipe.steps)
    batch = prepared.split("test").batch(np.array([0]))
    with torch.inference_mode():
        for direction in Direction:
            predicted = method.predict(batch, direction)
            assert predicted.shape == batch.targets[direction].shape
            assert torch.isfinite(predicted).all() and predicted.min() >= 0 and predicted.max() <= 1


def test_a_recipe_is_found_under_its_own_name():
    assert all(name == recipe.name and recipe.summary for name, recipe in RECIPES.items())
    assert {recipe.method for recipe in RECIPES.values()} == set(registry())
    assert len({(recipe.method, str(recipe.settings)) for recipe in RECIPES.values()}) == len(RECIPES)


def test_roles_make_controls_and_the_rows_of_tables():
    assert set(CONTROLS) == {
        *("zeros", "population-mean", "site-mean", "copy-source", "voxelwise-ridge", "coarse-ridge", "local-ridge"),
        *("gradient-boosting", "voxel-mlp", "pds-refiner-only", "oracle"),
    }
    assert RECIPES["oracle"].role is Role.CEILING and RECIPES["pds"].role is RECIPES["pds-paper"].role is Role.OURS
    baselines = {name for name, recipe in RECIPES.items() if recipe.role is Role.BASELINE}
    assert rows_of(2) == rows_of(3) and set(rows_of(2)) == {*baselines, "pds-paper", "pds"}
    assert rows_of(4) == ("pds-refiner-only", "pds-ne", "pds-ne-pa", "pds-ne-pa-tr", "pds")
    assert rows_of(7) == ("u-ddim", "sa-ddpm", "dit", "ldm", "pds-ne", "pds")
    assert {name for name, recipe in RECIPES.items() if recipe.paper} == {*rows_of(2, 4)} - {"pds-refiner-only"}


def test_the_papers_figures_are_those_of_its_gains():
    """The text states +1.54 dB and +4.12 % for fMRI, +1.02 dB and +2.2 % for dMRI over the best baseline."""
    for modality, gains in {Modality.FMRI: (1.54, 4.12), Modality.DMRI: (1.02, 2.2)}.items():
        others = [r.paper[modality] for r in RECIPES.values() if r.role is Role.BASELINE]
        best = [max(values) for values in zip(*others, strict=True)]
        assert np.subtract(RECIPES["pds"].paper[modality], best) == pytest.approx(gains)


def test_the_same_seed_builds_the_same_weights(prepared):
    pairs = prepared.split("train")
    one, same, other = (build("unet", pairs, seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert any(not torch.equal(one[key], other[key]) for key in one)


def test_an_unknown_recipe_is_answered_with_the_known_ones(prepared):
    with pytest.raises(KeyError, match=r"no recipe 'pdss'; there are coarse-ridge"):
        build("pdss", prepared.split("train"))


@pytest.mark.parametrize("name", [name for name, recipe in RECIPES.items() if recipe.small])
def test_the_small_size_has_fewer_weights_and_the_same_wiring(name, prepared):
    pairs = prepared.split("train")
    changes = {reading: values[0] for reading, values in readings().items()} if name == "pds-paper" else {}
    with torch.device("meta"):  # the paper's sizes would take 3 GB
        full, small = (build(name, pairs, size=size, changes=changes) for size in ("full", "small"))
        assert list(full.state_dict()) == list(small.state_dict())
        count = lambda method: sum(p.numel() for p in method.parameters())  # noqa: E731
        assert count(small) < 0.5 * count(full)


def test_settings_are_changed_by_name_and_checked(prepared):
    pairs = prepared.split("train")
    changed = build("unet", pairs, changes={"width": "8", "heads": 2})
    assert (changed.config.width, changed.config.heads) == (8, 2)
    assert build("pds-paper", pairs, size="small", changes={"channels": "4,8"}).config.channels == (4, 8)
    with pytest.raises(ValueError, match="no setting 'wdth'; it has batch_size, blocks"):
        build("unet", pairs, changes={"wdth": 8})
    with pytest.raises(ValueError, match="width can't be 'wide'"):
        build("unet", pairs, changes={"width": "wide"})
    with pytest.raises(ValueError, match="unet has no size 'small'; it has full only"):
        build("unet", pairs, size="small")
