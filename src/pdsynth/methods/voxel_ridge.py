"""A ridge regression at each voxel of the grid, with a penalty selected by cross-validation. Needs registered scans.

The relation between the source's neighbourhood of a voxel and the target there depends on the voxel: a sulcus next to
it in the source is next to it in the target too, and the effect on the value depends on the mean anatomy at that place.
A convolution has the same weights everywhere and learns this slowly. A separate regression per voxel learns it in
closed form.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
import torch
from torch import Tensor, nn

from pdsynth.data.batch import PairBatch
from pdsynth.data.pairs import Pairs
from pdsynth.types import Direction, Modality

Volumes = Callable[[PairBatch, Direction], Tensor]

PENALTIES = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 10000.0)  # for columns of unit SD; in number of rows
FOLDS = 5  # of participants; with fewer participants than folds there is no regression
NO_SLOPES = 1e9  # a penalty so large that the regression is the mean
LEAST_SD = 1e-3  # lower limit of a column's SD, which the column is divided by
LEAST_GAIN = 0.01  # least fraction of the held-out squared error that a regression must remove; less may be chance
LIMIT = 4.0  # largest effect of the columns, in its SD over training participants; limits the effect of atypical scans
CHUNK = 32  # rows in memory at once
SAMPLING_STEP = 16  # every 16th voxel takes part in the selection of the penalty


class VoxelRidge(nn.Module):
    """Ridge regression at each voxel of one map (the response, such as the error of a draft) on others (the columns).

    The prediction is the training mean of the response, plus the deviation of a weighted sum of the columns from the
    training mean of this sum. The deviation is clipped to +-4 times its own SD over the training scans.

    inside: flat indices of the voxels where any training volume is above 0; none if there are fewer than 5
    participants. The prediction is 0 elsewhere. By direction of synthesis: weights (2, columns, voxels); constants (2,
    3, voxels), the mean response, the mean of the weighted sum, and the limit of its deviation; remaining (2,), the SD
    of the held-out residual relative to that of the mean response alone. A direction whose regression does not help
    (see `fit`) has weights and constants of 0, so that its prediction is 0, and remaining 1.
    """

    inside: Tensor  # (voxels,) int32: flat indices of voxels where any training volume is above 0; set by `fit`
    weights: Tensor  # (2, columns, voxels) fp16, in the order of Direction
    constants: Tensor  # (2, 3, voxels): mean response, mean of the weighted sum of columns, limit of its deviation
    remaining: Tensor  # (2,): ratio of held-out residual SDs, that of the regression to that of the mean response alone

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.register_buffer("inside", torch.zeros(0, dtype=torch.int32))
        self.register_buffer("weights", torch.zeros(2, columns, 0, dtype=torch.float16))
        self.register_buffer("constants", torch.zeros(2, 3, 0))
        self.register_buffer("remaining", torch.ones(2))

    @torch.no_grad()
    def fit(self, train: Pairs, columns: Volumes, response: Volumes) -> None:
        """Regress a response (B, 1, X, Y, Z) on columns (B, columns, X, Y, Z), at each voxel, over all rows of `train`.

        columns(batch, direction) and response(batch, direction) compute these maps. The voxels are those at which any
        training volume is above 0. One penalty per direction is selected for all voxels, by the squared error at every
        16th voxel in cross-validation over participants (5 folds). If this error is not below 0.99 times that of the
        mean response, the predicted response of the direction is 0; so it is if each voxel's response is the same in
        all rows. It is 0 in both directions if there are fewer than 5 participants.
        """
        fold = np.unique(train.table["participant_id"].to_numpy(str), return_inverse=True)[1] % FOLDS
        enough = fold.max() + 1 == FOLDS
        brain = np.zeros(train.grid.shape, bool)
        for row, modality in product(range(len(train)) if enough else (), Modality):
            brain |= train.volume(modality, row) > 0
        inside = torch.from_numpy(np.flatnonzero(brain).astype(np.int32)).to(self.weights.device)
        self.inside = inside
        self.weights = self.weights.new_zeros(*self.weights.shape[:2], len(inside))
        self.constants = self.constants.new_zeros(2, 3, len(inside))
        self.remaining = torch.ones_like(self.remaining)
        if not enough:
            return
        for d, direction in enumerate(Direction):
            # subtract the first row, so that float32 products keep their precision; a constant response is then 0
            origin, first = (self._inside(of, train, np.array([0]), direction, inside) for of in (columns, response))
            total, sampled = torch.zeros(()), []
            for f in range(FOLDS):
                products = torch.zeros(())
                rows = np.flatnonzero(fold == f)
                for chunk in np.array_split(rows, -(-len(rows) // CHUNK)):
                    x = self._inside(columns, train, chunk, direction, inside) - origin
                    r = self._inside(response, train, chunk, direction, inside) - first
                    joined = torch.cat([x, r, torch.ones_like(r)], 1)
                    products = products + (joined @ joined.mT).double()
                total = total + products
                sampled.append(products[::SAMPLING_STEP].clone())
            folds = torch.stack(sampled)
            # error of the mean of the other folds, the reference for a regression with an intercept on these folds
            unexplained = held_out_error(folds, NO_SLOPES)
            errors = [held_out_error(folds, penalty) for penalty in PENALTIES]
            best = int(np.argmin(errors))
            if errors[best] >= (1 - LEAST_GAIN) * unexplained:  # both are 0 for a constant response
                continue
            mean, covariance = centred(total)
            weights = solve(covariance, len(train), PENALTIES[best]).half()
            rounded = weights.double()  # the constants must match the weights after rounding to float16
            centre = (rounded * (mean[:, :-1] + origin[..., 0])).sum(1)
            sd = (rounded[:, None] @ covariance[:, :-1, :-1] @ rounded[..., None])[:, 0, 0].clamp_min(0).sqrt()
            self.weights[d] = weights.T
            self.constants[d] = torch.stack([mean[:, -1] + first[:, 0, 0], centre, LIMIT * sd]).float()
            self.remaining[d] = (errors[best] / unexplained) ** 0.5

    def forward(self, columns: Tensor, direction: Direction) -> Tensor:
        """Predict the response (B, 1, X, Y, Z) from columns (B, columns, X, Y, Z).

        It is zero at voxels where all training volumes are 0, and everywhere without a fit or if the regression of this
        direction did not help (see `fit`).
        """
        d = direction.index
        mean, centre, limit = self.constants[d]
        inside = self.inside.long()
        change = (columns.flatten(2)[:, :, inside].float() * self.weights[d].float()).sum(1) - centre
        response = columns.new_zeros(len(columns), columns[0, 0].numel(), dtype=torch.float32)
        response[:, inside] = mean + change.clamp(-limit, limit)
        return response.view(len(columns), 1, *columns.shape[2:])

    @staticmethod
    def _inside(of: Volumes, train: Pairs, rows: np.ndarray, direction: Direction, inside: Tensor) -> Tensor:
        """Values of the maps `of` for the given rows and voxels, (voxels, channels, rows)."""
        volumes = of(train.batch(rows).to(inside.device), direction)
        return volumes.flatten(2)[:, :, inside.long()].permute(2, 1, 0).contiguous()


def centred(products: Tensor) -> tuple[Tensor, Tensor]:
    """Means (voxels, n) and covariances (voxels, n, n) of n variables.

    products: sums over rows of x x^T, (voxels, n + 1, n + 1), where x holds the n variables and the constant 1.
    """
    rows = products[..., -1:, -1:]
    mean = products[..., :-1, -1:] / rows
    return mean[..., 0], products[..., :-1, :-1] / rows - mean @ mean.mT


def solve(covariance: Tensor, rows: int, penalty: float) -> Tensor:
    """Ridge weights (voxels, n - 1) of the regression of the last of n variables on the others, in their own units.

    covariance: (voxels, n, n), of `rows` rows, divided by their number. Only for the penalty are the regressors divided
    by their SD (at least 0.001). The penalty is added to their sum of squares, so that it counts as a number of rows.
    The weights apply to the regressors as they are, minus their means; no intercept is returned.
    """
    inner, cross = covariance[..., :-1, :-1], covariance[..., :-1, -1]
    sd = inner.diagonal(dim1=-2, dim2=-1).clamp_min(0).sqrt().clamp_min(LEAST_SD)
    ridge = penalty / rows * torch.eye(sd.shape[-1], dtype=sd.dtype, device=sd.device)
    return torch.linalg.solve(inner / (sd[..., None] * sd[..., None, :]) + ridge, cross / sd) / sd


def held_out_error(folds: Tensor, penalty: float) -> float:
    """Squared error of a ridge regression in cross-validation: the sum over folds and voxels, for one penalty.

    Each fold is predicted by the regression on the others. folds: (folds, voxels, n + 1, n + 1), for each fold and
    voxel the sum over rows of x x^T, where x holds the regressors, the response and the constant 1.
    """
    total = folds.sum(0)
    error = 0.0
    for held_out in folds:
        others = total - held_out
        mean, covariance = centred(others)
        weights = solve(covariance, int(others[0, -1, -1]), penalty)
        intercept = mean[:, -1] - (weights * mean[:, :-1]).sum(1)
        residual = torch.cat([-weights, torch.ones_like(intercept)[:, None], -intercept[:, None]], 1)
        error += float((residual[:, None] @ held_out @ residual[..., None]).sum())
    return error
