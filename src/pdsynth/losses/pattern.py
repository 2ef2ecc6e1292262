"""The pattern loss (after Eqs. 9-11): the signals of atlas regions, and how they stand to each other."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def region_sums(volume: Tensor, labels: Tensor, regions: int) -> tuple[Tensor, Tensor]:
    """Sum of `volume` (B, 1, X, Y, Z) in each region and its number of voxels, both (B, regions).

    labels (B or 1, 1, X, Y, Z): 0 is background, 1 to `regions` the regions.
    """
    flat = volume.float().flatten(1)  # sums of bf16 would lose voxels
    index = labels.long().expand(volume.shape).flatten(1)
    empty = flat.new_zeros(len(flat), regions + 1)
    sums = empty.scatter_add(1, index, flat)
    counts = empty.scatter_add(1, index, torch.ones_like(flat))
    return sums[:, 1:], counts[:, 1:]


class PatternLoss(nn.Module):
    """Squared error of the pattern (region means r_i), plus that of its coupling (all r_i - r_j).

    With d_i = (r_i - r_i*) / spread_i, r* the target's: mean_i d_i^2 + mean_ij (d_i - d_j)^2, over the regions that the
    patch holds; a patch that holds none adds zero. The means are weighted by voxels of each region in the patch, so
    that a clipped corner of a region counts little. `spread` (regions,) is the template from the training fold: the SD
    over participants of each region's mean. It is a buffer, saved with the model, and empty until `set_spread`.
    """

    spread: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("spread", torch.empty(0))

    def set_spread(self, spread: Tensor) -> None:
        """Set the SD of each region, (regions,). Raises ValueError for fewer than two regions."""
        if len(spread) < 2:
            raise ValueError(f"an atlas of {len(spread)} regions has no pattern. Give one of at least 2.")
        self.spread = spread.to(self.spread)

    def forward(self, estimate: Tensor, target: Tensor, labels: Tensor) -> Tensor:
        """Scalar, from volumes (B, 1, X, Y, Z) and labels (B or 1, 1, X, Y, Z) cut at the same corners."""
        difference, counts = region_sums(estimate - target, labels, len(self.spread))
        d = difference / counts.clamp_min(1) / self.spread
        weight = counts / counts.sum(1, keepdim=True).clamp_min(1)
        level = (weight * d).sum(1)
        energy = (weight * d.square()).sum(1)
        # sum_ij w_i w_j (d_i - d_j)^2 = 2 (sum_i w_i d_i^2 - (sum_i w_i d_i)^2) where the weights sum to one
        return (energy + 2 * (energy - level.square())).mean()
