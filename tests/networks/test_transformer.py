"""The patch transformer: cutting and assembling, its start, and what conditions it."""

from __future__ import annotations

import pytest
import torch

from pdsynth.networks.transformer import AdaptiveBlock, PatchTransformer


def transformer(shape, **settings) -> PatchTransformer:
    torch.manual_seed(0)
    return PatchTransformer(shape, 2, 1, 3, **({"patch": 4, "width": 12, "depth": 2, "heads": 2} | settings))


def test_cubes_are_put_back_where_they_were_cut():
    network = transformer((8, 12, 4))
    volume = torch.randn(2, 1, 8, 12, 4)
    cubes = volume.unfold(2, 4, 4).unfold(3, 4, 4).unfold(4, 4, 4).reshape(2, 6, 64)
    torch.testing.assert_close(network.assemble(cubes), volume)


@pytest.mark.parametrize("shape", [(8, 8, 8), (6, 9, 7)])
def test_the_output_has_the_shape_of_the_input_and_starts_from_zero(shape):
    network = transformer(shape)
    out = network(torch.randn(2, 2, *shape), torch.randn(2, 3))
    assert out.shape == (2, 1, *shape)
    assert out.abs().max() == 0


@pytest.mark.parametrize("shape", [(8, 8, 9), (6, 9, 8), (16, 9, 7), (9, 6, 7)])
def test_a_volume_of_another_shape_is_refused(shape):
    """It would be cut or padded with zeros without a word: (6, 9, 8) has as many cubes as (6, 9, 7)."""
    with pytest.raises(ValueError, match=r"built for volumes of the shape \(6, 9, 7\), not \("):
        transformer((6, 9, 7))(torch.randn(1, 2, *shape), torch.randn(1, 3))


def test_a_block_starts_as_the_identity():
    tokens = torch.randn(2, 5, 8)
    torch.testing.assert_close(AdaptiveBlock(8, 2)(tokens, torch.randn(2, 8)), tokens)


def test_every_cube_sees_every_other_and_the_condition():
    network = transformer((8, 8, 8))
    for value in network.parameters():
        torch.nn.init.normal_(value, std=0.3)
    x, condition = torch.randn(1, 2, 8, 8, 8), torch.randn(1, 3)
    other = x.clone()
    other[..., -1] += 1
    assert (network(x, condition) - network(other, condition))[..., 0].abs().max() > 1e-6
    assert not torch.equal(network(x, condition), network(x, condition + 1))
