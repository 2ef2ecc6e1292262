"""What the trained methods know of the source: features of each voxel, and a vector that describes the whole scan."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pdsynth.data.pairs import COARSE, CONTEXT_CHANNELS, SUMMARY_SIZE, PairBatch, Pairs
from pdsynth.imaging.template import tissue_template
from pdsynth.types import Direction, Modality

COMPONENTS = 32  # principal components of the coarse whole volume
FEATURES = CONTEXT_CHANNELS + 9
CONDITION = SUMMARY_SIZE + COMPONENTS + 3
LIMIT = 3.0  # in SD: a scan unlike the training cohort must not drive the network far from what it knows


def patches_of(maps: Tensor, corner: Tensor, shape: torch.Size) -> Tensor:
    """Cut (C, X, Y, Z) maps at each corner (B, 3) to (B, C, x, y, z)."""
    x, y, z = shape
    return torch.stack([maps[:, i : i + x, j : j + y, k : k + z] for i, j, k in corner.tolist()])


class Conditioning(nn.Module):
    """Voxel features and condition vector, normalised on the training participants.

    Features (B, FEATURES, x, y, z): the source's context; its difference from the training mean; the training means of
    source and target; grey, white and CSF priors; coordinates in [-1, 1]. Condition (B, CONDITION): the source's
    summary and principal components, in SD; the dMRI shell in ms/um^2; the direction.
    """

    means: Tensor  # (2, X, Y, Z), in the order of Modality
    maps: Tensor  # (6, X, Y, Z): priors and coordinates
    summary_mean: Tensor  # (2, SUMMARY_SIZE)
    summary_sd: Tensor
    coarse_mean: Tensor  # (2, X/4 * Y/4 * Z/4)
    basis: Tensor  # (2, X/4 * Y/4 * Z/4, COMPONENTS), scaled to unit variance

    def __init__(self, grid_shape: tuple[int, int, int]) -> None:
        super().__init__()
        cells = int(np.prod([n // COARSE for n in grid_shape]))
        self.register_buffer("means", torch.zeros(2, *grid_shape))
        self.register_buffer("maps", torch.zeros(6, *grid_shape))
        self.register_buffer("summary_mean", torch.zeros(2, SUMMARY_SIZE))
        self.register_buffer("summary_sd", torch.ones(2, SUMMARY_SIZE))
        self.register_buffer("coarse_mean", torch.zeros(2, cells))
        self.register_buffer("basis", torch.zeros(2, cells, COMPONENTS))

    def fit(self, train: Pairs) -> None:
        """Means, normalisers and principal components from the training participants' whole scans."""
        whole = train.whole_scans()
        prior = tissue_template(train.grid)
        axes = [np.linspace(-1, 1, n, dtype=np.float32) for n in train.grid.shape]
        maps = [prior["gm"], prior["wm"], prior["csf"], *np.meshgrid(*axes, indexing="ij")]
        self.maps.copy_(torch.from_numpy(np.stack(maps)))
        for m, modality in enumerate(Modality):
            self.means[m] = population_mean(whole, modality)
            views = [whole.source(modality, row) for row in range(len(whole))]
            summary = torch.from_numpy(np.stack([view.summary for view in views]))
            self.summary_mean[m] = summary.mean(0)
            self.summary_sd[m] = summary.std(0, correction=0).clamp_min(1e-4)
            coarse = torch.from_numpy(np.stack([view.coarse.ravel() for view in views]))
            self.coarse_mean[m] = coarse.mean(0)
            centred = coarse - self.coarse_mean[m]
            _, scale, axes_t = torch.linalg.svd(centred, full_matrices=False)
            kept = min(COMPONENTS, len(views) - 1)
            sd = scale[:kept].clamp_min(1e-4) / len(views) ** 0.5
            self.basis[m, :, :kept] = axes_t[:kept].T / sd

    def features(self, batch: PairBatch, direction: Direction) -> Tensor:
        source = batch.sources[direction]
        shape = source.volume.shape[2:]
        order = list(Modality)
        pair = [order.index(direction.source), order.index(direction.target)]
        means = patches_of(self.means[pair], batch.corner, shape)
        maps = patches_of(self.maps, batch.corner, shape)
        return torch.cat([source.context, source.volume - means[:, :1], means, maps], dim=1)

    def condition(self, batch: PairBatch, direction: Direction) -> Tensor:
        source = batch.sources[direction]
        m = list(Modality).index(direction.source)
        summary = (source.summary - self.summary_mean[m]) / self.summary_sd[m]
        components = (source.coarse.flatten(1) - self.coarse_mean[m]) @ self.basis[m]
        which = F.one_hot(torch.full((len(batch),), m, device=summary.device), 2)
        described = torch.cat([summary, components], 1).clamp(-LIMIT, LIMIT)
        return torch.cat([described, batch.bval - 1, which.to(summary.dtype)], 1)

    def target_mean(self, batch: PairBatch, direction: Direction) -> Tensor:
        """The training mean of the target at the batch's patches, (B, 1, x, y, z)."""
        m = list(Modality).index(direction.target)
        return patches_of(self.means[m : m + 1], batch.corner, batch.sources[direction].volume.shape[2:])


def population_mean(pairs: Pairs, modality: Modality) -> Tensor:
    """Mean volume over rows, (X, Y, Z) float32."""
    total = np.zeros(pairs.grid.shape, np.float64)
    for row in range(len(pairs)):
        total += pairs.volume(modality, row)
    return torch.from_numpy((total / max(len(pairs), 1)).astype(np.float32))
