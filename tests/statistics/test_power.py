"""Numbers of participants by simulation; intervals and tests against statsmodels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import proportion_confint

from pdsynth.statistics.power import (
    discordant_share,
    mcnemar_exact,
    mcnemar_participants,
    mcnemar_power,
    wilson_interval,
)


def discordant_counts(n, d, discordant, times=20_000, seed=0):
    """How often only b, and only a, is right among n participants of whom b is right by d more often."""
    shares = [(discordant + d) / 2, (discordant - d) / 2, 1 - discordant]
    return np.random.default_rng(seed).multinomial(n, shares, size=times).T[:2]


@pytest.mark.parametrize("shared", [0, 0.5])
def test_the_number_needed_gives_the_power_in_simulation(shared):
    for p_a, p_b, parts in ((0.61, 0.71, (1,)), (0.63, 0.69, (1, 2, 3))):
        discordant = discordant_share(p_a, p_b, shared)
        n = mcnemar_participants(p_a, p_b, discordant)
        for number in [n // part for part in parts]:
            b, c = discordant_counts(number, p_b - p_a, discordant)
            shown = np.mean((b - c) / np.sqrt(np.maximum(b + c, 1)) > stats.norm.ppf(0.975))
            assert shown == pytest.approx(mcnemar_power(number, p_a, p_b, discordant), abs=0.015)
        assert mcnemar_power(n, p_a, p_b, discordant) >= 0.8 > mcnemar_power(n - 1, p_a, p_b, discordant)


def test_the_exact_test_needs_a_few_more():
    discordant = discordant_share(0.61, 0.71, 0.5)
    n = mcnemar_participants(0.61, 0.71, discordant)
    powers = []
    for number in (n, int(1.1 * n)):
        b, c = discordant_counts(number, 0.1, discordant)
        powers.append(np.mean((2 * stats.binom.cdf(np.minimum(b, c), b + c, 0.5) < 0.05) & (b > c)))
    assert 0.74 < powers[0] < 0.8 < powers[1]


def test_errors_shared_lie_between_independent_and_the_least_discordant():
    answers = np.random.default_rng(0).random((2, 200_000)) < [[0.6], [0.7]]
    assert discordant_share(0.6, 0.7) == pytest.approx(np.mean(answers[0] != answers[1]), abs=0.005)
    same = np.random.default_rng(0).random(200_000)
    assert discordant_share(0.6, 0.7, shared=1) == pytest.approx(np.mean((same < 0.6) != (same < 0.7)), abs=0.005)
    assert discordant_share(0.7, 0.6, shared=0.5) == pytest.approx((0.46 + 0.1) / 2)


def test_what_cannot_be_told_apart_or_cannot_be_is_refused():
    with pytest.raises(ValueError, match="are equal"):
        mcnemar_participants(0.6, 0.6, 0.3)
    for discordant in (0.05, 0.8):
        with pytest.raises(ValueError, match=r"give 0.1 to 0.7"):
            mcnemar_power(100, 0.6, 0.7, discordant) if discordant > 0.7 else mcnemar_participants(0.6, 0.7, discordant)


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_equals_statsmodels(counts):
    expected = proportion_confint(*counts, method="wilson")
    assert wilson_interval(*counts) == pytest.approx(expected, abs=1e-9)


def test_impossible_counts_are_refused():
    for counts in ((3, 2), (-1, 2), (0, 0)):
        with pytest.raises(ValueError, match="can't be correct"):
            wilson_interval(*counts)


@given(st.integers(1, 60), st.integers(0, 1000))
def test_mcnemar_equals_statsmodels(n, seed):
    a, b = np.random.default_rng(seed).random((2, n)) < [[0.6], [0.8]]
    table = [[np.sum(a & b), np.sum(a & ~b)], [np.sum(~a & b), np.sum(~a & ~b)]]
    assert mcnemar_exact(a, b) == pytest.approx(mcnemar(table, exact=True).pvalue)
    assert mcnemar_exact(a, b) == mcnemar_exact(b, a)


def test_mcnemar_needs_the_same_participants():
    assert mcnemar_exact(np.ones(3, bool), np.ones(3, bool)) == 1
    with pytest.raises(ValueError, match="same participants"):
        mcnemar_exact(np.ones(3, bool), np.ones(4, bool))
