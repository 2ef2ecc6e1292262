"""The ridge at each voxel, and the penalty that it takes, against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.dummy import DummyRegressor
from sklearn.linear_model import Ridge
from sklearn.model_selection import PredefinedSplit, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pdsynth.methods import voxel_ridge
from pdsynth.methods.voxel_ridge import FOLDS, LIMIT, VoxelRidge
from pdsynth.types import Direction

SHAPE = (8, 8, 8)
D = Direction.FMRI_TO_DMRI
COLUMNS = 4


class Rows:
    """Stands in for Pairs: columns and responses of participants, with a relation of its own in each voxel."""

    def __init__(self, people: int, noise: float = 0.3) -> None:
        from types import SimpleNamespace

        import pandas as pd

        generator = torch.Generator().manual_seed(1)
        self.x = torch.randn(people, COLUMNS, *SHAPE, generator=generator) * torch.tensor([1, 5, 0.2, 1]).view(
            -1, 1, 1, 1
        )
        self.x[:, 3] = 0.7  # the same in everyone
        slopes = torch.randn(COLUMNS, *SHAPE, generator=generator)
        self.y = (
            3 + (self.x * slopes).sum(1, keepdim=True) + noise * torch.randn(people, 1, *SHAPE, generator=generator)
        )
        self.table = pd.DataFrame({"participant_id": [f"sub-{i:03d}" for i in range(people)]})
        self.grid = SimpleNamespace(shape=SHAPE)

    def __len__(self) -> int:
        return len(self.x)

    def volume(self, modality, row):
        return np.ones(SHAPE)

    def batch(self, rows):
        return torch.as_tensor(rows)

    def fit(self) -> VoxelRidge:
        """In the second direction the response is the opposite of the first's."""
        ridge = VoxelRidge(COLUMNS)
        ridge.fit(self, lambda rows, _: self.x[rows], lambda rows, d: self.y[rows] if d is D else -self.y[rows])
        return ridge


def scikit_learn(penalty: float):
    return make_pipeline(StandardScaler(), Ridge(alpha=penalty))


def at(rows: Rows, voxel: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    where = (slice(None), slice(None), *voxel)
    return rows.x[where].double().numpy(), rows.y[where][:, 0].double().numpy()


@pytest.mark.parametrize("penalty", [1.0, 300.0])
def test_a_voxel_is_ridge_regression_on_columns_of_unit_sd(penalty, monkeypatch):
    monkeypatch.setattr(voxel_ridge, "PENALTIES", (penalty,))
    rows = Rows(40)
    ridge = rows.fit()
    predicted = ridge(rows.x, D)
    for voxel in ((0, 0, 0), (3, 5, 7)):
        x, y = at(rows, voxel)
        expected = scikit_learn(penalty).fit(x, y).predict(x)
        np.testing.assert_allclose(predicted[(slice(None), 0, *voxel)], expected, rtol=2e-3, atol=2e-3)  # fp16 weights
        other = ridge(rows.x, Direction.DMRI_TO_FMRI)[(slice(None), 0, *voxel)]
        np.testing.assert_allclose(other, -expected, rtol=2e-3, atol=2e-3)


def test_the_penalty_has_the_least_error_on_participants_held_out(monkeypatch):
    monkeypatch.setattr(voxel_ridge, "SAMPLING_STEP", 1)
    monkeypatch.setattr(voxel_ridge, "PENALTIES", (1.0, 100.0))
    rows = Rows(12, noise=4.0)
    ridge = rows.fit()
    folds = PredefinedSplit(np.arange(12) % FOLDS)
    errors, of_the_mean = {1.0: 0.0, 100.0: 0.0}, 0.0
    for voxel in np.ndindex(SHAPE):
        x, y = at(rows, voxel)
        for penalty in errors:
            errors[penalty] += np.square(cross_val_predict(scikit_learn(penalty), x, y, cv=folds) - y).sum()
        of_the_mean += np.square(cross_val_predict(DummyRegressor(), x, y, cv=folds) - y).sum()
    best = min(errors, key=errors.__getitem__)
    assert ridge.remaining[0] == pytest.approx((errors[best] / of_the_mean) ** 0.5, rel=1e-4)
    x, y = at(rows, (2, 2, 2))
    expected = scikit_learn(best).fit(x, y).predict(x)
    np.testing.assert_allclose(ridge(rows.x, D)[:, 0, 2, 2, 2], expected, rtol=1e-2, atol=1e-2)


def test_a_participant_is_held_out_with_all_sessions(monkeypatch):
    """Two sessions share their noise: held out one by one they would vouch for a penalty that is too weak."""
    monkeypatch.setattr(voxel_ridge, "PENALTIES", (0.01, 1000.0))
    rows = Rows(10, noise=0.0)
    rows.y = torch.randn(rows.y.shape, generator=torch.Generator().manual_seed(5))
    for name in ("x", "y"):
        setattr(rows, name, getattr(rows, name).repeat_interleave(2, 0))
    rows.table = rows.table.loc[rows.table.index.repeat(2)].reset_index(drop=True)
    by_person = rows.fit()
    rows.table = rows.table.assign(participant_id=[f"sub-{i}" for i in range(20)])
    by_row = rows.fit()
    assert by_row.remaining[0] < 0.95 < by_person.remaining[0]
    assert by_row.weights.abs().mean() > 10 * by_person.weights.abs().mean()


def test_columns_unlike_those_of_training_move_it_no_further_than_the_limit():
    rows = Rows(40)
    ridge = rows.fit()
    usual, far = ridge(rows.x, D), ridge(rows.x * 1000, D)
    mean, sd = usual.mean(0), usual.std(0, correction=0)
    assert (far - mean).abs().amax() <= (LIMIT * sd).amax() * 1.001
    torch.testing.assert_close((far - mean).abs().amax(0), LIMIT * sd, rtol=1e-3, atol=1e-3)


def test_nothing_is_changed_by_too_few_participants_or_where_nothing_can_be_told():
    few = Rows(FOLDS - 1).fit()
    nothing = Rows(20)
    nothing.y = torch.randn(nothing.y.shape, generator=torch.Generator().manual_seed(2))
    for ridge in (few, nothing.fit()):
        assert not ridge(nothing.x, D).any()
        assert ridge.remaining.tolist() == [1, 1]


@pytest.mark.parametrize("people", [7, 20, 40])
@pytest.mark.parametrize("constant", [0.0, 3.0, 0.1, "another at each voxel"])
def test_a_response_that_is_the_same_in_everyone_has_no_regression(people, constant):
    rows = Rows(people)
    rows.y = rows.y[:1].expand_as(rows.y) if isinstance(constant, str) else torch.full_like(rows.y, constant)
    ridge = rows.fit()
    assert ridge.remaining.tolist() == [1, 1]
    assert not ridge(rows.x, D).any() and not ridge.weights.any()


def test_away_from_all_brains_there_is_nothing():
    rows = Rows(20)
    brain = np.zeros(SHAPE)
    brain[2:5, 2:5, 2:5] = 1
    rows.volume = lambda modality, row: brain
    fitted = rows.fit()(rows.x, D)
    assert (fitted[:, 0] != 0)[:, brain > 0].all() and not fitted[:, 0][:, brain == 0].any()
