"""A ridge regression between whole coarse volumes: a control, and the stem of `pds`.

A coarse volume holds the means over cells of 4 x 4 x 4 voxels. Most differences between participants are spatially
smooth: the receive field, the size of the ventricles, the strength of the contrast. The whole source volume predicts
them better than the neighbourhood of a single voxel.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import GroupKFold
from torch import Tensor, nn
from torch.nn import functional as F

from pdsynth.data.batch import COARSE, PairBatch
from pdsynth.data.pairs import Pairs
from pdsynth.methods.base import Method, MethodConfig, register
from pdsynth.methods.conditioning import coarse_rows, patches_of, population_mean, principal_components
from pdsynth.methods.recipe import Recipe, Role
from pdsynth.types import Direction, Modality

COMPONENTS = 64  # principal components of the source's coarse volume
FOLDS = 10  # of participants, for out-of-fold predictions
PENALTIES = 10.0 ** np.arange(-2, 3.5, 0.5)  # leave-one-out error selects one of them


class CoarseRidge(nn.Module):
    """The training mean of the target, plus a coarse correction that ridge regression predicts from the coarse source.

    A coarse volume holds means over cells of 4 x 4 x 4 voxels. The training mean is the mean volume of the training
    participants, voxel by voxel. The regressors are up to 64 leading principal components of the source's coarse
    volume, and the b-value of the dMRI. All components are divided by the SD of the first, so that the penalty shrinks
    the weights of weak components most. The correction is interpolated to the grid, and is 0 where the training mean is
    0.

    `fit` sets means (2, X, Y, Z), coarse_mean (2, cells) and basis (2, cells, 64), the principal axes divided by the SD
    of the first component, for fMRI and dMRI; weights (2, 65, cells), of components and b-value, for fMRI to dMRI and
    dMRI to fMRI; and shell_mean (1,), the mean b-value in ms/um^2.
    """

    means: Tensor  # (2, X, Y, Z), in the order of Modality
    coarse_mean: Tensor  # (2, cells), in the order of Modality
    basis: Tensor  # (2, cells, COMPONENTS), in the order of Modality: principal axes / SD of the first component
    weights: Tensor  # (2, COMPONENTS + 1, cells), in the order of Direction: from components and shell to the target
    shell_mean: Tensor  # (1,) ms/um^2

    def __init__(self, grid_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.coarse_shape = tuple(n // COARSE for n in grid_shape)
        cells = int(np.prod(self.coarse_shape))
        self.register_buffer("means", torch.zeros(2, *grid_shape))
        self.register_buffer("coarse_mean", torch.zeros(2, cells))
        self.register_buffer("basis", torch.zeros(2, cells, COMPONENTS))
        self.register_buffer("weights", torch.zeros(2, COMPONENTS + 1, cells))
        self.register_buffer("shell_mean", torch.ones(1))

    def fit(self, train: Pairs) -> None:
        """Fit means, principal components and regression weights to the training participants' whole scans.

        With one or two scans the weights are zero, and the estimate is the mean. Leave-one-out error selects the
        penalty of each direction.
        """
        whole = train.whole_scans()
        shells = torch.from_numpy(whole.table["dmri_bval"].to_numpy(np.float32) / 1000)[:, None]
        self.shell_mean.copy_(shells.mean(0))
        # new buffers, because a fit to fewer scans fills fewer columns, and a fit to one or two fills no weights
        self.basis, self.weights = torch.zeros_like(self.basis), torch.zeros_like(self.weights)
        for m, modality in enumerate(Modality):
            self.means[m] = population_mean(whole, modality)
            self.coarse_mean[m], axes, scale = principal_components(whole, modality, COMPONENTS)
            self.basis[m, :, : len(scale)] = axes / scale[:1]
        if len(whole) < 3:
            return
        for d, direction in enumerate(Direction):
            s, t = direction.source.index, direction.target.index
            regressors = self._regressors(coarse_rows(whole, direction.source), shells, s)
            change = coarse_rows(whole, direction.target) - self.coarse_mean[t]
            # The intercept is about 0, but it is needed: the rows are centred, and each is minus the sum of the others.
            # Leave-one-out without an intercept would therefore see the row that it leaves out.
            model = RidgeCV(PENALTIES).fit(regressors.numpy(), change.numpy())
            self.weights[d] = torch.from_numpy(model.coef_.T)

    def cross_fitted(self, train: Pairs) -> CrossFitted:
        """Out-of-fold predictions of the target for batches of training rows.

        Participants are divided into 10 folds, or one fold per participant if there are fewer. Each is predicted by a
        regression on the other folds, so that a network trained on these predictions sees errors as large as those on
        new participants. The mean volumes are those of this object, which must have been fitted to all of train. With a
        single participant, the regression is fitted to this participant.
        """
        people = train.table["participant_id"].to_numpy()
        folds = min(FOLDS, len(set(people)))
        parts = GroupKFold(folds).split(people, groups=people) if folds > 1 else [(np.arange(len(people)),) * 2]
        stems, fold_of = [], np.zeros(len(train), np.int64)
        for number, (others, held_out) in enumerate(parts):
            stem = CoarseRidge(train.grid.shape)
            stem.fit(train.where(np.isin(np.arange(len(train)), others)))
            # The same mean in all folds: the mean of the other folds deviates from it opposite to the held-out
            # participants, and a network trained on the predictions would learn this relation.
            stem.means.copy_(self.means)
            stems.append(stem)
            fold_of[held_out] = number
        return CrossFitted(stems, fold_of)

    def forward(self, batch: PairBatch, direction: Direction) -> Tensor:
        """Estimate the targets of a batch from their source scans: (B, 1, x, y, z), not clipped.

        The batch holds whole volumes or patches. Before a fit, the estimate is 0.
        """
        s, t = direction.source.index, direction.target.index
        source = batch.sources[direction]
        regressors = self._regressors(source.coarse.flatten(1), batch.bval, s)
        change = (regressors @ self.weights[direction.index]).view(len(batch), 1, *self.coarse_shape)
        mean = self.means[t]
        whole = mean + F.interpolate(change, tuple(mean.shape), mode="trilinear") * (mean > 0)
        shape = source.volume.shape[2:]
        return torch.cat([patches_of(v, c[None], shape) for v, c in zip(whole, batch.corner, strict=True)])

    def inside(self, batch: PairBatch, direction: Direction) -> Tensor:
        """Voxels where the training mean of the target is above zero, (B, 1, x, y, z) bool."""
        t = direction.target.index
        return patches_of(self.means[t : t + 1] > 0, batch.corner, batch.sources[direction].volume.shape[2:])

    def _regressors(self, coarse: Tensor, shells: Tensor, s: int) -> Tensor:
        """Regressors (B, COMPONENTS + 1) from coarse volumes (B, cells) and dMRI shells (B, 1) in ms/um^2.

        s is the index of the source's modality.
        """
        return torch.cat([(coarse - self.coarse_mean[s]) @ self.basis[s], shells - self.shell_mean], 1)


@dataclass(frozen=True)
class CrossFitted:
    """Predictions of the target for training rows, each by a coarse ridge regression on other participants.

    They are computed for each batch, because whole volumes of all rows of a large cohort would not fit into memory.
    stems: one regression per fold of participants. folds (rows,): the fold of each row, by which it is predicted.
    """

    stems: list[CoarseRidge]
    folds: np.ndarray

    @torch.no_grad()
    def __call__(self, batch: PairBatch, direction: Direction) -> Tensor:
        """The predictions for patches or whole volumes of training rows, (B, 1, x, y, z) float32, not clipped."""
        estimates, folds = torch.empty_like(batch.targets[direction]), self.folds[batch.rows]
        with torch.autocast(estimates.device.type, enabled=False):  # as exact as at synthesis
            for fold in np.unique(folds):
                rows = np.flatnonzero(folds == fold)
                estimates[rows] = self.stems[fold].to(estimates.device)(batch.at(rows), direction)
        return estimates


@register
class CoarseRidgeRegression(Method):
    """A control (simple method for comparison): ridge regression between volumes of means over 4 x 4 x 4 voxels.

    The prediction is the mean target volume of the training participants plus the interpolated result of the
    regression. It is the first, linear part of the method "pds", alone.
    """

    name = "coarse-ridge"

    def __init__(self, config: MethodConfig) -> None:
        super().__init__(config)
        self.stem = CoarseRidge(config.grid_shape)

    def fit(self, train: Pairs, generator: torch.Generator) -> None:
        self.stem.fit(train)

    def predict(self, batch: PairBatch, direction: Direction) -> Tensor:
        return self.stem(batch, direction).clamp(0, 1)


def recipes() -> Iterator[Recipe]:
    summary = "a ridge regression between whole coarse volumes: the linear part of pds"
    yield Recipe("coarse-ridge", summary, "coarse-ridge", Role.CONTROL)
