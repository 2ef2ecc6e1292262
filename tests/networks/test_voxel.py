import pytest
import torch
from torch.nn import functional as F

from pdsynth.networks.voxel import VoxelMLP


def test_equals_a_perceptron_on_rows():
    torch.manual_seed(0)
    net = VoxelMLP(5, 2, width=7, depth=3, condition=4)
    torch.nn.init.normal_(net.last.weight)
    x, condition = torch.randn(2, 5, 3, 4, 2), torch.randn(2, 4)
    rows = x.flatten(2).transpose(1, 2)  # (B, voxels, 5)
    hidden = rows @ net.first.weight.flatten(1).T + net.first.bias + (condition @ net.condition.weight.T)[:, None]
    for layer in (net.rest[1], net.rest[3]):
        hidden = F.silu(hidden) @ layer.weight.flatten(1).T + layer.bias
    expected = F.silu(hidden) @ net.last.weight.flatten(1).T + net.last.bias
    torch.testing.assert_close(net(x, condition).flatten(2).transpose(1, 2), expected, rtol=1e-4, atol=1e-5)


def test_depth_counts_hidden_layers_and_output_starts_at_zero():
    for depth in (1, 3):
        net = VoxelMLP(5, 1, width=8, depth=depth)
        assert sum(p.ndim == 5 for p in net.parameters()) == depth + 1
        assert not net(torch.randn(1, 5, 2, 2, 2)).any()


def test_no_hidden_layer_is_refused():
    with pytest.raises(ValueError, match="at least 1 hidden layer"):
        VoxelMLP(5, 1, depth=0)
