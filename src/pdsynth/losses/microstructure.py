"""The microstructure loss L_mic (Eqs. 14-16): L1 between VGG16 features of mean projections over the three axes."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pdsynth.losses.features import FrozenFeatures


def microstructure_views(volume: Tensor) -> list[Tensor]:
    """Mean projections over the three axes (Eqs. 14-15), as a list.

    volume: (B, 1, X, Y, Z). The projections are (B, 1, Y, Z), (B, 1, X, Z) and (B, 1, X, Y).
    """
    return [volume.mean(axis) for axis in (2, 3, 4)]


def stacked_views(volume: Tensor) -> Tensor:
    """The three mean projections (Eqs. 14-15) as the channels of one image, (B, 3, H, W).

    volume: (B, 1, X, Y, Z). H and W are the largest height and width of the projections. Each projection is padded with
    zeros on all sides to this shape, so that none is cut or stretched; an odd padding is larger on the far side.

    >>> stacked_views(torch.zeros(2, 1, 48, 56, 48)).shape
    torch.Size([2, 3, 56, 56])
    """
    views = microstructure_views(volume)
    height, width = (max(view.shape[axis] for view in views) for axis in (2, 3))
    padded = []
    for view in views:
        down, right = height - view.shape[2], width - view.shape[3]
        padded.append(F.pad(view, (right // 2, right - right // 2, down // 2, down - down // 2)))
    return torch.cat(padded, 1)


class FeatureLoss(nn.Module, ABC):
    """Mean absolute difference between the features that a frozen network computes of two volumes.

    The network sees 2D or 3D views of each volume, which a subclass defines, and the loss is averaged over them. It is
    zero for equal volumes.
    """

    def __init__(self, features: FrozenFeatures) -> None:
        super().__init__()
        self.features = features

    @abstractmethod
    def views(self, volume: Tensor) -> list[Tensor]:
        """The images or volumes of which the network computes features, for volumes (B, 1, X, Y, Z).

        The result is a list of tensors (N, C, ...).
        """

    def forward(self, estimate: Tensor, target: Tensor) -> Tensor:
        """The loss, a scalar, of volumes (B, 1, X, Y, Z) in about [0, 1]. Only the estimate gets a gradient."""
        views, target_views = self.views(estimate), self.views(target.detach())
        if len({view.shape for view in views}) == 1:  # views of one shape: one pass costs less than one pass per view
            views, target_views = [torch.cat(views)], [torch.cat(target_views)]
        pairs = zip(views, target_views, strict=True)
        return torch.stack([F.l1_loss(self.features(a), self.features(b)) for a, b in pairs]).mean()


class MicrostructureLoss(FeatureLoss):
    """The microstructure loss L_mic (Eq. 16) with three grey images per volume: the mean projection over each axis.

    It is the mean absolute difference between the features that a frozen network computes of these images.
    """

    def views(self, volume: Tensor) -> list[Tensor]:
        return microstructure_views(volume)


class StackedMicrostructureLoss(FeatureLoss):
    """The microstructure loss L_mic (Eq. 16) with one image per volume, whose channels are the mean projections.

    There is one channel per axis: the paper "concatenates the three views". The loss is the mean absolute difference
    between the features that a frozen network computes of these images.
    """

    def views(self, volume: Tensor) -> list[Tensor]:
        return [stacked_views(volume)]
