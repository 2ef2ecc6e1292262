"""Latents that are normalised on the training rows, and the way there and back."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pdsynth.methods import create
from pdsynth.types import Direction, Modality

D = Direction.DMRI_TO_FMRI


@pytest.fixture
def train(prepared):
    return prepared.split("train")


@pytest.fixture
def method(train):
    torch.manual_seed(0)
    method = create("ldm", {"grid_shape": list(train.grid.shape), "autoencoder_width": 8, "width": 16})
    method.fit(train, torch.Generator())
    method.cache_latents(train)
    return method


def test_cached_latents_have_no_mean_and_unit_sd(method, train):
    batch = train.batch(np.array([1]))
    for modality, latents in method.latents.items():
        assert latents.shape == (len(train), 4, *(n // 4 for n in train.grid.shape))
        assert latents.mean(0).abs().max() < 1e-4
        torch.testing.assert_close(latents.std((0, 2, 3, 4), correction=0), torch.ones(4), rtol=1e-3, atol=0)
        with torch.inference_mode():
            own = method.encoded(batch.sources[Direction.to(modality.other)].volume, modality)
        # a batch holds volumes in fp16, as the folder does
        torch.testing.assert_close(own[0], latents[1], atol=2e-3, rtol=0)


@torch.inference_mode()
def test_a_latent_is_decoded_as_the_autoencoder_decodes_it(method, train):
    volume = train.batch(np.array([0])).targets[D]
    mean = torch.from_numpy(np.mean([train.volume(Modality.FMRI, row) for row in range(len(train))], 0))
    code, _ = method.autoencoder.encode((volume - mean) / 0.1)
    decoded = method.decoded(method.encoded(volume, Modality.FMRI), Modality.FMRI)
    torch.testing.assert_close(decoded, mean + 0.1 * method.autoencoder.decode(code), atol=1e-4, rtol=0)


@torch.inference_mode()
def test_a_denoiser_that_knows_the_target_gives_what_the_autoencoder_keeps_of_it(method, train):
    batch = train.batch(np.array([0]))
    known = method.encoded(batch.targets[D], D.target)
    method.denoise = lambda z_t, t, source, direction: known
    drawn = method.sample(batch, D, torch.Generator().manual_seed(0), 3)
    torch.testing.assert_close(drawn, method.decoded(known, D.target).clamp(0, 1))


@torch.inference_mode()
def test_the_denoiser_depends_on_source_direction_and_step(method):
    for value in method.denoiser.parameters():
        torch.nn.init.normal_(value, std=0.1)
    z_t, source, other = torch.randn(3, 1, 4, 6, 7, 6).unbind(0)
    t = torch.tensor([500])
    own = method.denoise(z_t, t, source, D)
    assert own.shape == z_t.shape
    for change in (
        method.denoise(z_t, t, other, D),
        method.denoise(z_t, t, source, Direction.FMRI_TO_DMRI),
        method.denoise(z_t, t - 400, source, D),
    ):
        assert not torch.allclose(own, change)
