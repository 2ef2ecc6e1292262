"""The pairs that the discriminator of adversarial diffusion judges, and its losses."""

from __future__ import annotations

import pytest
import torch

from pdsynth.diffusion.sampling import step_back
from pdsynth.diffusion.schedule import cosine_schedule
from pdsynth.methods import create
from pdsynth.types import Direction
from tiny import draws

D = Direction.FMRI_TO_DMRI


@pytest.fixture
def method(prepared):
    train = prepared.split("train")
    method = create("adm", {"grid_shape": list(train.grid.shape), "width": 8, "discriminator_width": 4})
    method.fit(train, torch.Generator())
    return method


@pytest.fixture
def patches(prepared):
    return prepared.split("train").patches((16, 16, 16), 12, [0], 0)


def test_a_real_pair_is_one_step_of_the_forward_process(method, patches):
    x_0, before, x_t, t = method.pairs(patches, D, draws())
    clean = t == 0
    assert clean.any() and not clean.all()
    assert torch.equal(before[clean], x_0[clean])
    beta = method.schedule.beta[t][:, None, None, None, None]
    added = (x_t - (1 - beta).sqrt() * before) / beta.sqrt()
    assert added.mean().item() == pytest.approx(0, abs=0.02)
    assert added.std().item() == pytest.approx(1, abs=0.02)
    whole = method.schedule.eps_from_x0(x_t, t, x_0)  # and both steps together are the noise of t
    assert whole.std().item() == pytest.approx(1, abs=0.02)


def test_a_step_back_from_the_truth_has_the_distribution_of_the_truth():
    """With x_0 known, x_{t-1} drawn from x_t is distributed as x_0 noised to t - 1."""
    schedule = cosine_schedule(4, beta_max=0.999)
    generator = torch.Generator().manual_seed(0)
    x_0 = torch.full((40000, 1), 0.7)
    for number in (1, 2, 3):
        t = torch.full((len(x_0),), number)
        x_t = schedule.add_noise(x_0, t, torch.randn(x_0.shape, generator=generator))
        drawn = step_back(x_t, t, x_0, schedule, torch.randn(x_0.shape, generator=generator))
        assert drawn.mean().item() == pytest.approx(0.7 * schedule.signal[number - 1].item(), abs=0.01)
        assert drawn.std().item() == pytest.approx(schedule.noise[number - 1].item(), abs=0.01)
    zero = torch.zeros(len(x_0), dtype=torch.int64)
    assert torch.equal(step_back(x_0 + 1, zero, x_0, schedule, x_0), x_0)


def test_a_generator_that_knows_the_target_has_no_l1_and_is_sampled_exactly(method, patches):
    method.denoise = lambda x_t, t, batch, d: method.x_0(batch, d)
    terms = method.generator_loss(patches, draws())
    assert terms[f"l1_{D}"].item() == 0
    drawn = method.sample(patches, D, torch.Generator().manual_seed(0), 4)
    torch.testing.assert_close(drawn, patches.targets[D], atol=1e-6, rtol=0)


def test_the_discriminator_sees_both_of_the_pair_the_source_and_the_step(method, patches):
    _, before, x_t, t = method.pairs(patches, D, draws())

    def judged(before, x_t, t):
        return method.discriminators(method.discriminator_input(before, x_t, t, patches, D), D)

    own = judged(before, x_t, t)
    for other in (judged(before.flip(2), x_t, t), judged(before, x_t.flip(2), t), judged(before, x_t, (t + 1) % 4)):
        assert not torch.allclose(own, other)
