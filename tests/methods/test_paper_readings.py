"""Each reading of the paper, with a value that tells it from the text's."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from pdsynth.methods.conditioning import patches_of
from pdsynth.methods.pds_paper import readings
from pdsynth.recipes import RECIPES, settings_of
from pdsynth.types import Direction, Modality
from tiny import built, draws, generator

D = Direction.FMRI_TO_DMRI
HALF_NORMAL = (2 / math.pi) ** 0.5  # mean of |eps|


@pytest.fixture
def train(prepared):
    return prepared.split("train")


def test_the_default_is_the_first_value_of_each_reading_and_small_names_its_own(train):
    config, small = built(train).config, settings_of(RECIPES["pds-paper"], "small")
    assert all(getattr(config, name) == values[0] for name, values in readings().items())
    assert {name: small[name] for name in readings() if name in small} == {
        "estimator_input": "source_and_target",
        "noise": "each",
        "source": "clean",
        "networks": "each",
        "pattern_target": "weighted",
        "microstructure_input": "image",
        "gamma": "average",
        "clipping": "each_step",
    }


@pytest.mark.parametrize("value", readings()["estimator_input"])
@torch.inference_mode()
def test_the_targets_x_t_is_an_input_or_not(train, value):
    method = built(train, estimator_input=value)
    for network in method.estimators.values():
        torch.nn.init.normal_(network.out[-1].conv.weight)  # MONAI begins with zero
    x, other, source = torch.randn(3, 1, 1, 8, 8, 8, generator=generator())
    t = torch.tensor([500])
    estimates = [method.noise_of(image, source, t, D) for image in (x, other)]
    assert estimates[0].abs().sum() > 0
    assert torch.equal(*estimates) == (value == "source")


@pytest.mark.parametrize("value", readings()["noise"])
def test_the_modalities_share_their_noise_or_not(train, value):
    """With one noise, the source and its x_t give the target's noise exactly; with one each, nothing of it."""
    method = built(train, noise=value)
    noised = method.noised(train.batch(np.arange(4)), draws())
    fmri, dmri = (noised.eps[m] for m in Modality)
    from_source = method.schedule.eps_from_x0(noised.x_t[Modality.FMRI], noised.t, noised.x_0[Modality.FMRI])
    error = (from_source - dmri).abs().mean().item()
    if value == "one":
        assert torch.equal(fmri, dmri) and error < 1e-3
    else:
        assert torch.corrcoef(torch.stack([fmri.ravel(), dmri.ravel()]))[0, 1].abs() < 0.01
        assert error == pytest.approx(2**0.5 * HALF_NORMAL, abs=0.02)  # of a difference of two normal numbers


@pytest.mark.parametrize(("value", "learns"), [("one", True), ("each", False)])
def test_a_source_only_estimator_learns_one_noise_and_never_the_targets_own(train, value, learns):
    """E|eps - c| is least at c = 0, where it is sqrt(2 / pi): no function of an independent source gets below it."""
    method = built(train, noise=value, networks="each", pattern_weight=0.0, microstructure_weight=0.0)
    batch = train.patches((8, 8, 8), 24, [0], 0)
    optimizer = torch.optim.Adam(method.estimators.parameters(), lr=1e-2)
    for step in range(40):
        optimizer.zero_grad()
        method.noise_loss(batch, draws(step))[f"noise_{D}"].backward()
        optimizer.step()
    with torch.no_grad():
        fresh = np.array([method.noise_loss(batch, draws(1000 + i))[f"noise_{D}"].item() for i in range(30)])
    error = fresh.std() / len(fresh) ** 0.5
    assert (fresh.mean() < 0.8 * HALF_NORMAL) if learns else (fresh.mean() > HALF_NORMAL - 3 * error)


@pytest.mark.parametrize("value", readings()["source"])
@torch.inference_mode()
def test_the_source_is_noised_to_the_level_of_x_t_or_clean(train, value):
    method, seen = built(train, source=value, noise="each"), []
    batch = train.batch(np.array([0]))
    method.noise_of = lambda x_t, source, t, direction: seen.append((source, t)) or torch.zeros_like(x_t)
    method.draft(batch, D, generator(), 4)
    x_0, (target_noise, noise) = 2 * batch.sources[D].volume - 1, method.noises(batch.targets[D], draws())
    assert [t.item() for _, t in seen] == [999, 749, 499, 249] and not torch.equal(noise, target_noise)
    for source, t in seen:
        assert torch.equal(source, method.schedule.add_noise(x_0, t, noise) if value == "renoised" else x_0)


@pytest.mark.parametrize("value", readings()["networks"])
@torch.inference_mode()
def test_both_directions_have_one_network_or_one_each(train, value):
    method = built(train, networks=value)
    networks = (method.estimators, method.disease_estimators, method.refiners)
    assert [len(each) for each in networks] == [1 if value == "one" else 2] * 3
    draft, batch = torch.rand(1, 1, *train.grid.shape), train.batch(np.array([0]))
    same = [method.refined(draft, batch, d) - method.refined(draft * 0, batch, d) for d in Direction]
    assert torch.allclose(*same, atol=1e-5) == (value == "one")  # B of the draft


