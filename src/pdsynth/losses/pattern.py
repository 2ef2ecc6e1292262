"""The pattern loss (after Eqs. 9-11): errors of the mean signals of atlas regions, and of their differences."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def region_sums(volume: Tensor, labels: Tensor, regions: int) -> tuple[Tensor, Tensor]:
    """Sum of `volume` (B, 1, X, Y, Z) over the voxels of each region, and number of these voxels, both (B, regions).

    labels (B or 1, 1, X, Y, Z): 0 is background, 1 to `regions` the regions. Both results are float32, and 0 for a
    region without a voxel.
    """
    flat = volume.float().flatten(1)  # sums of bf16 would lose voxels
    index = labels.long().expand(volume.shape).flatten(1)
    empty = flat.new_zeros(len(flat), regions + 1)
    sums = empty.scatter_add(1, index, flat)
    counts = empty.scatter_add(1, index, torch.ones_like(flat))
    return sums[:, 1:], counts[:, 1:]


class PatternLoss(nn.Module):
    """Squared error of the pattern (region means r_i), plus that of its coupling (all r_i - r_j).

    The loss is mean_i d_i^2 + mean_ij (d_i - d_j)^2, where d_i = (r_i - r_i*) / spread_i and r_i* is the region mean of
    the target. i and j run over the regions in the patch; the loss of a patch without a region is zero. The means are
    weighted by the number of voxels of each region in the patch, so that a small part of a region has a small weight.
    The loss of a batch is the mean over its patches. `spread` (regions,) is the SD of each region's mean over the
    training participants. It is a buffer, saved with the model, and empty until `set_spread`.
    """

    spread: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("spread", torch.empty(0))

    def set_spread(self, spread: Tensor) -> None:
        """Set the SD of each region's mean over the training participants, (regions,), above 0 (not checked).

        Raises ValueError for fewer than two regions.
        """
        if len(spread) < 2:
            raise ValueError(
                f"an atlas of {len(spread)} regions has no pattern. Give an atlas with at least 2 regions."
            )
        self.spread = spread.to(self.spread)

    def forward(self, estimate: Tensor, target: Tensor, labels: Tensor) -> Tensor:
        """The loss, a scalar, of volumes (B, 1, X, Y, Z), with labels (B or 1, 1, X, Y, Z) of the same patches.

        Labels are 0 outside all regions and 1 to R, the number of regions, inside. `set_spread` must be called first.
        """
        difference, counts = region_sums(estimate - target, labels, len(self.spread))
        d = difference / counts.clamp_min(1) / self.spread
        weight = counts / counts.sum(1, keepdim=True).clamp_min(1)
        level = (weight * d).sum(1)
        energy = (weight * d.square()).sum(1)
        # sum_ij w_i w_j (d_i - d_j)^2 = 2 (sum_i w_i d_i^2 - (sum_i w_i d_i)^2) if the weights sum to one
        return (energy + 2 * (energy - level.square())).mean()
