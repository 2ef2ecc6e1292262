"""Regressions: a ridge at each voxel in closed form, and gradient boosting over all voxels by scikit-learn."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from sklearn.ensemble import HistGradientBoostingRegressor
from threadpoolctl import threadpool_limits
from torch import Tensor

from pdsynth.data.batch import CONTEXT_CHANNELS, PairBatch
from pdsynth.data.pairs import Pairs
from pdsynth.methods.base import Method, MethodConfig, Settings, register
from pdsynth.methods.conditioning import CONDITION, FEATURES, Conditioning, population_mean
from pdsynth.methods.recipe import Recipe, Role
from pdsynth.methods.trees import pad_nodes, tree_arrays, walk
from pdsynth.methods.voxel_ridge import VoxelRidge
from pdsynth.types import Direction, Modality

CHUNK = 8192  # voxels per batch of predictions


@register
class VoxelwiseRidge(Method):
    """A control (simple method for comparison): at each voxel, a ridge regression of the target on source features.

    The features are the source, its blurs, its gradient magnitude and its blurred brain mask at this voxel. With fewer
    than 5 training participants the prediction is the mean target. means (2, X, Y, Z): mean volumes of fMRI and dMRI.
    """

    name = "voxelwise-ridge"
    means: Tensor  # (2, X, Y, Z), in the order of Modality

    def __init__(self, config: MethodConfig) -> None:
        super().__init__(config)
        self.register_buffer("means", torch.zeros(2, *config.grid_shape))
        self.ridge = VoxelRidge(CONTEXT_CHANNELS)

    def fit(self, train: Pairs, generator: torch.Generator) -> None:
        whole = train.whole_scans()
        for m, modality in enumerate(Modality):
            self.means[m] = population_mean(whole, modality)
        self.ridge.fit(whole, lambda b, d: b.sources[d].context, lambda b, d: b.targets[d] - self._mean(d))

    def predict(self, batch: PairBatch, direction: Direction) -> Tensor:
        return (self._mean(direction) + self.ridge(batch.sources[direction].context, direction)).clamp(0, 1)

    def _mean(self, direction: Direction) -> Tensor:
        return self.means[direction.target.index]


@dataclass
class BoostingConfig(MethodConfig):
    """Settings of the boosted trees.

    voxels: training voxels per scan, drawn at random with replacement. trees: number of trees per direction of
    synthesis. depth: their largest depth.
    """

    voxels: int = 3000
    trees: int = 100
    depth: int = 6


@register
class GradientBoosting(Method):
    """A control: boosted regression trees predict the target at each voxel from features of the voxel and of the scan.

    A control is a simple method for comparison. scikit-learn fits the trees. Tensors of their nodes are stored and
    evaluated here, so that no pickle is needed: feature, threshold, branches, value and baseline as in `tree_arrays`,
    for fMRI to dMRI and dMRI to fMRI. The prediction is 0 at voxels that are more than about 3 voxels away from the
    source's brain.
    """

    name = "gradient-boosting"
    config_type: ClassVar[type[MethodConfig]] = BoostingConfig
    tiny: ClassVar[Settings] = {"voxels": 200, "trees": 5, "depth": 3}
    config: BoostingConfig
    feature: Tensor  # (2, trees, nodes): the column that a node splits
    threshold: Tensor  # (2, trees, nodes): values up to it go to the first child
    branches: Tensor  # (2, trees, nodes, 2): indices of the children; a leaf is its own child
    value: Tensor  # (2, trees, nodes): the term that a leaf adds to the prediction
    baseline: Tensor  # (2,): the prediction before the first tree

    def __init__(self, config: BoostingConfig) -> None:
        super().__init__(config)
        self.conditioning = Conditioning(config.grid_shape)
        empty = (2, config.trees, 0)
        self.register_buffer("feature", torch.zeros(empty, dtype=torch.int64))
        self.register_buffer("threshold", torch.zeros(empty))
        self.register_buffer("branches", torch.zeros((*empty, 2), dtype=torch.int64))
        self.register_buffer("value", torch.zeros(empty))
        self.register_buffer("baseline", torch.zeros(2))

    def fit(self, train: Pairs, generator: torch.Generator) -> None:
        self.conditioning.fit(train)
        whole = train.whole_scans()
        trees = []
        for direction in Direction:
            columns = np.empty((len(whole) * self.config.voxels, FEATURES + CONDITION), np.float32)
            targets = np.empty(len(columns), np.float32)
            for row in range(len(whole)):
                batch = whole.batch(np.array([row]))
                near = torch.nonzero(batch.sources[direction].near.flatten())[:, 0]  # includes the edge of the brain
                drawn = near[torch.randint(len(near), (self.config.voxels,), generator=generator)]
                rows = slice(row * self.config.voxels, (row + 1) * self.config.voxels)
                columns[rows] = self._columns(batch, direction, drawn).numpy()
                targets[rows] = batch.targets[direction].flatten()[drawn].numpy()
            model = HistGradientBoostingRegressor(
                max_iter=self.config.trees,
                max_depth=self.config.depth,
                learning_rate=0.15,
                early_stopping=False,
                random_state=int(torch.randint(2**31 - 1, (1,), generator=generator)),
            )
            with threadpool_limits(1):  # on busy cores, several threads wait for each other for minutes
                model.fit(columns, targets)
            trees.append(tree_arrays(model))
        most = max(t["feature"].shape[1] for t in trees)
        for name in ("feature", "threshold", "branches", "value"):
            padded = [torch.from_numpy(pad_nodes(t[name], most)) for t in trees]
            setattr(self, name, torch.stack(padded))
        self.baseline = torch.tensor([float(t["baseline"]) for t in trees])

    def _columns(self, batch: PairBatch, direction: Direction, voxels: Tensor) -> Tensor:
        """Input of the trees, (voxels, FEATURES + CONDITION), at flat voxel indices of a batch of one session."""
        features = self.conditioning.features(batch, direction)[0].flatten(1)[:, voxels].T
        condition = self.conditioning.condition(batch, direction)
        return torch.cat([features, condition.expand(len(voxels), -1)], 1)

    def predict(self, batch: PairBatch, direction: Direction) -> Tensor:
        d = direction.index
        out = torch.zeros_like(batch.sources[direction].volume)
        for i in range(len(batch)):
            one = batch.only(i)
            near = torch.nonzero(one.sources[direction].near.flatten())[:, 0]
            for voxels in near.split(CHUNK):
                out[i].view(-1)[voxels] = self._walk(self._columns(one, direction, voxels), d)
        return out.clamp(0, 1)

    def _walk(self, columns: Tensor, d: int) -> Tensor:
        """Evaluate all trees of direction number d: (voxels, columns) -> (voxels,)."""
        nodes = self.feature[d], self.threshold[d], self.branches[d], self.value[d]
        return self.baseline[d] + walk(columns, *nodes, self.config.depth)


def recipes() -> Iterator[Recipe]:
    yield Recipe("voxelwise-ridge", "a ridge regression at each voxel", "voxelwise-ridge", Role.CONTROL)
    yield Recipe("gradient-boosting", "boosted trees over all voxels", "gradient-boosting", Role.CONTROL)
