"""The paper's text: its numbers, and each term of L_s1 and L_s2 by hand. The readings: test_paper_readings.py."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from pdsynth.methods import checkpoint
from pdsynth.methods.pds_paper import PDSPaper, PDSPaperConfig, readings
from pdsynth.recipes import RECIPES
from pdsynth.types import Direction, InputError, Modality
from tiny import PAPER, built, draws, generator

D = Direction.FMRI_TO_DMRI
HALF_NORMAL = math.sqrt(2 / math.pi)  # mean of |eps|


@pytest.fixture
def train(prepared):
    return prepared.split("train")


def test_the_recipe_has_the_papers_numbers():
    config, recipe = PDSPaperConfig(), RECIPES["pds-paper"]
    assert (config.channels, config.blocks, config.heads) == ((64, 128, 256, 512), 2, 4)
    assert (config.learning_rate, config.weight_decay) == (1e-5, 5e-6)
    assert (config.steps, config.draft_steps, config.eta) == (1000, 1000, 1.0)
    assert (config.batch_size, config.refiner_batch_size, config.feature_layer) == (1, 1, "fc7")
    assert (config.epochs, config.refiner_epochs) == (300, 150)
    assert recipe.precision == "16-mixed" and not recipe.settings
    method = PDSPaper(replace(config, channels=(8, 16, 32, 64), refiner_channels=(8, 16)))
    assert method.default_steps(200) == 450 * 200
    diffusion, refinement = method.stages()
    assert diffusion.share / refinement.share == 300 / 150
    assert {stage.batch_size for stage in (diffusion, refinement)} == {1}
    heads = [part.num_heads for part in method.estimators.modules() if hasattr(part, "num_heads")]
    network = method.estimators["both"]
    levels = [any(hasattr(p, "num_heads") for p in level.modules()) for level in network.down_blocks]
    assert levels == [False, False, True, True]
    assert heads and set(heads) == {4}


def test_steps_of_larger_batches_are_as_many_epochs():
    method = PDSPaper(PDSPaperConfig(**PAPER, batch_size=4, refiner_batch_size=2, epochs=8, refiner_epochs=5))
    assert method.default_steps(100) == 8 * 25 + 5 * 50
    assert [stage.share for stage in method.stages()] == [2.0, 2.5]


def test_each_term_of_the_first_stage_by_hand(train):
    """Networks that say zero: L1 of the noise, twice L1 of the masked noisy target, and L_mic of both pairs."""
    method, batch, losses = built(train), train.batch(np.arange(2)), {}
    method._estimate = lambda networks, x, t, direction: torch.zeros_like(x)
    noised = method.noised(batch, draws())
    terms = method.noise_loss(batch, draws())
    for direction in Direction:
        eps = noised.eps[direction.target]
        masked = method.masks[list(Modality).index(direction.target)] * noised.x_t[direction.target]
        losses |= {
            f"noise_{direction}": eps.abs().mean(),
            f"pattern_{direction}": 2 * masked.abs().mean(),
            f"microstructure_{direction}": method.microstructure(torch.zeros_like(eps), eps),
            f"pattern_microstructure_{direction}": method.microstructure(torch.zeros_like(eps), masked),
        }
    assert terms.keys() == losses.keys()
    for name, value in losses.items():
        assert terms[name].item() == pytest.approx(value.item(), rel=1e-5), name
    assert terms[f"noise_{D}"].item() == pytest.approx(HALF_NORMAL, abs=0.01)


def test_networks_that_know_both_targets_have_no_loss(train):
    method, batch = built(train), train.batch(np.arange(2))
    noised = method.noised(batch, draws())

    def knowing(networks, x, t, direction):
        m = direction.target
        if networks is method.estimators:
            return noised.eps[m]
        return method.masks[list(Modality).index(m)] * noised.x_t[m]

    method._estimate = knowing
    assert all(term.item() == 0 for term in method.noise_loss(batch, draws()).values())


def test_eps_s_sees_the_masked_noisy_source_and_nothing_else(train):
    method, batch, seen = built(train), train.batch(np.arange(1)), []
    method.masks[1] = 0  # A_d of no region: then eps_s from dMRI sees nothing at all
    method._estimate = lambda networks, x, t, direction: seen.append((networks, x, direction)) or torch.zeros_like(x)
    method.noise_loss(batch, draws())
    noised = method.noised(batch, draws())
    shown = {d: x for networks, x, d in seen if networks is method.disease_estimators}
    assert torch.equal(shown[D], method.masks[0] * noised.x_t[Modality.FMRI]) and shown[D].any()
    assert not shown[Direction.DMRI_TO_FMRI].any()


def test_the_pattern_terms_train_eps_s_alone_and_no_draft_uses_it(train):
    method, batch = built(train), train.batch(np.arange(1))
    terms = method.noise_loss(batch, draws())
    sum(term for name, term in terms.items() if name.startswith("pattern")).backward()
    assert all(p.grad is None for p in method.estimators.parameters())
    assert any(p.grad.abs().sum() > 0 for p in method.disease_estimators.parameters())
    with torch.inference_mode():
        before = method.draft(batch, D, generator(), 2)
        for p in method.disease_estimators.parameters():
            p.normal_()
        assert torch.equal(method.draft(batch, D, generator(), 2), before)


@torch.inference_mode()
def test_a_perfect_estimator_drafts_nothing_of_the_target(train):
    """The noise that Eqs. 7-8 take from the source is the chain's own start, so x_0-hat is (1 - gamma) / s of it."""
    method = built(train, eta=0.0)
    batch = train.batch(np.array([0]))
    noise, same = method.noises(batch.targets[D], draws())
    assert torch.equal(noise, same)
    method.noise_of = lambda x_t, source, t, direction: noise
    left = (1 - 0.996) / math.sqrt(1 - 0.996**2)
    expected = (left * noise + 1) / 2
    torch.testing.assert_close(method.draft(batch, D, generator(), 10), expected, atol=1e-4, rtol=0)


