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
    """A loss on network features of slices: two evenly spaced slices across each of the three axes, at 1/3 and 2/3.

    The features of two volumes are compared by their mean absolute difference, as in conditional GANs for MRI (Dar et
    al. 2019).
    """

    def views(self, volume: Tensor) -> list[Tensor]:
        """The slices of volumes (B, 1, X, Y, Z) across each axis: three tensors (2B, 1, height, width)."""
        views = []
        for axis in (2, 3, 4):
            size = volume.shape[axis]
            chosen = [size * (i + 1) // (SLICES + 1) for i in range(SLICES)]
            views.append(torch.cat([volume.select(axis, i) for i in chosen]))
        return views


class VolumeLoss(FeatureLoss):
    """A loss on features that a 3D network computes of the whole volume: their mean absolute difference."""

    def views(self, volume: Tensor) -> list[Tensor]:
        return [volume]


def feature_loss(views: str, layer: str = "conv2_2", depth: int = 16, weights: str | None = None) -> FeatureLoss:
    """Make a loss that compares features of a frozen network between two volumes, as seen in the given views.

    views: "projections" (three grey images), "stacked" (the projections as three channels), "slices" or "volume". The
    network is a 3D ResNet of fixed random weights for "volume", and VGG for the others. layer: that of VGG whose output
    is compared, "conv1_1" to "fc7". depth: number of VGG's layers, 11, 13, 16 or 19. weights: a file of VGG's weights,
    or None for fixed random ones. With "volume", these three are ignored. Raises ValueError for other views, depths or
    layers, and InputError for a file without these weights.

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