@pytest.mark.parametrize("value", readings()["pattern_target"])
def test_what_the_pattern_loss_compares(train, value):
    method = built(train, pattern_target=value, repeated_terms="once")
    batch = train.patches((8, 8, 8), 3, [0], 0)
    noised = method.noised(batch, draws())
    inside = patches_of(method.masks[1:], batch.corner, (8, 8, 8))
    eps, x_t, eps_hat = noised.eps[Modality.DMRI], noised.x_t[Modality.DMRI], torch.ones(3, 1, 8, 8, 8)
    method.noise_of = lambda x_t, source, t, direction: eps_hat
    method._estimate = lambda networks, x, t, direction: torch.full_like(x, 0.5)
    loss = method.noise_loss(batch, draws())[f"pattern_{D}"].item()
    expected = {
        "image": (0.5 - inside * x_t).abs().mean(),
        "noise": (0.5 - inside * eps).abs().mean(),
        "weighted": (1 - eps)[inside > 0].abs().mean(),
    }
    assert loss == pytest.approx(expected[value].item(), rel=1e-5)
    assert (method.disease_estimators is None) == (value == "weighted")
    assert inside.sum() > 10


@pytest.mark.parametrize("value", readings()["microstructure_input"])
def test_the_microstructure_loss_is_of_noises_or_of_images(train, value):
    method, batch = built(train, microstructure_input=value), train.batch(np.arange(2))
    noised = method.noised(batch, draws())
    eps_hat = noised.eps[Modality.DMRI] + 0.1
    method.noise_of = lambda x_t, source, t, direction: eps_hat
    terms = method.noise_loss(batch, draws())
    x_0_hat = method.schedule.x0_from_eps(noised.x_t[Modality.DMRI], noised.t, eps_hat).clamp(-1, 1)
    pair = (eps_hat, noised.eps[Modality.DMRI]) if value == "noise" else ((x_0_hat + 1) / 2, batch.targets[D])
    assert terms[f"microstructure_{D}"].item() == pytest.approx(method.microstructure(*pair).item(), rel=1e-5)
    assert (f"pattern_microstructure_{D}" in terms) == (value == "noise")


@pytest.mark.parametrize(("value", "channels"), [("stacked", [3]), ("projections", [1, 1, 1])])
def test_the_views_are_one_input_or_three(train, value, channels):
    views = built(train, views=value).microstructure.views(torch.rand(1, 1, 8, 10, 12))
    assert [view.shape[1] for view in views] == channels


@pytest.mark.parametrize("value", readings()["tissue_norm"])
def test_the_tissue_term_is_l1_or_squared(train, value):
    method, batch = built(train, tissue_norm=value), train.batch(np.arange(1))
    method.cache.volumes = {d: torch.zeros_like(batch.targets[d]) for d in Direction}
    method.refined = lambda draft, batch, direction: batch.targets[direction] + 0.1
    loss = method.refinement_loss(batch, draws())[f"tissue_{D}"].item()
    assert loss == pytest.approx(0.1 if value == "l1" else 0.01, rel=1e-4)


@pytest.mark.parametrize("value", readings()["repeated_terms"])
def test_terms_that_two_equations_name_count_twice_or_once(train, value):
    method, batch = built(train, repeated_terms=value), train.batch(np.arange(1))
    method.cache.volumes = {d: torch.zeros_like(batch.targets[d]) for d in Direction}
    method._estimate = lambda networks, x, t, direction: torch.zeros_like(x)
    masked = method.masks[1] * method.noised(batch, draws()).x_t[Modality.DMRI]
    mic = method.microstructure(method.refined(method.cache.at(batch, D), batch, D), batch.targets[D])
    times = 2 if value == "twice" else 1
    pattern = method.noise_loss(batch, draws())[f"pattern_{D}"].item()
    assert pattern == pytest.approx(times * masked.abs().mean().item(), rel=1e-5)
    refinement = method.refinement_loss(batch, draws())[f"microstructure_{D}"].item()
    assert refinement == pytest.approx(times * mic.item(), rel=1e-5)


@pytest.mark.parametrize(("value", "noise", "decay"), [("noise_level", 0.996, 0.0), ("average", 0.9984, 0.996)])
def test_gamma_is_the_noise_of_the_last_step_or_the_decay_of_an_average(train, value, noise, decay):
    method = built(train, gamma=value)
    assert method.schedule.noise[-1].item() == pytest.approx(noise, abs=1e-5)
    assert [stage.ema_decay for stage in method.stages()] == [decay, decay]


@pytest.mark.parametrize("value", readings()["clipping"])
@torch.inference_mode()
def test_estimates_of_x_0_are_clipped_or_not(train, value):
    """An estimator that says zero: x_0-hat is noise over signal at t = T, some eleven times out of range."""
    method, batch = built(train, clipping=value), train.batch(np.array([0]))
    method.noise_of = lambda x_t, source, t, direction: torch.zeros_like(x_t)
    draft, noise = method.draft(batch, D, generator(), 1), method.noises(batch.targets[D], draws())[0]
    x_0 = noise / (1 - 0.996**2) ** 0.5
    expected = (x_0 if value == "never" else x_0.clamp(-1, 1)) / 2 + 0.5
    torch.testing.assert_close(draft, expected, atol=1e-3, rtol=1e-4)
