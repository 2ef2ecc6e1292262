"""PDS as the paper's text describes it, term by term. If the text allows several readings, a setting selects one.

Stage 1 trains eps_theta, which estimates the target's noise from the noisy source (Eqs. 5-8), and eps_s, which maps the
masked noisy source to the masked noisy target (Eqs. 9-11), by L_s1 (Eqs. 17-19). Stage 2 refines the drafts of stage 1,
which are sampled targets, y = B(draft) + U(source), by L_s2 (Eq. 20), which contains L_tis (Eqs. 12-13) and L_mic
(Eqs. 14-16). The page docs/departures.md quotes the sentence of the paper behind each reading.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from math import ceil
from typing import ClassVar, Literal, get_args, get_origin, get_type_hints

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pdsynth.data.batch import PairBatch
from pdsynth.data.pairs import Pairs
from pdsynth.diffusion.sampling import ddim
from pdsynth.diffusion.schedule import cosine_schedule
from pdsynth.draws import Draws
from pdsynth.losses.microstructure import FeatureLoss
from pdsynth.losses.perceptual import feature_loss
from pdsynth.methods.base import Method, MethodConfig, Objective, Settings, Stage, register
from pdsynth.methods.cached import Cached, spread_rows
from pdsynth.methods.conditioning import patches_of
from pdsynth.methods.recipe import Recipe, Role
from pdsynth.networks.unet import pad_to_multiple
from pdsynth.types import Direction, Modality, View

GAMMA = 0.996
BETA_MAX = 0.012624066  # the cosine schedule with betas clipped to it ends at sqrt(1 - alpha_bar_T) = GAMMA
ALL_ROWS = 1_000_000  # more rows than any training set has
BOTH = "both"  # name of a network that serves both directions


@dataclass
class PDSPaperConfig(MethodConfig):
    """The paper's numbers, and the readings of its text. The first value of each reading is the literal one.

    Numbers. channels (of each level), blocks (residual blocks per level), heads (of attention): of eps_theta and eps_s,
    the networks of stage 1. attention_levels: number of levels with attention, from the coarsest. refiner_channels: of
    each level of U, the U-Net of stage 2. patch: edges of the patches of stage 1 in voxels, () for whole volumes.
    batch_size, epochs: of stage 1; refiner_...: of stage 2. learning_rate, weight_decay: of AdamW in both.
    pattern_weight, microstructure_weight, tissue_weight: of L_PA, of L_mic and of the tissue term of L_tis.
    feature_layer, vgg_weights: layer and file of weights (None: random) of L_mic's VGG16. steps: sampling steps of
    `predict`. eta: noise of each sampling step relative to that of DDPM, 0 for DDIM. drafts: least number of training
    rows for stage 2 (all if there are fewer). draft_steps: sampling steps of these drafts (estimates of stage 1).

    Readings:
    - estimator_input: eps_theta sees the source alone, or also the target's x_t.
    - noise: both modalities get the same noise, or each its own.
    - source: the networks see the source at the noise level of x_t, or clean.
    - networks: one eps_theta, eps_s, B and U serve both directions, or each direction has its own.
    - pattern_target: Eq. 11 compares the output of eps_s with the masked noisy target ("image") or with its masked
      noise ("noise"), or there is no eps_s and L_PA is the error of eps_theta inside the atlas ("weighted").
    - microstructure_input: Eq. 18 compares noises, or x_0-hat with x_0.
    - views: the three projections are the channels of one input, or three grey inputs.
    - tissue_norm: norm of the first term of L_tis.
    - repeated_terms: terms that two equations name count twice, or once.
    - gamma: .996 is the noise level of the last step, or the decay of a moving average of the weights.
    - clipping: x_0-hat is never clipped, or clipped to the range of images at each sampling step.
    """

    channels: tuple[int, ...] = (64, 128, 256, 512)
    blocks: int = 2
    heads: int = 4
    attention_levels: int = 2
    refiner_channels: tuple[int, ...] = (64, 128, 256, 512)
    patch: tuple[int, ...] = ()
    batch_size: int = 1
    refiner_batch_size: int = 1
    epochs: int = 300
    refiner_epochs: int = 150
    learning_rate: float = 1e-5
    weight_decay: float = 5e-6
    pattern_weight: float = 1.0
    microstructure_weight: float = 1.0
    tissue_weight: float = 1.0
    feature_layer: str = "fc7"
    vgg_weights: str | None = None
    steps: int = 1000
    eta: float = 1.0
    drafts: int = ALL_ROWS
    draft_steps: int = 1000
    estimator_input: Literal["source", "source_and_target"] = "source"
    noise: Literal["one", "each"] = "one"
    source: Literal["renoised", "clean"] = "renoised"
    networks: Literal["one", "each"] = "one"
    pattern_target: Literal["image", "noise", "weighted"] = "image"
    microstructure_input: Literal["noise", "image"] = "noise"
    views: Literal["stacked", "projections"] = View.STACKED.value
    tissue_norm: Literal["l1", "mse"] = "l1"
    repeated_terms: Literal["twice", "once"] = "twice"
    gamma: Literal["noise_level", "average"] = "noise_level"
    clipping: Literal["never", "each_step"] = "never"


def readings() -> dict[str, tuple[str, ...]]:
    """The values of each setting of `PDSPaperConfig` that selects a reading; the literal one is first.

    >>> readings()["noise"]
    ('one', 'each')
    """
    types = get_type_hints(PDSPaperConfig)
    return {name: get_args(of) for name, of in types.items() if get_origin(of) is Literal}


class Refiner(nn.Module):
    """Stage 2, y = B(draft) + U(source) (Eqs. 12-13): B is two 3x3x3 convolutions, U is a residual 3D U-Net."""

    def __init__(self, channels: tuple[int, ...]) -> None:
        from monai.networks.nets import UNet  # slow to import

        super().__init__()
        self.b = nn.Sequential(nn.Conv3d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv3d(8, 1, 3, padding=1))
        self.u = UNet(3, 1, 1, channels, [2] * (len(channels) - 1), num_res_units=2)
        self.factor = 2 ** (len(channels) - 1)

    def forward(self, draft: Tensor, source: Tensor) -> Tensor:
        """The refined draft (estimate of stage 1), not clipped; draft, source and result are (B, 1, X, Y, Z)."""
        x, y, z = source.shape[2:]
        return self.b(draft) + self.u(pad_to_multiple(source, self.factor))[:, :, :x, :y, :z]


@dataclass(frozen=True)
class Noised:
    """Both modalities of a batch with noise at diffusion steps t (B,): images x_0 in [-1, 1], noise eps and noisy x_t.

    The images and noises are (B, 1, x, y, z) each, of patches or whole volumes. t is the same for both modalities.
    """

    t: Tensor
    x_0: dict[Modality, Tensor]
    eps: dict[Modality, Tensor]
    x_t: dict[Modality, Tensor]


@register
class PDSPaper(Method):
    """PDS (pattern-aware diffusion synthesis) as the paper describes it. `predict` returns the sample of seed 0.

    masks (2, X, Y, Z): 1 in the regions of the atlases A_f of fMRI and A_d of dMRI, else 0; `fit` sets them.
    """

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
    regional: ClassVar[bool] = True
    config: PDSPaperConfig
    masks: Tensor  # (2, X, Y, Z), in the order of Modality: 1 in the regions of A_f and of A_d

    def __init__(self, config: PDSPaperConfig) -> None:
        super().__init__(config)
        inputs = 2 if config.estimator_input == "source_and_target" else 1
        self.estimators = self._networks(partial(self._estimator, inputs))
        uses_eps_s = config.pattern_weight and config.pattern_target != "weighted"
        self.disease_estimators = self._networks(partial(self._estimator, 1)) if uses_eps_s else None
        self.refiners = self._networks(partial(Refiner, config.refiner_channels))
        self.schedule = cosine_schedule(beta_max=BETA_MAX) if config.gamma == "noise_level" else cosine_schedule()
        self.register_buffer("masks", torch.zeros(2, *config.grid_shape))
        self.microstructure: FeatureLoss | None = None  # `fit` sets it, because only training needs it
        self.cache = Cached()
        self.repeats = 2 if config.repeated_terms == "twice" else 1

    def _networks(self, make: Callable[[], nn.Module]) -> nn.ModuleDict:
        return nn.ModuleDict({name: make() for name in (Direction if self.config.networks == "each" else [BOTH])})

    def _estimator(self, inputs: int) -> nn.Module:
        from monai.networks.nets import DiffusionModelUNet  # slow to import

        c = self.config
        levels = len(c.channels)
        return DiffusionModelUNet(
            spatial_dims=3,
            in_channels=inputs,
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
        return feature_loss(c.views, c.feature_layer, 16, c.vgg_weights) if c.microstructure_weight else None

    def fit(self, train: Pairs, generator: torch.Generator) -> None:
        self.microstructure = self.feature_loss()
        for mask, atlas in zip(self.masks, self.regions(train.grid).values(), strict=True):
            mask.copy_(torch.from_numpy(atlas.labels > 0))

    def default_steps(self, rows: int) -> int:
        c = self.config
        return ceil(rows * (c.epochs / c.batch_size + c.refiner_epochs / c.refiner_batch_size))

    def stages(self) -> list[Stage]:
        c = self.config
        noise_estimators = nn.ModuleList(filter(None, (self.estimators, self.disease_estimators)))
        noise = Objective("noise", noise_estimators, self.noise_loss, c.learning_rate, c.weight_decay)
        refine = Objective("refine", self.refiners, self.refinement_loss, c.learning_rate, c.weight_decay)
        patch = (c.patch[0], c.patch[1], c.patch[2]) if c.patch else c.grid_shape
        decay = GAMMA if c.gamma == "average" else 0.0
        return [
            Stage("diffusion", [noise], patch, c.batch_size, c.epochs / c.batch_size, decay),
            # whole volumes in every size, because U normalises over space and would refine a patch differently
            Stage("refinement", [refine], c.grid_shape, c.refiner_batch_size, c.refiner_epochs / c.refiner_batch_size,
                  decay, self.cache_drafts),
        ]  # fmt: skip

    def noises(self, like: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """Standard normal noise of the two modalities (Eqs. 5-6), or of target and source, both of the shape of `like`.

        They are equal if the setting `noise` is "one", because both equations write the same epsilon.
        """
        target = draws.normal(like)
        return target, target if self.config.noise == "one" else draws.normal(like)

    def noised(self, batch: PairBatch, draws: Draws) -> Noised:
        """Add noise to both modalities of a batch, at one random step t of all T steps per session (Eqs. 1-6)."""
        x_0 = {d.target: 2 * batch.targets[d] - 1 for d in Direction}
        t = draws.integers(self.schedule.steps, len(batch))
        eps = dict(zip(Modality, self.noises(x_0[Modality.FMRI], draws), strict=True))
        return Noised(t, x_0, eps, {m: self.schedule.add_noise(x_0[m], t, eps[m]) for m in Modality})

    def of_source(self, x_0: Tensor, x_t: Tensor) -> Tensor:
        """The source that the networks see, by the setting `source`: x_0 if it is "clean", x_t if it is "renoised".

        x_0, x_t: the source scan without noise and with noise at step t, of the same shape (B, 1, x, y, z).
        """
        return x_0 if self.config.source == "clean" else x_t

    def noise_of(self, x_t: Tensor, source: Tensor, t: Tensor, direction: Direction) -> Tensor:
        """Noise in the target's x_t at steps t (B,), by eps_theta (Eqs. 7-8); x_t, source, result: (B, 1, x, y, z)."""
        alone = self.config.estimator_input == "source"
        return self._estimate(self.estimators, source if alone else torch.cat([x_t, source], 1), t, direction)

    def _estimate(self, networks: nn.ModuleDict, x: Tensor, t: Tensor, direction: Direction) -> Tensor:
        sides = x.shape[2:]
        padded = pad_to_multiple(x, 2 ** (len(self.config.channels) - 1))
        return _of(networks, direction)(padded, t)[:, :, : sides[0], : sides[1], : sides[2]]

    def noise_loss(self, batch: PairBatch, draws: Draws) -> dict[str, Tensor]:
        """L_s1 (Eqs. 17-19) for each direction: the L1 error of eps_theta, L_PA, and L_mic terms, as weighted scalars.

        The L_mic terms compare the output of eps_theta with the noise, and the operands of L_PA; if
        `microstructure_input` is "image", one term compares x_0-hat with the target instead. L_PA counts twice if
        `repeated_terms` is "twice". A loss of weight 0 is absent.
        """
        c, noised = self.config, self.noised(batch, draws)
        terms: dict[str, Tensor] = {}
        for direction in Direction:
            s, m = direction.source, direction.target
            eps, source = noised.eps[m], self.of_source(noised.x_0[s], noised.x_t[s])
            eps_hat = self.noise_of(noised.x_t[m], source, noised.t, direction)
            terms[f"noise_{direction}"] = F.l1_loss(eps_hat, eps)
            compared = {"microstructure": (eps_hat, eps)}
            if c.pattern_weight:
                estimate, reference, voxels = self.pattern(eps_hat, source, noised, batch, direction)
                # Eq. 11: it is the last term of Eq. 17, and Eq. 19 adds it again
                error = (estimate - reference).abs().sum() / voxels
                terms[f"pattern_{direction}"] = self.repeats * c.pattern_weight * error
                compared["pattern_microstructure"] = (estimate, reference)
            if c.microstructure_input == "image":
                x_0_hat = self.schedule.x0_from_eps(noised.x_t[m], noised.t, eps_hat).clamp(-1, 1)
                compared = {"microstructure": ((x_0_hat + 1) / 2, batch.targets[direction])}
            if self.microstructure is not None:
                for name, (estimate, reference) in compared.items():
                    loss = self.microstructure(estimate, reference)
                    terms[f"{name}_{direction}"] = c.microstructure_weight * loss
        return terms

    def pattern(
        self, eps_hat: Tensor, source: Tensor, noised: Noised, batch: PairBatch, direction: Direction
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The operands of L_PA (Eqs. 9-11): estimate and reference, (B, 1, x, y, z) each, and a number of voxels.

        The loss is the sum of their absolute differences, divided by this number. eps_hat: the noise that eps_theta
        estimated. source: the source that the networks see. With eps_s it is the number of all voxels, since Eq. 11
        requires an output of 0 outside the atlas; without eps_s it is that of the voxels in the atlas, at least 1.
        """
        c, shape = self.config, eps_hat.shape[2:]
        modalities = direction.source, direction.target
        a_s, a_m = (patches_of(self.masks[[m.index]], batch.corner, shape) for m in modalities)
        if self.disease_estimators is None:
            return a_m * eps_hat, a_m * noised.eps[direction.target], a_m.sum().clamp_min(1)
        reference = (noised.x_t if c.pattern_target == "image" else noised.eps)[direction.target]
        estimate = self._estimate(self.disease_estimators, a_s * source, noised.t, direction)
        return estimate, a_m * reference, a_m.new_tensor(a_m.numel())

    def draft(self, batch: PairBatch, direction: Direction, generator: torch.Generator, steps: int) -> Tensor:
        """One sample of the target, not yet refined (the draft), (B, 1, X, Y, Z), from noise by eps_theta (Eqs. 7-8).

        steps: number of sampling steps. The scale of the values is 0..1, but they are not clipped to this range.
        """
        x_0 = 2 * batch.sources[direction].volume - 1
        noise, source_noise = self.noises(x_0, Draws(generator))

        def denoise(x_t: Tensor, t: Tensor) -> Tensor:
            source = self.of_source(x_0, self.schedule.add_noise(x_0, t, source_noise))
            x_0_hat = self.schedule.x0_from_eps(x_t, t, self.noise_of(x_t, source, t, direction))
            return x_0_hat.clamp(-1, 1) if self.config.clipping == "each_step" else x_0_hat

        return (ddim(denoise, noise, self.schedule, steps, self.config.eta, generator) + 1) / 2

    def cache_drafts(self, train: Pairs) -> Pairs:
        """Sample the estimates (drafts) that refinement trains on, once, for some training rows; returns these rows.

        They are at least as many rows as the setting `drafts`, evenly spaced, or all rows if there are fewer.
        """
        self.eval()
        rows = train.where(spread_rows(len(train), self.config.drafts))
        device = self.masks.device
        generator = torch.Generator(device).manual_seed(0)
        self.cache.fill(rows, partial(self.draft, generator=generator, steps=self.config.draft_steps), device)
        return rows

    def refined(self, draft: Tensor, batch: PairBatch, direction: Direction) -> Tensor:
        """Refine a draft (a sampled target) by B and U (Eqs. 12-13): (B, 1, X, Y, Z), not clipped."""
        return _of(self.refiners, direction)(draft, batch.sources[direction].volume)

    def refinement_loss(self, batch: PairBatch, draws: Draws) -> dict[str, Tensor]:
        """L_s2 (Eq. 20) of both directions: L_tis (Eqs. 12-13, a tissue and an L_mic term), and L_mic a second time.

        The tissue term is the L1 or the squared error (`tissue_norm`). L_mic is one scalar, twice its value unless the
        setting `repeated_terms` is "once"; it is absent if its weight is 0.
        """
        distance = F.mse_loss if self.config.tissue_norm == "mse" else F.l1_loss
        terms: dict[str, Tensor] = {}
        for direction in Direction:
            refined = self.refined(self.cache.at(batch, direction), batch, direction)
            terms[f"tissue_{direction}"] = self.config.tissue_weight * distance(refined, batch.targets[direction])
            if self.microstructure is not None:
                loss = self.microstructure(refined, batch.targets[direction])
                terms[f"microstructure_{direction}"] = self.repeats * self.config.microstructure_weight * loss
        return terms

    def draw(self, batch: PairBatch, direction: Direction, generator: torch.Generator, steps: int) -> Tensor:
        draft = self.draft(batch, direction, generator, steps)
        return self.refined(draft, batch, direction).clamp(0, 1)

    def predict(self, batch: PairBatch, direction: Direction) -> Tensor:
        return self.first_sample(batch, direction, self.config.steps)


def _of(networks: nn.ModuleDict, direction: Direction) -> nn.Module:
    """The network of a direction, or the one that serves both."""
    return networks[BOTH] if BOTH in networks else networks[direction]


def recipes() -> Iterator[Recipe]:
    """The recipe "pds-paper", with the literal reading of each setting; the small size has readings that train well."""
    readings_that_train = {
        "estimator_input": "source_and_target",  # without x_t, x_0-hat contains no information on the target
        "noise": "each",
        "source": "clean",
        "networks": "each",
        "pattern_target": "weighted",  # otherwise L_PA trains eps_s only, which no draft uses
        "microstructure_input": "image",
        "gamma": "average",
        "clipping": "each_step",
    }
    small = readings_that_train | {
        "channels": (8, 16, 32, 64),
        "refiner_channels": (8, 16, 32, 64),
        "patch": (24, 24, 24),
        "batch_size": 4,
        "refiner_batch_size": 2,
        "learning_rate": 2e-3,
        "microstructure_weight": 0.1,
        "feature_layer": "conv2_2",
        "steps": 4,
        "drafts": 60,
        "draft_steps": 4,
    }
    summary = "the paper's text, term by term; small: those of its readings that train"
    paper = {Modality.FMRI: (29.83, 90.84), Modality.DMRI: (30.00, 77.55)}
    common = ("pds-paper", summary, "pds-paper", Role.OURS, (2, 3), paper)
    steps = 450 * 56_000 // 8  # the paper's epochs, scans and GPUs; on other data, see `PDSPaper.default_steps`
    yield Recipe(*common, steps=steps, small=small, precision="16-mixed")
