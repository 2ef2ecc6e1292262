"""What the trained methods know of the source: features of each voxel, and a vector that describes the whole."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pdsynth.data.batch import COARSE, CONTEXT_CHANNELS, NEAR, SUMMARY_SIZE, PairBatch
from pdsynth.data.pairs import Pairs
from pdsynth.imaging.template import tissue_template
from pdsynth.networks.embedding import time_embedding
from pdsynth.types import Direction, Modality

COMPONENTS = 32  # principal components of the coarse whole volume
FEATURES = CONTEXT_CHANNELS + 9
ACQUISITION = 3
TIME = 32  # size of the embedding of a diffusion step
STEERING = ACQUISITION + TIME
CONDITION = SUMMARY_SIZE + COMPONENTS + ACQUISITION
LEAST_SD = 1e-4
LIMIT = 4.0  # in SD: a scan unlike the training cohort must not drive the network far from what it knows


def patches_of(maps: Tensor, corner: Tensor, shape: torch.Size) -> Tensor:
    """Cut (C, X, Y, Z) maps at each corner (B, 3) to (B, C, x, y, z)."""
    x, y, z = shape
    return torch.stack([maps[:, i : i + x, j : j + y, k : k + z] for i, j, k in corner.tolist()])


class VoxelFeatures(nn.Module):
    """What is known of each voxel, normalised on the training participants.

    Features (B, FEATURES, x, y, z), each of unit order: the source; how its context differs from the training mean, in
    SD; the training means of source and target; grey, white and CSF priors; coordinates in [-1, 1].
    """

    means: Tensor  # (2, CONTEXT_CHANNELS, X, Y, Z), in the order of Modality: of each context channel
    sd: Tensor  # (2, CONTEXT_CHANNELS) around them, near the brain
    maps: Tensor  # (6, X, Y, Z): priors and coordinates

    def __init__(self, grid_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.register_buffer("means", torch.zeros(2, CONTEXT_CHANNELS, *grid_shape))
        self.register_buffer("sd", torch.ones(2, CONTEXT_CHANNELS))
        self.register_buffer("maps", torch.zeros(6, *grid_shape))

    def fit(self, train: Pairs) -> None:
        """Means and normalisers from the training participants' whole scans."""
        whole = train.whole_scans()
        prior = tissue_template(train.grid)
        axes = [np.linspace(-1, 1, n, dtype=np.float32) for n in train.grid.shape]
        maps = [prior["gm"], prior["wm"], prior["csf"], *np.meshgrid(*axes, indexing="ij")]
        self.maps.copy_(torch.from_numpy(np.stack(maps)))
        for m, modality in enumerate(Modality):
            total, squares = np.zeros((2, *self.means.shape[1:]), np.float64)
            for row in range(len(whole)):
                context = whole.source(modality, row).context.astype(np.float32)
                total += context
                squares += np.square(context)
            mean = total / len(whole)
            variance = np.maximum(squares / len(whole) - np.square(mean), 0)[:, mean[-1] > NEAR].mean(1)
            self.means[m] = torch.from_numpy(mean)
            self.sd[m] = torch.from_numpy(np.sqrt(variance)).clamp_min(LEAST_SD)

    def features(self, batch: PairBatch, direction: Direction) -> Tensor:
        source = batch.sources[direction]
        shape = source.volume.shape[2:]
        s, t = direction.source.index, direction.target.index
        usual = patches_of(self.means[s], batch.corner, shape)
        unusual = ((source.context - usual) / self.sd[s, :, None, None, None]).clamp(-LIMIT, LIMIT)
        means = patches_of(self.means[[s, t], 0], batch.corner, shape)
        maps = patches_of(self.maps, batch.corner, shape)
        return torch.cat([source.volume, unusual, means, maps], dim=1)

    def features_without_source(self, batch: PairBatch, direction: Direction) -> Tensor:
        """The same with all that shows the source set to zero: what is left is equal for everyone."""
        features = self.features(batch, direction)
        return torch.cat(
            [torch.zeros_like(features[:, : 1 + CONTEXT_CHANNELS]), features[:, 1 + CONTEXT_CHANNELS :]], 1
        )

    def acquisition(self, batch: PairBatch, direction: Direction) -> Tensor:
        """(B, ACQUISITION): the dMRI shell in ms/um^2 around 1, and the direction."""
        which = F.one_hot(torch.full((len(batch),), direction.index, device=batch.bval.device), 2)
        return torch.cat([batch.bval - 1, which.to(batch.bval.dtype)], 1)

    def steering(self, batch: PairBatch, direction: Direction, t: Tensor) -> Tensor:
        """(B, STEERING), of a denoiser at diffusion steps t (B,): the acquisition and the embedding of t."""
        return torch.cat([self.acquisition(batch, direction), time_embedding(t, TIME)], 1)

    def target_mean(self, batch: PairBatch, direction: Direction) -> Tensor:
        """The training mean of the target at the batch's patches, (B, 1, x, y, z)."""
        m = direction.target.index
        return patches_of(self.means[m, :1], batch.corner, batch.sources[direction].volume.shape[2:])


