"""Losses on features of slices and of the whole volume, which Table VI compares with the microstructure loss."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from pdsynth.losses.features import FrozenFeatures, ResNetFeatures, VGGFeatures
from pdsynth.losses.microstructure import FeatureLoss, MicrostructureLoss, StackedMicrostructureLoss
from pdsynth.types import View

SLICES = 2  # per axis


class SliceLoss(FeatureLoss):
    """The views are evenly spaced slices along the three axes, as in conditional GANs for MRI (Dar et al. 2019)."""

    def views(self, volume: Tensor) -> list[Tensor]:
        """The slices across each axis, (B * SLICES, 1, height, width)."""
        views = []
        for axis in (2, 3, 4):
            size = volume.shape[axis]
            chosen = [size * (i + 1) // (SLICES + 1) for i in range(SLICES)]
            views.append(torch.cat([volume.select(axis, i) for i in chosen]))
        return views


class VolumeLoss(FeatureLoss):
    """The only view is the volume itself, for a 3D network."""

    def views(self, volume: Tensor) -> list[Tensor]:
        return [volume]


def feature_loss(views: str, layer: str = "conv2_2", depth: int = 16, weights: str | None = None) -> FeatureLoss:
    """A loss on features of the given views; the network is VGG, or a 3D ResNet for the view "volume".

    views: "projections" (three grey images), "stacked" (the projections as three channels), "slices" or "volume".
    layer, depth and weights (a file, or None for fixed random weights) are those of VGG. Raises ValueError for other
    views, and the errors of `VGGFeatures`.

    >>> feature_loss("slices", "conv1_1").features.source
    'VGG16 of fixed random weights (seed 0), to conv1_1'
    """
    of_vgg: dict[str, Callable[[FrozenFeatures], FeatureLoss]] = {
        View.PROJECTIONS: MicrostructureLoss,
        View.STACKED: StackedMicrostructureLoss,
        View.SLICES: SliceLoss,
    }
    if views == View.VOLUME:
        return VolumeLoss(ResNetFeatures())
    if views not in of_vgg:
        raise ValueError(f"there are no views {views!r}. Choose projections, stacked, slices or volume.")
    return of_vgg[views](VGGFeatures(Path(weights) if weights else None, layer, depth))
