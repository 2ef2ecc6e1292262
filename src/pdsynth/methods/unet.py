"""The deterministic U-Net baseline: source features in, target out, mean squared error."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from pdsynth.data.batch import PairBatch
from pdsynth.data.pairs import Pairs
from pdsynth.methods.base import Method, MethodConfig, Objective, Settings, Stage, register
from pdsynth.methods.conditioning import ACQUISITION, FEATURES, VoxelFeatures
from pdsynth.methods.recipe import Recipe, Role
from pdsynth.networks.unet import HaarUNet
from pdsynth.types import Direction, Modality


@dataclass
class UNetConfig(MethodConfig):
    """Size of the lean U-Net, heads of self-attention at its coarsest level, and the patches that train it."""

    width: int = 32
    levels: int = 2
    blocks: int = 2
    heads: int = 0
    patch: int = 16
    batch_size: int = 24


class SourceUNet(nn.Module):
    """U(source): a U-Net on the source's features, for both directions, added to the target's training mean."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.voxels = VoxelFeatures(config.grid_shape)
        self.network = HaarUNet(FEATURES, 1, config.width, config.levels, config.blocks, ACQUISITION, config.heads)

    def forward(self, batch: PairBatch, direction: Direction) -> Tensor:
        """(B, 1, x, y, z), not clipped."""
        features = self.voxels.features(batch, direction)
        change = self.network(features, self.voxels.acquisition(batch, direction))
        return self.voxels.target_mean(batch, direction) + change


@register
class UNet(Method):
    """A U-Net from the source to the target."""

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

    def loss(self, batch: PairBatch, generator: torch.Generator) -> dict[str, Tensor]:
        return {f"mse_{d}": (self.unet(batch, d) - batch.targets[d]).square().mean() for d in Direction}

    def predict(self, batch: PairBatch, direction: Direction) -> Tensor:
        return self.unet(batch, direction).clamp(0, 1)


def recipes() -> Iterator[Recipe]:
    summary = "a deterministic U-Net from the source to the target"
    paper = {Modality.FMRI: (28.29, 86.72), Modality.DMRI: (28.98, 75.35)}
    yield Recipe("unet", summary, "unet", Role.BASELINE, (2, 3), paper, steps=4000)
