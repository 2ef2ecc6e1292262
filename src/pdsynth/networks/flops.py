"""Counts operations of torch's matrix products, convolutions and attention that run inside a `with` block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count


def _attention(query: Any, key: Any, value: Any, *rest: Any, **named: Any) -> int:
    return sdpa_flop_count(query, key, value)


def _attention_backward(gradient: Any, query: Any, key: Any, value: Any, *rest: Any, **named: Any) -> int:
    return sdpa_backward_flop_count(gradient, query, key, value)


ATTENTION_ON_CPU: dict[Any, Any] = {  # torch 2.13 counts attention on GPUs only; these functions get shapes
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}


@contextmanager
def counted_flops() -> Iterator[FlopCounterMode]:
    """Count the multiplications and additions of matrix products, convolutions and attention inside the `with` block.

    Each is one operation. All other operations of torch count 0, such as element-wise products and sums, normalisation,
    interpolation and Fourier transforms. After the block, `get_total_flops` of the yielded counter returns the number.

    >>> with counted_flops() as counter:
    ...     _ = torch.ones(2, 3) @ torch.ones(3, 4)
    >>> counter.get_total_flops()
    48
    """
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # its single kernel for all of nn.MultiheadAttention is not counted
    try:
        with FlopCounterMode(display=False, custom_mapping=ATTENTION_ON_CPU) as counter:
            yield counter
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
