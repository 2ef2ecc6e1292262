import pytest
import torch
from monai.networks.schedulers import DDIMScheduler, DDPMScheduler

from pdsynth.diffusion.sampling import ddim, ddpm, step_numbers
from pdsynth.diffusion.schedule import Schedule, cosine_schedule

SHAPE = (2, 1, 4, 4, 4)


def denoise(x_t, t):
    """A smooth function of x_t and t, with which two loops are compared."""
    return torch.tanh(x_t * 0.5 + t.view(-1, 1, 1, 1, 1) / 2000)


def monai_loop(scheduler, x_T, seed, **step):
    generator = torch.Generator().manual_seed(seed)
    x_t = x_T
    for t in scheduler.timesteps:
        x_0 = denoise(x_t, t.expand(len(x_t)))
        x_t, _ = scheduler.step(x_0, int(t), x_t, generator=generator, **step)
    return x_t


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("steps", [5, 50, 1000])
def test_ddim_equals_monai(eta, steps):
    theirs = DDIMScheduler(1000, "scaled_linear_beta", clip_sample=False, prediction_type="sample")
    theirs.set_timesteps(steps)
    # MONAI's step goes down by T / steps, but its own list is spaced (T - 1) / (steps - 1): give it ours
    theirs.timesteps = torch.tensor(step_numbers(1000, steps))
    x_T = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))
    ours = ddim(denoise, x_T, Schedule(theirs.betas), steps, eta, torch.Generator().manual_seed(2))
    torch.testing.assert_close(ours, monai_loop(theirs, x_T, 2, eta=eta), rtol=0, atol=1e-5)


def test_ddpm_equals_monai():
    theirs = DDPMScheduler(1000, "linear_beta", clip_sample=False, prediction_type="sample")
    x_T = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))
    ours = ddpm(denoise, x_T, Schedule(theirs.betas), torch.Generator().manual_seed(2))
    torch.testing.assert_close(ours, monai_loop(theirs, x_T, 2), rtol=0, atol=1e-5)


@pytest.mark.parametrize("steps", [1, 7, 1000])
def test_oracle_recovers_x0_exactly(steps):
    """x_0-hat = x_0 at every step: DDIM with eta = 0 ends on it, and on its way holds the noise it started from."""
    schedule = cosine_schedule()
    x_0, eps = torch.rand(SHAPE), torch.randn(SHAPE)
    seen = []

    def oracle(x_t, t):
        seen.append((x_t, t))
        return x_0

    x_T = schedule.add_noise(x_0, torch.tensor([999, 999]), eps)
    assert torch.equal(ddim(oracle, x_T, schedule, steps), x_0)
    assert [int(t[0]) for _, t in seen] == step_numbers(1000, steps)
    for x_t, t in seen:
        torch.testing.assert_close(x_t, schedule.add_noise(x_0, t, eps), rtol=0, atol=1e-4)


def test_gaussian_is_sampled_with_its_own_mean_and_sd():
    """For x_0 ~ N(m, s^2) the exact denoiser is linear; DDPM, and DDIM of any eta, must return that distribution."""
    schedule, m, s = cosine_schedule(beta_max=0.999), 0.3, 0.5
    n, generator = 20_000, torch.Generator().manual_seed(0)

    def posterior_mean(x_t, t):
        signal, noise = schedule.levels(t, x_t)
        return m + signal * s**2 / (signal**2 * s**2 + noise**2) * (x_t - signal * m)

    x_T = torch.randn(1, n, generator=generator)
    samples = {
        "ddim": ddim(posterior_mean, x_T, schedule, 200),
        "ddim eta 1": ddim(posterior_mean, x_T, schedule, 500, 1.0, generator),
        "ddpm": ddpm(posterior_mean, x_T, schedule, generator),
    }
    for name, x_0 in samples.items():
        assert x_0.mean().item() == pytest.approx(m, abs=0.015), name
        assert x_0.std().item() == pytest.approx(s, rel=0.03), name


def test_seed_gives_the_same_draw():
    schedule, x_T = cosine_schedule(), torch.randn(SHAPE)
    a, b, c = (ddim(denoise, x_T, schedule, 5, 1.0, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
    assert torch.equal(a, b) and not torch.equal(a, c)


def test_step_numbers():
    for steps in (1, 3, 7, 999, 1000):
        numbers = step_numbers(1000, steps)
        assert len(set(numbers)) == steps and numbers[0] == 999 and numbers == sorted(numbers, reverse=True)
        assert numbers[-1] >= 0
    for steps in (0, 1001):
        with pytest.raises(ValueError, match="Choose 1 to 1000"):
            step_numbers(1000, steps)
