import math

import pytest
import torch
from monai.networks.schedulers import DDPMScheduler

from pdsynth.diffusion.schedule import Schedule, cosine_schedule
from tiny import draws


def test_cosine_equals_monai_where_it_is_not_clipped():
    ours, theirs = cosine_schedule(1000, 1e-9, 0.999), DDPMScheduler(1000, schedule="cosine")
    torch.testing.assert_close(ours.alpha_bar, theirs.alphas_cumprod, rtol=0, atol=1e-5)
    # MONAI divides in single precision, which the last betas feel
    torch.testing.assert_close(ours.beta, theirs.betas, rtol=0, atol=1e-4)


def test_cosine_closed_form_and_clip():
    schedule = cosine_schedule()
    assert schedule.steps == 1000
    assert schedule.beta.min() == pytest.approx(1e-4) and schedule.beta.max() == pytest.approx(0.02)
    # clipped from below in the first steps, whose cosine betas are 4e-5 to 1e-4, and from above from t = 0.9 T on
    f = lambda t: math.cos((t / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2  # noqa: E731
    assert schedule.beta[500].item() == pytest.approx(1 - f(501) / f(500), rel=1e-5)
    assert (schedule.beta[:5] == schedule.beta[0]).all() and (schedule.beta[910:] == schedule.beta[-1]).all()
    product = math.prod(1 - b for b in schedule.beta.double().tolist())
    assert schedule.alpha_bar[-1].item() == pytest.approx(product, rel=1e-5)


def test_noising_equals_monai():
    theirs = DDPMScheduler(1000, schedule="linear_beta")
    ours = Schedule(theirs.betas)
    x_0, eps, t = torch.rand(4, 1, 3, 3, 3), torch.randn(4, 1, 3, 3, 3), torch.tensor([0, 10, 500, 999])
    torch.testing.assert_close(ours.add_noise(x_0, t, eps), theirs.add_noise(x_0, eps, t), rtol=0, atol=1e-5)


def test_parametrisations_are_inverse_to_each_other():
    schedule = cosine_schedule()
    x_0, eps = torch.rand(5, 1, 4, 4, 4, dtype=torch.float64), torch.randn(5, 1, 4, 4, 4, dtype=torch.float64)
    t = torch.tensor([0, 1, 400, 800, 999])
    x_t = schedule.add_noise(x_0, t, eps)
    torch.testing.assert_close(schedule.eps_from_x0(x_t, t, x_0), eps, rtol=0, atol=1e-9)
    torch.testing.assert_close(schedule.x0_from_eps(x_t, t, eps), x_0, rtol=0, atol=1e-9)


@pytest.mark.parametrize("t", [0, 300, 999])
def test_moments_of_the_forward_process(t):
    """E[x_t] = sqrt(alpha_bar) x_0 and Var[x_t] = 1 - alpha_bar; and step by step (Eq. 1) equals the closed form."""
    schedule = cosine_schedule()
    n, generator = 200_000, torch.Generator().manual_seed(t)
    x_t = schedule.add_noise(torch.full((1, n), 0.7), torch.tensor([t]), torch.randn(1, n, generator=generator))
    alpha_bar = schedule.alpha_bar[t].item()
    sd = (1 - alpha_bar) ** 0.5
    assert x_t.mean().item() == pytest.approx(0.7 * alpha_bar**0.5, abs=4 * sd / n**0.5)
    assert x_t.std().item() == pytest.approx(sd, rel=4 / (2 * n) ** 0.5)
    mean, variance = 0.7, 0.0
    for beta in schedule.beta[: t + 1].double().tolist():
        mean, variance = (1 - beta) ** 0.5 * mean, (1 - beta) * variance + beta
    assert mean == pytest.approx(0.7 * alpha_bar**0.5, rel=1e-5) and variance == pytest.approx(1 - alpha_bar, rel=1e-3)


def test_noised_draws_every_step_and_its_noise_is_standard_normal():
    schedule = cosine_schedule()
    x_0 = torch.full((4000, 1, 2, 2, 2), 0.7)
    x_t, t, drawn = schedule.noised(x_0, draws(5))
    assert t.min() < 10 and t.max() > 989 and t.float().mean().item() == pytest.approx(499.5, abs=15)
    signal, noise = schedule.levels(t, x_0)
    eps = (x_t - signal * x_0) / noise
    assert eps.mean().item() == pytest.approx(0, abs=0.03) and eps.std().item() == pytest.approx(1, abs=0.02)
    torch.testing.assert_close(schedule.add_noise(x_0, t, eps), x_t)
    assert torch.equal(schedule.add_noise(x_0, t, drawn), x_t)
    assert torch.equal(schedule.noised(x_0, draws(5))[0], x_t)


def test_tables_follow_the_module_but_are_not_saved():
    schedule = cosine_schedule(10)
    assert not schedule.state_dict() and schedule.to("meta").signal.device.type == "meta"


def test_beta_out_of_range_is_refused():
    with pytest.raises(ValueError, match="inside"):
        Schedule(torch.tensor([0.1, 1.0]))
