"""A multilayer perceptron on the features of each voxel: a control that is cheap to train and scores well."""

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
from pdsynth.methods.conditioning import CONDITION, FEATURES, Conditioning
from pdsynth.methods.recipe import Recipe, Role
from pdsynth.networks.voxel import VoxelMLP
from pdsynth.types import Direction


@dataclass
class VoxelMLPConfig(MethodConfig):
    """Settings of the perceptron. width: units per hidden layer. depth: number of hidden layers."""

    width: int = 128
    depth: int = 3


@register
class VoxelPerceptron(Method):
    """A control (simple method for comparison): a perceptron predicts the target at each voxel.

    Its input are features of the voxel and of the source scan. There is one perceptron per direction of synthesis. Its
    output is added to the mean target of the training participants.
    """

    name = "voxel-mlp"
    config_type: ClassVar[type[MethodConfig]] = VoxelMLPConfig
    tiny: ClassVar[Settings] = {"width": 8}
    config: VoxelMLPConfig

    def __init__(self, config: VoxelMLPConfig) -> None:
        super().__init__(config)
        self.conditioning = Conditioning(config.grid_shape)
        self.networks = nn.ModuleDict(
            {d: VoxelMLP(FEATURES, 1, config.width, config.depth, CONDITION) for d in Direction}
        )

    def fit(self, train: Pairs, generator: torch.Generator) -> None:
        self.conditioning.fit(train)

    def stages(self) -> list[Stage]:
        # 128 patches of 4 x 4 x 4 voxels: 8192 voxels from up to 128 participants
        return [Stage("regression", [Objective("mse", self.networks, self.loss, 2e-3)], (4, 4, 4), 128)]

    def loss(self, batch: PairBatch, draws: Draws) -> dict[str, Tensor]:
        """Mean squared error of the estimate, as a scalar per direction, by the name "mse_<direction>"."""
        return {f"mse_{d}": (self(batch, d) - batch.targets[d]).square().mean() for d in Direction}

    def forward(self, batch: PairBatch, direction: Direction) -> Tensor:
        """Estimate the targets of a batch: (B, 1, x, y, z), not clipped.

        More than about 3 voxels away from the source's brain the estimate is the mean target of the training
        participants.
        """
        features = self.conditioning.features(batch, direction)
        condition = self.conditioning.condition(batch, direction)
        near = batch.sources[direction].near
        network = self.networks[direction]
        if len(batch) == 1:  # two thirds of a whole volume are far from the brain
            change = torch.zeros_like(features[:, :1])
            change[near] = network(features[:, :, near[0, 0], None, None], condition).flatten().to(change.dtype)
        else:
            change = network(features, condition) * near
        return self.conditioning.target_mean(batch, direction) + change

    def predict(self, batch: PairBatch, direction: Direction) -> Tensor:
        return self(batch, direction).clamp(0, 1)


def recipes() -> Iterator[Recipe]:
    summary = "a perceptron on each voxel's multi-scale features"
    yield Recipe("voxel-mlp", summary, "voxel-mlp", Role.CONTROL, steps=8000)
