"""Tissue refinement in closed form."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pdsynth.data.pairs import Pairs
from pdsynth.methods import create, refinement
from pdsynth.methods.refinement import TissueRefiner
from pdsynth.types import Direction


def stems(pairs):
    """Blank stems, so that drafts are what a test makes of the source."""
    return lambda batch, direction: torch.zeros_like(batch.targets[direction])


def shifted(volume: torch.Tensor) -> torch.Tensor:
    """The next voxel's value along the last axis."""
    return torch.cat([volume[..., 1:], volume[..., -1:]], -1)


def test_before_it_is_fitted_it_changes_nothing(prepared):
    batch = prepared.test.batch(np.arange(2))
    refiner = TissueRefiner()
    draft = torch.rand_like(batch.sources[Direction.FMRI_TO_DMRI].volume)
    assert torch.equal(refiner(draft, batch, Direction.FMRI_TO_DMRI), draft)


def test_it_learns_of_the_neighbours_what_the_draft_lacks(prepared):
    """Drafts that lack exactly a part of the next voxel's source are mended, in people it has not seen."""
    refiner = TissueRefiner()

    def draft(batch, direction, stem=None):
        return batch.targets[direction] - 0.5 * shifted(batch.sources[direction].volume)

    refiner.fit(prepared.train, stems, draft)
    batch = prepared.test.batch(np.arange(4))
    for direction in Direction:
        inside = batch.masks[direction] > 0
        before = (draft(batch, direction) - batch.targets[direction])[inside]
        after = (refiner(draft(batch, direction), batch, direction) - batch.targets[direction])[inside]
        assert after.square().mean() < 0.3 * before.square().mean()
        assert refiner.residual_sd_ratio(direction) < 0.5


def test_a_control_is_the_stem_and_its_refinement(prepared):
    method = create("local-ridge", {"grid_shape": list(prepared.grid.shape)})
    method.fit(prepared.train, torch.Generator())
    stem = create("coarse-ridge", {"grid_shape": list(prepared.grid.shape)})
    stem.fit(prepared.train, torch.Generator())
    batch = prepared.test.batch(np.arange(4))
    for direction in Direction:
        assert torch.equal(method.stem(batch, direction).clamp(0, 1), stem.predict(batch, direction))
        inside = batch.masks[direction] > 0
        errors = [
            (m.predict(batch, direction) - batch.targets[direction])[inside].square().mean() for m in (method, stem)
        ]
        assert errors[0] < errors[1]


@pytest.mark.parametrize("people", [20, 60])
def test_where_the_source_tells_nothing_nothing_is_learned(people, make_prepared):
    """Two leaks of a mean: of the others, in cross-fitted stems; of all, in the choice of the stem's penalty."""
    pairs, strangers = make_prepared(people), make_prepared(people, seed=7)
    for path in (pairs.root / "sessions").glob("*.npy"):
        shard = np.load(path)
        shard["fmri"] = np.load(strangers.root / "sessions" / path.name)["fmri"]
        np.save(path, shard)
    train = Pairs.open(pairs.root).train
    batch = train.batch(np.arange(3))
    means = create("population-mean", {"grid_shape": list(train.grid.shape)})
    means.fit(train, torch.Generator())
    for name in ("coarse-ridge", "local-ridge", "voxelwise-ridge"):
        method = create(name, {"grid_shape": list(train.grid.shape)})
        method.fit(train, torch.Generator())
        for direction in Direction:
            change = method.predict(batch, direction) - means.predict(batch, direction)
            assert change.std() < 0.1 * batch.targets[direction].std(0).mean(), (name, direction)


def test_a_draft_is_made_on_its_own_row_and_stem(prepared, monkeypatch):
    monkeypatch.setattr(refinement, "ROWS", 3)
    rows = prepared.train
    seen = []

    def numbered(pairs):
        return lambda batch, direction: torch.ones_like(batch.targets[direction]) * float(batch.rows[0])

    def draft(batch, direction, stem):
        seen.append((batch.targets[direction].mean().item(), stem.mean().item()))
        return stem

    TissueRefiner().fit(rows, numbered, draft)
    means = [rows.batch(np.array([row])).targets[d].mean().item() for row in (0, 2, 4) for d in Direction]
    assert seen == [(mean, row) for mean, row in zip(means, (0, 0, 2, 2, 4, 4), strict=True)]
