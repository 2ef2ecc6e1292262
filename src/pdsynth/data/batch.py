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

from pdsynth.imaging.spatial import block_means
from pdsynth.types import Direction

COARSE = 4  # edge in voxels of the cells of a coarse volume
PERCENTILES = (5, 25, 50, 75, 95)
SUMMARY_SIZE = len(PERCENTILES) + 3
CONTEXT_CHANNELS = 6
NEAR = 0.05  # threshold of the blurred brain mask

Patch = tuple[int, int, int]
Array = TypeVar("Array", np.ndarray, Tensor)


@dataclass(frozen=True)
class Source:
    """The source scans of a batch and features of them, as patches or as whole volumes.

    volume (B, 1, x, y, z), context (B, CONTEXT_CHANNELS, x, y, z) and brain (B, 1, x, y, z; 0 or 1) are patches. The
    context holds the volume, its Gaussian blurs at 1, 2 and 4 voxels, its gradient magnitude and the brain mask blurred
    at 2 voxels (the SD of the Gaussian), all computed before the patch is cut. summary (B, SUMMARY_SIZE) holds
    statistics of the whole volume inside the brain, and coarse (B, 1, X/4, Y/4, Z/4) means of the whole volume over
    cells of 4 x 4 x 4 voxels.
    """

    volume: Tensor
    context: Tensor
    brain: Tensor
    summary: Tensor
    coarse: Tensor

    @property
    def near(self) -> Tensor:
        """Voxels in the source's brain or within about 3 voxels of it, (B, 1, x, y, z) bool.

        Methods that work voxel by voxel estimate only these. It is not the mask of a score.
        """
        return self.context[:, -1:] > NEAR


@dataclass(frozen=True)
class PairBatch:
    """Sources and targets of B sessions by direction; no diagnosis, age or sex.

    targets are (B, 1, x, y, z) in [0, 1]. masks (B, 1, x, y, z) are the targets' brain masks, 0 or 1. corner (B, 3) is
    the first voxel of each patch on the grid. bval (B, 1) is the dMRI shell in ms/um^2, that of the source scan or that
    of the target to synthesise. rows (B,) are the row numbers in the table of pairs, -1 for a scan outside it. oracle
    holds E[target | shared anatomy], (B, 1, x, y, z) in [0, 1], if the cohort is simulated with oracle volumes. A
    direction without a scan is absent from the dicts.
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
        """The batch with `change` applied to every tensor."""

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
        """The same batch on another device."""
        return self.map(lambda tensor: tensor.to(device))

    def only(self, i: int) -> PairBatch:
        """A batch of session i only."""
        one = self.map(lambda tensor: tensor[i : i + 1])
        return replace(one, site=self.site[i : i + 1], rows=self.rows[i : i + 1])

    def __len__(self) -> int:
        return len(self.corner)


def multiscale(volume: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """Context channels of one whole volume, listed at `Source`: (X, Y, Z) -> (CONTEXT_CHANNELS, X, Y, Z) float32."""
    blurs = [ndimage.gaussian_filter(volume, sigma, truncate=3) for sigma in (1, 2, 4)]
    gradient = np.sqrt(sum(np.square(g) for g in np.gradient(blurs[0])))
    edge = ndimage.gaussian_filter(brain.astype(np.float32), 2, truncate=3)
    return np.stack([volume, *blurs, gradient, edge]).astype(np.float32)


def summarise(volume: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """Mean, SD and PERCENTILES over the brain's voxels; third is the fraction of voxels in the brain: (SUMMARY_SIZE,).

    float32; zeros if the brain is empty.
    """
    inside = volume[brain > 0]
    if inside.size == 0:
        return np.zeros(SUMMARY_SIZE, np.float32)
    values = [inside.mean(), inside.std(), inside.size / volume.size, *np.percentile(inside, PERCENTILES)]
    return np.asarray(values, np.float32)


def coarsen(volume: np.ndarray) -> np.ndarray:
    """Means over cells of COARSE^3 voxels: (X, Y, Z) -> (X/4, Y/4, Z/4). Incomplete cells at the edge are dropped."""
    return block_means(volume, COARSE)


@dataclass(frozen=True)
class WholeSource:
    """The features of one whole source volume, as arrays (see `Source` for the shapes, without B)."""

    context: np.ndarray
    brain: np.ndarray
    summary: np.ndarray
    coarse: np.ndarray

    @cached_property
    def inside(self) -> np.ndarray:
        """Flat indices of the brain voxels, (n,) int32, or of all voxels if the brain is empty."""
        flat = np.flatnonzero(self.brain)
        return (flat if flat.size else np.arange(self.brain.size)).astype(np.int32)

    @classmethod
    def of(cls, volume: np.ndarray, brain: np.ndarray) -> WholeSource:
        """The features of a volume (X, Y, Z) in 0..1 with its brain mask (X, Y, Z)."""
        volume = np.asarray(volume, np.float32)
        context = multiscale(volume, brain).astype(np.float16)
        return cls(context, brain.astype(bool), summarise(volume, brain), coarsen(volume))


def stack_sources(wholes: list[WholeSource], corners: np.ndarray, patch: Patch) -> Source:
    """Cut a patch of `patch` voxels from each of B whole sources, at its corner (B, 3), and stack the patches."""
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
    """Cut a patch of `patch` voxels from the last three axes; corner (3,) is its first voxel."""
    x, y, z = (int(c) for c in corner)
    return array[..., x : x + patch[0], y : y + patch[1], z : z + patch[2]]


def source_batch(volume: np.ndarray, brain: np.ndarray, direction: Direction, bval: float) -> PairBatch:
    """A batch of one whole source without a target, for synthesis; volume in 0..1 and brain are (X, Y, Z).

    bval: b-value in s/mm^2 of the source dMRI, or of the dMRI to synthesise.
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
