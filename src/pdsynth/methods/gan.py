"""Conditional GANs: a U-Net generator against a patch discriminator, with L1; perceptual loss and attention by choice.

`gan` is pix2pix (Isola et al. 2017) in 3D; `pgan` adds a perceptual loss (Dar et al. 2019), `sagan` self-attention at
the coarsest level (Zhang et al. 2019), `psagan` both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from monai.losses import PatchAdversarialLoss
from monai.networks.nets import PatchDiscriminator
from torch import Tensor, nn

from pdsynth.data.pairs import PairBatch, Pairs
from pdsynth.losses.microstructure import VGGFeatures
from pdsynth.losses.perceptual import SliceLoss
from pdsynth.methods.base import Method, MethodConfig, Objective, Stage, register
from pdsynth.methods.unet import SourceUNet, UNetConfig
from pdsynth.types import Direction


@dataclass
class GANConfig(UNetConfig):
    """Weights of the losses beside L1, which has 1; heads: of the generator's self-attention, 0 for none."""

    adversarial_weight: float = 0.01
    perceptual_weight: float = 0.0
    discriminator_width: int = 32


@register
class GAN(Method):
    """Source and target, real or made, go through the discriminator patch by patch."""

    name = "gan"
    config_type: ClassVar[type[MethodConfig]] = GANConfig
    config: GANConfig

    def __init__(self, config: GANConfig) -> None:
        super().__init__(config)
        self.generator = SourceUNet(config)
        self.discriminators = nn.ModuleDict(
            {
                d: PatchDiscriminator(3, config.discriminator_width, in_channels=2, num_layers_d=1, norm="INSTANCE")
                for d in Direction
            }
        )
        self.adversarial = PatchAdversarialLoss(criterion="least_squares", no_activation_leastsq=True)
        self.perceptual = SliceLoss(VGGFeatures()) if config.perceptual_weight else None

    def fit(self, train: Pairs, generator: torch.Generator) -> None:
        self.generator.voxels.fit(train)

    def notes(self) -> dict[str, str]:
        return {} if self.perceptual is None else {"perceptual_features": self.perceptual.features.source}

    def stages(self) -> list[Stage]:
        discriminate = Objective("discriminator", self.discriminators, self.discriminator_loss, 2e-4)
        generate = Objective("generator", self.generator, self.generator_loss, 2e-3)
        patch = (self.config.patch,) * 3
        return [Stage("adversarial", [discriminate, generate], patch, self.config.batch_size)]

    def judged(self, volume: Tensor, batch: PairBatch, direction: Direction) -> Tensor:
        """The discriminator's map for a target, real or made, beside its source."""
        pair = torch.cat([batch.sources[direction].volume, volume], 1)
        return self.discriminators[direction](pair)[-1]

    def discriminator_loss(self, batch: PairBatch, generator: torch.Generator) -> dict[str, Tensor]:
        terms: dict[str, Tensor] = {}
        for direction in Direction:
            with torch.no_grad():
                made = self.generator(batch, direction)
            for real, volume in ((True, batch.targets[direction]), (False, made)):
                judged = self.judged(volume, batch, direction)
                loss = self.adversarial(judged, target_is_real=real, for_discriminator=True)
                terms[f"{'real' if real else 'made'}_{direction}"] = 0.5 * loss
        return terms

    def generator_loss(self, batch: PairBatch, generator: torch.Generator) -> dict[str, Tensor]:
        terms: dict[str, Tensor] = {}
        for direction in Direction:
            target, made = batch.targets[direction], self.generator(batch, direction)
            terms[f"l1_{direction}"] = (made - target).abs().mean()
            fooled = self.adversarial(self.judged(made, batch, direction), target_is_real=True, for_discriminator=False)
            terms[f"adversarial_{direction}"] = self.config.adversarial_weight * fooled
            if self.perceptual is not None:
                some = slice(-(-len(target) // 4))  # VGG16 on all patches would cost as much as the U-Net
                alike = self.perceptual(made[some], target[some])
                terms[f"perceptual_{direction}"] = self.config.perceptual_weight * alike
        return terms

    def predict(self, batch: PairBatch, direction: Direction) -> Tensor:
        return self.generator(batch, direction).clamp(0, 1)
