"""PDS: a conditional diffusion draft on a linear stem (stage 1), then tissue refinement (stage 2).

The stem, a ridge regression between coarse volumes, is fitted in closed form: it knows the smooth part. Stage 1 trains
one denoiser for both directions in the Haar domain. What diffuses is the residual of the target from the stem's
estimate, in units of its SD: z_0 = (x_0 - stem) / sd. Conditioned on the clean source, the denoiser returns
z_0-hat; at the last step of the forward process, where z_t says nothing of z_0, that is E[z_0 | source], so one
evaluation gives the posterior mean, and a few steps of DDIM from noise give a sample (Eqs. 1-8, with the real source).
Stage 2 refines the drafts, y = B(draft) + U(source) (Eqs. 12-13), by a regression at each voxel in closed form.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from pdsynth.atlas import Atlas, region_means
from pdsynth.data.batch import PairBatch
from pdsynth.data.pairs import Pairs
from pdsynth.diffusion.sampling import ddim
from pdsynth.diffusion.schedule import cosine_schedule
from pdsynth.losses.microstructure import FeatureLoss
from pdsynth.losses.pattern import PatternLoss
from pdsynth.losses.perceptual import feature_loss
from pdsynth.methods.base import Method, MethodConfig, Objective, Settings, Stage, register
from pdsynth.methods.cached import Cached
from pdsynth.methods.coarse_ridge import CoarseRidge
from pdsynth.methods.conditioning import ACQUISITION, FEATURES, STEERING, VoxelFeatures, patches_of
from pdsynth.methods.refinement import TissueRefiner
from pdsynth.methods.unet import UNetConfig
from pdsynth.networks.haar import without_cells
from pdsynth.networks.unet import HaarUNet
from pdsynth.types import Direction, Modality, View

LOG_SD_LIMIT = 5.0
MICROSTRUCTURE_EVERY = 4  # steps


@dataclass
class PDSConfig(UNetConfig):
    """Sizes, loss weights, and which parts there are.

    conditioned: whether the draft is told the source (without it, only refinement is: `pds-unconditioned`); refined:
    whether there is a stage 2; residual_sd: SD of x_0 around the stem's estimate, the unit of the diffused residual;
    posterior_share: part of each batch that trains the posterior mean at t = T, the rest trains all t;
    microstructure_views, feature_layer, vgg_depth, vgg_weights: see `feature_loss`.
    """

    conditioned: bool = True
    refined: bool = True
    residual_sd: float = 0.06
    posterior_share: float = 0.9
    uncertainty_weight: float = 0.05
    pattern_weight: float = 0.01
    microstructure_weight: float = 0.02
    microstructure_views: str = View.PROJECTIONS.value
    feature_layer: str = "conv2_2"
    vgg_depth: int = 16
    vgg_weights: str | None = None


class StructureLosses(nn.Module):
    """Microstructure loss (Eqs. 14-16), and a pattern loss after Eqs. 9-11, with their weights, for either target."""

    labels: Tensor  # (1 or 2, X, Y, Z): the first is A_f, the last A_d, so one volume where both are the same

    def __init__(self, config: PDSConfig) -> None:
        super().__init__()
        self.config = config
        self.microstructure: FeatureLoss | None = None  # made by `fit`: only training needs it
        self.patterns = nn.ModuleDict({m: PatternLoss() for m in Modality})
        self.register_buffer("labels", torch.zeros(0, *config.grid_shape, dtype=torch.int32))

    def feature_loss(self) -> FeatureLoss | None:
        c = self.config
        if not c.microstructure_weight:
            return None
        return feature_loss(c.microstructure_views, c.feature_layer, c.vgg_depth, c.vgg_weights)

    def fit(self, train: Pairs, atlases: dict[Modality, Atlas]) -> None:
        """The frozen network, the atlases on the grid, and the SD of each region's mean among the participants."""
        self.microstructure = self.feature_loss()
        labels = torch.from_numpy(np.stack([atlases[m].labels for m in Modality]))
        self.labels = (labels[:1] if torch.equal(labels[0], labels[1]) else labels).to(self.labels)
        whole = train.whole_scans()
        for modality in Modality:
            means = [region_means(whole.volume(modality, row), atlases[modality]) for row in range(len(whole))]
            spread = torch.from_numpy(np.std(means, axis=0)).float()
            self.patterns[modality].set_spread(spread.clamp_min(1e-2))  # type: ignore[operator]

    def labels_of(self, modality: Modality) -> Tensor:
        """A_f or A_d, (1, X, Y, Z)."""
        return self.labels[:1] if modality is Modality.FMRI else self.labels[-1:]

    def chosen(self, generator: torch.Generator, patches: int) -> int | None:
        """The patch on which L_mic is evaluated at this step, or None: one step in MICROSTRUCTURE_EVERY evaluates it.

        A random patch of a random step, with that much more weight, has the gradient of all patches on average for a
        fraction of the time, as in lazy regularisation (Karras et al. 2020).
        """
        drawn = int(torch.randint(MICROSTRUCTURE_EVERY * patches, (), generator=generator, device=generator.device))
        return drawn if drawn < patches else None

    def forward(
        self, estimate: Tensor, batch: PairBatch, direction: Direction, chosen: int | None
    ) -> dict[str, Tensor]:
        """L_mic of the chosen patch (0 without one) and L_PA of an estimate (B, 1, x, y, z) of the target."""
        target = batch.targets[direction]
        labels = patches_of(self.labels_of(direction.target), batch.corner, target.shape[2:])
        terms: dict[str, Tensor] = {}
        if self.config.pattern_weight:
            pattern = self.patterns[direction.target](estimate, target, labels)
            terms[f"pattern_{direction}"] = self.config.pattern_weight * pattern
        if self.microstructure is not None:
            # VGG16 on all patches would cost as much as the U-Net
            weight = MICROSTRUCTURE_EVERY * self.config.microstructure_weight
            microstructure = estimate.new_zeros(())
            if chosen is not None:
                microstructure = weight * self.microstructure(estimate[chosen, None], target[chosen, None])
            terms[f"microstructure_{direction}"] = microstructure
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
        """Mean and SD of x_0 given the source: the denoiser at t = T on z_T = 0.

        Of the SD what the network says by place within its cells of two voxels is left out: no brain has such a grid.
        """
        stem = self.start(batch, direction) if stem is None else stem
        z_0_hat, log_sd = self.denoise(torch.zeros_like(stem), self.last(batch), stem, batch, direction)
        inside = self.stem.inside(batch, direction).to(log_sd.dtype)
        return stem + self.sd * z_0_hat, self.sd * without_cells((2 * log_sd).exp(), inside).sqrt()

    def sample(self, batch: PairBatch, direction: Direction, generator: torch.Generator, steps: int) -> Tensor:
        """One draw of x_0 by DDIM from noise (Eqs. 7-8)."""
        stem = self.start(batch, direction)
        z_last = torch.randn(stem.shape, generator=generator, device=stem.device)
        z_0 = ddim(lambda z_t, t: self.denoise(z_t, t, stem, batch, direction)[0], z_last, self.schedule, steps)
        return stem + self.sd * z_0

    def loss(self, batch: PairBatch, stems: dict[Direction, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """In place of L_s1 (Eqs. 17-19): squared error of z_0-hat, likelihood of its SD, L_mic and L_PA on x_0-hat."""
        terms: dict[str, Tensor] = {}
        chosen = self.structure.chosen(generator, len(batch))
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
            terms |= self.structure(stem + self.sd * z_0_hat, batch, direction, chosen)
        return terms


@register
class PDS(Method):
    """Pattern-aware diffusion synthesis: posterior mean by `predict`, draws by `sample`."""

    name = "pds"
    config_type: ClassVar[type[MethodConfig]] = PDSConfig
    tiny: ClassVar[Settings] = {"width": 8, "patch": 8, "batch_size": 4}
    generative: ClassVar[bool] = True
    regional: ClassVar[bool] = True
    config: PDSConfig

    def __init__(self, config: PDSConfig) -> None:
        super().__init__(config)
        self.drafter = Drafter(config)
        self.refiner = TissueRefiner() if config.refined else None
        self.cache = Cached()

    def fit(self, train: Pairs, generator: torch.Generator) -> None:
        self.refiner = TissueRefiner() if self.config.refined else None  # another network's drafts lack other things
        self.drafter.stem.fit(train)
        self.drafter.voxels.fit(train)
        self.drafter.structure.fit(train, self.regions(train.grid))

    def stages(self) -> list[Stage]:
        draft = Objective("draft", self.drafter.denoiser, self.draft_loss, 3e-3)
        patch = (self.config.patch,) * 3
        return [Stage("diffusion", [draft], patch, self.config.batch_size, prepare=self.cache_stems)]

    def complete(self, train: Pairs) -> None:
        self.cache = Cached()
        if self.refiner is not None:
            self.refiner.fit(train, self.drafter.cross_fitted, lambda b, d, stem: self.drafter.posterior(b, d, stem)[0])

    def feature_loss(self) -> FeatureLoss | None:
        return self.drafter.structure.feature_loss()

    def cache_stems(self, train: Pairs) -> Pairs:
        """Estimate every training participant once by a stem that was fitted on the others."""
        self.cache.volumes = self.drafter.cross_fitted(train)
        return train

    def draft_loss(self, batch: PairBatch, generator: torch.Generator) -> dict[str, Tensor]:
        return self.drafter.loss(batch, {d: self.cache.at(batch, d) for d in Direction}, generator)

    def refine(self, draft: Tensor, around: Tensor, batch: PairBatch, direction: Direction) -> tuple[Tensor, Tensor]:
        """A draft after stage 2, and what lies around it (an SD, a draw's deviation), nearer by what that removes."""
        inside = self.drafter.stem.inside(batch, direction)
        if self.refiner is not None:
            draft, around = self.refiner(draft, batch, direction), around * self.refiner.remaining(direction)
        return draft * inside, around * inside

    def predict(self, batch: PairBatch, direction: Direction) -> Tensor:
        return self.stated(batch, direction)[0]

    def stated(self, batch: PairBatch, direction: Direction) -> tuple[Tensor, Tensor]:
        mean, sd = self.refine(*self.drafter.posterior(batch, direction), batch, direction)
        return mean.clamp(0, 1), sd

    def draw(self, batch: PairBatch, direction: Direction, generator: torch.Generator, steps: int) -> Tensor:
        """One draw: what is drawn around the drafts' mean stands around the refined mean."""
        draw = self.drafter.sample(batch, direction, generator, steps)
        mean = draw if self.refiner is None else self.drafter.posterior(batch, direction)[0]
        refined, around = self.refine(mean, draw - mean, batch, direction)
        return (refined + around).clamp(0, 1)


@register
class RefinerOnly(Method):
    """A U-Net on the same stem, with the same losses and refinement and no diffusion: shows what diffusion is worth."""

    name = "pds-refiner-only"
    config_type: ClassVar[type[MethodConfig]] = PDSConfig
    tiny: ClassVar[Settings] = {"width": 8, "patch": 8, "batch_size": 4}
    regional: ClassVar[bool] = True
    config: PDSConfig

    def __init__(self, config: PDSConfig) -> None:
        super().__init__(config)
        self.stem = CoarseRidge(config.grid_shape)
        self.voxels = VoxelFeatures(config.grid_shape)
        self.u = HaarUNet(FEATURES + 1, 1, config.width, config.levels, config.blocks, ACQUISITION, config.heads)
        self.refiner = TissueRefiner()
        self.structure = StructureLosses(config)
        self.cache = Cached()

    def fit(self, train: Pairs, generator: torch.Generator) -> None:
        self.refiner = TissueRefiner()
        self.stem.fit(train)
        self.voxels.fit(train)
        self.structure.fit(train, self.regions(train.grid))

    def stages(self) -> list[Stage]:
        objective = Objective("draft", self.u, self.loss, 3e-3)
        patch = (self.config.patch,) * 3
        return [Stage("regression", [objective], patch, self.config.batch_size, prepare=self.cache_stems)]

    def complete(self, train: Pairs) -> None:
        self.cache = Cached()
        self.refiner.fit(train, self.stem.cross_fitted, self.draft)

    def feature_loss(self) -> FeatureLoss | None:
        return self.structure.feature_loss()

    def cache_stems(self, train: Pairs) -> Pairs:
        self.cache.volumes = self.stem.cross_fitted(train)
        return train

    def draft(self, batch: PairBatch, direction: Direction, stem: Tensor) -> Tensor:
        features = torch.cat([self.voxels.features(batch, direction), stem], 1)
        return stem + self.config.residual_sd * self.u(features, self.voxels.acquisition(batch, direction))

    def loss(self, batch: PairBatch, generator: torch.Generator) -> dict[str, Tensor]:
        terms: dict[str, Tensor] = {}
        chosen = self.structure.chosen(generator, len(batch))
        for direction in Direction:
            x_0 = batch.targets[direction]
            estimate = self.draft(batch, direction, self.cache.at(batch, direction))
            terms[f"denoise_{direction}"] = (estimate - x_0).square().mean() / self.config.residual_sd**2
            terms |= self.structure(estimate, batch, direction, chosen)
        return terms

    def predict(self, batch: PairBatch, direction: Direction) -> Tensor:
        draft = self.draft(batch, direction, self.stem(batch, direction))
        return (self.refiner(draft, batch, direction) * self.stem.inside(batch, direction)).clamp(0, 1)
