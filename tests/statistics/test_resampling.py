"""Weighted resamples do what drawing participants by index does, and rounding is not taken for variation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pdsynth.statistics.resampling import Estimate, bootstrap_weights, deviations, paired, scatter


def test_participants_are_drawn_within_their_group_and_the_sample_comes_first():
    groups = ["NC"] * 30 + ["AD"] * 5 + ["MCI"]
    weights = bootstrap_weights(groups, seed=1, n=4000)
    assert weights.shape == (4001, 36) and np.all(weights[0] == 1)
    assert (
        np.all(weights[:, :30].sum(1) == 30) and np.all(weights[:, 30:35].sum(1) == 5) and np.all(weights[:, 35] == 1)
    )
    assert weights[1:].mean(0) == pytest.approx(np.ones(36), abs=0.1)
    assert weights[1:, :30].var() == pytest.approx(1 - 1 / 30, rel=0.03)  # binomial(30, 1/30)
    assert np.array_equal(weights, bootstrap_weights(groups, seed=1, n=4000))
    assert not np.array_equal(weights, bootstrap_weights(groups, seed=2, n=4000))


@given(st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_scatter_is_that_of_the_participants_drawn_again(seed):
    generator = np.random.default_rng(seed)
    x, y = generator.normal(50, 1, (2, 12, 3))
    cells = generator.integers(0, 3, 12)
    weights = bootstrap_weights(np.zeros(12, str), seed, n=4)
    for row, found in zip(weights, scatter(weights, x, y, cells), strict=True):
        drawn = np.repeat(np.arange(12), row.astype(int))
        expected = np.zeros(3)
        for cell in range(3):
            members = drawn[cells[drawn] == cell]
            if len(members):
                expected += np.sum((x[members] - x[members].mean(0)) * (y[members] - y[members].mean(0)), axis=0)
        assert found == pytest.approx(expected, abs=1e-9)


def test_what_does_not_vary_has_no_scatter():
    cells = np.repeat([0, 1], 7)
    constant = np.repeat([[0.1, 0.3], [1e6 / 3, 0.7]], 7, axis=0)
    weights = bootstrap_weights(cells, n=50)
    assert np.all(scatter(weights, constant, constant, cells) == 0)
    assert np.all(deviations(constant[:7]) == 0)
    one_twice = np.array([[3.0, 0.0, 0.0], [0.0, 2.0, 1.0]])  # a resample of one participant only
    values = np.array([[0.1], [0.2], [0.7]])
    assert scatter(one_twice, values, values, np.zeros(3))[0, 0] == 0


def test_the_interval_is_that_of_the_percentiles_less_the_bias_of_resampling():
    values = np.random.default_rng(0).normal(25, 2, (200, 1))
    means = (bootstrap_weights(np.zeros(200, str), n=4000) @ values)[:, 0] / 200
    found = Estimate.of(means)
    half = 1.96 * values.std() / np.sqrt(200)
    assert found.value == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.02)
    moved = Estimate.of(np.concatenate([means[:1], means[1:] - 3]))
    assert (moved.low, moved.high) == pytest.approx((found.low, found.high), abs=0.02)
    assert Estimate.of(means, highest=25).high <= 25
    assert found.columns("psnr") == {"psnr": found.value, "psnr_low": found.low, "psnr_high": found.high}


def test_no_interval_where_most_resamples_have_no_value():
    some = Estimate.of(np.array([1.0, 0.9, 1.1, np.nan]))
    assert np.isfinite([some.low, some.high]).all()
    for values in ([1.0, np.nan, np.nan, 1.0], [np.nan, 1.0, 1.0], [1.0]):
        found = Estimate.of(np.array(values))
        assert np.isnan([found.low, found.high]).all()


def test_patterns_of_other_people_are_refused():
    with pytest.raises(ValueError, match=r"\(3, 2\) and synthesised ones \(4, 2\)"):
        paired(np.zeros((3, 2)), np.zeros((4, 2)))
    with pytest.raises(ValueError, match="same participants"):
        paired(np.zeros(3), np.zeros(3))
