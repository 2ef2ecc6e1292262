"""The microstructure loss L_mic (Eqs. 14-16): L1 between VGG16 features of mean projections over the three axes."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pdsynth.losses.features import FrozenFeatures


def microstructure_views(volume: Tensor) -> list[Tensor]:
    """Mean projections over the three axes (Eqs. 14-15). volume: (B, 1, X, Y, Z)."""
    return [volume.mean(axis) for axis in (2, 3, 4)]


def stacked_views(volume: Tensor) -> Tensor:
    """The three mean projections (Eqs. 14-15) as the channels of one image, (B, 3, H, W), each in the middle of zeros.

    volume: (B, 1, X, Y, Z). H and W are the largest height and width of the projections, so none is cut or stretched;
    where the padding is odd, the far side has the larger part.

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
    """Mean absolute difference of a frozen network's features, averaged over views; zero on equal inputs."""

    def __init__(self, features: FrozenFeatures) -> None:
        super().__init__()
        self.features = features

    @abstractmethod
    def views(self, volume: Tensor) -> list[Tensor]:
        """The inputs of the network for volumes (B, 1, X, Y, Z)."""

    def forward(self, estimate: Tensor, target: Tensor) -> Tensor:
        """Scalar, from volumes (B, 1, X, Y, Z) in about [0, 1]; gradients reach the estimate alone."""
        views, wanted = self.views(estimate), self.views(target.detach())
        if len({view.shape for view in views}) == 1:  # of one shape: one pass through the network costs less than three
            views, wanted = [torch.cat(views)], [torch.cat(wanted)]
        pairs = zip(views, wanted, strict=True)
        return torch.stack([F.l1_loss(self.features(a), self.features(b)) for a, b in pairs]).mean()


class MicrostructureLoss(FeatureLoss):
    """L_mic (Eq. 16), with each projection a grey image of its own."""

    def views(self, volume: Tensor) -> list[Tensor]:
        return microstructure_views(volume)


class StackedMicrostructureLoss(FeatureLoss):
    """L_mic (Eq. 16) of one image with a channel for each projection: the paper "concatenates the three views"."""

    def views(self, volume: Tensor) -> list[Tensor]:
        return [stacked_views(volume)]
