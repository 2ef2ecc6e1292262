"""Correction of a method's estimates for a new scanner: a linear function of estimate and source at each voxel.

Boosted trees over all voxels may correct the result once more.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pdsynth.data.batch import CONTEXT_CHANNELS, NEIGHBOURS, Source, neighbours
from pdsynth.methods.trees import walk
from pdsynth.types import Direction

COLUMNS = 5 + CONTEXT_CHANNELS
ESTIMATE, SOURCE = 1, 5  # the columns that hold estimate and source
LOCAL_COLUMNS = COLUMNS + NEIGHBOURS
TREE_COLUMNS = 3 + NEIGHBOURS + CONTEXT_CHANNELS + NEIGHBOURS + 3 + 1 + 3
NODE = 5  # numbers of a node of a tree: the column that it splits, its threshold, its two children, its value
DEPTH = 12  # largest depth of a tree
AROUND = 5  # edge in voxels of the cube whose mean is a column
AROUND_DEVIATION = (3, 7)  # the same, of the source minus the mean source
CHUNK = 2048  # voxels at which the trees are evaluated at a time: few, so that they stay in the cache


def no_correction() -> Tensor:
    """Weights that change nothing, (2, COLUMNS): one row per direction of synthesis, in the order of Direction."""
    return torch.zeros(len(Direction), COLUMNS)


def no_places() -> tuple[Tensor, Tensor]:
    """Weights of no voxel: flat indices (0,) int32, and weights (2, LOCAL_COLUMNS, 0) fp16, as `packed` gives them."""
    return torch.zeros(0, dtype=torch.int32), torch.zeros(len(Direction), LOCAL_COLUMNS, 0, dtype=torch.float16)


def packed(maps: Tensor) -> tuple[Tensor, Tensor]:
    """The voxels with a weight other than 0 of maps (2, LOCAL_COLUMNS, X, Y, Z): their flat indices, and their weights.

    >>> maps = torch.zeros(2, LOCAL_COLUMNS, 2, 2, 2)
    >>> maps[1, 3, 0, 1, 1] = 0.5
    >>> places, weights = packed(maps)
    >>> places.tolist(), weights.shape, bool((unpacked(places, weights, (2, 2, 2)) == maps).all())
    ([3], torch.Size([2, 17, 1]), True)
    """
    flat = maps.flatten(2)
    places = torch.nonzero(flat.ne(0).any(0).any(0))[:, 0]
    return places.int(), flat[:, :, places].half()


def unpacked(places: Tensor, weights: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """The maps (2, LOCAL_COLUMNS, X, Y, Z) fp16 of the weights at some voxels; 0 at all others."""
    maps = weights.new_zeros(*weights.shape[:2], shape[0] * shape[1] * shape[2])
    maps[:, :, places.long()] = weights
    return maps.view(*weights.shape[:2], *shape)


def columns(estimate: Tensor, source: Source) -> Tensor:
    """The features of each voxel from which the correction is computed: (B, 1, X, Y, Z) -> (B, COLUMNS, X, Y, Z).

    They are 1, the estimate, its square, its mean over the 5 x 5 x 5 voxels around, its product with the source, and
    the six context features of the source (volume, three blurs, gradient magnitude, blurred brain mask).
    """
    around = F.avg_pool3d(estimate, AROUND, stride=1, padding=AROUND // 2, count_include_pad=False)
    own = [torch.ones_like(estimate), estimate, estimate.square(), around, estimate * source.volume]
    return torch.cat([*own, source.context], 1)


def local_columns(estimate: Tensor, source: Source) -> Tensor:
    """The columns, and the source at the six neighbours: (B, 1, X, Y, Z) -> (B, LOCAL_COLUMNS, X, Y, Z)."""
    return torch.cat([columns(estimate, source), neighbours(source.volume)], 1)


def no_trees() -> Tensor:
    """Trees that change nothing, (2, trees, nodes, NODE): none, for either direction."""
    return torch.zeros(len(Direction), 0, 0, NODE)


def no_source() -> Tensor:
    """The mean source scans that trees need if there are no trees, (2, 0, 0, 0) fp16."""
    return torch.zeros(len(Direction), 0, 0, 0, dtype=torch.float16)


def packed_trees(trees: Sequence[np.ndarray]) -> Tensor:
    """The trees of both directions, each (trees, nodes, NODE), as one tensor; zeros are trees that add nothing.

    >>> packed_trees([np.ones((1, 3, NODE)), np.zeros((0, 0, NODE))]).shape
    torch.Size([2, 1, 3, 5])
    """
    most = np.max([each.shape[:2] for each in trees], 0)
    padding = [[(0, full - own) for full, own in zip(most, each.shape[:2], strict=True)] for each in trees]
    return torch.from_numpy(
        np.stack([np.pad(t, [*p, (0, 0)]) for t, p in zip(trees, padding, strict=True)]).astype(np.float32)
    )


def packed_sources(means: Sequence[np.ndarray]) -> Tensor:
    """The mean source scans of both directions, each (X, Y, Z) or empty, as one tensor; zeros for an empty one.

    >>> packed_sources([np.ones((2, 3, 2)), np.zeros((0, 0, 0))]).shape
    torch.Size([2, 2, 3, 2])
    """
    shape = np.max([each.shape for each in means], 0)
    return torch.from_numpy(np.stack([each if each.size else np.zeros(shape) for each in means])).half()


def tree_columns(estimate: Tensor, before: Tensor, source: Source, mean: Tensor) -> Tensor:
    """The features of each voxel from which trees correct an estimate: (B, 1, X, Y, Z) -> (B, TREE_COLUMNS, X, Y, Z).

    They are the estimate, its means over the 3 x 3 x 3 and 5 x 5 x 5 voxels around, its values at the six neighbours,
    the six context features of the source, the source at the six neighbours, the coordinates in [-1, 1], the estimate
    `before` it was corrected by weights, and the source minus `mean`, with its means over the 3 x 3 x 3 and 7 x 7 x 7
    voxels around. mean (X, Y, Z) is the mean source scan of other participants.
    """

    def around(volume: Tensor, edges: Sequence[int]) -> list[Tensor]:
        return [F.avg_pool3d(volume, edge, 1, edge // 2, count_include_pad=False) for edge in edges]

    deviation = source.volume - mean
    axes = [torch.linspace(-1, 1, side, device=estimate.device) for side in estimate.shape[2:]]
    places = torch.stack(torch.meshgrid(*axes, indexing="ij")).expand(len(estimate), -1, -1, -1, -1)
    own = [estimate, *around(estimate, (3, AROUND)), neighbours(estimate)]
    others = [deviation, *around(deviation, AROUND_DEVIATION)]
    return torch.cat([*own, source.context, neighbours(source.volume), places, before, *others], 1)


def corrected(
    estimate: Tensor, source: Source, weights: Tensor, places: Tensor, local: Tensor, trees: Tensor, mean: Tensor
) -> Tensor:
    """The estimate plus the weighted sum of its columns, (B, 1, X, Y, Z) in [0, 1]; the same tensor for zero weights.

    weights (COLUMNS,): of one direction, for all voxels. local (LOCAL_COLUMNS, V): weights that are added at the voxels
    with flat indices `places`, (V,). trees (trees, nodes, NODE): their sum is added to the result. mean (X, Y, Z): the
    mean source scan that the trees need; empty for trees that do not split by it. Voxels that are not near the source's
    brain stay as they are.
    """
    before = estimate
    if weights.any() or local.any():
        of = local_columns(estimate, source).flatten(2)
        added = (of[:, :COLUMNS] * weights.view(1, -1, 1)).sum(1)
        added[:, places.long()] += (of[:, :, places.long()] * local.float()).sum(1)
        estimate = torch.where(source.near, (estimate + added.view_as(estimate)).clamp(0, 1), estimate)
    return _corrected_by_trees(estimate, before, source, trees, mean) if trees.any() else estimate


def _corrected_by_trees(estimate: Tensor, before: Tensor, source: Source, trees: Tensor, mean: Tensor) -> Tensor:
    feature, threshold, children, value = trees[..., 0], trees[..., 1], trees[..., 2:4], trees[..., 4]
    mean = mean.float() if mean.numel() else estimate.new_zeros(())  # models of earlier versions have none
    columns, result = tree_columns(estimate, before, source, mean).flatten(2), estimate.clone()
    for of, near, volume in zip(columns, source.near, result, strict=True):
        for voxels in torch.nonzero(near.flatten())[:, 0].split(CHUNK):
            added = walk(of[:, voxels].T.contiguous(), feature, threshold, children, value, DEPTH)
            volume.view(-1)[voxels] = (volume.view(-1)[voxels] + added).clamp(0, 1)
    return result
