"""PDS: a linear estimate (the stem), conditional diffusion of its residual (stage 1), tissue refinement (stage 2).

The stem is a ridge regression between coarse volumes, fitted in closed form. It predicts the smooth part of the target.
Stage 1 trains one denoiser for both directions, in the Haar domain. The diffused variable is the residual of the
target, z_0 = (x_0 - stem) / sd, where sd is the residual's SD. The denoiser sees the clean source and returns z_0-hat.
At the last step T, z_T contains no information on z_0, so that z_0-hat is E[z_0 | source]: one evaluation gives the
posterior mean. A few DDIM steps from noise give a sample (Eqs. 1-8, with the clean source). The estimate of stage 1,
either of the two, is called the draft. Stage 2 refines it, y = B(draft) + U(source) (Eqs. 12-13), by a regression at
each voxel in closed form.
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
from pdsynth.draws import Draws
from pdsynth.losses.microstructure import FeatureLoss
from pdsynth.losses.pattern import PatternLoss
from pdsynth.losses.perceptual import feature_loss
from pdsynth.methods.base import Method, MethodConfig, Objective, Settings, Stage, register
from pdsynth.methods.coarse_ridge import CoarseRidge
from pdsynth.methods.conditioning import ACQUISITION, FEATURES, STEERING, VoxelFeatures, patches_of
from pdsynth.methods.refinement import Stems, TissueRefiner
from pdsynth.methods.unet import UNetConfig
from pdsynth.networks.haar import smooth_checkerboard
from pdsynth.networks.unet import HaarUNet
from pdsynth.types import Direction, Modality, View

LOG_SD_LIMIT = 5.0
MICROSTRUCTURE_EVERY = 4  # steps per evaluation of the microstructure loss, on average


@dataclass
class PDSConfig(UNetConfig):
    """Settings of the method "pds": sizes (see `UNetConfig`), loss weights, and the parts that are present.

    conditioned: whether the diffusion (stage 1) sees the source; if not, only the refinement (stage 2) sees it.
    refined: whether there is a stage 2. residual_sd: unit of the diffused variable, the SD of the target around the
    estimate of a coarse ridge regression. posterior_share: fraction of each batch that trains the posterior mean at the
    last diffusion step; the rest trains random steps. uncertainty_weight, pattern_weight, microstructure_weight:
    weights of the losses of the SD, of region means and of L_mic, a loss on network features; 0 leaves one out.
    microstructure_views: images that L_mic compares, "projections", "stacked" (as channels), "slices" or "volume".
    feature_layer, vgg_depth, vgg_weights: layer, number of layers and file of weights (None: random) of its VGG; for
    "volume" a 3D ResNet replaces VGG.
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
    """The losses that compare structure, with their weights: L_mic (Eqs. 14-16), and L_PA (after Eqs. 9-11).

    L_mic compares images of one patch of a batch on the features of a frozen network. L_PA compares the means of atlas
    regions in all patches. One object serves both modalities: `fit` stores an atlas for each, and a call returns the
    losses of one direction of synthesis. labels (1 or 2, X, Y, Z): the number of the region at each voxel, 0 outside
    all regions, in the atlas of fMRI and in that of dMRI; one volume if the two atlases are equal.
    """

    labels: Tensor  # (1 or 2, X, Y, Z): the first is A_f, the last A_d; one volume if both atlases are equal

    def __init__(self, config: PDSConfig) -> None:
        super().__init__()
        self.config = config
        self.microstructure: FeatureLoss | None = None  # `fit` sets it, because only training needs it
        self.patterns = nn.ModuleDict({m: PatternLoss() for m in Modality})
        self.register_buffer("labels", torch.zeros(0, *config.grid_shape, dtype=torch.int32))

    def feature_loss(self) -> FeatureLoss | None:
        c = self.config
        if not c.microstructure_weight:
            return None
        return feature_loss(c.microstructure_views, c.feature_layer, c.vgg_depth, c.vgg_weights)

    def fit(self, train: Pairs, atlases: dict[Modality, Atlas]) -> None:
        """Load the frozen network of L_mic, if it has a weight, and store the atlases, one per modality.

        For the loss on region means, estimate the SD of each region's mean over the training scans, at least 0.01.
        Raises ValueError for an atlas of fewer than two regions.
        """
        self.microstructure = self.feature_loss()
        labels = torch.from_numpy(np.stack([atlases[m].labels for m in Modality]))
        self.labels = (labels[:1] if torch.equal(labels[0], labels[1]) else labels).to(self.labels)
        whole = train.whole_scans()
        for modality in Modality:
            means = [region_means(whole.volume(modality, row), atlases[modality]) for row in range(len(whole))]
            spread = torch.from_numpy(np.std(means, axis=0)).float()
            self.patterns[modality].set_spread(spread.clamp_min(1e-2))  # type: ignore[operator]

    def labels_of(self, modality: Modality) -> Tensor:
        """The region labels of a modality's atlas (A_f of fMRI, A_d of dMRI), (1, X, Y, Z), 0 outside all regions."""
        return self.labels[:1] if modality is Modality.FMRI else self.labels[-1:]

    def sample_patch(self, draws: Draws, patches: int) -> tuple[slice, float]:
        """The patch on which a training step evaluates L_mic, and a factor; 0 if it is not evaluated (`Draws.rows`).

        patches: number of patches of this part of the batch. A step evaluates L_mic with probability 1/4, on one patch
        at random. Its weight is 4 times larger, so that the expected gradient is that of the mean over all patches at
        every step, at a fraction of the cost (lazy regularisation, Karras et al. 2020).
        """
        drawn = draws.integer(MICROSTRUCTURE_EVERY * draws.parts * patches)
        return draws.rows(drawn, drawn + 1, patches)

    def forward(
        self, estimate: Tensor, batch: PairBatch, direction: Direction, drawn: tuple[slice, float]
    ) -> dict[str, Tensor]:
        """The weighted losses of an estimate (B, 1, x, y, z) of the target, as scalars by name.

        "pattern_<direction>" is the loss on region means, L_PA. "microstructure_<direction>" is L_mic of the patch that
        `sample_patch` drew, with 4 times its weight; 0 if the factor is 0. A loss of weight 0 is absent.
        """
        target = batch.targets[direction]
        labels = patches_of(self.labels_of(direction.target), batch.corner, target.shape[2:])
        terms: dict[str, Tensor] = {}
        if self.config.pattern_weight:
            pattern = self.patterns[direction.target](estimate, target, labels)
            terms[f"pattern_{direction}"] = self.config.pattern_weight * pattern
        if self.microstructure is not None:
            # on one patch only: VGG16 on all patches would cost as much as the U-Net
            rows, share = drawn
            weight = share * MICROSTRUCTURE_EVERY * self.config.microstructure_weight
            loss = weight * self.microstructure(estimate[rows], target[rows]) if share else estimate.new_zeros(())
            terms[f"microstructure_{direction}"] = loss
        return terms


