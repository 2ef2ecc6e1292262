"""A ridge regression at each voxel of the grid, its penalty chosen by cross-validation: what scans in one space allow.

What the neighbourhood of a voxel tells of the target differs from voxel to voxel: a sulcus that lies to one side in the
source does so in the target, and which value that brings depends on what is usual there. A convolution has the same
weights everywhere and learns that slowly; a regression of its own at each voxel has it in closed form.
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

PENALTIES = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 10000.0)  # in rows, on columns of unit SD
FOLDS = 5  # of participants; fewer than that tell too little
NO_SLOPES = 1e9
LEAST_SD = 1e-3
LEAST_GAIN = 0.01  # part of the held-out squared error that a regression must take away: less is chance
LIMIT = 4.0  # in SD among the training participants: a scan unlike theirs must not be driven further
TOGETHER = 32  # rows that enter at once
SAMPLED = 16  # one voxel in so many chooses the penalty


class VoxelRidge(nn.Module):
    """At each voxel the training mean of a response, plus a linear function of columns that stays within LIMIT."""

    inside: Tensor  # (voxels,) int32: flat indices of those in any training participant's brain; none before the fit
    weights: Tensor  # (2, columns, voxels) fp16, in the order of Direction
    constants: Tensor  # (2, 3, voxels): mean response, mean of the weighted columns, limit of their sum around it
    remaining: Tensor  # (2,): part of the response's SD that is left in people held out of the regression

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.register_buffer("inside", torch.zeros(0, dtype=torch.int32))
        self.register_buffer("weights", torch.zeros(2, columns, 0, dtype=torch.float16))
        self.register_buffer("constants", torch.zeros(2, 3, 0))
        self.register_buffer("remaining", torch.ones(2))

    @torch.no_grad()
    def fit(self, train: Pairs, columns: Volumes, response: Volumes) -> None:
        """Regress the response (B, 1, X, Y, Z) on columns (B, columns, X, Y, Z) over all rows, inside the brain.

        With fewer than FOLDS participants the response is zero everywhere, and so it is where the regression hardly
        reduces the error in held-out participants.
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
            # columns are counted from one person's: what is equal in everyone is 0, and fp32 does for the products
            origin = self._inside(columns, train, np.array([0]), direction, inside)
            total, sampled = torch.zeros(()), []
            for f in range(FOLDS):
                products = torch.zeros(())
                rows = np.flatnonzero(fold == f)
                for some in np.array_split(rows, -(-len(rows) // TOGETHER)):
                    x = self._inside(columns, train, some, direction, inside) - origin
                    r = self._inside(response, train, some, direction, inside)
                    joined = torch.cat([x, r, torch.ones_like(r)], 1)
                    products = products + (joined @ joined.mT).double()
                total = total + products
                sampled.append(products[::SAMPLED].clone())
            folds = torch.stack(sampled)
            # the others' mean alone, against which a regression with an intercept of the others is fairly held
            unexplained = held_out_error(folds, NO_SLOPES)
            errors = [held_out_error(folds, penalty) for penalty in PENALTIES]
            best = int(np.argmin(errors))
            if errors[best] > (1 - LEAST_GAIN) * unexplained:
                continue
            mean, covariance = centred(total)
            weights = solve(covariance, len(train), PENALTIES[best]).half()
            kept = weights.double()  # the constants belong to the weights as they are rounded
            usual = (kept * (mean[:, :-1] + origin[..., 0])).sum(1)
            sd = (kept[:, None] @ covariance[:, :-1, :-1] @ kept[..., None])[:, 0, 0].clamp_min(0).sqrt()
            self.weights[d] = weights.T
            self.constants[d] = torch.stack([mean[:, -1], usual, LIMIT * sd]).float()
            self.remaining[d] = (errors[best] / unexplained) ** 0.5

    def forward(self, columns: Tensor, direction: Direction) -> Tensor:
        """The response (B, 1, X, Y, Z) to columns (B, columns, X, Y, Z); zero away from all brains of training."""
        d = direction.index
        mean, usual, limit = self.constants[d]
        inside = self.inside.long()
        change = (columns.flatten(2)[:, :, inside].float() * self.weights[d].float()).sum(1) - usual
        response = columns.new_zeros(len(columns), columns[0, 0].numel(), dtype=torch.float32)
        response[:, inside] = mean + change.clamp(-limit, limit)
        return response.view(len(columns), 1, *columns.shape[2:])

    @staticmethod
    def _inside(of: Volumes, train: Pairs, rows: np.ndarray, direction: Direction, inside: Tensor) -> Tensor:
        """Volumes of some rows at some voxels, (voxels, channels, rows)."""
        volumes = of(train.batch(rows).to(inside.device), direction)
        return volumes.flatten(2)[:, :, inside.long()].permute(2, 1, 0).contiguous()


def centred(products: Tensor) -> tuple[Tensor, Tensor]:
    """Means (voxels, n) and covariances (voxels, n, n) of n variables, from the sums of the products of them and 1."""
    rows = products[..., -1:, -1:]
    mean = products[..., :-1, -1:] / rows
    return mean[..., 0], products[..., :-1, :-1] / rows - mean @ mean.mT


def solve(covariance: Tensor, rows: int, penalty: float) -> Tensor:
    """Weights (voxels, n - 1) of the first variables in the last, with a penalty on those of unit SD."""
    inner, cross = covariance[..., :-1, :-1], covariance[..., :-1, -1]
    sd = inner.diagonal(dim1=-2, dim2=-1).clamp_min(0).sqrt().clamp_min(LEAST_SD)
    ridge = penalty / rows * torch.eye(sd.shape[-1], dtype=sd.dtype, device=sd.device)
    return torch.linalg.solve(inner / (sd[..., None] * sd[..., None, :]) + ridge, cross / sd) / sd


def held_out_error(folds: Tensor, penalty: float) -> float:
    """Squared error of each fold by the regression on the others, summed; folds are sums of products (see centred)."""
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
