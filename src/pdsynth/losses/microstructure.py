"""The microstructure loss (Eqs. 14-16): L1 between VGG16 features of mean projections over the three axes."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pdsynth.losses.features import FrozenFeatures


def microstructure_views(volume: Tensor) -> list[Tensor]:
    """Mean projections over the three axes (Eqs. 14-15). volume: (B, 1, X, Y, Z)."""
    return [volume.mean(axis) for axis in (2, 3, 4)]


class FeatureLoss(nn.Module):
    """Mean absolute difference of a frozen network's features, averaged over views; zero on equal inputs."""

    def __init__(self, features: FrozenFeatures) -> None:
        super().__init__()
        self.features = features

    @abstractmethod
    def views(self, volume: Tensor) -> list[Tensor]:
        """What the network is shown of volumes (B, 1, X, Y, Z)."""

    def forward(self, estimate: Tensor, target: Tensor) -> Tensor:
        """Scalar, from volumes (B, 1, X, Y, Z) in about [0, 1]; gradients reach the estimate alone."""
        views, wanted = self.views(estimate), self.views(target.detach())
        if len({view.shape for view in views}) == 1:  # of one shape: one pass through the network costs less than three
            views, wanted = [torch.cat(views)], [torch.cat(wanted)]
        pairs = zip(views, wanted, strict=True)
        return torch.stack([F.l1_loss(self.features(a), self.features(b)) for a, b in pairs]).mean()


class MicrostructureLoss(FeatureLoss):
    """L_mic (Eq. 16): the views are mean projections."""

    def views(self, volume: Tensor) -> list[Tensor]:
        return microstructure_views(volume)
