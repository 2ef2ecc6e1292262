"""Tissue refinement (stage 2 of `pds`) in closed form, and the control that has nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pdsynth.data.batch import CONTEXT_CHANNELS, PairBatch
from pdsynth.data.pairs import Pairs
from pdsynth.methods.base import Method, MethodConfig, register
from pdsynth.methods.cached import Cached, spread_rows
from pdsynth.methods.coarse_ridge import CoarseRidge
from pdsynth.methods.recipe import Recipe, Role
from pdsynth.methods.voxel_ridge import VoxelRidge
from pdsynth.types import Direction

NEIGHBOURS = ((0, 1, 1), (2, 1, 1), (1, 0, 1), (1, 2, 1), (1, 1, 0), (1, 1, 2))  # in the volume padded by a voxel
ROWS = 1000  # about how many training rows are drafted


class TissueRefiner(nn.Module):
    """y = draft + B(draft) + U(source) (Eqs. 12-13), with B and U linear at each voxel and in closed form.

    U sees the source's context at the voxel and its value at the six neighbours, B the draft there. L_tis (Eqs. 12-13),
    an L1 and an L_mic term, is replaced by squared error with a ridge penalty, which has a closed form; the penalty is
    chosen on held-out participants (see `VoxelRidge`).
    """

    def __init__(self) -> None:
        super().__init__()
        self.ridge = VoxelRidge(1 + CONTEXT_CHANNELS + len(NEIGHBOURS))

    def fit(
        self,
        train: Pairs,
        cross_fitted: Callable[[Pairs], dict[Direction, Tensor]],
        draft: Callable[[PairBatch, Direction, Tensor], Tensor],
    ) -> None:
        """Draft the training participants' whole scans on stems that have not seen them, and learn what drafts lack.

        cross_fitted gives the stems of rows (rows, 1, X, Y, Z); draft makes of a batch and its stems (B, 1, X, Y, Z)
        the drafts, same shape.
        """
        whole, stems, drafts = train.whole_scans(), Cached(), Cached()
        keep = spread_rows(len(whole), ROWS)
        chosen, stems.volumes = whole.where(keep), {d: v[keep] for d, v in cross_fitted(whole).items()}
        drafts.fill(chosen, lambda b, d: draft(b, d, stems.at(b, d)), self.ridge.weights.device)
        self.ridge.fit(
            chosen,
            columns=lambda b, d: self._columns(drafts.at(b, d), b, d),
            response=lambda b, d: b.targets[d] - drafts.at(b, d),
        )

    def forward(self, draft: Tensor, batch: PairBatch, direction: Direction) -> Tensor:
        """The refined draft, (B, 1, X, Y, Z), not clipped, of a whole one."""
        return draft + self.ridge(self._columns(draft, batch, direction), direction)

    def remaining(self, direction: Direction) -> Tensor:
        """Part of the SD of the drafts' error that is left in people held out of the regression.

        A network that drafted them was trained on them all the same.
        """
        return self.ridge.remaining[direction.index]

    @staticmethod
    def _columns(draft: Tensor, batch: PairBatch, direction: Direction) -> Tensor:
        source = batch.sources[direction]
        x, y, z = draft.shape[2:]
        around = F.pad(source.volume, (1,) * 6, mode="replicate")
        neighbours = [around[:, :, i : i + x, j : j + y, k : k + z] for i, j, k in NEIGHBOURS]
        return torch.cat([draft, source.context, *neighbours], 1)


@register
class LocalRidge(Method):
    """The stem of `pds`, refined: regressions alone, which any network on top must be held against."""

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
    summary = "coarse-ridge, then a ridge regression at each voxel: the stem of pds, refined"
    yield Recipe("local-ridge", summary, "local-ridge", Role.CONTROL)
