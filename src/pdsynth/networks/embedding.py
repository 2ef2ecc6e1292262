"""Sinusoidal embedding of a diffusion step."""

from __future__ import annotations

import math

import torch
from torch import Tensor

LONGEST = 10_000.0  # period of the slowest wave divided by 2 pi, in steps


def time_embedding(t: Tensor, dim: int) -> Tensor:
    """Cosine and sine of t (B,) at dim/2 frequencies: (B, dim) in [-1, 1], first all cosines, then all sines.

    The frequencies are 10000^(-2k / dim) radians per step of t, for k = 0 to dim/2 - 1: from 1 down to almost 1/10000
    if dim is large. Sources: Vaswani et al. 2017, section 3.5; Ho et al. 2020. Raises ValueError for an odd dim or one
    below 2.

    >>> time_embedding(torch.tensor([0]), 4)
    tensor([[1., 1., 0., 0.]])
    """
    if dim < 2 or dim % 2:
        raise ValueError(f"an embedding of {dim} dimensions cannot hold pairs of sine and cosine. Use an even number.")
    half = dim // 2
    frequency = torch.exp(-math.log(LONGEST) * torch.arange(half, dtype=torch.float32, device=t.device) / half)
    angle = t.float()[:, None] * frequency
    return torch.cat([angle.cos(), angle.sin()], dim=1)
