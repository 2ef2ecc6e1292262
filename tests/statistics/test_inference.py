"""Intervals and tests against scipy, closed forms and their defining properties."""

import itertools
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pdsynth.statistics.inference import bca_interval, holm, paired_permutation


def test_bca_interval_covers_the_mean_as_often_as_it_says():
    generator = np.random.default_rng(0)
    hits = 0
    for trial in range(200):
        low, high = bca_interval(generator.exponential(1, 40), seed=trial, n=500)
        hits += low <= 1 <= high
    assert 0.87 <= hits / 200 <= 0.99


def test_bca_interval_is_reproducible_and_near_the_normal_one():
    values = np.random.default_rng(1).normal(25, 2, 100)
    low, high = bca_interval(values, seed=3)
    assert (low, high) == bca_interval(values, seed=3)
    half = 1.96 * values.std(ddof=1) / 10
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.1)


def test_degenerate_values_give_no_warning_and_no_false_certainty():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert bca_interval([0.25] * 5) == (0.25, 0.25)
        assert np.isnan(bca_interval([1.0])).all()
        assert np.isnan(bca_interval([])).all()
        low, high = bca_interval([1.0, 2.0])
    assert 1 <= low <= high <= 2


def test_exact_permutation_counts_all_signs_and_ties_by_rounding():
    """Differences of shares tie often, and their sums differ in the last bits."""
    generator = np.random.default_rng(0)
    signs = np.array(list(itertools.product((1, -1), repeat=11)))
    for _ in range(20):
        difference = generator.integers(-2, 3, 11) / 5 / np.repeat([3, 7, 11], [4, 4, 3])
        sums = np.abs(signs @ difference)
        expected = np.mean(sums >= abs(difference.sum()) - 1e-12)
        assert paired_permutation(difference, np.zeros(11)) == pytest.approx(expected)
    a, b = generator.normal(0.4, 1, 10), generator.normal(0, 1, 10)
    assert paired_permutation(a, b) == pytest.approx(paired_permutation(b, a))


def test_random_permutation_is_near_the_t_test_and_never_zero():
    generator = np.random.default_rng(0)
    a = generator.normal(0.3, 1, 60)
    assert paired_permutation(a, np.zeros(60)) == pytest.approx(stats.ttest_1samp(a, 0).pvalue, abs=0.02)
    assert paired_permutation(np.ones(60), np.zeros(60)) == pytest.approx(1 / 10_001)


def test_permutation_needs_participants():
    with pytest.raises(ValueError, match="participants"):
        paired_permutation(np.array([]), np.array([]))


def test_permutation_of_one_participant_and_of_an_unknown_difference():
    assert paired_permutation(np.array([3.0]), np.array([1.0])) == 1.0  # both signs give the same mean without its sign
    assert np.isnan(paired_permutation(np.array([1.0, np.nan, 2.0]), np.zeros(3)))
    assert np.isnan(paired_permutation(np.array([np.nan]), np.zeros(1)))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
@settings(max_examples=60, deadline=None)
def test_holm_is_monotone_bounded_and_between_raw_and_bonferroni(p):
    adjusted = holm(p)
    raw = np.asarray(p)
    assert np.all(adjusted >= raw) and np.all(adjusted <= np.minimum(raw * len(p), 1) + 1e-12)
    assert np.all(np.diff(adjusted[np.argsort(raw, kind="stable")]) >= -1e-12)
