"""PDS as the paper's text has it: noise estimators, the re-noised real source, pattern-aware noise loss, refinement.

Stage 1 trains a self-attention U-Net for each direction to estimate the noise of the target's x_t from x_t itself and
from the real source at the same noise level (Eqs. 1-11, 17). Stage 2 refines drafts, y = B(draft) + U(source), with
tissue and microstructure losses (Eqs. 12-16, 18-20). Where the text can be read in several ways, a setting selects.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn

from pdsynth.atlas import network_spheres
from pdsynth.data.batch import PairBatch
from pdsynth.data.pairs import Pairs
from pdsynth.diffusion.sampling import ddim
from pdsynth.diffusion.schedule import cosine_schedule
from pdsynth.losses.microstructure import FeatureLoss
from pdsynth.losses.perceptual import feature_loss
from pdsynth.methods.base import Method, MethodConfig, Objective, Settings, Stage, register
from pdsynth.methods.cached import Cached, spread_rows
from pdsynth.methods.conditioning import patches_of
from pdsynth.methods.recipe import Recipe, Role
from pdsynth.networks.unet import pad_to_multiple
from pdsynth.types import Direction, Modality


@dataclass
class PDSPaperConfig(MethodConfig):
    """The paper's numbers.

    channels, blocks, heads: of the noise estimators; attention_levels: how many levels attend, the coarsest first (all
    voxels of the finer ones would not fit in memory); refiner_channels: of U; patch: what the estimators train
    on, () for whole volumes; literal_pattern: L_PA maps the masked
    noisy source to the target's masked noise (Eqs. 9-11 as they stand) instead of weighting the noise loss by the
    atlas; renoised: the estimator sees the source at x_t's noise level, or clean; the weights of L_PA, L_mic and L_tis;
    feature_layer, vgg_weights: see `feature_loss`; steps, eta: of sampling; refiner_share: 150 of 450 epochs; drafts,
    draft_steps: about how many rows stage 2 sees, each drafted in so many steps.
    """

    channels: tuple[int, ...] = (64, 128, 256, 512)
    blocks: int = 2
    heads: int = 4
    attention_levels: int = 2
    refiner_channels: tuple[int, ...] = (64, 128, 256, 512)
    patch: tuple[int, ...] = ()
    batch_size: int = 2
    refiner_batch_size: int = 2
    learning_rate: float = 1e-5
    weight_decay: float = 5e-6
    renoised: bool = True
    literal_pattern: bool = False
    pattern_weight: float = 1.0
    microstructure_weight: float = 1.0
    tissue_weight: float = 1.0
    feature_layer: str = "fc7"
    vgg_weights: str | None = None
    steps: int = 1000
    eta: float = 1.0
    refiner_share: float = 1 / 3
    drafts: int = 240
    draft_steps: int = 50


class Refiner(nn.Module):
    """y = B(draft) + U(source) (Eqs. 12-13): B two 3x3x3 convolutions, U a residual 3D U-Net."""

    def __init__(self, channels: tuple[int, ...]) -> None:
        from monai.networks.nets import UNet  # slow to import

        super().__init__()
        self.b = nn.Sequential(nn.Conv3d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv3d(8, 1, 3, padding=1))
        self.u = UNet(3, 1, 1, channels, [2] * (len(channels) - 1), num_res_units=2)
        self.factor = 2 ** (len(channels) - 1)

    def forward(self, draft: Tensor, source: Tensor) -> Tensor:
        """(B, 1, X, Y, Z) each."""
        x, y, z = source.shape[2:]
        return self.b(draft) + self.u(pad_to_multiple(source, self.factor))[:, :, :x, :y, :z]


@register
class PDSPaper(Method):
    """`predict` refines one draft, from noise of a fixed seed."""

    name = "pds-paper"
    config_type: ClassVar[type[MethodConfig]] = PDSPaperConfig
    tiny: ClassVar[Settings] = {
        "channels": (4, 8),
        "refiner_channels": (4, 8),
        "heads": 2,
        "attention_levels": 1,
        "blocks": 1,
        "feature_layer": "conv1_1",
        "patch": (8, 8, 8),
        "steps": 2,
        "drafts": 3,
        "draft_steps": 2,
        "learning_rate": 1e-3,
    }
    generative: ClassVar[bool] = True
    config: PDSPaperConfig
    atlas: Tensor  # (1, X, Y, Z), 1 in the regions of A_f and A_d, which are the same spheres

    def __init__(self, config: PDSPaperConfig) -> None:
        super().__init__(config)
        self.estimators = nn.ModuleDict({d: self._estimator() for d in Direction})
        self.refiners = nn.ModuleDict({d: Refiner(config.refiner_channels) for d in Direction})
        self.schedule = cosine_schedule()
        self.register_buffer("atlas", torch.zeros(1, *config.grid_shape))
        self.microstructure: FeatureLoss | None = None  # made by `fit`: only training needs it
        self.cache = Cached()

    def _estimator(self) -> nn.Module:
        from monai.networks.nets import DiffusionModelUNet  # slow to import

        c = self.config
        levels = len(c.channels)
        return DiffusionModelUNet(
            spatial_dims=3,
            in_channels=2,
            out_channels=1,
            num_res_blocks=c.blocks,
            channels=c.channels,
            attention_levels=[level >= levels - c.attention_levels for level in range(levels)],
            norm_num_groups=min(32, c.channels[0]),
            num_head_channels=[width // c.heads for width in c.channels],
            use_flash_attention=True,  # the same result in 40 % of the time on a CPU
        )

    def feature_loss(self) -> FeatureLoss | None:
        c = self.config
        return feature_loss("projections", c.feature_layer, 16, c.vgg_weights) if c.microstructure_weight else None

    def fit(self, train: Pairs, generator: torch.Generator) -> None:
        self.microstructure = self.feature_loss()
        self.atlas.copy_(torch.from_numpy(network_spheres(train.grid).labels > 0)[None])

    def stages(self) -> list[Stage]:
        c = self.config
        noise = Objective("noise", self.estimators, self.noise_loss, c.learning_rate, c.weight_decay)
        refine = Objective("refine", self.refiners, self.refinement_loss, c.learning_rate, c.weight_decay)
        patch = (c.patch[0], c.patch[1], c.patch[2]) if c.patch else c.grid_shape
        return [
            Stage("diffusion", [noise], patch, c.batch_size, 1 - c.refiner_share),
            # on whole volumes in every size: U normalises over space, so a patch would train another function
            Stage("refinement", [refine], c.grid_shape, c.refiner_batch_size, c.refiner_share,
                  prepare=self.cache_drafts),
        ]  # fmt: skip

    def noise_of(self, x_t: Tensor, source_t: Tensor, t: Tensor, direction: Direction) -> Tensor:
        """NE: eps-hat of x_t (B, 1, X, Y, Z) at steps t (B,), given the source as the estimator is shown it."""
        x, y, z = x_t.shape[2:]
        shown = pad_to_multiple(torch.cat([x_t, source_t], 1), 2 ** (len(self.config.channels) - 1))
        return self.estimators[direction](shown, t)[:, :, :x, :y, :z]

    def shown(self, source: Tensor, t: Tensor, generator: torch.Generator) -> Tensor:
        """The real source in [-1, 1], with noise of its own at the target's level (Eqs. 1-6)."""
        if not self.config.renoised:
            return 2 * source - 1
        eps = torch.randn(source.shape, generator=generator, device=source.device)
        return self.schedule.add_noise(2 * source - 1, t, eps)

    def noise_loss(self, batch: PairBatch, generator: torch.Generator) -> dict[str, Tensor]:
        """L_s1 = L1 + L_mic + L_PA (Eq. 17)."""
        terms: dict[str, Tensor] = {}
        for direction in Direction:
            x_0 = 2 * batch.targets[direction] - 1
            x_t, t, eps = self.schedule.noised(x_0, generator)
            source_t = self.shown(batch.sources[direction].volume, t, generator)
            eps_hat = self.noise_of(x_t, source_t, t, direction)
            terms[f"noise_{direction}"] = (eps_hat - eps).abs().mean()
            if self.config.pattern_weight:
                pattern = self.pattern_loss(eps_hat, eps, source_t, t, batch, direction)
                terms[f"pattern_{direction}"] = self.config.pattern_weight * pattern
            if self.microstructure is not None:
                x_0_hat = self.schedule.x0_from_eps(x_t, t, eps_hat).clamp(-1, 1)
                loss = self.microstructure((x_0_hat + 1) / 2, batch.targets[direction])
                terms[f"microstructure_{direction}"] = self.config.microstructure_weight * loss
        return terms

    def pattern_loss(
        self, eps_hat: Tensor, eps: Tensor, source_t: Tensor, t: Tensor, batch: PairBatch, direction: Direction
    ) -> Tensor:
        """L_PA (Eqs. 9-11): error of the noise inside the atlas, of eps-hat or, literally, of the source's noise alone.

        The literal reading can't fall below sqrt(2 / pi) = 0.798: the source's noise tells nothing of the target's.
        """
        inside = patches_of(self.atlas, batch.corner, eps.shape[2:])
        if self.config.literal_pattern:
            eps_hat = self.noise_of(torch.zeros_like(eps), inside * source_t, t, direction)
        return (inside * (eps_hat - eps).abs()).sum() / inside.sum().clamp_min(1)

    def draft(self, batch: PairBatch, direction: Direction, generator: torch.Generator, steps: int) -> Tensor:
        """One draw of x_0 in [0, 1] from noise; the source is re-noised for each step (Eqs. 7-8)."""
        source = batch.sources[direction].volume

        def denoise(x_t: Tensor, t: Tensor) -> Tensor:
            eps_hat = self.noise_of(x_t, self.shown(source, t, generator), t, direction)
            return self.schedule.x0_from_eps(x_t, t, eps_hat).clamp(-1, 1)

        noise = torch.randn(source.shape, generator=generator, device=source.device)
        return (ddim(denoise, noise, self.schedule, steps, self.config.eta, generator) + 1) / 2

    def cache_drafts(self, train: Pairs) -> Pairs:
        """Draft some training rows once; refinement trains on these alone."""
        self.eval()
        chosen = train.where(spread_rows(len(train), self.config.drafts))
        device = self.atlas.device
        generator = torch.Generator(device).manual_seed(0)
        self.cache.fill(chosen, partial(self.draft, generator=generator, steps=self.config.draft_steps), device)
        return chosen

    def refined(self, draft: Tensor, batch: PairBatch, direction: Direction) -> Tensor:
        return self.refiners[direction](draft, batch.sources[direction].volume)

    def refinement_loss(self, batch: PairBatch, generator: torch.Generator) -> dict[str, Tensor]:
        """L_s2 = L_tis of both directions + L_mic (Eqs. 18-20)."""
        terms: dict[str, Tensor] = {}
        for direction in Direction:
            refined = self.refined(self.cache.at(batch, direction), batch, direction)
            tissue = (refined - batch.targets[direction]).abs().mean()
            terms[f"tissue_{direction}"] = self.config.tissue_weight * tissue
            if self.microstructure is not None:
                loss = self.microstructure(refined, batch.targets[direction])
                terms[f"microstructure_{direction}"] = self.config.microstructure_weight * loss
        return terms

    def sample(self, batch: PairBatch, direction: Direction, generator: torch.Generator, steps: int) -> Tensor:
        draft = self.draft(batch, direction, generator, steps)
        return self.refined(draft, batch, direction).clamp(0, 1)

    def predict(self, batch: PairBatch, direction: Direction) -> Tensor:
        generator = torch.Generator(batch.corner.device).manual_seed(0)
        return self.sample(batch, direction, generator, self.config.steps)


def recipes() -> Iterator[Recipe]:
    small = {
        "channels": (8, 16, 32, 64),
        "refiner_channels": (8, 16, 32, 64),
        "patch": (24, 24, 24),
        "batch_size": 4,
        "learning_rate": 2e-3,
        "microstructure_weight": 0.1,
        "feature_layer": "conv2_2",
        "steps": 4,
        "drafts": 15,
        "draft_steps": 4,
    }
    summary = "the paper's text: noise estimators, the re-noised source, refinement"
    paper = {Modality.FMRI: (29.83, 90.84), Modality.DMRI: (30.00, 77.55)}
    common = ("pds-paper", summary, "pds-paper", Role.OURS, (2, 3), paper)
    yield Recipe(*common, steps=100_000, small=small, precision="16-mixed")
