"""Conditional diffusion from the source: U-DDIM and SA-DDPM, two settings of one method, and DiT, another network.

The network sees x_t and the source's features, and returns x_0-hat (Saharia et al. 2022). The diffused variable x_0 is
the difference of the target from its training mean, divided by a fixed SD, so that its variance is about one. Sampling
takes evenly spaced steps, without noise (DDIM, Song et al. 2021) or with the noise of DDPM (Ho et al. 2020).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from pdsynth.data.batch import PairBatch
from pdsynth.data.pairs import Pairs
from pdsynth.diffusion.sampling import ddim
from pdsynth.diffusion.schedule import cosine_schedule
from pdsynth.draws import Draws
from pdsynth.methods.base import Method, MethodConfig, Objective, Settings, Stage, register
from pdsynth.methods.conditioning import FEATURES, STEERING, VoxelFeatures
from pdsynth.methods.recipe import Recipe, Role
from pdsynth.methods.unet import UNetConfig
from pdsynth.networks.transformer import PatchTransformer
from pdsynth.networks.unet import HaarUNet
from pdsynth.types import Direction, Modality


@dataclass
class DiffusionConfig(UNetConfig):
    """Settings of a conditional diffusion with a U-Net.

    eta: noise of each sampling step relative to that of DDPM; 0 for DDIM, which adds none, 1 for DDPM. steps: number of
    sampling steps of `predict`. sd: the difference of the target from its training mean is divided by it before
    diffusion; in units of the volumes (0..1). The other settings, of `UNetConfig`, are the size of the U-Net and of its
    training batches.
    """

    eta: float = 0.0
    steps: int = 10
    sd: float = 0.1


@register
class ConditionalDiffusion(Method):
    """Synthesis by diffusion of the target, with a U-Net as denoiser that sees the source (Saharia et al. 2022).

    `predict` returns one sample, that of seed 0, since there is no other estimate.
    """

    name = "conditional-diffusion"
    config_type: ClassVar[type[MethodConfig]] = DiffusionConfig
    tiny: ClassVar[Settings] = {"width": 8, "heads": 2, "eta": 1.0, "steps": 2, "patch": 8, "batch_size": 4}
    generative: ClassVar[bool] = True
    config: DiffusionConfig

    def __init__(self, config: DiffusionConfig) -> None:
        super().__init__(config)
        self.voxels = VoxelFeatures(config.grid_shape)
        self.schedule = cosine_schedule(beta_max=0.999)  # no signal is left at T
        self.denoiser = self.network()

    def network(self) -> nn.Module:
        """Make the untrained denoiser, which estimates x_0 from x_t, source features and diffusion step."""
        c = self.config
        return HaarUNet(FEATURES + 1, 1, c.width, c.levels, c.blocks, STEERING, c.heads)

    def fit(self, train: Pairs, generator: torch.Generator) -> None:
        self.voxels.fit(train)

    def stages(self) -> list[Stage]:
        objective = Objective("denoise", self.denoiser, self.loss, 3e-3)
        return [Stage("diffusion", [objective], self.patch, self.config.batch_size)]

    @property
    def patch(self) -> tuple[int, int, int]:
        """Edges of the training patches in voxels."""
        return (self.config.patch,) * 3

    def denoise(self, x_t: Tensor, t: Tensor, batch: PairBatch, direction: Direction) -> Tensor:
        """Estimate x_0 from x_t at the diffusion steps t (B,), and from the source without noise.

        x_0 and x_t are (B, 1, x, y, z). x_0 is the target minus its training mean, divided by the setting `sd`.
        """
        condition = self.voxels.steering(batch, direction, t)
        return self.denoiser(torch.cat([self.voxels.features(batch, direction), x_t], 1), condition)

    def x_0(self, batch: PairBatch, direction: Direction) -> Tensor:
        """The diffused variable, (B, 1, x, y, z): the target minus its training mean, divided by the setting `sd`.

        The training mean is the mean target volume over the training scans, cut to the batch's patches.
        """
        return (batch.targets[direction] - self.voxels.target_mean(batch, direction)) / self.config.sd

    def loss(self, batch: PairBatch, draws: Draws) -> dict[str, Tensor]:
        terms: dict[str, Tensor] = {}
        for direction in Direction:
            x_0 = self.x_0(batch, direction)
            x_t, t, _ = self.schedule.noised(x_0, draws)
            terms[f"denoise_{direction}"] = (self.denoise(x_t, t, batch, direction) - x_0).square().mean()
        return terms

    def draw(self, batch: PairBatch, direction: Direction, generator: torch.Generator, steps: int) -> Tensor:
        mean = self.voxels.target_mean(batch, direction)
        noise = torch.randn(mean.shape, generator=generator, device=mean.device)
        x_0 = ddim(
            lambda x_t, t: self.denoise(x_t, t, batch, direction),
            noise,
            self.schedule,
            steps,
            self.config.eta,
            generator,
        )
        return (mean + self.config.sd * x_0).clamp(0, 1)

    def predict(self, batch: PairBatch, direction: Direction) -> Tensor:
        return self.first_sample(batch, direction, self.config.steps)


@dataclass
class DiTConfig(DiffusionConfig):
    """Settings of a conditional diffusion with a transformer.

    width: size of a token. heads: number of attention heads. patch: edge in voxels of the cube that is one token.
    depth: number of blocks. batch_size: whole volumes per training batch. eta, steps and sd are those of
    `DiffusionConfig`; its `levels` and `blocks` have no effect.
    """

    width: int = 192
    heads: int = 6
    patch: int = 8
    depth: int = 6
    batch_size: int = 4


@register
class DiT(ConditionalDiffusion):
    """Synthesis by diffusion of the target, with a transformer as denoiser (after DiT, Peebles & Xie 2023).

    Its tokens are the cubes of a whole volume. `predict` returns one sample, that of seed 0.
    """

    name = "dit"
    config_type: ClassVar[type[MethodConfig]] = DiTConfig
    tiny: ClassVar[Settings] = {"width": 8, "heads": 2, "depth": 1, "steps": 2, "patch": 8, "batch_size": 2}
    config: DiTConfig

    def network(self) -> nn.Module:
        c = self.config
        return PatchTransformer(c.grid_shape, FEATURES + 1, 1, STEERING, c.patch, c.width, c.depth, c.heads)

    @property
    def patch(self) -> tuple[int, int, int]:
        return self.config.grid_shape


def recipes() -> Iterator[Recipe]:
    u_ddim = Recipe(
        "u-ddim",
        "diffusion by a U-Net, sampled by DDIM",
        "conditional-diffusion",
        Role.BASELINE,
        (2, 3, 7),
        {Modality.FMRI: (10.54, 10.67), Modality.DMRI: (10.94, 4.67)},
        steps=4000,
    )
    yield u_ddim
    yield replace(
        u_ddim,
        name="sa-ddpm",
        summary="diffusion with self-attention, by DDPM",
        paper={Modality.FMRI: (11.68, 16.31), Modality.DMRI: (7.34, 8.33)},
        settings={"heads": 4, "eta": 1.0},
    )
    yield replace(
        u_ddim,
        name="dit",
        summary="diffusion by a patch transformer",
        method="dit",
        paper={Modality.FMRI: (7.12, 1.71), Modality.DMRI: (6.95, 1.99)},
    )
