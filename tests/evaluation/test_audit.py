"""The audit tells a copier of the average from a reader of the source, and honest from false uncertainty."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdsynth.evaluation.audit import (
    WithinSite,
    nearest,
    shuffle_sources,
    uncertainty_of_samples,
    uncertainty_of_sd,
)


def identified(predictions, targets, block=16):
    """Share of flattened images whose nearest target, read in blocks, is their own."""
    p, t = (np.asarray(images, np.float32).reshape(len(images), -1) for images in (predictions, targets))
    found = [
        nearest(p[start : start + block], (t[i : i + block] for i in range(0, len(t), block)), t.mean(0))
        for start in range(0, len(p), block)
    ]
    return np.mean(np.concatenate(found) == np.arange(len(p)))


def within_site(predictions, targets, sites):
    found = WithinSite()
    for each in zip(predictions, targets, sites, strict=True):
        found.add(*each)
    return found


@given(st.integers(2, 60), st.integers(0, 5))
def test_shuffled_sources_are_a_derangement(n, seed):
    donors = shuffle_sources(n, seed=seed)
    assert sorted(donors) == list(range(n))
    assert np.all(donors != np.arange(n))
    assert np.array_equal(donors, shuffle_sources(n, seed=seed))


def test_groups_keep_donors_at_home_and_singles_swap_among_themselves():
    groups = ["a", "b", "a", "c", "a"]
    donors = shuffle_sources(5, groups)
    assert {groups[d] for d in donors[[0, 2, 4]]} == {"a"}
    assert donors[1] == 3 and donors[3] == 1


def test_one_participant_cannot_be_shuffled():
    with pytest.raises(ValueError, match="at least two"):
        shuffle_sources(1)
    with pytest.raises(ValueError, match="at least two"):
        shuffle_sources(3, ["a", "a", "b"])


def test_identification_is_one_for_the_source_and_chance_for_the_average():
    generator = np.random.default_rng(0)
    targets = generator.random((6, 5, 5, 5)).astype(np.float32)
    noisy = targets + generator.normal(0, 0.1, targets.shape)
    assert identified(noisy, targets) == 1
    average = np.broadcast_to(targets.mean(0), targets.shape)
    assert identified(average, targets) == pytest.approx(1 / 6)
    assert identified(np.roll(noisy, 1, axis=0), targets) == 0


@given(st.integers(2, 40), st.sampled_from([1, 3, 16, 64]), st.integers(0, 5))
def test_identification_in_blocks_is_that_of_all_distances(n, block, seed):
    generator = np.random.default_rng(seed)
    targets = generator.normal(5, 1, (n, 30)).astype(np.float32)
    predictions = targets + generator.normal(0, 2, targets.shape).astype(np.float32)
    distance = np.square(predictions[:, None].astype(float) - targets[None]).sum(-1)
    assert identified(predictions, targets, block) == np.mean(distance.argmin(1) == np.arange(n))


def test_site_means_correlate_across_sites_but_not_within():
    generator = np.random.default_rng(0)
    sites = ["a"] * 10 + ["b"] * 10
    real = generator.normal(0, 1, (20, 8)) + np.repeat([[0], [5]], 10, axis=0)
    mean = np.stack([real[:10].mean(0)] * 10 + [real[10:].mean(0)] * 10)
    assert np.corrcoef(mean.ravel(), real.ravel())[0, 1] > 0.9
    assert within_site(mean, real, sites).r == 0
    assert within_site(mean, real, sites).slope == 0
    assert within_site(real, real, sites).r == pytest.approx(1)


def test_shrinkage_is_the_slope():
    generator = np.random.default_rng(1)
    real = generator.normal(0, 1, (12, 30))
    found = within_site(0.4 * real + 3, real, ["a", "b", "c"] * 4)
    assert found.slope == pytest.approx(0.4) and found.r == pytest.approx(1)


@given(st.integers(2, 40), st.integers(1, 4), st.integers(0, 5))
def test_pairs_added_one_by_one_give_what_all_deviations_at_once_give(n, sites, seed):
    generator = np.random.default_rng(seed)
    labels = np.arange(n) % sites
    real, made = 1000 + labels[:, None] + generator.normal(0, 1, (2, n, 20))
    p, t = (values - np.stack([values[labels == label].mean(0) for label in labels]) for values in (made, real))
    found = within_site(made, real, labels.astype(str))
    total = np.sum(t * t)
    assert found.slope == pytest.approx(np.sum(p * t) / total if total > 1e-9 else 0, abs=1e-10)
    norm = np.sqrt(np.sum(p * p) * total)
    assert found.r == pytest.approx(np.sum(p * t) / norm if norm > 1e-9 else 0, abs=1e-10)


def test_honest_samples_cover_as_often_as_they_say_and_crps_has_its_closed_form():
    generator = np.random.default_rng(0)
    shape = (40, 40, 40)
    sd = generator.uniform(0.05, 0.2, shape)
    centre = generator.random(shape)
    draws = centre + sd * generator.standard_normal((8, *shape))
    real = centre + sd * generator.standard_normal(shape)
    honest = uncertainty_of_samples(draws, real, np.ones(shape, bool))
    assert honest["coverage_50"] == pytest.approx(0.5, abs=0.01)
    assert honest["coverage_90"] == pytest.approx(0.9, abs=0.01)
    assert honest["crps"] == pytest.approx(sd.mean() / np.sqrt(np.pi), rel=0.02)  # E CRPS of N(0, sd^2) against itself
    assert honest["error_sd_rank_r"] > 0.1
    sure = uncertainty_of_samples(centre + 0.1 * (draws - centre), real, np.ones(shape, bool))
    assert sure["coverage_90"] < 0.4
    assert sure["crps"] > honest["crps"]


def test_too_few_samples_are_refused():
    with pytest.raises(ValueError, match="2 samples"):
        uncertainty_of_samples(np.zeros((2, 3, 3, 3)), np.zeros((3, 3, 3)), np.ones((3, 3, 3), bool))


def test_an_honest_sd_covers_as_often_as_it_says_and_crps_has_its_closed_form():
    generator = np.random.default_rng(0)
    shape = (40, 40, 40)
    sd, centre = generator.uniform(0.05, 0.2, shape), generator.random(shape)
    real = centre + sd * generator.standard_normal(shape)
    everywhere = np.ones(shape, bool)
    honest = uncertainty_of_sd(centre, sd, real, everywhere)
    assert honest["coverage_50"] == pytest.approx(0.5, abs=0.01)
    assert honest["coverage_90"] == pytest.approx(0.9, abs=0.01)
    assert honest["crps"] == pytest.approx(sd.mean() / np.sqrt(np.pi), rel=0.02)
    assert honest["mean_sd"] == pytest.approx(sd.mean())
    assert honest["error_sd_rank_r"] > 0.2
    for factor in (0.3, 3):
        assert uncertainty_of_sd(centre, factor * sd, real, everywhere)["crps"] > honest["crps"]
    certain = uncertainty_of_sd(centre, 0 * sd, real, everywhere)
    assert certain["coverage_90"] == 0 and certain["error_sd_rank_r"] == 0
    assert certain["crps"] == pytest.approx(np.abs(real - centre).mean())


def test_many_samples_and_their_sd_agree():
    generator = np.random.default_rng(1)
    sd = generator.uniform(0.05, 0.2, (12, 12, 12))
    draws = sd * generator.standard_normal((400, *sd.shape))
    real, mask = sd * generator.standard_normal(sd.shape), np.ones(sd.shape, bool)
    sampled, stated = uncertainty_of_samples(draws, real, mask), uncertainty_of_sd(0 * sd, sd, real, mask)
    for key in ("coverage_50", "coverage_90", "mean_sd"):
        assert sampled[key] == pytest.approx(stated[key], abs=0.02)
    assert sampled["crps"] == pytest.approx(stated["crps"], rel=0.01)
