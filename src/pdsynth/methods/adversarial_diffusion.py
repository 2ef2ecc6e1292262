"""Adversarial diffusion: a few large denoising steps, with a generator trained against a discriminator.

The generator returns x_0-hat from x_t and the source, and x_{t-1} is drawn from q(x_{t-1} | x_t, x_0-hat). The
discriminator distinguishes real pairs (x_{t-1}, x_t) from such pairs. The method follows denoising diffusion GANs (Xiao
et al. 2022) and the paired branch of SynDiff (Ozbey et al. 2023).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pdsynth.data.batch import PairBatch
from pdsynth.diffusion.sampling import ddpm, step_back
from pdsynth.diffusion.schedule import cosine_schedule
from pdsynth.draws import Draws
from pdsynth.losses.adversarial import Discriminators
from pdsynth.methods.base import MethodConfig, Objective, Settings, Stage, register
from pdsynth.methods.diffusion import ConditionalDiffusion, DiffusionConfig
from pdsynth.methods.recipe import Recipe, Role
from pdsynth.types import Direction, Modality


@dataclass
class AdversarialDiffusionConfig(DiffusionConfig):
    """Settings of adversarial diffusion.

    steps: number T of diffusion steps, in training and sampling. adversarial_weight: weight of the adversarial loss,
    relative to the L1 loss of the estimated x_0, weight 1. discriminator_width: channels of the discriminator's first
    layer. The other settings are those of `DiffusionConfig`, with a U-Net as generator; `eta` has no effect.
    """

    steps: int = 4
    adversarial_weight: float = 0.05
    discriminator_width: int = 32


@register
class AdversarialDiffusion(ConditionalDiffusion):
    """Synthesis by diffusion in few large steps, whose denoiser is trained against a discriminator.

    It follows denoising diffusion GANs (Xiao et al. 2022) and SynDiff (Ozbey et al. 2023). `predict` returns one
    sample, that of seed 0.
    """

    name = "adm"
    config_type: ClassVar[type[MethodConfig]] = AdversarialDiffusionConfig
    tiny: ClassVar[Settings] = {"width": 8, "discriminator_width": 4, "patch": 8, "batch_size": 4}
    config: AdversarialDiffusionConfig

    def __init__(self, config: AdversarialDiffusionConfig) -> None:
        super().__init__(config)
        self.schedule = cosine_schedule(config.steps, beta_max=0.999)
        self.discriminators = Discriminators(4, config.discriminator_width)

    def stages(self) -> list[Stage]:
        discriminate = Objective("discriminator", self.discriminators, self.discriminator_loss, 2e-4)
        generate = Objective("generator", self.denoiser, self.generator_loss, 2e-3)
        return [Stage("diffusion", [discriminate, generate], self.patch, self.config.batch_size)]

    def discriminator_input(
        self, before: Tensor, x_t: Tensor, t: Tensor, batch: PairBatch, direction: Direction
    ) -> Tensor:
        """Input of the discriminator, (B, 4, x, y, z): x_{t-1}, x_t, the source, and t / T as a constant map.

        before is x_{t-1}, of the forward process or drawn by the generator. before and x_t are (B, 1, x, y, z), the
        diffusion step t is (B,), and T is the number of steps.
        """
        time = (t.to(x_t.dtype) / self.schedule.steps)[:, None, None, None, None].expand_as(x_t)
        return torch.cat([before, x_t, batch.sources[direction].volume, time], 1)

    def pairs(self, batch: PairBatch, direction: Direction, draws: Draws) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Noise the targets of a batch for one training step.

        Returns x_0, x_{t-1} and x_t, (B, 1, x, y, z) each, and random diffusion steps t (B,). x_0 is the target minus
        its training mean, divided by the setting `sd`. x_t is x_{t-1} after one more noising step. x_{t-1} is x_0
        itself at t = 0, the first step.
        """
        x_0 = self.x_0(batch, direction)
        t = draws.integers(self.schedule.steps, len(batch))
        beta = self.schedule.beta[t][:, None, None, None, None]
        noised = self.schedule.add_noise(x_0, (t - 1).clamp_min(0), draws.normal(x_0))
        before = torch.where((t == 0)[:, None, None, None, None], x_0, noised)
        return x_0, before, (1 - beta).sqrt() * before + beta.sqrt() * draws.normal(x_0), t

    def denoised_pair(
        self, x_t: Tensor, t: Tensor, batch: PairBatch, direction: Direction, draws: Draws
    ) -> tuple[Tensor, Tensor]:
        """The generator's estimate of x_0, and a sample of x_{t-1} given x_t and this estimate, (B, 1, x, y, z) each.

        x_t (B, 1, x, y, z) is the noisy target at the diffusion steps t (B,), counted from 0; at t = 0 the sample is
        the estimate itself. The generator also sees the source. x_0 is the target minus its training mean, divided by
        the setting `sd`.
        """
        x_0_hat = self.denoise(x_t, t, batch, direction)
        return x_0_hat, step_back(x_t, t, x_0_hat, self.schedule, draws.normal(x_t))

    def discriminator_loss(self, batch: PairBatch, draws: Draws) -> dict[str, Tensor]:
        terms: dict[str, Tensor] = {}
        for direction in Direction:
            _, before, x_t, t = self.pairs(batch, direction, draws)
            with torch.no_grad():
                _, drawn = self.denoised_pair(x_t, t, batch, direction, draws)
            real, synthesised = (self.discriminator_input(one, x_t, t, batch, direction) for one in (before, drawn))
            terms |= self.discriminators.discriminator_loss(real, synthesised, direction)
        return terms

    def generator_loss(self, batch: PairBatch, draws: Draws) -> dict[str, Tensor]:
        terms: dict[str, Tensor] = {}
        for direction in Direction:
            x_0, _, x_t, t = self.pairs(batch, direction, draws)
            x_0_hat, drawn = self.denoised_pair(x_t, t, batch, direction, draws)
            adversarial = self.discriminators.generator_loss(
                self.discriminator_input(drawn, x_t, t, batch, direction), direction
            )
            terms[f"l1_{direction}"] = (x_0_hat - x_0).abs().mean()
            terms[f"adversarial_{direction}"] = self.config.adversarial_weight * adversarial
        return terms

    def draw(self, batch: PairBatch, direction: Direction, generator: torch.Generator, steps: int) -> Tensor:
        """One sample of the target, (1, 1, X, Y, Z) in [0, 1], over all T diffusion steps.

        `steps` is ignored, because the denoiser is trained for T steps only.
        """
        mean = self.voxels.target_mean(batch, direction)
        noise = torch.randn(mean.shape, generator=generator, device=mean.device)
        x_0 = ddpm(lambda x_t, t: self.denoise(x_t, t, batch, direction), noise, self.schedule, generator)
        return (mean + self.config.sd * x_0).clamp(0, 1)


def recipes() -> Iterator[Recipe]:
    summary = "adversarial diffusion in four large steps"
    paper = {Modality.FMRI: (18.66, 33.25), Modality.DMRI: (25.37, 54.09)}
    yield Recipe("adm", summary, "adm", Role.BASELINE, (2, 3), paper, steps=3000)
