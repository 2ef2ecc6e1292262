"""Inputs of the trained methods: features of each voxel, and a vector that describes the whole source volume."""

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
FEATURES = CONTEXT_CHANNELS + 9  # channels of the voxel features
ACQUISITION = 3  # size of the acquisition vector: dMRI shell and direction
TIME = 32  # size of the embedding of a diffusion step
STEERING = ACQUISITION + TIME  # size of the vector that conditions a denoiser
CONDITION = SUMMARY_SIZE + COMPONENTS + ACQUISITION  # size of the condition vector
LEAST_SD = 1e-4
LIMIT = 4.0  # in SD: inputs of an atypical scan are clipped to the range that the network was trained on


def patches_of(maps: Tensor, corner: Tensor, shape: torch.Size) -> Tensor:
    """Cut patches of `shape` (x, y, z) out of maps (C, X, Y, Z): (B, C, x, y, z).

    corner (B, 3) is the first voxel of each patch.
    """
    x, y, z = shape
    return torch.stack([maps[:, i : i + x, j : j + y, k : k + z] for i, j, k in corner.tolist()])


class VoxelFeatures(nn.Module):
    """Features of each voxel for the trained methods, normalised by means and SDs of the training participants.

    The features are (B, 15, x, y, z), each of order one: the source; six maps computed from the source (the volume
    itself, three blurs, gradient magnitude and blurred mask) minus their training means, divided by their SDs and
    clipped to +-4; the training means of source and target; grey matter, white matter and CSF probabilities of the
    template; three coordinates in [-1, 1]. A training mean is a mean over the training participants' scans, voxel by
    voxel. Each map has one SD, around its training mean, over participants and voxels near the brain.

    `fit` sets means (2, 6, X, Y, Z) and sd (2, 6) of the six maps, for fMRI and dMRI, and maps (6, X, Y, Z), the tissue
    probabilities and the coordinates.
    """

    means: Tensor  # (2, CONTEXT_CHANNELS, X, Y, Z), in the order of Modality: training mean of each context channel
    sd: Tensor  # (2, CONTEXT_CHANNELS): SD around these means over participants and voxels near the brain
    maps: Tensor  # (6, X, Y, Z): tissue probabilities and coordinates

    def __init__(self, grid_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.register_buffer("means", torch.zeros(2, CONTEXT_CHANNELS, *grid_shape))
        self.register_buffer("sd", torch.ones(2, CONTEXT_CHANNELS))
        self.register_buffer("maps", torch.zeros(6, *grid_shape))

    def fit(self, train: Pairs) -> None:
        """Estimate means and SDs on the training participants' whole scans, and read the template's tissue maps."""
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
        """The features of each voxel of a batch, (B, 15, x, y, z), in one direction of synthesis.

        In order: the source; six maps of it (the volume, three blurs, gradient magnitude and blurred brain mask),
        normalised by their training means and SDs and clipped to +-4; the training means of source and target; three
        tissue probabilities of the template (grey matter, white matter, CSF); three coordinates in [-1, 1].
        """
        source = batch.sources[direction]
        shape = source.volume.shape[2:]
        s, t = direction.source.index, direction.target.index
        mean = patches_of(self.means[s], batch.corner, shape)
        deviation = ((source.context - mean) / self.sd[s, :, None, None, None]).clamp(-LIMIT, LIMIT)
        means = patches_of(self.means[[s, t], 0], batch.corner, shape)
        maps = patches_of(self.maps, batch.corner, shape)
        return torch.cat([source.volume, deviation, means, maps], dim=1)

    def features_without_source(self, batch: PairBatch, direction: Direction) -> Tensor:
        """The features of each voxel, (B, 15, x, y, z), with the seven channels that depend on the source set to zero.

        At one place of the grid they are equal for all participants.
        """
        features = self.features(batch, direction)
        return torch.cat(
            [torch.zeros_like(features[:, : 1 + CONTEXT_CHANNELS]), features[:, 1 + CONTEXT_CHANNELS :]], 1
        )

    def acquisition(self, batch: PairBatch, direction: Direction) -> Tensor:
        """The acquisition vector, (B, 3): b-value of the dMRI in ms/um^2 minus 1, and direction of synthesis.

        The direction is one-hot: (1, 0) for fMRI to dMRI, (0, 1) for dMRI to fMRI.
        """
        one_hot = F.one_hot(torch.full((len(batch),), direction.index, device=batch.bval.device), 2)
        return torch.cat([batch.bval - 1, one_hot.to(batch.bval.dtype)], 1)

    def steering(self, batch: PairBatch, direction: Direction, t: Tensor) -> Tensor:
        """The vector that conditions a denoiser, (B, 35).

        It holds the b-value of the dMRI in ms/um^2 minus 1, the direction of synthesis, (1, 0) for fMRI to dMRI and (0,
        1) for dMRI to fMRI, and an embedding of the diffusion steps t (B,) in 32 numbers.
        """
        return torch.cat([self.acquisition(batch, direction), time_embedding(t, TIME)], 1)

    def target_mean(self, batch: PairBatch, direction: Direction) -> Tensor:
        """Mean target volume of the training participants, cut to the batch's patches, (B, 1, x, y, z)."""
        m = direction.target.index
        return patches_of(self.means[m, :1], batch.corner, batch.sources[direction].volume.shape[2:])


class Conditioning(VoxelFeatures):
    """Voxel features, and a vector that describes the whole source, for methods that predict each voxel on its own.

    This condition vector (B, 43) holds 8 summary statistics of the source over the brain, and the first 32 principal
    components of its means over cells of 4 x 4 x 4 voxels. Both are z-scores over the training participants, clipped to
    +-4. It also holds the b-value of the dMRI in ms/um^2 minus 1, and the direction of synthesis (one-hot).

    `fit` sets, for fMRI and dMRI: summary_mean and summary_sd (2, 8); coarse_mean (2, cells), means of the cells; basis
    (2, cells, 32), principal axes divided by the SD of their components. With fewer than 33 training scans, the last
    components are 0.
    """

    summary_mean: Tensor  # (2, SUMMARY_SIZE), in the order of Modality
    summary_sd: Tensor  # (2, SUMMARY_SIZE)
    coarse_mean: Tensor  # (2, X/4 * Y/4 * Z/4): mean of the coarse volumes
    basis: Tensor  # (2, X/4 * Y/4 * Z/4, COMPONENTS): principal axes, divided by the SD of their components

    def __init__(self, grid_shape: tuple[int, int, int]) -> None:
        super().__init__(grid_shape)
        cells = int(np.prod([n // COARSE for n in grid_shape]))
        self.register_buffer("summary_mean", torch.zeros(2, SUMMARY_SIZE))
        self.register_buffer("summary_sd", torch.ones(2, SUMMARY_SIZE))
        self.register_buffer("coarse_mean", torch.zeros(2, cells))
        self.register_buffer("basis", torch.zeros(2, cells, COMPONENTS))

    def fit(self, train: Pairs) -> None:
        """Estimate means, SDs and principal components on the training participants' whole scans."""
        super().fit(train)
        whole = train.whole_scans()
        self.basis = torch.zeros_like(self.basis)  # a fit to fewer scans fills fewer columns
        for m, modality in enumerate(Modality):
            views = [whole.source(modality, row) for row in range(len(whole))]
            summary = torch.from_numpy(np.stack([view.summary for view in views]))
            self.summary_mean[m] = summary.mean(0)
            self.summary_sd[m] = summary.std(0, correction=0).clamp_min(1e-4)
            self.coarse_mean[m], axes, scale = principal_components(whole, modality, COMPONENTS)
            self.basis[m, :, : len(scale)] = axes / scale

    def condition(self, batch: PairBatch, direction: Direction) -> Tensor:
        """The vectors that describe the source scans of a batch in one direction of synthesis, (B, 43).

        In order: 8 summary statistics of the source and 32 principal components, both as z-scores that are clipped to
        +-4; the b-value of the dMRI in ms/um^2 minus 1; and the direction, (1, 0) for fMRI to dMRI, (0, 1) for dMRI to
        fMRI.
        """
        source = batch.sources[direction]
        m = direction.source.index
        summary = (source.summary - self.summary_mean[m]) / self.summary_sd[m]
        components = (source.coarse.flatten(1) - self.coarse_mean[m]) @ self.basis[m]
        descriptor = torch.cat([summary, components], 1).clamp(-LIMIT, LIMIT)
        return torch.cat([descriptor, self.acquisition(batch, direction)], 1)


def coarse_rows(whole: Pairs, modality: Modality) -> Tensor:
    """The volumes of all rows of a modality, averaged over cells of 4 x 4 x 4 voxels and flattened: (rows, cells)."""
    return torch.from_numpy(np.stack([whole.source(modality, row).coarse.ravel() for row in range(len(whole))]))


def principal_components(whole: Pairs, modality: Modality, most: int) -> tuple[Tensor, Tensor, Tensor]:
    """Principal components, over rows, of the volumes of a modality, averaged over cells of 4 x 4 x 4 voxels.

    whole: rows of whole scans, at least one. Returns mean (cells,), axes (cells, k), and SD over rows on each axis
    (k,), above 0. The components are in the order of falling variance; k is the smaller of `most` and rows - 1.
    """
    coarse = coarse_rows(whole, modality)
    mean = coarse.mean(0)
    _, scale, axes = torch.linalg.svd(coarse - mean, full_matrices=False)
    count = min(most, len(coarse) - 1)
    return mean, axes[:count].T, scale[:count].clamp_min(LEAST_SD) / len(coarse) ** 0.5


def population_mean(pairs: Pairs, modality: Modality) -> Tensor:
    """Mean volume of a modality over all rows, (X, Y, Z) float32; zero if there are no rows."""
    total = np.zeros(pairs.grid.shape, np.float64)
    for row in range(len(pairs)):
        total += pairs.volume(modality, row)
    return torch.from_numpy((total / max(len(pairs), 1)).astype(np.float32))
