"""The diffusion baselines: loss and sampling with a denoiser that knows the answer."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pdsynth.methods import create
from pdsynth.types import Direction
from tiny import draws


@pytest.fixture
def method(prepared):
    train = prepared.split("train")
    method = create("conditional-diffusion", {"grid_shape": list(train.grid.shape), "width": 8})
    method.fit(train, torch.Generator())
    return method


@pytest.fixture
def patches(prepared):
    return prepared.split("train").patches((16, 16, 16), 4, [0], 0)


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("direction", Direction)
def test_a_denoiser_that_knows_the_target_gives_it_back(method, patches, direction, eta):
    method.config.eta = eta
    method.denoise = lambda x_t, t, batch, d: method.x_0(batch, d)
    drawn = method.sample(patches, direction, torch.Generator().manual_seed(0), 5)
    torch.testing.assert_close(drawn, patches.targets[direction], atol=1e-6, rtol=0)


@pytest.mark.parametrize("direction", Direction)
def test_two_people_have_independent_noise(method, prepared, direction):
    """A denoiser that returns x_t shows the noise of its one step, which was one and the same for everyone."""
    batch = prepared.test.batch(np.arange(2))
    method.denoise, method.config.steps, method.config.sd = lambda x_t, t, one, d: x_t, 1, 1e-3  # nothing is clipped
    drawn = method.predict(batch, direction) - method.voxels.target_mean(batch, direction)
    inside = (batch.masks[direction] > 0).all(0)[0]
    first, second = (drawn[:, 0, inside] / 1e-3).numpy()
    np.testing.assert_allclose([first.std(), second.std()], 1, atol=0.05)
    assert abs(np.corrcoef(first, second)[0, 1]) < 5 / len(first) ** 0.5


@pytest.mark.parametrize("direction", Direction)
def test_the_loss_of_a_network_that_says_nothing_is_the_targets_variance(method, patches, direction):
    x_0 = (patches.targets[direction] - method.voxels.target_mean(patches, direction)) / method.config.sd
    loss = method.loss(patches, draws())[f"denoise_{direction}"]
    assert loss.item() == pytest.approx(x_0.square().mean().item(), rel=1e-5)  # its last layer starts from zero


def test_the_denoiser_is_given_what_noise_left(method, patches):
    seen = []
    method.denoise = lambda x_t, t, batch, d: seen.append((x_t, t, d)) or torch.zeros_like(x_t)
    method.loss(patches, draws())
    for x_t, t, direction in seen:
        x_0 = (patches.targets[direction] - method.voxels.target_mean(patches, direction)) / method.config.sd
        eps = method.schedule.eps_from_x0(x_t, t, x_0)
        assert eps.std().item() == pytest.approx(1, abs=0.03)