class Drafter(nn.Module):
    """Stage 1 of the method "pds": a coarse ridge regression (the stem), and a diffusion of its residual.

    The residual is the target minus the regression's estimate, and the estimate of both together is called the draft.
    If the diffusion does not see the source, the stem's estimate is the mean training target.
    """

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
        """Estimate z_0-hat of z_0, and the logarithm of the SD of its error, (B, 1, x, y, z) each.

        z_0 is the residual (target - stem's estimate) / residual SD; the stem is the coarse ridge regression. Both are
        estimated from z_t (B, 1, x, y, z) at diffusion steps t (B,), the stem's estimate (same shape), and the clean
        source if stage 1 is conditioned on it. The logarithm is clipped to +-5.
        """
        features = (self.voxels.features if self.conditioned else self.voxels.features_without_source)(batch, direction)
        condition = self.voxels.steering(batch, direction, t)
        z_0_hat, log_sd = self.denoiser(torch.cat([features, stem, z_t], 1), condition).chunk(2, 1)
        return z_0_hat, log_sd.clamp(-LOG_SD_LIMIT, LOG_SD_LIMIT)

    def stem_estimate(self, batch: PairBatch, direction: Direction) -> Tensor:
        """The estimate of the target (B, 1, x, y, z) whose error is diffused.

        This is the estimate of the coarse ridge regression or, if stage 1 is not conditioned on the source, the mean
        target volume of the training participants.
        """
        return (self.stem if self.conditioned else self.voxels.target_mean)(batch, direction)

    def cross_fitted(self, train: Pairs) -> Stems:
        """Out-of-fold predictions of the stem (coarse ridge regression): a function of batches of training rows.

        stems(batch, direction) is (B, 1, x, y, z). Each participant is predicted by a regression on other participants
        (10 folds or fewer); the mean volume is that of all of train. If stage 1 is not conditioned on the source, it is
        the training mean of the target, which is not out-of-fold.
        """
        return self.stem.cross_fitted(train) if self.conditioned else self.voxels.target_mean

    def last_step(self, batch: PairBatch) -> Tensor:
        """The last diffusion step, T - 1 counted from 0, for each session of a batch, (B,)."""
        return torch.full((len(batch),), self.schedule.steps - 1, device=batch.corner.device)

    def posterior(self, batch: PairBatch, direction: Direction, stem: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Posterior mean and SD of the target given the source, (B, 1, x, y, z) each; the mean is not clipped.

        The denoiser is evaluated once, at the last diffusion step, with 0 in place of its noisy input, which contains
        no information on the target. A filter removes the 2-voxel checkerboard that the Haar output leaves in the SD
        map. stem: the estimate of the target, (B, 1, x, y, z), to which the residual is added; None for that of the
        coarse ridge regression or, if stage 1 does not see the source, the training mean of the target.
        """
        stem = self.stem_estimate(batch, direction) if stem is None else stem
        z_0_hat, log_sd = self.denoise(torch.zeros_like(stem), self.last_step(batch), stem, batch, direction)
        inside = self.stem.inside(batch, direction).to(log_sd.dtype)
        return stem + self.sd * z_0_hat, self.sd * smooth_checkerboard((2 * log_sd).exp(), inside).sqrt()

    def sample(self, batch: PairBatch, direction: Direction, generator: torch.Generator, steps: int) -> Tensor:
        """One sample of the target, (B, 1, x, y, z), by DDIM from noise (Eqs. 7-8) in `steps` sampling steps.

        The sampled residual is added to the estimate of the coarse ridge regression or, if stage 1 does not see the
        source, to the training mean of the target. The sum is not clipped.
        """
        stem = self.stem_estimate(batch, direction)
        z_last = torch.randn(stem.shape, generator=generator, device=stem.device)
        z_0 = ddim(lambda z_t, t: self.denoise(z_t, t, stem, batch, direction)[0], z_last, self.schedule, steps)
        return stem + self.sd * z_0

    def loss(self, batch: PairBatch, stems: dict[Direction, Tensor], draws: Draws) -> dict[str, Tensor]:
        """The loss of stage 1 in place of L_s1 (Eqs. 17-19), as weighted scalars by name.

        Per direction: "denoise_<direction>", the squared error of the denoised residual; "uncertainty_...", the
        Gaussian negative log-likelihood of its SD; "pattern_..." and "microstructure_...", L_PA and L_mic of the
        estimated target. stems: by direction, the estimates (B, 1, x, y, z) whose error is diffused, those of the
        coarse ridge regression or, if stage 1 does not see the source, the training mean of the target.
        """
        terms: dict[str, Tensor] = {}
        drawn = self.structure.sample_patch(draws, len(batch))
        for direction in Direction:
            x_0, stem = batch.targets[direction], stems[direction]
            z_0 = (x_0 - stem) / self.sd
            z_t, t, _ = self.schedule.noised(z_0, draws)
            # the first `posterior_share` of the batch trains the posterior mean at t = T, with z_T = 0, its expectation
            posterior = draws.positions(len(batch)) < self.posterior_share * draws.parts * len(batch)
            t = torch.where(posterior, self.last_step(batch), t)
            z_t = torch.where(posterior[:, None, None, None, None], torch.zeros_like(z_t), z_t)
            z_0_hat, log_sd = self.denoise(z_t, t, stem, batch, direction)
            error = (z_0_hat - z_0).square()
            terms[f"denoise_{direction}"] = error.mean()
            likelihood = 0.5 * error.detach() * (-2 * log_sd).exp() + log_sd
            terms[f"uncertainty_{direction}"] = self.uncertainty_weight * likelihood.mean()
            terms |= self.structure(stem + self.sd * z_0_hat, batch, direction, drawn)
        return terms


@register
class PDS(Method):
    """Pattern-aware diffusion synthesis: a coarse ridge regression, diffusion of its residual, and refinement.

    The training losses contain one on the pattern of region means. `predict` returns the posterior mean of stage 1 (the
    regression and the diffusion), refined by stage 2 (a regression at each voxel); `sample` returns samples.
    """

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
        self.stems: Stems = self.drafter.stem_estimate  # out-of-fold during the training

    def fit(self, train: Pairs, generator: torch.Generator) -> None:
        self.refiner = TissueRefiner() if self.config.refined else None  # one that fits other drafts would be wrong
        self.drafter.stem.fit(train)
        self.drafter.voxels.fit(train)
        self.drafter.structure.fit(train, self.regions(train.grid))

    def stages(self) -> list[Stage]:
        draft = Objective("draft", self.drafter.denoiser, self.draft_loss, 3e-3)
        patch = (self.config.patch,) * 3
        return [Stage("diffusion", [draft], patch, self.config.batch_size, prepare=self.fit_stems)]

    def complete(self, train: Pairs) -> None:
        self.stems = self.drafter.stem_estimate
        if self.refiner is not None:
            self.refiner.fit(train, self.drafter.cross_fitted, lambda b, d, stem: self.drafter.posterior(b, d, stem)[0])

    def feature_loss(self) -> FeatureLoss | None:
        return self.drafter.structure.feature_loss()

    def fit_stems(self, train: Pairs) -> Pairs:
        """Fit the regressions whose error on training rows the diffusion is trained on; returns the same rows.

        Each participant is predicted by a coarse ridge regression on other participants. If stage 1 does not see the
        source, the estimate is the training mean of the target.
        """
        self.stems = self.drafter.cross_fitted(train)
        return train

    def draft_loss(self, batch: PairBatch, draws: Draws) -> dict[str, Tensor]:
        return self.drafter.loss(batch, {d: self.stems(batch, d) for d in Direction}, draws)

    def refine(self, draft: Tensor, spread: Tensor, batch: PairBatch, direction: Direction) -> tuple[Tensor, Tensor]:
        """Refine a draft, the estimate of stage 1, by the regression of stage 2, and scale its spread.

        spread is an SD map, or the deviation of a sample from the mean. It is multiplied by the fraction of the draft's
        error that refinement leaves. Without stage 2, refinement and this factor are left out. In both cases, voxels
        that are 0 in the mean training target are set to 0 in draft and spread. All are (B, 1, X, Y, Z).
        """
        inside = self.drafter.stem.inside(batch, direction)
        if self.refiner is not None:
            draft, spread = self.refiner(draft, batch, direction), spread * self.refiner.residual_sd_ratio(direction)
        return draft * inside, spread * inside

    def predict(self, batch: PairBatch, direction: Direction) -> Tensor:
        return self.predict_with_sd(batch, direction)[0]

    def predict_with_sd(self, batch: PairBatch, direction: Direction) -> tuple[Tensor, Tensor]:
        mean, sd = self.refine(*self.drafter.posterior(batch, direction), batch, direction)
        return mean.clamp(0, 1), sd

    def draw(self, batch: PairBatch, direction: Direction, generator: torch.Generator, steps: int) -> Tensor:
        """One sample: the refined posterior mean plus the deviation of a sample of stage 1 from the mean, in [0, 1].

        The deviation is multiplied by the fraction of the error that refinement (stage 2) leaves. Without stage 2, the
        result is the sample of stage 1. Where the mean training target is 0, the result is 0. steps: number of sampling
        steps.
        """
        draw = self.drafter.sample(batch, direction, generator, steps)
        mean = draw if self.refiner is None else self.drafter.posterior(batch, direction)[0]
        refined, deviation = self.refine(mean, draw - mean, batch, direction)
        return (refined + deviation).clamp(0, 1)


@register
class RefinerOnly(Method):
    """The method "pds" without diffusion, a control: the difference between their scores shows the effect of diffusion.

    A U-Net corrects a coarse ridge regression, and a linear regression at each voxel always refines the result. The
    losses are those of "pds" on the estimate, and no SD is given. `conditioned` and `refined` have no effect.
    """

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
        self.stems: Stems = self.stem.forward  # out-of-fold during the training

    def fit(self, train: Pairs, generator: torch.Generator) -> None:
        self.refiner = TissueRefiner()
        self.stem.fit(train)
        self.voxels.fit(train)
        self.structure.fit(train, self.regions(train.grid))

    def stages(self) -> list[Stage]:
        objective = Objective("draft", self.u, self.loss, 3e-3)
        patch = (self.config.patch,) * 3
        return [Stage("regression", [objective], patch, self.config.batch_size, prepare=self.fit_stems)]

    def complete(self, train: Pairs) -> None:
        self.stems = self.stem.forward
        self.refiner.fit(train, self.stem.cross_fitted, self.draft)

    def feature_loss(self) -> FeatureLoss | None:
        return self.structure.feature_loss()

    def fit_stems(self, train: Pairs) -> Pairs:
        self.stems = self.stem.cross_fitted(train)
        return train

    def draft(self, batch: PairBatch, direction: Direction, stem: Tensor) -> Tensor:
        """The coarse ridge regression's estimate `stem` plus the U-Net's correction, (B, 1, x, y, z), not clipped."""
        features = torch.cat([self.voxels.features(batch, direction), stem], 1)
        return stem + self.config.residual_sd * self.u(features, self.voxels.acquisition(batch, direction))

    def loss(self, batch: PairBatch, draws: Draws) -> dict[str, Tensor]:
        terms: dict[str, Tensor] = {}
        drawn = self.structure.sample_patch(draws, len(batch))
        for direction in Direction:
            x_0 = batch.targets[direction]
            estimate = self.draft(batch, direction, self.stems(batch, direction))
            terms[f"denoise_{direction}"] = (estimate - x_0).square().mean() / self.config.residual_sd**2
            terms |= self.structure(estimate, batch, direction, drawn)
        return terms

    def predict(self, batch: PairBatch, direction: Direction) -> Tensor:
        draft = self.draft(batch, direction, self.stem(batch, direction))
        return (self.refiner(draft, batch, direction) * self.stem.inside(batch, direction)).clamp(0, 1)
