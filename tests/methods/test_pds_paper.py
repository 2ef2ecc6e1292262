"""The paper's text: its sizes, its readings, and the floor of one of them."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from pdsynth.methods import create
from pdsynth.methods.conditioning import patches_of
from pdsynth.methods.pds_paper import PDSPaper, PDSPaperConfig
from pdsynth.recipes import RECIPES
from pdsynth.types import Direction
from tiny import PAPER

D = Direction.FMRI_TO_DMRI


@pytest.fixture
def train(prepared):
    return prepared.split("train")


def made(train, **settings) -> PDSPaper:
    torch.manual_seed(0)
    method = create("pds-paper", {**PAPER, "grid_shape": list(train.grid.shape), **settings})
    method.fit(train, torch.Generator())
    return method


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_recipe_has_the_papers_numbers():
    config, recipe = PDSPaperConfig(), RECIPES["pds-paper"]
    assert (config.channels, config.blocks, config.heads) == ((64, 128, 256, 512), 2, 4)
    assert (config.learning_rate, config.weight_decay, config.steps) == (1e-5, 5e-6, 1000)
    assert config.refiner_share == pytest.approx(150 / 450) and config.feature_layer == "fc7"
    assert recipe.precision == "16-mixed" and not recipe.settings
    method = PDSPaper(replace(config, channels=(8, 16, 32, 64), refiner_channels=(8, 16)))
    assert all(stage.ema_decay == 0.996 for stage in method.stages())
    assert method.schedule.beta.max() == pytest.approx(0.02)
    heads = [part.num_heads for part in method.estimators.modules() if hasattr(part, "num_heads")]
    levels = [any(hasattr(p, "num_heads") for p in level.modules()) for level in method.estimators[D].down_blocks]
    assert levels == [False, False, True, True]
    assert heads and set(heads) == {4}


def test_noise_and_weighted_pattern_loss_by_hand(train):
    """An estimator that says zero errs by |eps|, whose mean is sqrt(2 / pi), inside the atlas and everywhere."""
    method = made(train, microstructure_weight=0.0)
    method.noise_of = lambda x_t, source_t, t, direction: torch.zeros_like(x_t)
    terms = method.noise_loss(train.batch(np.arange(6)), generator())
    assert set(terms) == {f"{kind}_{d}" for kind in ("noise", "pattern") for d in Direction}
    floor = math.sqrt(2 / math.pi)
    assert terms[f"noise_{D}"].item() == pytest.approx(floor, abs=0.01)
    inside = method.atlas.expand(6, 1, *train.grid.shape)
    eps, eps_hat = torch.randn(2, *inside.shape, generator=generator(1))
    loss = method.pattern_loss(eps_hat, eps, eps, torch.zeros(6).long(), train.batch(np.arange(6)), D)
    assert loss.item() == pytest.approx((eps_hat - eps).abs()[inside > 0].mean().item(), rel=1e-4)


def test_the_microstructure_loss_is_of_x_0_hat(train):
    """A denoiser that knows eps gives x_0-hat = x_0, so L_mic is zero; one that does not, pays."""
    method = made(train)
    batch = train.batch(np.arange(2))
    seen = {}
    real = method.schedule.add_noise

    def spying(x_0, t, eps):
        seen["eps"] = seen.get("eps", eps)
        return real(x_0, t, eps)

    method.schedule.add_noise = spying
    method.noise_of = lambda x_t, source_t, t, direction: seen.pop("eps")
    terms = method.noise_loss(batch, generator())
    assert terms[f"noise_{D}"].item() == 0
    assert terms[f"microstructure_{D}"].item() == pytest.approx(0, abs=1e-4)
    method.noise_of = lambda x_t, source_t, t, direction: torch.zeros_like(x_t)
    assert method.noise_loss(batch, generator())[f"microstructure_{D}"].item() > 0.01


def test_literal_pattern_loss_cannot_fall_below_its_floor(train):
    """From the source's own noise nothing is known of the target's: on fresh noise no training gets below 0.798."""
    method = made(train, literal_pattern=True)
    batch = train.patches((8, 8, 8), 24, [0], 0)
    inside = patches_of(method.atlas, batch.corner, (8, 8, 8))
    assert inside.sum() > 100
    optimizer = torch.optim.Adam(method.estimators[D].parameters(), lr=3e-3)

    def loss(seed: int) -> torch.Tensor:
        noise = generator(seed)
        t = torch.randint(1000, (24,), generator=noise)
        eps = torch.randn(batch.targets[D].shape, generator=noise)
        return method.pattern_loss(eps, eps, method.shown(batch.sources[D].volume, t, noise), t, batch, D)

    for step in range(25):
        optimizer.zero_grad()
        loss(step).backward()
        optimizer.step()
    with torch.no_grad():
        fresh = np.array([loss(1000 + i).item() for i in range(50)])
    floor, error = math.sqrt(2 / math.pi), fresh.std() / len(fresh) ** 0.5
    assert fresh.mean() > floor - 3 * error and fresh.mean() == pytest.approx(floor, abs=0.03)


def test_the_literal_reading_sees_the_masked_source_alone(train):
    method = made(train, literal_pattern=True)
    shown = []

    def noise_of(x_t, source_t, t, direction):
        shown.append((x_t, source_t))
        return torch.zeros_like(x_t)

    method.noise_of = noise_of
    batch = train.batch(np.arange(1))
    source_t = torch.randn(1, 1, *train.grid.shape, generator=generator())
    method.pattern_loss(source_t, source_t, source_t, torch.zeros(1).long(), batch, D)
    assert not shown[0][0].any() and torch.equal(shown[0][1], source_t * method.atlas)


def test_the_source_is_renoised_to_the_level_of_x_t(train):
    method, source = made(train), torch.rand(2, 1, 30, 30, 30, generator=generator(3))
    t = torch.tensor([100, 900])
    shown = method.shown(source, t, generator())
    signal, noise = method.schedule.levels(t, source)
    rest = (shown - signal * (2 * source - 1)) / noise
    assert rest.std().item() == pytest.approx(1, abs=0.01) and rest.mean().item() == pytest.approx(0, abs=0.01)
    assert torch.equal(made(train, renoised=False).shown(source, t, generator()), 2 * source - 1)


@torch.inference_mode()
def test_a_denoiser_that_knows_the_target_drafts_it(train):
    method = made(train)
    batch = train.batch(np.array([0]))
    x_0 = 2 * batch.targets[D] - 1
    method.noise_of = lambda x_t, source_t, t, direction: method.schedule.eps_from_x0(x_t, t, x_0)
    torch.testing.assert_close(method.draft(batch, D, generator(), 4), batch.targets[D], atol=1e-3, rtol=0)


@torch.inference_mode()
def test_refinement_is_b_of_the_draft_plus_u_of_the_source(train):
    method = made(train)
    batch = train.batch(np.array([0]))
    draft, refiner = torch.rand_like(batch.targets[D]), method.refiners[D]
    expected = refiner.b(draft) + refiner.u(batch.sources[D].volume)
    torch.testing.assert_close(method.refined(draft, batch, D), expected)
    blank = replace(batch, targets={})
    assert torch.equal(method.refined(draft, batch, D), method.refined(draft, blank, D))