class Conditioning(VoxelFeatures):
    """Voxel features, and a vector that describes the whole source, for methods that see one voxel at a time.

    Condition (B, CONDITION): the source's summary and principal components, in SD; the acquisition.
    """

    summary_mean: Tensor  # (2, SUMMARY_SIZE)
    summary_sd: Tensor
    coarse_mean: Tensor  # (2, X/4 * Y/4 * Z/4)
    basis: Tensor  # (2, X/4 * Y/4 * Z/4, COMPONENTS), scaled to unit variance

    def __init__(self, grid_shape: tuple[int, int, int]) -> None:
        super().__init__(grid_shape)
        cells = int(np.prod([n // COARSE for n in grid_shape]))
        self.register_buffer("summary_mean", torch.zeros(2, SUMMARY_SIZE))
        self.register_buffer("summary_sd", torch.ones(2, SUMMARY_SIZE))
        self.register_buffer("coarse_mean", torch.zeros(2, cells))
        self.register_buffer("basis", torch.zeros(2, cells, COMPONENTS))

    def fit(self, train: Pairs) -> None:
        """Means, normalisers and principal components from the training participants' whole scans."""
        super().fit(train)
        whole = train.whole_scans()
        self.basis = torch.zeros_like(self.basis)  # fewer people than before fill fewer columns
        for m, modality in enumerate(Modality):
            views = [whole.source(modality, row) for row in range(len(whole))]
            summary = torch.from_numpy(np.stack([view.summary for view in views]))
            self.summary_mean[m] = summary.mean(0)
            self.summary_sd[m] = summary.std(0, correction=0).clamp_min(1e-4)
            self.coarse_mean[m], axes, scale = principal_components(whole, modality, COMPONENTS)
            self.basis[m, :, : len(scale)] = axes / scale

    def condition(self, batch: PairBatch, direction: Direction) -> Tensor:
        source = batch.sources[direction]
        m = direction.source.index
        summary = (source.summary - self.summary_mean[m]) / self.summary_sd[m]
        components = (source.coarse.flatten(1) - self.coarse_mean[m]) @ self.basis[m]
        described = torch.cat([summary, components], 1).clamp(-LIMIT, LIMIT)
        return torch.cat([described, self.acquisition(batch, direction)], 1)


def coarse_rows(whole: Pairs, modality: Modality) -> Tensor:
    """The coarse volumes of all rows, (rows, cells)."""
    return torch.from_numpy(np.stack([whole.source(modality, row).coarse.ravel() for row in range(len(whole))]))


def principal_components(whole: Pairs, modality: Modality, most: int) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (cells,), axes (cells, k) and SD (k,) of the coarse volumes, strongest first; k is at most rows - 1."""
    coarse = coarse_rows(whole, modality)
    mean = coarse.mean(0)
    _, scale, axes = torch.linalg.svd(coarse - mean, full_matrices=False)
    kept = min(most, len(coarse) - 1)
    return mean, axes[:kept].T, scale[:kept].clamp_min(LEAST_SD) / len(coarse) ** 0.5


def population_mean(pairs: Pairs, modality: Modality) -> Tensor:
    """Mean volume over rows, (X, Y, Z) float32."""
    total = np.zeros(pairs.grid.shape, np.float64)
    for row in range(len(pairs)):
        total += pairs.volume(modality, row)
    return torch.from_numpy((total / max(len(pairs), 1)).astype(np.float32))
