"""Correction of a method's estimates for a new scanner: one linear function of estimate and source for all voxels."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from pdsynth.data.batch import CONTEXT_CHANNELS, Source
from pdsynth.types import Direction

COLUMNS = 5 + CONTEXT_CHANNELS
AROUND = 5  # edge in voxels of the cube whose mean is a column


def no_correction() -> Tensor:
    """Weights that change nothing, (2, COLUMNS): one row per direction of synthesis, in the order of Direction."""
    return torch.zeros(len(Direction), COLUMNS)


def columns(estimate: Tensor, source: Source) -> Tensor:
    """The features of each voxel from which the correction is computed: (B, 1, X, Y, Z) -> (B, COLUMNS, X, Y, Z).

    They are 1, the estimate, its square, its mean over the 5 x 5 x 5 voxels around, its product with the source, and
    the six context features of the source (volume, three blurs, gradient magnitude, blurred brain mask).
    """
    around = F.avg_pool3d(estimate, AROUND, stride=1, padding=AROUND // 2, count_include_pad=False)
    own = [torch.ones_like(estimate), estimate, estimate.square(), around, estimate * source.volume]
    return torch.cat([*own, source.context], 1)


def corrected(estimate: Tensor, source: Source, weights: Tensor) -> Tensor:
    """The estimate plus the weighted sum of its columns, (B, 1, X, Y, Z) in [0, 1]; the same tensor for zero weights.

    weights (COLUMNS,): of one direction. Voxels that are not near the source's brain stay as they are.
    """
    if not weights.any():
        return estimate
    added = (columns(estimate, source) * weights.view(1, -1, 1, 1, 1)).sum(1, keepdim=True)
    return torch.where(source.near, (estimate + added).clamp(0, 1), estimate)
