"""The deterministic U-Net baseline: it predicts the target from source features and minimises the squared error."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from pdsynth.data.batch import PairBatch
from pdsynth.data.pairs import Pairs
from pdsynth.draws import Draws
from pdsynth.methods.base import Method, MethodConfig, Objective, Settings, Stage, register
from pdsynth.methods.conditioning import ACQUISITION, FEATURES, VoxelFeatures
from pdsynth.methods.recipe import Recipe, Role
from pdsynth.networks.unet import HaarUNet
from pdsynth.types import Direction, Modality


@dataclass
class UNetConfig(MethodConfig):
    """Settings of a U-Net on Haar wavelet coefficients, and of its training batches.

    width: channels of the finest level. levels: number of resolutions. blocks: residual blocks per level. heads: number
    of self-attention heads at the coarsest level, 0 for none. patch: edge of a training patch in voxels. batch_size:
    patches per batch.
    """

    width: int = 32
    levels: int = 2
    blocks: int = 2
    heads: int = 0
    patch: int = 16
    batch_size: int = 24


class SourceUNet(nn.Module):
    """A U-Net that estimates the target from features of the source, as a correction of the target's training mean.

    The training mean is the mean target volume of the training participants. One network serves both directions.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.voxels = VoxelFeatures(config.grid_shape)
        self.network = HaarUNet(FEATURES, 1, config.width, config.levels, config.blocks, ACQUISITION, config.heads)

    def forward(self, batch: PairBatch, direction: Direction) -> Tensor:
        """Estimate the targets of a batch from their source scans: (B, 1, x, y, z), not clipped."""
        features = self.voxels.features(batch, direction)
        change = self.network(features, self.voxels.acquisition(batch, direction))
        return self.voxels.target_mean(batch, direction) + change


@register
class UNet(Method):
    """A deterministic baseline: a U-Net that estimates the target from the source, trained by mean squared error."""

    name = "unet"
    config_type: ClassVar[type[MethodConfig]] = UNetConfig
    tiny: ClassVar[Settings] = {"width": 8, "patch": 8, "batch_size": 4}
    config: UNetConfig

    def __init__(self, config: UNetConfig) -> None:
        super().__init__(config)
        self.unet = SourceUNet(config)

    def fit(self, train: Pairs, generator: torch.Generator) -> None:
        self.unet.voxels.fit(train)

    def stages(self) -> list[Stage]:
        patch = (self.config.patch,) * 3
        return [Stage("regression", [Objective("mse", self.unet, self.loss, 3e-3)], patch, self.config.batch_size)]

    def loss(self, batch: PairBatch, draws: Draws) -> dict[str, Tensor]:
        return {f"mse_{d}": (self.unet(batch, d) - batch.targets[d]).square().mean() for d in Direction}

    def predict(self, batch: PairBatch, direction: Direction) -> Tensor:
        return self.unet(batch, direction).clamp(0, 1)


def recipes() -> Iterator[Recipe]:
    summary = "a deterministic U-Net from the source to the target"
    paper = {Modality.FMRI: (28.29, 86.72), Modality.DMRI: (28.98, 75.35)}
    yield Recipe("unet", summary, "unet", Role.BASELINE, (2, 3), paper, steps=4000)
