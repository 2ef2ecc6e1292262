"""The orthonormal 2x2x2 Haar wavelet transform, its inverse, and a filter against its checkerboard artefact."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

AXES = (2, 3, 4)
SCALE = 2**-1.5  # a factor 1/sqrt(2) for each axis


def haar(x: Tensor) -> Tensor:
    """Sums and differences of neighbours along the three axes: (B, C, X, Y, Z) -> (B, 8C, X/2, Y/2, Z/2).

    Neighbours are the pairs of voxels (0, 1), (2, 3) and so on of an axis; a difference is the first minus the second,
    and all are divided by sqrt(8). Channel b * C + c of the result holds band b of channel c. Band 0 is the local mean
    times sqrt(8). Bits 0, 1 and 2 of b are set if the band is a difference along Z, Y and X. The norm is preserved.
    Raises ValueError for an odd size.

    >>> haar(torch.ones(1, 1, 2, 2, 2)).flatten()
    tensor([2.8284, 0.0000, 0.0000, 0.0000, 0.0000, 0.0000, 0.0000, 0.0000])
    """
    if any(x.shape[axis] % 2 for axis in AXES):
        raise ValueError(f"a volume of {tuple(x.shape[2:])} has an odd side. Pad it to even sides.")
    for axis in reversed(AXES):
        even, odd = x.unflatten(axis, (-1, 2)).unbind(axis + 1)
        x = torch.cat([even + odd, even - odd], dim=1)
    return x * SCALE


def inverse_haar(x: Tensor) -> Tensor:
    """The inverse of `haar`, which is also its transpose: (B, 8C, X, Y, Z) -> (B, C, 2X, 2Y, 2Z)."""
    for axis in AXES:
        total, difference = x.chunk(2, dim=1)
        x = torch.stack([total + difference, total - difference], dim=axis + 1).flatten(axis, axis + 1)
    return x * SCALE


def smooth_checkerboard(x: Tensor, inside: Tensor) -> Tensor:
    """Average x (B, 1, X, Y, Z) with weights 1, 2, 1 along each axis over the voxels where inside (same shape) is 1.

    inside: 0 or 1, of the data type of x. Voxels where it is 0 have no weight; they get the average of their neighbours
    inside, and 0 if there are none. This removes patterns that alternate from voxel to voxel, such as the checkerboard
    of the inverse Haar transform. Slow changes stay.
    """
    line = x.new_tensor([1, 2, 1]) / 4
    weights = (line[:, None, None] * line[:, None] * line)[None, None]
    return F.conv3d(x * inside, weights, padding=1) / F.conv3d(inside, weights, padding=1).clamp_min(1e-6)
