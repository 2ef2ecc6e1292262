"""Random numbers of a training step, cut to one part of its batch: a step in parts equals the step on the whole batch.

The parts are those of the processes that train together, and those whose gradients one process adds up.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Draws:
    """The random numbers of one training step for part number `part`, from 0, of the `parts` equal parts of its batch.

    They are drawn for the whole batch, by `generator`, and cut to this part. With generators in the same state, the
    parts together therefore have the numbers of a batch in one part. A loss that means a term over its patches needs
    nothing else; one that selects patches uses `rows`, and one that depends on their positions uses `positions`.

    >>> whole = Draws(torch.Generator().manual_seed(0)).integers(1000, 4)
    >>> second = Draws(torch.Generator().manual_seed(0), part=1, parts=2).integers(1000, 2)
    >>> torch.equal(whole[2:], second)
    True
    """

    generator: torch.Generator
    part: int = 0
    parts: int = 1

    def normal(self, like: Tensor) -> Tensor:
        """Standard normal noise, float32, of the shape and on the device of `like`, (patches of this part, ...)."""
        shape = (self.parts * len(like), *like.shape[1:])
        return self._cut(torch.randn(shape, generator=self.generator, device=self.generator.device))

    def integers(self, below: int, patches: int) -> Tensor:
        """One integer from 0 to below - 1 for each patch of this part, (patches,) int64."""
        shape = (self.parts * patches,)
        return self._cut(torch.randint(below, shape, generator=self.generator, device=self.generator.device))

    def integer(self, below: int) -> int:
        """One integer from 0 to below - 1 for the whole batch."""
        return int(torch.randint(below, (), generator=self.generator, device=self.generator.device))

    def positions(self, patches: int) -> Tensor:
        """Positions in the whole batch of the patches of this part, of which there are `patches`, (patches,) int64."""
        return torch.arange(patches, device=self.generator.device) + self.part * patches

    def rows(self, first: int, stop: int, patches: int) -> tuple[slice, float]:
        """Which patches of this part are at the positions from `first` to `stop` - 1 in the whole batch, and a factor.

        The mean over these patches times the factor, averaged over the parts, is the mean over all patches at these
        positions. The factor is 0 if this part has none of them. patches: number of patches of this part.

        >>> Draws(torch.Generator(), part=1, parts=2).rows(3, 5, 4)
        (slice(0, 1, None), 1.0)
        >>> Draws(torch.Generator(), part=0, parts=2).rows(4, 5, 4)
        (slice(4, 4, None), 0.0)
        """
        begin, end = (min(max(edge - self.part * patches, 0), patches) for edge in (first, stop))
        return slice(begin, end), self.parts * (end - begin) / (stop - first)

    def _cut(self, whole: Tensor) -> Tensor:
        """The rows of this part, from those of the whole batch."""
        return whole.chunk(self.parts)[self.part]
