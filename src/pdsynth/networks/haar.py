"""The 2x2x2 Haar wavelet transform (eight channels at half resolution, orthonormal), and what removes its cells."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

AXES = (2, 3, 4)
SCALE = 2**-1.5  # one 1/sqrt(2) an axis


def haar(x: Tensor) -> Tensor:
    """Sums and differences of neighbours along the three axes, (B, C, X, Y, Z) to (B, 8C, X/2, Y/2, Z/2).

    Channel band * C + c holds band of channel c; band 0 is the local mean times sqrt(8), and bits 0, 1 and 2 of band
    say whether the difference was taken along Z, Y and X. The norm is preserved. Raises ValueError for an odd size.

    >>> haar(torch.ones(1, 1, 2, 2, 2)).flatten()
    tensor([2.8284, 0.0000, 0.0000, 0.0000, 0.0000, 0.0000, 0.0000, 0.0000])
    """
    if any(x.shape[axis] % 2 for axis in AXES):
        raise ValueError(f"volume of {tuple(x.shape[2:])} has an odd side. Pad it to even sides.")
    for axis in reversed(AXES):
        even, odd = x.unflatten(axis, (-1, 2)).unbind(axis + 1)
        x = torch.cat([even + odd, even - odd], dim=1)
    return x * SCALE


def inverse_haar(x: Tensor) -> Tensor:
    """The inverse and transpose of `haar`, (B, 8C, X, Y, Z) to (B, C, 2X, 2Y, 2Z)."""
    for axis in AXES:
        total, difference = x.chunk(2, dim=1)
        x = torch.stack([total + difference, total - difference], dim=axis + 1).flatten(axis, axis + 1)
    return x * SCALE


def without_cells(x: Tensor, inside: Tensor) -> Tensor:
    """x (B, 1, X, Y, Z) averaged with weights 1, 2, 1 along each axis, over the voxels that are inside (0 or 1).

    What alternates from voxel to voxel, as the places within a cell do, is removed; slow changes are kept.
    """
    line = x.new_tensor([1, 2, 1]) / 4
    weights = (line[:, None, None] * line[:, None] * line)[None, None]
    return F.conv3d(x * inside, weights, padding=1) / F.conv3d(inside, weights, padding=1).clamp_min(1e-6)
