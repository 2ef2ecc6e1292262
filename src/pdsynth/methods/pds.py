"""PDS: a conditional diffusion draft on a linear stem (stage 1), then tissue refinement (stage 2).

The stem, a ridge regression between coarse volumes, is fitted in closed form: it knows the smooth part. Stage 1 trains
one denoiser for both directions in the Haar domain. What diffuses is the residual of the target from the stem's
estimate, in units of its SD: z_0 = (x_0 - stem) / sd. Conditioned on the clean source, the denoiser returns
z_0-hat; at the last step of the forward process, where z_t says nothing of z_0, that is E[z_0 | source], so one
evaluation gives the posterior mean, and a few steps of DDIM from noise give a sample (Eqs. 1-8, with the real source).
Stage 2 refines the drafts: y = B(draft) + U(source) (Eqs. 12-13).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from pdsynth.atlas import network_spheres, region_means
from pdsynth.data.pairs import PairBatch, Pairs
from pdsynth.diffusion.sampling import ddim
from pdsynth.diffusion.schedule import cosine_schedule
from pdsynth.imaging.spatial import mni_grid
from pdsynth.losses.microstructure import FeatureLoss
from pdsynth.losses.pattern import PatternLoss
from pdsynth.losses.perceptual import feature_loss
from pdsynth.methods.base import Method, MethodConfig, Objective, Stage, register
from pdsynth.methods.cached import Cached, spread_rows
from pdsynth.methods.coarse_ridge import CoarseRidge
from pdsynth.methods.conditioning import ACQUISITION, FEATURES, STEERING, VoxelFeatures, patches_of
from pdsynth.methods.unet import UNetConfig
from pdsynth.networks.unet import HaarUNet, zero
from pdsynth.types import Direction, Modality

LOG_SD_LIMIT = 5.0


@dataclass
class PDSConfig(UNetConfig):
    """Sizes, loss weights and the share of each stage.

    conditioned: whether the draft is told the source (without it, only refinement is: `pds-unconditioned`);
    residual_sd: SD of x_0 around the stem's estimate, the unit of the diffused residual; posterior_share: part of each
    batch that trains the posterior mean at t = T, the rest trains all t; drafts: about how many rows stage 2 sees;
    refiner_share: 0 for no refinement; microstructure_views, feature_layer, vgg_depth, vgg_weights: see `feature_loss`.
    """

    conditioned: bool = True
    residual_sd: float = 0.06
    posterior_share: float = 0.7
    uncertainty_weight: float = 0.05
    pattern_weight: float = 0.1
    microstructure_weight: float = 0.02
    microstructure_views: str = "projections"
    feature_layer: str = "conv2_2"
    vgg_depth: int = 16
    vgg_weights: str | None = None
    refiner_width: int = 32
    refiner_share: float = 0.1
    refiner_patch: int = 24
    refiner_batch_size: int = 8
    drafts: int = 240


class StructureLosses(nn.Module):
    """Microstructure loss (Eqs. 14-16) and pattern loss (Eqs. 9-11) with their weights, for either target."""

    labels: Tensor  # (1, X, Y, Z)

    def __init__(self, config: PDSConfig) -> None:
        super().__init__()
        self.config = config
        self.microstructure: FeatureLoss | None = None  # made by `fit`: only training needs it
        self.patterns = nn.ModuleDict({m: PatternLoss(len(network_spheres(mni_grid()))) for m in Modality})
        self.register_buffer("labels", torch.zeros(1, *config.grid_shape, dtype=torch.int32))

    def feature_loss(self) -> FeatureLoss | None:
        c = self.config
        if not c.microstructure_weight:
            return None
        return feature_loss(c.microstructure_views, c.feature_layer, c.vgg_depth, c.vgg_weights)

    def fit(self, train: Pairs) -> None:
        """The frozen network, the atlas on the grid, and how much each region varies among the participants."""
        self.microstructure = self.feature_loss()
        atlas = network_spheres(train.grid)
        self.labels.copy_(torch.from_numpy(atlas.labels)[None])
        whole = train.whole_scans()
        for modality in Modality:
            means = [region_means(whole.volume(modality, row), atlas) for row in range(len(whole))]
            spread = torch.from_numpy(np.std(means, axis=0)).float()
            self.patterns[modality].spread.copy_(spread.clamp_min(1e-2))  # type: ignore[operator]

    def forward(self, estimate: Tensor, batch: PairBatch, direction: Direction) -> dict[str, Tensor]:
        """L_mic (of a quarter of the patches) and L_PA of an estimate (B, 1, x, y, z) of the target."""
        target = batch.targets[direction]
        labels = patches_of(self.labels, batch.corner, target.shape[2:])
        terms: dict[str, Tensor] = {}
        if self.config.pattern_weight:
            pattern = self.patterns[direction.target](estimate, target, labels)
            terms[f"pattern_{direction}"] = self.config.pattern_weight * pattern
        if self.microstructure is not None:
            some = slice(-(-len(target) // 4))  # VGG16 on all patches would cost as much as the U-Net
            microstructure = self.microstructure(estimate[some], target[some])
            terms[f"microstructure_{direction}"] = self.config.microstructure_weight * microstructure
        return terms


class Drafter(nn.Module):
    """The stem and the denoiser of its residual."""

    def __init__(self, config: PDSConfig) -> None:
        super().__init__()
        self.sd, self.posterior_share = config.residual_sd, config.posterior_share
        self.uncertainty_weight, self.conditioned = config.uncertainty_weight, config.conditioned
        self.schedule = cosine_schedule(beta_max=0.999)  # no signal is left at T
        self.stem = CoarseRidge(config.grid_shape)
        self.voxels = VoxelFeatures(config.grid_shape)
        self.denoiser = HaarUNet(FEATURES + 2, 2, config.width, config.levels, config.blocks, STEERING, config.heads)
        self.structure = StructureLosses(config)

    def denoise(
        self, z_t: Tensor, t: Tensor, stem: Tensor, batch: PairBatch, direction: Direction
    ) -> tuple[Tensor, Tensor]:
        """z_0-hat of z_t (B, 1, x, y, z) at steps t (B,), given the clean source, and the log SD of z_0 around it."""
        features = (self.voxels.features if self.conditioned else self.voxels.features_without_source)(batch, direction)
        condition = self.voxels.steering(batch, direction, t)
        z_0_hat, log_sd = self.denoiser(torch.cat([features, stem, z_t], 1), condition).chunk(2, 1)
        return z_0_hat, log_sd.clamp(-LOG_SD_LIMIT, LOG_SD_LIMIT)

    def start(self, batch: PairBatch, direction: Direction) -> Tensor:
        """What the residual is taken from, (B, 1, x, y, z): the stem, or the training mean where no source is told."""
        return (self.stem if self.conditioned else self.voxels.target_mean)(batch, direction)

    def cross_fitted(self, train: Pairs) -> dict[Direction, Tensor]:
        """`start` of all training rows, (rows, 1, X, Y, Z) fp16; a stem estimates those that it has not seen."""
        if self.conditioned:
            return self.stem.cross_fitted(train)
        same = Cached()
        same.fill(train, self.voxels.target_mean, self.voxels.means.device)
        return same.volumes

    def last(self, batch: PairBatch) -> Tensor:
        return torch.full((len(batch),), self.schedule.steps - 1, device=batch.corner.device)

    def posterior(self, batch: PairBatch, direction: Direction, stem: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean and SD of x_0 given the source: the denoiser at t = T on z_T = 0."""
        stem = self.start(batch, direction) if stem is None else stem
        z_0_hat, log_sd = self.denoise(torch.zeros_like(stem), self.last(batch), stem, batch, direction)
        return stem + self.sd * z_0_hat, self.sd * log_sd.exp()

    def sample(self, batch: PairBatch, direction: Direction, generator: torch.Generator, steps: int) -> Tensor:
        """One draw of x_0 by DDIM from noise (Eqs. 7-8)."""
        stem = self.start(batch, direction)
        z_last = torch.randn(stem.shape, generator=generator, device=stem.device)
        z_0 = ddim(lambda z_t, t: self.denoise(z_t, t, stem, batch, direction)[0], z_last, self.schedule, steps)
        return stem + self.sd * z_0

    def loss(self, batch: PairBatch, stems: dict[Direction, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """Squared error of z_0-hat, likelihood of its SD, and L_mic and L_PA on x_0-hat (Eq. 17)."""
        terms: dict[str, Tensor] = {}
        for direction in Direction:
            x_0, stem = batch.targets[direction], stems[direction]
            z_0 = (x_0 - stem) / self.sd
            z_t, t, _ = self.schedule.noised(z_0, generator)
            # the first part of the batch trains the posterior mean, where z_T is replaced by its expectation
            posterior = torch.arange(len(batch), device=x_0.device) < self.posterior_share * len(batch)
            t = torch.where(posterior, self.last(batch), t)
            z_t = torch.where(posterior[:, None, None, None, None], torch.zeros_like(z_t), z_t)
            z_0_hat, log_sd = self.denoise(z_t, t, stem, batch, direction)
            error = (z_0_hat - z_0).square()
            terms[f"denoise_{direction}"] = error.mean()
            likelihood = 0.5 * error.detach() * (-2 * log_sd).exp() + log_sd
            terms[f"uncertainty_{direction}"] = self.uncertainty_weight * likelihood.mean()
            terms |= self.structure(stem + self.sd * z_0_hat, batch, direction)
        return terms


class TissueRefiner(nn.Module):
    """y = B(draft) + U(source) (Eqs. 12-13): B two 3x3x3 convolutions around the identity, U a U-Net from zero."""

    def __init__(self, config: PDSConfig) -> None:
        super().__init__()
        self.b = nn.Sequential(nn.Conv3d(1, 8, 3, padding=1), nn.SiLU(), nn.Conv3d(8, 1, 3, padding=1))
        zero(self.b[-1])  # type: ignore[arg-type]
        self.u = HaarUNet(FEATURES, 1, config.refiner_width, config.levels, 1, ACQUISITION)

    def forward(self, draft: Tensor, features: Tensor, condition: Tensor) -> Tensor:
        return draft + self.b(draft) + self.u(features, condition)


@register
class PDS(Method):
    """Pattern-aware diffusion synthesis: posterior mean by `predict`, draws by `sample`."""

    name = "pds"
    config_type: ClassVar[type[MethodConfig]] = PDSConfig
    generative: ClassVar[bool] = True
    config: PDSConfig

    def __init__(self, config: PDSConfig) -> None:
        super().__init__(config)
        self.drafter = Drafter(config)
        self.refiner = TissueRefiner(config) if config.refiner_share else None
        self.cache = Cached()

    def fit(self, train: Pairs, generator: torch.Generator) -> None:
        self.drafter.stem.fit(train)
        self.drafter.voxels.fit(train)
        self.drafter.structure.fit(train)

    def stages(self) -> list[Stage]:
        config, drafter = self.config, self.drafter
        draft = Objective("draft", drafter.denoiser, self.draft_loss, 3e-3)
        patch, wide = (config.patch,) * 3, (config.refiner_patch,) * 3
        diffusion = Stage("diffusion", [draft], patch, config.batch_size, 1 - config.refiner_share,
                          prepare=self.cache_stems)  # fmt: skip
        if self.refiner is None:
            return [diffusion]
        refine = Objective("refine", self.refiner, self.refinement_loss, 5e-4)
        refinement = Stage("refinement", [refine], wide, config.refiner_batch_size, config.refiner_share,
                           prepare=self.cache_drafts)  # fmt: skip
        return [diffusion, refinement]

    def feature_loss(self) -> FeatureLoss | None:
        return self.drafter.structure.feature_loss()

    def cache_stems(self, train: Pairs) -> Pairs:
        """Estimate every training participant once by a stem that was fitted on the others."""
        self.cache.volumes = self.drafter.cross_fitted(train)
        return train

    def cache_drafts(self, train: Pairs) -> Pairs:
        """Draft some training rows once, on stems that have not seen them; refinement trains on these alone."""
        stems = Cached()
        stems.volumes = self.drafter.cross_fitted(train)
        keep = spread_rows(len(train), self.config.drafts)
        chosen, stems.volumes = train.where(keep), {d: v[keep] for d, v in stems.volumes.items()}
        self.eval()
        self.cache.fill(
            chosen, lambda b, d: self.drafter.posterior(b, d, stems.at(b, d))[0], next(self.parameters()).device
        )
        return chosen

    def draft_loss(self, batch: PairBatch, generator: torch.Generator) -> dict[str, Tensor]:
        return self.drafter.loss(batch, {d: self.cache.at(batch, d) for d in Direction}, generator)

    def refined(self, draft: Tensor, batch: PairBatch, direction: Direction) -> Tensor:
        if self.refiner is not None:
            voxels = self.drafter.voxels
            draft = self.refiner(draft, voxels.features(batch, direction), voxels.acquisition(batch, direction))
        return draft * self.drafter.stem.inside(batch, direction)

    def refinement_loss(self, batch: PairBatch, generator: torch.Generator) -> dict[str, Tensor]:
        """L_tis of both directions and L_mic, L_PA (Eqs. 18-20)."""
        terms: dict[str, Tensor] = {}
        for direction in Direction:
            x_0 = batch.targets[direction]
            draft = self.cache.at(batch, direction)
            refined = self.refined(draft, batch, direction)
            terms[f"tissue_{direction}"] = (refined - x_0).square().mean() / self.config.residual_sd**2
            terms |= self.drafter.structure(refined, batch, direction)
        return terms

    def predict(self, batch: PairBatch, direction: Direction) -> Tensor:
        return self.estimate(batch, direction)[0]

    def estimate(self, batch: PairBatch, direction: Direction) -> tuple[Tensor, Tensor]:
        draft, sd = self.drafter.posterior(batch, direction)
        return self.refined(draft, batch, direction).clamp(0, 1), sd * self.drafter.stem.inside(batch, direction)

    def sample(self, batch: PairBatch, direction: Direction, generator: torch.Generator, steps: int) -> Tensor:
        draft = self.drafter.sample(batch, direction, generator, steps)
        return self.refined(draft, batch, direction).clamp(0, 1)


@register
class RefinerOnly(Method):
    """U(source) on the same stem with the same losses and no diffusion: shows what the diffused draft is worth."""

    name = "pds-refiner-only"
    config_type: ClassVar[type[MethodConfig]] = PDSConfig
    config: PDSConfig

    def __init__(self, config: PDSConfig) -> None:
        super().__init__(config)
        self.stem = CoarseRidge(config.grid_shape)
        self.voxels = VoxelFeatures(config.grid_shape)
        self.u = HaarUNet(FEATURES + 1, 1, config.width, config.levels, config.blocks, ACQUISITION, config.heads)
        self.structure = StructureLosses(config)
        self.cache = Cached()

    def fit(self, train: Pairs, generator: torch.Generator) -> None:
        self.stem.fit(train)
        self.voxels.fit(train)
        self.structure.fit(train)

    def stages(self) -> list[Stage]:
        objective = Objective("refine", self.u, self.loss, 3e-3)
        patch = (self.config.patch,) * 3
        return [Stage("refinement", [objective], patch, self.config.batch_size, prepare=self.cache_stems)]

    def feature_loss(self) -> FeatureLoss | None:
        return self.structure.feature_loss()

    def cache_stems(self, train: Pairs) -> Pairs:
        self.cache.volumes = self.stem.cross_fitted(train)
        return train

    def refined(self, stem: Tensor, batch: PairBatch, direction: Direction) -> Tensor:
        features = torch.cat([self.voxels.features(batch, direction), stem], 1)
        change = self.u(features, self.voxels.acquisition(batch, direction))
        return (stem + self.config.residual_sd * change) * self.stem.inside(batch, direction)

    def loss(self, batch: PairBatch, generator: torch.Generator) -> dict[str, Tensor]:
        terms: dict[str, Tensor] = {}
        for direction in Direction:
            x_0 = batch.targets[direction]
            estimate = self.refined(self.cache.at(batch, direction), batch, direction)
            terms[f"tissue_{direction}"] = (estimate - x_0).square().mean() / self.config.residual_sd**2
            terms |= self.structure(estimate, batch, direction)
        return terms

    def predict(self, batch: PairBatch, direction: Direction) -> Tensor:
        return self.refined(self.stem(batch, direction), batch, direction).clamp(0, 1)
