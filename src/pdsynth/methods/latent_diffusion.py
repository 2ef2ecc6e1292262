"""Latent diffusion: an autoencoder, then diffusion of the target's latents with cross-attention on the source's.

The method is that of Rombach et al. (2022), with MONAI's networks. Stage 1 trains one autoencoder for both modalities,
on differences from the training mean. Stage 2 diffuses the latents of whole volumes, whose sides are a quarter of the
grid's. A latent is the mean of the encoder's distribution, not a sample from it, and is normalised to zero mean and
unit SD over the training scans.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pdsynth.data.batch import PairBatch
from pdsynth.data.pairs import Pairs
from pdsynth.diffusion.sampling import ddim
from pdsynth.diffusion.schedule import cosine_schedule
from pdsynth.draws import Draws
from pdsynth.methods.base import Method, MethodConfig, Objective, Settings, Stage, register
from pdsynth.methods.conditioning import patches_of, population_mean
from pdsynth.methods.recipe import Recipe, Role
from pdsynth.networks.unet import SMALLEST, pad_to_multiple
from pdsynth.types import Direction, Modality

SHRINK = 4  # factor by which the autoencoder reduces each side


@dataclass
class LatentDiffusionConfig(MethodConfig):
    """Settings of the autoencoder (stage 1) and of the diffusion of its latents (stage 2).

    autoencoder_width, width: channels of the first level of the autoencoder and of the denoiser. latent_channels:
    channels of a latent. autoencoder_share: fraction of the training budget (steps or time) for stage 1.
    autoencoder_batch_size, batch_size: whole volumes per batch of the two stages. kl_weight: weight of the
    Kullback-Leibler term, relative to L1. sd: the difference of a volume from its training mean is divided by it before
    encoding; in units of the volumes (0..1). steps: number of sampling steps of `predict`.
    """

    autoencoder_width: int = 8
    latent_channels: int = 4
    autoencoder_share: float = 0.3
    autoencoder_batch_size: int = 1
    kl_weight: float = 1e-6
    sd: float = 0.1
    width: int = 24
    batch_size: int = 4
    steps: int = 10


@register
class LatentDiffusion(Method):
    """Synthesis by diffusion of the target's latents, which an autoencoder computes (after Rombach et al. 2022).

    Latents are images of several channels, of a quarter of the size along each axis, by which the autoencoder encodes a
    volume. `predict` returns the decoded sample of seed 0. For fMRI and dMRI: means (2, X, Y, Z), mean training
    volumes; latent_mean (2, channels, X/4, Y/4, Z/4) and latent_sd (2, channels, 1, 1, 1), by which latents are
    normalised.
    """

    name = "ldm"
    config_type: ClassVar[type[MethodConfig]] = LatentDiffusionConfig
    tiny: ClassVar[Settings] = {"autoencoder_width": 8, "width": 16, "batch_size": 2, "steps": 2}
    generative: ClassVar[bool] = True
    config: LatentDiffusionConfig
    means: Tensor  # (2, X, Y, Z), in the order of Modality
    latent_mean: Tensor  # (2, channels, X/4, Y/4, Z/4)
    latent_sd: Tensor  # (2, channels, 1, 1, 1)

    def __init__(self, config: LatentDiffusionConfig) -> None:
        from monai.networks.nets import AutoencoderKL, DiffusionModelUNet  # slow to import

        super().__init__(config)
        wide, channels = config.autoencoder_width, config.latent_channels
        self.autoencoder = AutoencoderKL(
            spatial_dims=3,
            num_res_blocks=1,
            channels=(wide, 2 * wide, 2 * wide),
            attention_levels=(False, False, False),
            latent_channels=channels,
            norm_num_groups=8,
            with_encoder_nonlocal_attn=False,
            with_decoder_nonlocal_attn=False,
        )
        self.denoiser = DiffusionModelUNet(
            spatial_dims=3,
            in_channels=2 * channels,
            out_channels=channels,
            num_res_blocks=1,
            channels=(config.width, 2 * config.width),
            attention_levels=(False, True),
            norm_num_groups=8,
            num_head_channels=config.width,
            with_conditioning=True,
            cross_attention_dim=channels + 3,
            num_class_embeds=len(Direction),
            use_flash_attention=True,
        )
        self.schedule = cosine_schedule(beta_max=0.999)  # no signal is left at T
        self.register_buffer("means", torch.zeros(2, *config.grid_shape))
        self.register_buffer("latent_mean", torch.zeros(2, channels, *(n // SHRINK for n in config.grid_shape)))
        self.register_buffer("latent_sd", torch.ones(2, channels, 1, 1, 1))
        self.latents: dict[Modality, Tensor] = {}

    def fit(self, train: Pairs, generator: torch.Generator) -> None:
        # reset, because the statistics of an earlier autoencoder's latents are not those of this one
        self.latent_mean, self.latent_sd = torch.zeros_like(self.latent_mean), torch.ones_like(self.latent_sd)
        self.latents = {}
        for m, modality in enumerate(Modality):
            self.means[m] = population_mean(train.whole_scans(), modality)

    def stages(self) -> list[Stage]:
        c = self.config
        encode = Objective("autoencoder", self.autoencoder, self.autoencoder_loss)
        denoise = Objective("denoise", self.denoiser, self.denoise_loss, 2e-3)
        smallest = (SMALLEST,) * 3  # stage 2 reads only the rows of a batch, not its voxels: the latents are cached
        return [
            # whole volumes, because the autoencoder normalises over space and would encode a patch differently
            Stage("autoencoder", [encode], c.grid_shape, c.autoencoder_batch_size, c.autoencoder_share),
            Stage("diffusion", [denoise], smallest, c.batch_size, 1 - c.autoencoder_share, prepare=self.cache_latents),
        ]

    def autoencoder_loss(self, batch: PairBatch, draws: Draws) -> dict[str, Tensor]:
        """The loss of the autoencoder, as scalars by name: two terms per modality.

        They are the L1 error of a decoded sample of the latents, "l1_<modality>", and the weighted Kullback-Leibler
        divergence of the latents' distribution from a standard normal, "kl_<modality>".
        """
        terms: dict[str, Tensor] = {}
        for direction, volume in batch.targets.items():
            training_mean = patches_of(self.means[[direction.target.index]], batch.corner, volume.shape[2:])
            difference = (volume - training_mean) / self.config.sd
            mean, sd = self.autoencoder.encode(difference)
            code = mean + sd * draws.normal(mean)
            terms[f"l1_{direction.target}"] = (self.autoencoder.decode(code) - difference).abs().mean()
            divergence = 0.5 * (mean.square() + sd.square() - 2 * sd.log() - 1).mean()
            terms[f"kl_{direction.target}"] = self.config.kl_weight * divergence
        return terms

    @torch.inference_mode()
    def cache_latents(self, train: Pairs) -> Pairs:
        """Encode every training row once, for the training of the diffusion; returns the same rows.

        From then on, all latents are normalised by the mean of these at each position and by their SD in each channel.
        """
        self.eval()
        for m, modality in enumerate(Modality):
            volumes = (torch.from_numpy(train.volume(modality, row))[None, None] for row in range(len(train)))
            codes = torch.cat([self.code(v.to(self.latent_sd.device), m).cpu() for v in volumes])
            self.latent_mean[m] = codes.mean(0)
            self.latent_sd[m] = (codes - codes.mean(0)).std((0, 2, 3, 4), correction=0, keepdim=True)[0].clamp_min(1e-4)
            self.latents[modality] = (codes - codes.mean(0)) / self.latent_sd[m].cpu()
        return train

    def code(self, volume: Tensor, m: int) -> Tensor:
        """Encode volumes (B, 1, X, Y, Z) of modality number m: latents (B, channels, X/4, Y/4, Z/4), not normalised.

        m: 0 for fMRI, 1 for dMRI. A latent is the mean of the encoder's distribution, not a sample of it.
        """
        return self.autoencoder.encode((volume - self.means[m]) / self.config.sd)[0]

    def encoded(self, volume: Tensor, modality: Modality) -> Tensor:
        """Normalised latents (B, channels, X/4, Y/4, Z/4) of volumes (B, 1, X, Y, Z).

        Over the training scans of this modality, they have zero mean at each position and unit SD in each channel.
        Before `cache_latents` they are not normalised.
        """
        m = modality.index
        return (self.code(volume, m) - self.latent_mean[m]) / self.latent_sd[m]

    def decoded(self, latent: Tensor, modality: Modality) -> Tensor:
        """Decode normalised latents (B, channels, X/4, Y/4, Z/4) to volumes (B, 1, X, Y, Z), not clipped.

        It is the inverse of `encoded`, but for the error of the autoencoder.
        """
        m = modality.index
        difference = self.autoencoder.decode(latent * self.latent_sd[m] + self.latent_mean[m])
        return self.means[m] + self.config.sd * difference

    def denoise(self, z_t: Tensor, t: Tensor, source: Tensor, direction: Direction) -> Tensor:
        """Estimate the target's latents z_0 from noisy latents z_t at diffusion steps t (B,) and the source's latents.

        z_t, source and result are (B, channels, X/4, Y/4, Z/4), normalised. The source's latents are further input
        channels. Their means over cells of 2 x 2 x 2, with coordinates, are the tokens of the cross-attention.
        """
        x, y, z = z_t.shape[2:]
        direction_index = torch.full((len(z_t),), direction.index, device=z_t.device)
        axes = (torch.linspace(-1, 1, n, device=z_t.device) for n in (x, y, z))
        coordinates = torch.stack(torch.meshgrid(*axes, indexing="ij")).expand(len(z_t), 3, x, y, z)
        tokens = F.avg_pool3d(torch.cat([source, coordinates], 1), 2, ceil_mode=True).flatten(2).transpose(1, 2)
        both = pad_to_multiple(torch.cat([z_t, source], 1))
        return self.denoiser(both, t, context=tokens, class_labels=direction_index)[:, :, :x, :y, :z]

    def denoise_loss(self, batch: PairBatch, draws: Draws) -> dict[str, Tensor]:
        terms: dict[str, Tensor] = {}
        rows = np.asarray(batch.rows)
        for direction in Direction:
            source, z_0 = (self.latents[m][rows].to(batch.corner.device) for m in (direction.source, direction.target))
            z_t, t, _ = self.schedule.noised(z_0, draws)
            z_0_hat = self.denoise(z_t, t, source, direction)
            terms[f"denoise_{direction}"] = F.mse_loss(z_0_hat, z_0)
        return terms

    def draw(self, batch: PairBatch, direction: Direction, generator: torch.Generator, steps: int) -> Tensor:
        source = self.encoded(batch.sources[direction].volume, direction.source)
        noise = torch.randn(source.shape, generator=generator, device=source.device)
        z_0 = ddim(lambda z_t, t: self.denoise(z_t, t, source, direction), noise, self.schedule, steps)
        return self.decoded(z_0, direction.target).clamp(0, 1)

    def predict(self, batch: PairBatch, direction: Direction) -> Tensor:
        return self.first_sample(batch, direction, self.config.steps)


def recipes() -> Iterator[Recipe]:
    summary = "an autoencoder, then diffusion of latents"
    paper = {Modality.FMRI: (9.06, 3.65), Modality.DMRI: (7.98, 1.42)}
    yield Recipe("ldm", summary, "ldm", Role.BASELINE, (2, 3, 7), paper, steps=4000)