@torch.inference_mode()
def test_a_denoiser_that_knows_the_target_drafts_it(train):
    method = built(train)
    batch = train.batch(np.array([0]))
    x_0 = 2 * batch.targets[D] - 1
    method.noise_of = lambda x_t, source, t, direction: method.schedule.eps_from_x0(x_t, t, x_0)
    torch.testing.assert_close(method.draft(batch, D, generator(), 4), batch.targets[D], atol=1e-3, rtol=0)


def test_each_term_of_the_second_stage_by_hand(train):
    method, batch = built(train), train.batch(np.arange(2))
    drafts = {d: torch.rand_like(batch.targets[d]) for d in Direction}
    method.cache.volumes = drafts
    terms = method.refinement_loss(batch, draws())
    for d in Direction:
        refined = method.refined(drafts[d], batch, d)
        assert terms[f"tissue_{d}"].item() == pytest.approx((refined - batch.targets[d]).abs().mean().item(), rel=1e-5)
        loss = 2 * method.microstructure(refined, batch.targets[d])
        assert terms[f"microstructure_{d}"].item() == pytest.approx(loss.item(), rel=1e-5)
    assert len(terms) == 4


@torch.inference_mode()
def test_refinement_is_b_of_the_draft_plus_u_of_the_source(train):
    method = built(train)
    batch = train.batch(np.array([0]))
    draft, refiner = torch.rand_like(batch.targets[D]), method.refiners["both"]
    expected = refiner.b(draft) + refiner.u(batch.sources[D].volume)
    torch.testing.assert_close(method.refined(draft, batch, D), expected)
    blank = replace(batch, targets={})
    assert torch.equal(method.refined(draft, batch, D), method.refined(draft, blank, D))


def test_a_model_of_before_the_readings_is_refused_by_name(train, tmp_path):
    checkpoint.save(built(train), tmp_path, {})
    path = tmp_path / "config.json"
    path.write_text(path.read_text().replace('"noise": "one"', '"literal_pattern": false, "renoised": true'))
    with pytest.raises(InputError, match=r"has no setting literal_pattern, renoised\). Remedy: train the model again"):
        checkpoint.load(tmp_path)


@pytest.mark.parametrize("reading", readings())
def test_a_reading_that_there_is_not_is_refused(reading, train, tmp_path):
    checkpoint.save(built(train), tmp_path, {})
    path, first = tmp_path / "config.json", readings()[reading][0]
    path.write_text(path.read_text().replace(f'"{reading}": "{first}"', f'"{reading}": "neither"'))
    with pytest.raises(InputError, match=f"{reading}: Input should be '{first}'"):
        checkpoint.load(tmp_path)
