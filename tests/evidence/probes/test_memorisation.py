"""A copier is told from a generator that learned, by distances and by errors."""

import warnings

import numpy as np
import pytest
from scipy import stats
from scipy.spatial.distance import cdist
from sklearn.metrics import roc_auc_score

from pdsynth.evidence.probes.memorisation import membership_auc, nearest_neighbour_ratio


def test_the_ratio_is_1_for_new_people_and_0_for_copies():
    generator = np.random.default_rng(0)
    train, held_out, new = (generator.normal(100, 1, (n, 50)) for n in (200, 150, 120))
    assert nearest_neighbour_ratio(new, train, held_out) == pytest.approx(1, abs=0.03)
    assert nearest_neighbour_ratio(train[:40], train, held_out) == pytest.approx(0, abs=1e-5)
    blurred = train[:40] + generator.normal(0, 0.1, (40, 50))
    assert nearest_neighbour_ratio(blurred, train, held_out) < 0.2
    expected = np.median(cdist(new, train).min(1)) / np.median(cdist(held_out, train).min(1))
    assert nearest_neighbour_ratio(new, train, held_out) == pytest.approx(expected)


def test_a_smooth_image_is_near_to_all_and_the_swap_shows_that_it_is_no_copy():
    generator = np.random.default_rng(1)
    train, other, held_out = generator.normal(0, 1, (3, 150, 50))
    smooth = 0.2 * generator.normal(0, 1, (60, 50))
    assert nearest_neighbour_ratio(smooth, train, held_out) < 0.8
    assert nearest_neighbour_ratio(smooth, other, held_out) == pytest.approx(
        nearest_neighbour_ratio(smooth, train, held_out), abs=0.03
    )


def test_images_that_are_missing_or_not_held_out_are_refused():
    images = np.random.default_rng(0).normal(0, 1, (6, 4))
    with pytest.raises(ValueError, match="no held_out images"):
        nearest_neighbour_ratio(images, images, images[:0])
    with pytest.raises(ValueError, match="hold out other participants"):
        nearest_neighbour_ratio(images, images, images[:3])


def test_auc_equals_scikit_learn_with_ties():
    generator = np.random.default_rng(0)
    members, others = generator.integers(0, 8, 40), generator.integers(2, 10, 25)
    expected = roc_auc_score(np.repeat([1, 0], [40, 25]), -np.concatenate([members, others]))
    found = membership_auc(members, others)
    assert found.value == pytest.approx(expected)
    assert found.low < expected < found.high
    assert membership_auc(others, members).value == pytest.approx(1 - expected)
    assert found == membership_auc(members, others) and found != membership_auc(members, others, seed=1)


def test_the_interval_has_the_width_of_mann_whitney():
    members, others = np.random.default_rng(2).normal(0, 1, (2, 150))
    found = membership_auc(members, others)
    under_null = 2 * 1.96 * np.sqrt((150 + 150 + 1) / (12 * 150 * 150))
    assert found.high - found.low == pytest.approx(under_null, rel=0.1)


def test_the_interval_holds_the_truth_as_often_as_it_says():
    truth = stats.norm.cdf(0.5 / np.sqrt(2))
    hits = 0
    for seed in range(200):
        generator = np.random.default_rng(seed)
        found = membership_auc(generator.normal(0, 1, 40), generator.normal(0.5, 1, 30), seed=seed, n=300)
        hits += found.low <= truth <= found.high
    assert 0.9 <= hits / 200 <= 0.99


def test_one_participant_has_no_interval_and_none_is_refused():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = membership_auc(np.array([1.0]), np.array([2.0, 3.0]))
        apart = membership_auc(np.array([1.0, 1.5]), np.array([2.0, 3.0]))
    assert found.value == 1 and np.isnan([found.low, found.high]).all()
    assert (apart.low, apart.high) == (1, 1)
    with pytest.raises(ValueError, match="0 members"):
        membership_auc(np.array([]), np.array([1.0]))
