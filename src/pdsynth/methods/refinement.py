"""Tissue refinement (stage 2 of `pds`) in closed form, and the control `local-ridge`: the stem of `pds`, refined.

A draft is the estimate of the target that refinement corrects; the stem is the coarse ridge regression of `pds`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from pdsynth.data.batch import CONTEXT_CHANNELS, NEIGHBOURS, PairBatch, neighbours
from pdsynth.data.pairs import Pairs
from pdsynth.methods.base import Method, MethodConfig, register
from pdsynth.methods.cached import Cached, spread_rows
from pdsynth.methods.coarse_ridge import CoarseRidge
from pdsynth.methods.recipe import Recipe, Role
from pdsynth.methods.voxel_ridge import VoxelRidge
from pdsynth.types import Direction

Stems = Callable[[PairBatch, Direction], Tensor]  # the estimates of the stem for a batch
ROWS = 1000  # training rows with a draft, at least, if there are as many; fewer than twice this number


class TissueRefiner(nn.Module):
    """Tissue refinement (Eqs. 12-13) in closed form: it corrects an estimate of the target, the draft, at each voxel.

    The result is draft + B(draft) + U(source), where B and U are linear. At each voxel, B sees the draft, and U sees
    the source, its features (blurs, gradient magnitude and blurred mask) and the source values of the six neighbours.
    The fit replaces L_tis (Eqs. 12-13, L1 + L_mic) by ridge-penalised squared error, which has a closed form.
    Cross-validation over participants selects the penalty. Without a fit, with fewer than 5 participants, and if no
    penalty reduces the held-out error by 1 %, the draft stays as it is.
    """

    def __init__(self) -> None:
        super().__init__()
        self.ridge = VoxelRidge(1 + CONTEXT_CHANNELS + NEIGHBOURS)

    def fit(
        self,
        train: Pairs,
        cross_fitted: Callable[[Pairs], Stems],
        draft: Callable[[PairBatch, Direction, Tensor], Tensor],
    ) -> None:
        """Regress the error of drafts (target minus draft) on the draft and features of the source.

        A draft is the estimate to refine. cross_fitted(rows)(batch, direction) returns out-of-fold predictions of the
        coarse ridge regression on which drafts are based, (B, 1, X, Y, Z): each participant is predicted by a
        regression on other participants. draft(batch, direction, predictions) computes drafts from these predictions,
        (B, 1, X, Y, Z) both. Only rows of whole training scans are used: all, or 1000 to 1500 evenly
        spaced ones if there are 2000 or more. See `VoxelRidge.fit` for few participants.
        """
        whole, drafts = train.whole_scans(), Cached()
        keep = spread_rows(len(whole), ROWS)
        rows, stems, chosen = whole.where(keep), cross_fitted(whole), np.flatnonzero(keep)

        def estimate(batch: PairBatch, direction: Direction) -> Tensor:
            return draft(batch, direction, stems(replace(batch, rows=chosen[batch.rows]), direction))

        drafts.fill(rows, estimate, self.ridge.weights.device)
        self.ridge.fit(
            rows,
            columns=lambda b, d: self._columns(drafts.at(b, d), b, d),
            response=lambda b, d: b.targets[d] - drafts.at(b, d),
        )

    def forward(self, draft: Tensor, batch: PairBatch, direction: Direction) -> Tensor:
        """The refined draft, (B, 1, X, Y, Z), not clipped. The draft must be of whole volumes, of the same shape."""
        return draft + self.ridge(self._columns(draft, batch, direction), direction)

    def residual_sd_ratio(self, direction: Direction) -> Tensor:
        """The fraction of the drafts' error that refinement leaves in a direction of synthesis: a scalar up to 1.

        It is the SD of the cross-validated residual, divided by the SD of the drafts' error around its mean, and 1 if
        there is no regression. It is optimistic if a network computed the drafts, because the network was trained on
        these participants.
        """
        return self.ridge.remaining[direction.index]

    @staticmethod
    def _columns(draft: Tensor, batch: PairBatch, direction: Direction) -> Tensor:
        source = batch.sources[direction]
        return torch.cat([draft, source.context, neighbours(source.volume)], 1)


@register
class LocalRidge(Method):
    """A control (simple method for comparison), "pds" without its network: a coarse ridge regression, refined.

    The refinement is a ridge regression at each voxel. A network on top of these regressions must improve on their
    scores.
    """

    name = "local-ridge"

    def __init__(self, config: MethodConfig) -> None:
        super().__init__(config)
        self.stem, self.refiner = CoarseRidge(config.grid_shape), TissueRefiner()

    def fit(self, train: Pairs, generator: torch.Generator) -> None:
        self.stem.fit(train)
        self.refiner.fit(train, self.stem.cross_fitted, lambda batch, direction, stem: stem)

    def predict(self, batch: PairBatch, direction: Direction) -> Tensor:
        refined = self.refiner(self.stem(batch, direction), batch, direction)
        return (refined * self.stem.inside(batch, direction)).clamp(0, 1)


def recipes() -> Iterator[Recipe]:
    summary = "coarse-ridge, then a ridge regression at each voxel: pds without its network"
    yield Recipe("local-ridge", summary, "local-ridge", Role.CONTROL)
