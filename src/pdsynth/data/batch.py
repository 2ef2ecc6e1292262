"""The input of a method: sources and targets of one or more sessions, without any information on the participants."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from pdsynth.imaging.spatial import block_means
from pdsynth.types import Direction

COARSE = 4  # edge in voxels of the cells of a coarse volume
PERCENTILES = (5, 25, 50, 75, 95)
SUMMARY_SIZE = len(PERCENTILES) + 3
CONTEXT_CHANNELS = 6
OFFSETS = (
    (0, 1, 1),
    (2, 1, 1),
    (1, 0, 1),
    (1, 2, 1),
    (1, 1, 0),
    (1, 1, 2),
)  # of the neighbours, in the volume padded by one voxel
NEIGHBOURS = len(OFFSETS)
NEAR = 0.05  # threshold of the blurred brain mask

Patch = tuple[int, int, int]
Array = TypeVar("Array", np.ndarray, Tensor)


@dataclass(frozen=True)
class Source:
    """The source scans of a batch of B sessions in one direction of synthesis, with features computed from them.

    volume (B, 1, x, y, z), in 0..1, context (B, 6, x, y, z) and brain (B, 1, x, y, z; 0 or 1) are patches of the scans,
    or whole volumes. The context holds the volume, its Gaussian blurs with SDs of 1, 2 and 4 voxels, the gradient
    magnitude of the first blur, and the brain mask blurred with an SD of 2 voxels, all computed before the patch is
    cut. Two features are of the whole volume (X, Y, Z): summary (B, 8) holds mean and SD over the brain's voxels, the
    fraction of the volume's voxels that are in the brain, and the 5th, 25th, 50th, 75th and 95th percentile over the
    brain's voxels; coarse (B, 1, X/4, Y/4, Z/4) holds means over cells of 4 x 4 x 4 voxels.
    """

    volume: Tensor
    context: Tensor
    brain: Tensor
    summary: Tensor
    coarse: Tensor

    @property
    def near(self) -> Tensor:
        """Voxels in the source's brain or within about 3 voxels of it, (B, 1, x, y, z) bool.

        They are those in which the blurred brain mask of the context is above 0.05, so that brain voxels without enough
        others around them are left out. Methods that work voxel by voxel estimate the target only there. Scores are
        computed in the target's brain, not there.
        """
        return self.context[:, -1:] > NEAR


@dataclass(frozen=True)
class PairBatch:
    """The scans of B sessions by direction of synthesis, for training or prediction; no diagnosis, age or sex.

    sources: the source scans and their features; a direction whose source scan was not asked for is absent. targets:
    target volumes (B, 1, x, y, z) in [0, 1]. masks (B, 1, x, y, z): the targets' brain masks, 0 or 1. corner (B, 3):
    the first voxel of each patch on the grid, 0 for whole volumes. bval (B, 1): b-value of the dMRI in ms/um^2, of the
    source scan or of the target to synthesise. site: name of each session's site. rows (B,): positions in the table of
    the `Pairs` that made the batch, -1 for a scan outside it. oracle: E[target | anatomy that both scans share], (B, 1,
    x, y, z) in [0, 1]; empty unless the cohort is simulated with these volumes. targets and masks are empty for a scan
    to synthesise from.
    """

    sources: dict[Direction, Source]
    corner: Tensor
    bval: Tensor
    site: list[str]
    rows: np.ndarray
    targets: dict[Direction, Tensor]
    masks: dict[Direction, Tensor]
    oracle: dict[Direction, Tensor]

    def map(self, change: Callable[[Tensor], Tensor]) -> PairBatch:
        """The batch with `change` applied to every tensor. The list of sites and the array of rows stay."""

        def each(tensors: dict[Direction, Tensor]) -> dict[Direction, Tensor]:
            return {d: change(t) for d, t in tensors.items()}

        return replace(
            self,
            sources={d: Source(**{k: change(v) for k, v in vars(s).items()}) for d, s in self.sources.items()},
            corner=change(self.corner),
            bval=change(self.bval),
            targets=each(self.targets),
            masks=each(self.masks),
            oracle=each(self.oracle),
        )

    def to(self, device: torch.device | str) -> PairBatch:
        """The same batch on another device, such as "cpu" or "cuda"."""
        return self.map(lambda tensor: tensor.to(device))

    def at(self, rows: slice | np.ndarray) -> PairBatch:
        """The batch of the sessions at some positions, a slice or whole numbers."""
        site = [self.site[i] for i in np.arange(len(self))[rows]]
        return replace(self.map(lambda tensor: tensor[rows]), site=site, rows=self.rows[rows])

    def only(self, i: int) -> PairBatch:
        """The batch of the session at position i, from 0, alone; empty if i is not below the number of sessions."""
        return self.at(slice(i, i + 1))

    def parts(self, number: int) -> list[PairBatch]:
        """The batch in `number` equal parts, in order; the number must divide that of the sessions."""
        size = len(self) // number
        return [self.at(slice(i * size, (i + 1) * size)) for i in range(number)]

    def __len__(self) -> int:
        return len(self.corner)


def multiscale(volume: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """The context features of one whole volume: (X, Y, Z) -> (6, X, Y, Z) float32.

    They are, in this order, the volume, its Gaussian blurs with SDs of 1, 2 and 4 voxels, the gradient magnitude of the
    first blur (per voxel), and the brain mask `brain` (X, Y, Z; 0 or 1) blurred with an SD of 2 voxels.
    """
    blurs = [ndimage.gaussian_filter(volume, sigma, truncate=3) for sigma in (1, 2, 4)]
    gradient = np.sqrt(sum(np.square(g) for g in np.gradient(blurs[0])))
    edge = ndimage.gaussian_filter(brain.astype(np.float32), 2, truncate=3)
    return np.stack([volume, *blurs, gradient, edge]).astype(np.float32)


def neighbours(volume: Tensor) -> Tensor:
    """The values at the six neighbours of each voxel, (B, 1, X, Y, Z) -> (B, 6, X, Y, Z); at the border its own value.

    >>> neighbours(torch.arange(8.0).view(1, 1, 2, 2, 2))[0, :, 0, 0, 0].tolist()
    [0.0, 4.0, 0.0, 2.0, 0.0, 1.0]
    """
    x, y, z = volume.shape[2:]
    padded = F.pad(volume, (1,) * 6, mode="replicate")
    return torch.cat([padded[:, :, i : i + x, j : j + y, k : k + z] for i, j, k in OFFSETS], 1)


def mirrored(tensor: Tensor) -> Tensor:
    """Whole volumes (B, C, X, Y, Z) of the mirrored heads: left and right are exchanged. Other tensors stay.

    The volumes' grid is symmetric about the midsagittal plane (`imaging.spatial.mni_grid`).

    >>> mirrored(torch.arange(8.0).view(1, 1, 2, 2, 2)).flatten().tolist()
    [4.0, 5.0, 6.0, 7.0, 0.0, 1.0, 2.0, 3.0]
    """
    return tensor.flip(2) if tensor.dim() == 5 else tensor


def summarise(volume: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """Statistics of a volume (X, Y, Z) over its brain's voxels, (8,) float32; zeros if the brain is empty.

    They are mean, SD, the fraction of the volume's voxels that are in the brain, and the 5th, 25th, 50th, 75th and 95th
    percentile. brain (X, Y, Z) is above 0 inside.
    """
    inside = volume[brain > 0]
    if inside.size == 0:
        return np.zeros(SUMMARY_SIZE, np.float32)
    values = [inside.mean(), inside.std(), inside.size / volume.size, *np.percentile(inside, PERCENTILES)]
    return np.asarray(values, np.float32)


def coarsen(volume: np.ndarray) -> np.ndarray:
    """Means over cells of 4 x 4 x 4 voxels: (X, Y, Z) -> (X/4, Y/4, Z/4).

    Incomplete cells at the far borders are dropped.
    """
    return block_means(volume, COARSE)


@dataclass(frozen=True)
class WholeSource:
    """The features of one whole source volume, as arrays.

    context (6, X, Y, Z) float16: the volume, its three blurs, its gradient magnitude and the blurred brain mask, as
    `multiscale` computes them. brain (X, Y, Z) bool. summary (8,): mean, SD, fraction of voxels in the brain and five
    percentiles, as `summarise` computes them. coarse (X/4, Y/4, Z/4): means over cells of 4 x 4 x 4 voxels.
    """

    context: np.ndarray
    brain: np.ndarray
    summary: np.ndarray
    coarse: np.ndarray

    @cached_property
    def inside(self) -> np.ndarray:
        """Flat indices, in C order, of the brain voxels, (n,) int32, or of all voxels if the brain is empty."""
        flat = np.flatnonzero(self.brain)
        return (flat if flat.size else np.arange(self.brain.size)).astype(np.int32)

    @classmethod
    def of(cls, volume: np.ndarray, brain: np.ndarray) -> WholeSource:
        """The features of a volume (X, Y, Z) in 0..1 with its brain mask (X, Y, Z)."""
        volume = np.asarray(volume, np.float32)
        context = multiscale(volume, brain).astype(np.float16)
        return cls(context, brain.astype(bool), summarise(volume, brain), coarsen(volume))


def stack_sources(wholes: list[WholeSource], corners: np.ndarray, patch: Patch) -> Source:
    """Make the sources of a batch: cut a patch of `patch` voxels per axis from each of B whole sources, and stack them.

    wholes: the B whole sources. corners (B, 3): the first voxel of each patch; a patch must not reach beyond the
    volume. The summary and the coarse volume stay those of the whole volume.
    """
    context = torch.from_numpy(
        np.stack([crop(w.context, c, patch) for w, c in zip(wholes, corners, strict=True)]).astype(np.float32)
    )
    brain = np.stack([crop(w.brain, c, patch) for w, c in zip(wholes, corners, strict=True)])[:, None]
    return Source(
        volume=context[:, :1],
        context=context,
        brain=torch.from_numpy(brain.astype(np.float32)),
        summary=torch.from_numpy(np.stack([w.summary for w in wholes])),
        coarse=torch.from_numpy(np.stack([w.coarse for w in wholes])[:, None]),
    )


def crop(array: Array, corner: np.ndarray | Tensor, patch: Patch) -> Array:
    """Cut a patch of `patch` voxels from the last three axes; corner (3,) is its first voxel.

    A patch that reaches beyond the array is shorter.
    """
    x, y, z = (int(c) for c in corner)
    return array[..., x : x + patch[0], y : y + patch[1], z : z + patch[2]]


def source_batch(volume: np.ndarray, brain: np.ndarray, direction: Direction, bval: float) -> PairBatch:
    """The input of a method for one whole source scan without a target, as a batch of one.

    volume (X, Y, Z) is in 0..1, brain (X, Y, Z) is its mask, direction that of the synthesis. bval: b-value in s/mm^2
    of the source dMRI, or of the dMRI to synthesise; the batch has it in ms/um^2. The batch has no targets, masks and
    oracle; its site is "" and its row -1.
    """
    whole = WholeSource.of(volume, brain)
    corners = np.zeros((1, 3), np.int64)
    return PairBatch(
        sources={direction: stack_sources([whole], corners, volume.shape)},
        corner=torch.from_numpy(corners),
        bval=torch.tensor([[bval / 1000]], dtype=torch.float32),
        site=[""],
        rows=np.array([-1]),
        targets={},
        masks={},
        oracle={},
    )
