"""The two players of the GAN, and the switches of its recipes."""

from __future__ import annotations

import pytest
import torch

from pdsynth.methods import create
from pdsynth.recipes import RECIPES
from pdsynth.types import Direction
from tiny import draws


@pytest.fixture
def gan(prepared):
    train = prepared.split("train")
    method = create("gan", {"grid_shape": list(train.grid.shape), "width": 8, "discriminator_width": 4})
    method.fit(train, torch.Generator())
    return method


@pytest.fixture
def patches(prepared):
    return prepared.split("train").patches((16, 16, 16), 2, [0], 0)


def test_losses_are_least_squares_against_what_each_player_wants(gan, patches):
    told, made = gan.discriminator_loss(patches, draws()), gan.generator_loss(patches, draws())
    for direction in Direction:
        # before training the generator gives the training mean: its last layer is zero
        fake = gan.generator.voxels.target_mean(patches, direction)
        score_real, score_fake = (
            gan.discriminators(gan.discriminator_input(v, patches, direction), direction)
            for v in (patches.targets[direction], fake)
        )
        assert told[f"real_{direction}"].item() == pytest.approx(
            0.5 * (score_real - 1).square().mean().item(), rel=1e-5
        )
        assert told[f"made_{direction}"].item() == pytest.approx(0.5 * score_fake.square().mean().item(), rel=1e-5)
        expected = 0.01 * (score_fake - 1).square().mean().item()
        assert made[f"adversarial_{direction}"].item() == pytest.approx(expected, rel=1e-5)
        l1 = (fake - patches.targets[direction]).abs().mean().item()
        assert made[f"l1_{direction}"].item() == pytest.approx(l1, rel=1e-5)


def test_the_discriminator_sees_the_source(gan, prepared, patches):
    other = prepared.split("train").patches((16, 16, 16), 2, [1], 1)
    direction = Direction.FMRI_TO_DMRI
    own, others = (
        gan.discriminators(gan.discriminator_input(patches.targets[direction], batch, direction), direction)
        for batch in (patches, other)
    )
    assert not torch.allclose(own, others)


def test_recipes_differ_in_two_switches():
    switches = {}
    for name in ("gan", "pgan", "sagan", "psagan"):
        method = create(RECIPES[name].method, RECIPES[name].settings | {"grid_shape": [16, 16, 16], "width": 8})
        switches[name] = (method.perceptual is not None, method.generator.network.attend is not None)
    assert switches == {"gan": (False, False), "pgan": (True, False), "sagan": (False, True), "psagan": (True, True)}
