"""Counts against products of shapes, also where torch itself counts nothing."""

import torch

from pdsynth.networks.flops import counted_flops


def test_attention_on_a_cpu_is_counted():
    query, key = torch.randn(2, 4, 10, 8, requires_grad=True), torch.randn(2, 4, 6, 8)
    with counted_flops() as forward:
        mixed = torch.nn.functional.scaled_dot_product_attention(query, key, key)
    assert forward.get_total_flops() == 2 * (2 * 4 * 10 * 6 * 8) * 2  # q k^T, and its product with the values
    with counted_flops() as backward:
        mixed.sum().backward()
    assert backward.get_total_flops() == 2 * (2 * 4 * 10 * 6 * 8) * 5  # q k^T again, and four gradients


def test_a_whole_attention_layer_is_counted_in_inference():
    layer, x = torch.nn.MultiheadAttention(8, 2, batch_first=True).eval(), torch.randn(1, 10, 8)
    with torch.inference_mode(), counted_flops() as counter:
        layer(x, x, x, need_weights=False)
    assert counter.get_total_flops() == 2 * 10 * 8 * 8 * 4 + 2 * 10 * 10 * 8 * 2
    assert torch.backends.mha.get_fastpath_enabled()
