"""Controls, which ignore the source or copy it, and the ceiling, which knows the truth: references for any method."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pdsynth.data.batch import PairBatch
from pdsynth.data.pairs import Pairs
from pdsynth.methods.base import Method, MethodConfig, register
from pdsynth.methods.conditioning import population_mean
from pdsynth.methods.recipe import Recipe, Role
from pdsynth.types import Direction, Modality


@register
class Zeros(Method):
    """A control (simple method for comparison): an empty image, 0 at all voxels."""

    name = "zeros"
    blind: ClassVar[bool] = True

    def predict(self, batch: PairBatch, direction: Direction) -> Tensor:
        return torch.zeros_like(batch.sources[direction].volume)


@register
class CopySource(Method):
    """A control (simple method for comparison): the source volume, unchanged, as the estimate of the target."""

    name = "copy-source"

    def predict(self, batch: PairBatch, direction: Direction) -> Tensor:
        return batch.sources[direction].volume


@register
class PopulationMean(Method):
    """A control (simple method for comparison): the mean target volume of the training scans, voxel by voxel.

    It is the same for all participants. means (2, X, Y, Z): the mean volumes of fMRI and dMRI, 0 before `fit`.
    """

    name = "population-mean"
    blind: ClassVar[bool] = True
    means: Tensor  # (2, X, Y, Z), in the order of Modality

    def __init__(self, config: MethodConfig) -> None:
        super().__init__(config)
        self.register_buffer("means", torch.zeros(2, *config.grid_shape))

    def fit(self, train: Pairs, generator: torch.Generator) -> None:
        for m, modality in enumerate(Modality):
            self.means[m] = population_mean(train.whole_scans(), modality)

    def predict(self, batch: PairBatch, direction: Direction) -> Tensor:
        mean = self.means[direction.target.index]
        return mean.expand(len(batch), 1, *mean.shape)


@dataclass
class SiteMeanConfig(MethodConfig):
    """Settings of the control "site-mean".

    sites: names of the training participants' sites, in the order of the fitted means; `fit` sets them.
    """

    sites: tuple[str, ...] = ()


@register
class SiteMean(Method):
    """A control (simple method for comparison): the mean target volume of the training scans at the participant's site.

    At a site without training participants it is the unweighted mean of the site means. means (sites, 2, X, Y, Z): of
    fMRI and dMRI at each site, in the order of the setting `sites`.
    """

    name = "site-mean"
    config_type: ClassVar[type[MethodConfig]] = SiteMeanConfig
    blind: ClassVar[bool] = True
    config: SiteMeanConfig
    means: Tensor  # (sites, 2, X, Y, Z)

    def __init__(self, config: SiteMeanConfig) -> None:
        super().__init__(config)
        self.register_buffer("means", torch.zeros(len(config.sites), 2, *config.grid_shape))

    def fit(self, train: Pairs, generator: torch.Generator) -> None:
        whole = train.whole_scans()
        self.config.sites = tuple(sorted(set(whole.table["site"].astype(str))))
        at = [whole.where(whole.table["site"].astype(str) == site) for site in self.config.sites]
        self.means = torch.stack([torch.stack([population_mean(p, m) for m in Modality]) for p in at])

    def predict(self, batch: PairBatch, direction: Direction) -> Tensor:
        target = self.means[:, direction.target.index]
        known = {site: target[i] for i, site in enumerate(self.config.sites)}
        return torch.stack([known.get(site, target.mean(0)) for site in batch.site])[:, None]


@register
class Oracle(Method):
    """The expected target given the simulated anatomy: an upper limit of accuracy (ceiling), for simulated cohorts.

    It is E[target | shared anatomy], where the shared anatomy is the part of the simulated participant that both scans
    depend on. No method can have a lower expected squared error; other scores, such as sharpness, can be better.
    `predict` returns the volume that the simulation computed, and raises ValueError if the prepared pairs contain none
    for this direction.
    """

    name = "oracle"
    blind: ClassVar[bool] = True

    def predict(self, batch: PairBatch, direction: Direction) -> Tensor:
        if direction not in batch.oracle:
            raise ValueError(
                f"oracle: the prepared pairs contain no oracle for {direction}; only simulated cohorts do."
            )
        return batch.oracle[direction]


def recipes() -> Iterator[Recipe]:
    yield Recipe("zeros", "an empty image", "zeros", Role.CONTROL)
    yield Recipe("population-mean", "the training participants' mean target", "population-mean", Role.CONTROL)
    yield Recipe("site-mean", "the mean target of the participant's site", "site-mean", Role.CONTROL)
    yield Recipe("copy-source", "the source, unchanged", "copy-source", Role.CONTROL)
    ceiling = "E[target | shared anatomy]: the ceiling, on simulated cohorts only"
    yield Recipe("oracle", ceiling, "oracle", Role.CEILING)
