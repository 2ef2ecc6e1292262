"""The stem: against scikit-learn, the leave-out of cross-fitting, and patches cut from the whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import RidgeCV
from torch.nn import functional as F

from pdsynth.methods.coarse_ridge import COMPONENTS, PENALTIES, CoarseRidge
from pdsynth.methods.conditioning import principal_components
from pdsynth.types import Direction, Modality


@pytest.fixture(scope="module")
def train(prepared):
    return prepared.split("train")


@pytest.fixture(scope="module")
def stem(train):
    stem = CoarseRidge(train.grid.shape)
    stem.fit(train)
    return stem


def coarse(pairs, modality: Modality) -> np.ndarray:
    volumes = np.stack([pairs.volume(modality, row) for row in range(len(pairs))])
    x, y, z = volumes.shape[1:]
    return volumes.reshape(len(pairs), x // 4, 4, y // 4, 4, z // 4, 4).mean((2, 4, 6)).reshape(len(pairs), -1)


@pytest.mark.parametrize("direction", Direction)
def test_it_is_scikit_learns_ridge_between_cell_means(stem, train, direction):
    x, y = coarse(train, direction.source), coarse(train, direction.target)
    x, y = x - x.mean(0), y - y.mean(0)
    u, s, _ = np.linalg.svd(x, full_matrices=False)
    kept = min(COMPONENTS, len(x) - 1)
    scores = u[:, :kept] * s[:kept] / s[0] * len(x) ** 0.5
    expected = RidgeCV(PENALTIES).fit(scores, y).predict(scores)
    batch = train.batch(np.arange(len(train)))
    mean = torch.from_numpy(np.stack([train.volume(direction.target, r) for r in range(len(train))]).mean(0))
    change = torch.from_numpy(expected).float().view(len(train), 1, *(n // 4 for n in train.grid.shape))
    whole = mean + F.interpolate(change, scale_factor=4, mode="trilinear") * (mean > 0)
    torch.testing.assert_close(stem(batch, direction), whole, atol=2e-3, rtol=0)


def test_components_are_those_of_the_coarse_volumes(train):
    mean, axes, sd = principal_components(train, Modality.FMRI, 3)
    x = coarse(train, Modality.FMRI)
    np.testing.assert_allclose(mean, x.mean(0), atol=1e-5)
    torch.testing.assert_close(axes.T @ axes, torch.eye(len(sd)), atol=1e-4, rtol=0)
    np.testing.assert_allclose(((x - x.mean(0)) @ axes.numpy()).std(0), sd, rtol=1e-2)


@pytest.mark.parametrize("direction", Direction)
def test_a_patch_is_cut_from_the_whole(stem, train, direction):
    whole = train.batch(np.array([1]))
    corner = np.array([[8, 12, 4]])
    patch = train.batch(np.array([1]), corner, (8, 6, 4))
    for estimate in (stem, stem.inside):
        cut = estimate(whole, direction)[..., 8:16, 12:18, 4:8]
        torch.testing.assert_close(estimate(patch, direction), cut)


@pytest.mark.parametrize("direction", Direction)
def test_a_participant_never_helps_to_estimate_itself(train, direction):
    """But for the mean, which is one for all: that of the others would tell who is left out."""
    stem = CoarseRidge(train.grid.shape)
    stem.fit(train)
    estimates = stem.cross_fitted(train)
    people = train.table["participant_id"]
    assert people.is_unique and len(people) <= 10  # so that each is left out alone
    others = CoarseRidge(train.grid.shape)
    others.fit(train.where(people != people.iloc[0]))
    others.means.copy_(stem.means)
    batch = train.batch(np.array([0, 1]))
    with torch.autocast("cpu", torch.bfloat16):
        found = estimates(batch, direction)
    torch.testing.assert_close(found[:1], others(batch.only(0), direction))
    assert (found[1:] - others(batch.only(1), direction)).abs().max() > 1e-3  # who helped to fit `others`
    patch = train.batch(np.array([1, 0]), np.array([[8, 12, 4], [0, 2, 6]]), (8, 6, 4))
    torch.testing.assert_close(estimates(patch, direction)[0], found[1, :, 8:16, 12:18, 4:8])


def test_one_participant_gives_the_mean(train):
    stem = CoarseRidge(train.grid.shape)
    alone = train.where(np.arange(len(train)) == 0)
    stem.fit(alone)
    estimates, batch = stem.cross_fitted(alone), alone.batch(np.array([0]))
    for direction in Direction:
        np.testing.assert_allclose(estimates(batch, direction)[0, 0], alone.volume(direction.target, 0), atol=1e-3)
