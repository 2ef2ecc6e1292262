"""A perceptual loss on slices, as conditional GANs of MRI use it (Dar et al. 2019)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pdsynth.losses.microstructure import VGGFeatures


class SliceLoss(nn.Module):
    """Mean absolute difference of features of evenly spaced slices along the three axes; zero on equal inputs."""

    def __init__(self, features: VGGFeatures, slices: int = 2) -> None:
        super().__init__()
        self.features, self.slices = features, slices

    def forward(self, estimate: Tensor, target: Tensor) -> Tensor:
        """Scalar, from volumes (B, 1, X, Y, Z) in about [0, 1]; gradients reach the estimate alone."""
        pairs = zip(self._views(estimate), self._views(target.detach()), strict=True)
        return torch.stack([F.l1_loss(self.features(a), self.features(b)) for a, b in pairs]).mean()

    def _views(self, volume: Tensor) -> list[Tensor]:
        """Slices of each axis, (B * slices, 1, ., .)."""
        views = []
        for axis in (2, 3, 4):
            size = volume.shape[axis]
            chosen = [size * (i + 1) // (self.slices + 1) for i in range(self.slices)]
            views.append(torch.cat([volume.select(axis, i) for i in chosen]))
        return views
