"""Conditional GANs: a U-Net generator and a patch discriminator, with L1, and optional perceptual loss and attention.

`gan` is pix2pix (Isola et al. 2017) in 3D; `pgan` adds a perceptual loss (Dar et al. 2019), `sagan` self-attention at
the coarsest level (Zhang et al. 2019), `psagan` both.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from pdsynth.data.batch import PairBatch
from pdsynth.data.pairs import Pairs
from pdsynth.draws import Draws
from pdsynth.losses.adversarial import Discriminators
from pdsynth.losses.microstructure import FeatureLoss
from pdsynth.losses.perceptual import feature_loss
from pdsynth.methods.base import Method, MethodConfig, Objective, Settings, Stage, register
from pdsynth.methods.recipe import Recipe, Role
from pdsynth.methods.unet import SourceUNet, UNetConfig
from pdsynth.types import Direction, Modality, View


@dataclass
class GANConfig(UNetConfig):
    """Settings of a conditional GAN: weights of its losses relative to L1, weight 1, and sizes of its networks.

    adversarial_weight: of the loss against the discriminator. perceptual_weight: of the loss on features of slices, by
    a VGG16 of fixed random weights; 0 for none. discriminator_width: channels of the discriminator's first layer. The
    other settings, of `UNetConfig`, are the size of the generator, a U-Net, and of its training batches; `heads` is the
    number of its self-attention heads.
    """

    adversarial_weight: float = 0.01
    perceptual_weight: float = 0.0
    discriminator_width: int = 32


@register
class GAN(Method):
    """A conditional GAN: a U-Net generates the target from the source and is trained against a patch discriminator.

    It is pix2pix (Isola et al. 2017) in 3D: the generator minimises the L1 error, the loss against the discriminator (a
    network that learns to distinguish real from synthesised patches) and, if it has a weight, a perceptual loss on
    network features. `predict` returns the output of the generator, clipped to [0, 1].
    """

    name = "gan"
    config_type: ClassVar[type[MethodConfig]] = GANConfig
    tiny: ClassVar[Settings] = {
        "width": 8,
        "heads": 2,
        "perceptual_weight": 0.1,
        "discriminator_width": 4,
        "patch": 8,
        "batch_size": 4,
    }
    config: GANConfig

    def __init__(self, config: GANConfig) -> None:
        super().__init__(config)
        self.generator = SourceUNet(config)
        self.discriminators = Discriminators(2, config.discriminator_width)
        self.perceptual = feature_loss(View.SLICES) if config.perceptual_weight else None

    def fit(self, train: Pairs, generator: torch.Generator) -> None:
        self.generator.voxels.fit(train)

    def feature_loss(self) -> FeatureLoss | None:
        return self.perceptual

    def stages(self) -> list[Stage]:
        discriminate = Objective("discriminator", self.discriminators, self.discriminator_loss, 2e-4)
        generate = Objective("generator", self.generator, self.generator_loss, 2e-3)
        patch = (self.config.patch,) * 3
        return [Stage("adversarial", [discriminate, generate], patch, self.config.batch_size)]

    def discriminator_input(self, volume: Tensor, batch: PairBatch, direction: Direction) -> Tensor:
        """Input of the discriminator, (B, 2, x, y, z): the source, and a real or synthesised target.

        volume: that target, (B, 1, x, y, z).
        """
        return torch.cat([batch.sources[direction].volume, volume], 1)

    def discriminator_loss(self, batch: PairBatch, draws: Draws) -> dict[str, Tensor]:
        terms: dict[str, Tensor] = {}
        for direction in Direction:
            with torch.no_grad():
                synthesised = self.generator(batch, direction)
            real, synthesised = (
                self.discriminator_input(v, batch, direction) for v in (batch.targets[direction], synthesised)
            )
            terms |= self.discriminators.discriminator_loss(real, synthesised, direction)
        return terms

    def generator_loss(self, batch: PairBatch, draws: Draws) -> dict[str, Tensor]:
        terms: dict[str, Tensor] = {}
        for direction in Direction:
            target, synthesised = batch.targets[direction], self.generator(batch, direction)
            terms[f"l1_{direction}"] = (synthesised - target).abs().mean()
            adversarial = self.discriminators.generator_loss(
                self.discriminator_input(synthesised, batch, direction), direction
            )
            terms[f"adversarial_{direction}"] = self.config.adversarial_weight * adversarial
            if self.perceptual is not None:
                # a quarter of the batch: VGG16 on all patches would cost as much as the U-Net
                rows, share = draws.rows(0, -(-draws.parts * len(target) // 4), len(target))
                difference = self.perceptual(synthesised[rows], target[rows]) if share else target.new_zeros(())
                terms[f"perceptual_{direction}"] = self.config.perceptual_weight * share * difference
        return terms

    def predict(self, batch: PairBatch, direction: Direction) -> Tensor:
        return self.generator(batch, direction).clamp(0, 1)


def recipes() -> Iterator[Recipe]:
    perceptual, attention = {"perceptual_weight": 0.02}, {"heads": 4}
    gan = Recipe(
        "gan",
        "a U-Net against a patch discriminator, with L1",
        "gan",
        Role.BASELINE,
        (2, 3),
        {Modality.FMRI: (20.83, 57.53), Modality.DMRI: (25.38, 58.70)},
        steps=3000,
    )
    yield gan
    yield replace(
        gan,
        name="pgan",
        summary="gan with a perceptual loss",
        paper={Modality.FMRI: (20.15, 49.27), Modality.DMRI: (25.04, 56.12)},
        settings=perceptual,
    )
    yield replace(
        gan,
        name="sagan",
        summary="gan with self-attention",
        paper={Modality.FMRI: (19.04, 44.59), Modality.DMRI: (25.87, 62.59)},
        settings=attention,
    )
    yield replace(
        gan,
        name="psagan",
        summary="gan with perceptual loss and self-attention",
        paper={Modality.FMRI: (18.42, 34.93), Modality.DMRI: (25.35, 58.94)},
        settings=perceptual | attention,
    )
