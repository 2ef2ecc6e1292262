"""Boosted regression trees of scikit-learn as arrays of nodes, so that a model's file needs no pickle."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from sklearn.ensemble import HistGradientBoostingRegressor


def tree_arrays(model: HistGradientBoostingRegressor) -> dict[str, np.ndarray]:
    """The nodes of scikit-learn's fitted trees as arrays, by name.

    feature (trees, nodes) is the column that a node splits, threshold (trees, nodes) the largest value that goes to the
    first child, branches (trees, nodes, 2) the indices of its children, value (trees, nodes) the term that a leaf adds
    to the prediction. A leaf is its own child. A tree with fewer nodes than the largest is padded with leaves of value
    0 to which no branch leads. baseline is a scalar, the prediction before the first tree.
    """
    nodes = [predictor[0].nodes for predictor in model._predictors]
    most = max(len(n) for n in nodes)
    shape = (len(nodes), most)
    feature, value = np.zeros(shape, np.int64), np.zeros(shape, np.float32)
    threshold = np.full(shape, np.inf, np.float32)
    branches = np.broadcast_to(np.arange(most)[:, None], (*shape, 2)).copy()
    for t, tree in enumerate(nodes):
        inner = np.flatnonzero(tree["is_leaf"] == 0)
        feature[t, inner] = tree["feature_idx"][inner]
        threshold[t, inner] = tree["num_threshold"][inner]
        branches[t, inner, 0], branches[t, inner, 1] = tree["left"][inner], tree["right"][inner]
        value[t, : len(tree)] = tree["value"]
    baseline = np.asarray(model._baseline_prediction).ravel()[0]
    return {"feature": feature, "threshold": threshold, "branches": branches, "value": value, "baseline": baseline}


def pad_nodes(array: np.ndarray, nodes: int) -> np.ndarray:
    """Pad an array (trees, nodes, ...) of trees with zeros, up to `nodes` nodes, which must not be fewer than it has.

    No branch leads to a padded node.
    """
    return np.pad(array, [(0, 0), (0, nodes - array.shape[1])] + [(0, 0)] * (array.ndim - 2))


def walk(columns: Tensor, feature: Tensor, threshold: Tensor, branches: Tensor, value: Tensor, depth: int) -> Tensor:
    """The sum of all trees at each voxel, (voxels, columns) -> (voxels,).

    feature, threshold, branches, value: as in `tree_arrays`. depth: largest depth of a tree. All pairs of tree and
    voxel descend one level at a time.
    """
    trees, nodes = feature.shape
    voxels, width = columns.shape
    roots = torch.arange(trees, device=columns.device, dtype=torch.int32) * nodes
    features, thresholds = feature.flatten().int(), threshold.flatten()
    children = (branches.int() + roots[:, None, None]).flatten()
    flat, row = columns.flatten(), torch.arange(voxels, device=columns.device, dtype=torch.int32) * width
    row, node = row.repeat(trees), roots.repeat_interleave(voxels)
    for _ in range(depth):
        above = flat.index_select(0, row + features.index_select(0, node)) > thresholds.index_select(0, node)
        node = children.index_select(0, 2 * node + above)
    return value.flatten().index_select(0, node).view(trees, voxels).sum(0)
