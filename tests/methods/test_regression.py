"""The ridge at each voxel and the trees kept as arrays, against scikit-learn."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pdsynth.methods import create, voxel_ridge
from pdsynth.methods.trees import pad_nodes, tree_arrays
from pdsynth.types import Direction


def test_voxelwise_ridge_is_scikit_learns_at_a_voxel(make_prepared, monkeypatch):
    monkeypatch.setattr(voxel_ridge, "PENALTIES", (3.0,))
    train = make_prepared(30).train
    method = create("voxelwise-ridge", {"grid_shape": list(train.grid.shape)})
    method.fit(train, torch.Generator())
    batch = train.batch(np.arange(len(train)))
    for direction in Direction:
        for voxel in ((12, 14, 12), (10, 9, 14)):
            x = batch.sources[direction].context[(slice(None), slice(None), *voxel)].numpy().astype(float)
            y = batch.targets[direction][(slice(None), 0, *voxel)].numpy().astype(float)
            x = x[:, x.std(0) > voxel_ridge.LEAST_SD]
            expected = make_pipeline(StandardScaler(), Ridge(alpha=3.0)).fit(x, y).predict(x).clip(0, 1)
            predicted = method.predict(batch, direction)[(slice(None), 0, *voxel)]
            np.testing.assert_allclose(predicted, expected, atol=2e-3)


def test_of_too_few_participants_voxelwise_ridge_knows_the_mean(prepared):
    few = prepared.train.where(np.arange(len(prepared.train)) < 3)
    method, mean = (
        create(name, {"grid_shape": list(few.grid.shape)}) for name in ("voxelwise-ridge", "population-mean")
    )
    batch = few.batch(np.array([0]))
    for each in (method, mean):
        each.fit(few, torch.Generator())
    for direction in Direction:
        assert torch.equal(method.predict(batch, direction), mean.predict(batch, direction))


def test_trees_as_arrays_predict_what_scikit_learn_predicts():
    generator = np.random.default_rng(0)
    x = generator.standard_normal((500, 60)).astype(np.float32)
    y = np.sin(x[:, 0]) + x[:, 1] * x[:, 2]
    model = HistGradientBoostingRegressor(max_iter=12, max_depth=4, early_stopping=False).fit(x, y)
    method = create("gradient-boosting", {"trees": 12, "depth": 4})
    arrays = tree_arrays(model)
    for name in ("feature", "threshold", "branches", "value"):
        setattr(method, name, torch.from_numpy(np.stack([arrays[name]] * 2)))
    method.baseline = torch.full((2,), float(arrays["baseline"]))
    np.testing.assert_allclose(method._walk(torch.from_numpy(x), 1).numpy(), model.predict(x), atol=1e-5)


def test_padding_nodes_keeps_the_trees():
    array = np.arange(6).reshape(2, 3)
    np.testing.assert_array_equal(pad_nodes(array, 5)[:, :3], array)
    assert pad_nodes(array, 5).shape == (2, 5)
