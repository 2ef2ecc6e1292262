"""Self-attention against its formula."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from pdsynth.networks.attention import SelfAttention
from pdsynth.networks.unet import HaarUNet


def test_it_starts_as_the_identity():
    x = torch.randn(2, 8, 3, 4, 2)
    torch.testing.assert_close(SelfAttention(8, 2)(x), x)


def test_one_head_is_softmax_attention_over_voxels():
    torch.manual_seed(0)
    layer = SelfAttention(6, 1)
    torch.nn.init.normal_(layer.attention.out_proj.weight)
    x = torch.randn(1, 6, 2, 3, 2)
    tokens = F.layer_norm(x.flatten(2).mT, (6,))
    q, k, v = F.linear(tokens, layer.attention.in_proj_weight, layer.attention.in_proj_bias).chunk(3, -1)
    mixed = torch.softmax(q @ k.mT / 6**0.5, -1) @ v
    expected = x + F.linear(mixed, layer.attention.out_proj.weight, layer.attention.out_proj.bias).mT.view_as(x)
    torch.testing.assert_close(layer(x), expected)


def test_a_unet_with_attention_sees_across_the_whole_patch():
    torch.manual_seed(0)
    for heads, sees in ((0, False), (2, True)):
        network = HaarUNet(1, 1, width=4, levels=2, blocks=1, heads=heads)
        for value in network.parameters():
            torch.nn.init.normal_(value, std=0.3)
        near = torch.zeros(1, 1, 48, 8, 8)
        far = near.clone()
        far[:, :, -1] = 1
        change = (network(near) - network(far))[:, :, 0].abs().max()
        assert bool(change > 1e-6) == sees
