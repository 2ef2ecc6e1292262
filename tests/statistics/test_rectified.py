"""Rectified differences against regression, and their promises: no bias, honest intervals, nothing from nothing."""

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import minimize
from statsmodels.api import OLS

from pdsynth.statistics.contrast import Contrast, gap
from pdsynth.statistics.rectified import rectified_difference, rectify
from pdsynth.statistics.resampling import bootstrap_weights

GROUPS = np.repeat(["AD", "NC"], 40)


def cohort(seed, known=0.7, kept_effect=0.2, truth=0.5, regions=30):
    """Real scans with an effect; synthesised ones follow the person (r = known) and keep a part of the effect."""
    generator = np.random.default_rng(seed)
    person = generator.standard_normal((80, regions))
    effect = (GROUPS == "AD")[:, None] * truth
    noise = generator.standard_normal((80, regions))
    synthesised = known * (known * person + np.sqrt(1 - known**2) * noise) + kept_effect * effect + 3
    hidden = np.zeros(80, bool)
    for group in ("AD", "NC"):
        hidden[generator.permutation(np.flatnonzero(group == GROUPS))[:20]] = True
    return person + effect, synthesised, hidden


def hide(real, hidden):
    return np.where(hidden[:, None], np.nan, real)


def test_it_is_the_regression_estimator_of_double_sampling():
    """The mean over all participants of a group of what a regression, fitted on those with both scans, predicts."""
    real, synthesised, hidden = cohort(0)
    found = rectified_difference(hide(real, hidden), synthesised, GROUPS)
    ad = (GROUPS == "AD").astype(float)
    for region in range(5):
        x = np.column_stack([ad, 1 - ad, synthesised[:, region]])
        predicted = OLS(real[~hidden, region], x[~hidden]).fit().predict(x)
        expected = predicted[ad == 1].mean() - predicted[ad == 0].mean()
        assert found.difference[region] == pytest.approx(expected)
    both = ~hidden
    simple = real[both & (ad == 1)].mean(0) - real[both & (ad == 0)].mean(0)
    assert found.complete_cases == pytest.approx(simple)


@pytest.mark.parametrize("kept_effect", [0.0, 1.0, -2.0])
def test_no_bias_and_honest_intervals_whatever_the_model_makes_of_the_groups(kept_effect):
    """1,200 draws: the mean is the truth, 95 % intervals hold it, and their length is what the estimates vary by."""
    estimates, inside, halves = [], [], []
    for seed in range(40):
        real, synthesised, hidden = cohort(seed, kept_effect=kept_effect)
        found = rectified_difference(hide(real, hidden), synthesised, GROUPS)
        estimates.append(found.difference)
        inside.append((found.low < 0.5) & (found.high > 0.5))
        halves.append((found.high - found.low) / 2)
    estimates = np.array(estimates)
    assert estimates.mean() == pytest.approx(0.5, abs=3 * estimates.std() / np.sqrt(estimates.size))
    assert 0.93 < np.mean(inside) < 0.97
    assert np.mean(halves) == pytest.approx(2.03 * estimates.std(), rel=0.06)


def test_real_scans_of_whom_nothing_is_synthesised_join():
    """A quarter have both scans, a quarter the target alone, half the source alone."""
    estimates, inside, halves, plain = [], [], [], []
    for seed in range(40):
        real, synthesised, hidden = cohort(seed)
        alone = ~hidden & (np.cumsum(~hidden) % 2 == 0)
        found = rectified_difference(hide(real, hidden), hide(synthesised, alone), GROUPS)
        estimates.append(found.difference)
        plain.append(found.complete_cases)
        inside.append((found.low < 0.5) & (found.high > 0.5))
        halves.append((found.high - found.low) / 2)
        assert found.complete_cases == pytest.approx(
            real[~hidden & (GROUPS == "AD")].mean(0) - real[~hidden & (GROUPS == "NC")].mean(0)
        )
    # of 20 real scans a group, 10 tell as much as 10 / (1 - .49 * 2 / 3): 24.85 in all
    assert np.var(plain) / np.var(estimates) == pytest.approx(24.85 / 20, abs=0.08)
    assert np.mean(estimates) == pytest.approx(0.5, abs=0.03)
    assert 0.93 < np.mean(inside) < 0.97
    assert np.mean(halves) == pytest.approx(2.03 * np.std(estimates), rel=0.06)


@pytest.mark.parametrize("size", [4, 8])
def test_many_small_sites_cost_nothing(size):
    """At sites of 4 or 8 few have both groups with both scans; the estimate is no worse than complete cases."""
    sites, estimates, plain, inside = np.repeat(np.arange(80 // size), size).astype(str), [], [], []
    groups = np.tile(["AD", "NC"], 40)
    for seed in range(60):
        generator = np.random.default_rng(seed)
        person, noise = generator.standard_normal((2, 80, 20))
        real = person + 0.5 * (groups == "AD")[:, None] + 9 * generator.standard_normal(20)[sites.astype(int)][:, None]
        available = generator.choice(["both", "real", "synthesised"], 80)
        found = rectified_difference(
            hide(real, available == "synthesised"), hide(person + noise, available == "real"), groups, sites=sites
        )
        estimates.append(found.difference)
        plain.append(found.complete_cases)
        inside.append((found.low < 0.5) & (found.high > 0.5))
    assert np.var(estimates) < 1.01 * np.var(plain)
    assert np.mean(estimates) == pytest.approx(0.5, abs=0.03) and np.mean(inside) == pytest.approx(0.95, abs=0.03)


def test_a_bias_of_a_group_at_a_site_cancels():
    """A model that makes AD larger at one site and smaller at the other, where scans are missing unevenly."""
    groups, sites = np.tile(np.repeat(["AD", "NC"], 40), 2), np.repeat(["a", "b"], 80)
    estimates, inside = [], []
    for seed in range(60):
        generator = np.random.default_rng(seed)
        person, noise = generator.standard_normal((2, 160, 20))
        biased = person + noise + np.where(sites == "a", 1.0, -1.0)[:, None] * (groups == "AD")[:, None]
        hidden = generator.random(160) < np.where(sites == "a", 0.2, 0.8)
        real = person + 0.5 * (groups == "AD")[:, None]
        found = rectified_difference(hide(real, hidden), biased, groups, sites=sites)
        estimates.append(found.difference)
        inside.append((found.low < 0.5) & (found.high > 0.5))
    assert np.mean(estimates) == pytest.approx(0.5, abs=0.02) and np.mean(inside) == pytest.approx(0.95, abs=0.02)


@pytest.mark.parametrize("seed", range(3))
def test_no_other_weights_vary_less(seed):
    """Against a minimiser of the variance: unbalanced groups at three sites, with all kinds of missing scans."""
    generator = np.random.default_rng(seed)
    sites, first = generator.choice(["a", "b", "c"], 120), generator.random(120) < 0.3
    kind = generator.choice(["both", "real", "synthesised"], 120, p=[0.4, 0.2, 0.4])
    has, made, one = kind != "synthesised", kind != "real", np.ones((1, 120))
    real = generator.standard_normal((120, 1))
    synthesised = 0.5 * real + 0.4 * generator.standard_normal((120, 1)) + 2
    both = Contrast(one[:, has & made], first[has & made], sites[has & made])
    y, f = (values[has & made] for values in (real, synthesised))
    of_y, of_f, shared = (both.covariance(a, b)[0, 0] for a, b in ((y, y), (f, f), (y, f)))
    c = np.zeros(120)
    c[has] = Contrast(one[:, has], first[has], sites[has]).coefficients()[0]
    z = gap(one, first, sites, ~has & made, has & made)[0]
    w = gap(one, first, sites, has & made, has & ~made)[0]

    def variance(weights):
        trust, mix = weights
        on_y, on_f = c - mix * w, trust * z
        return (on_y @ on_y) * of_y + (on_f @ on_f) * of_f + 2 * (on_y @ on_f) * shared

    trust, mix = minimize(variance, [0, 0], tol=1e-12).x
    assert abs(trust) > 0.05 and abs(mix) > 0.01
    found = rectify(one, real, synthesised, has, made, first, sites)
    expected = c @ np.where(has, real[:, 0], 0) + trust * z @ synthesised[:, 0] - mix * w @ real[:, 0]
    assert found.trust[0, 0] == pytest.approx(trust, rel=1e-3)
    assert found.difference[0, 0] == pytest.approx(expected, abs=1e-4)


def test_a_participant_drawn_twice_is_two():
    real, made, hidden = cohort(8)
    weights = bootstrap_weights(GROUPS, n=3)
    every, first, sites = np.ones(80, bool), GROUPS == "AD", np.tile(["a", "b"], 40)
    found = rectify(weights, real, made, ~hidden, every, first, sites)
    for row, counts in enumerate(weights.astype(int)):
        twice = np.repeat(np.arange(80), counts)
        again = rectify(np.ones((1, 80)), real[twice], made[twice], ~hidden[twice], every, first[twice], sites[twice])
        for name in ("difference", "variance", "variance_complete_cases", "trust", "worth"):
            assert getattr(found, name)[row] == pytest.approx(getattr(again, name)[0]), name


def test_one_real_scan_in_a_group_gives_no_difference():
    """The difference would be 0 if the coefficients of all participants, which are then 0, were used."""
    real, made, hidden = cohort(8)
    has = ~hidden & ((GROUPS == "NC") | (np.cumsum(~hidden) == 1))
    found = rectify(np.ones((1, 80)), real, made, has, np.ones(80, bool), GROUPS == "AD", np.zeros(80, int))
    assert np.isnan(found.complete_cases).all() and np.isnan(found.difference).all() and not found.worth.any()


@pytest.mark.parametrize(("freedom", "used"), [(9, False), (10, True)])
def test_trust_is_learned_from_enough_or_not_at_all(freedom, used):
    real, made, hidden = cohort(9)
    few = np.flatnonzero(~hidden)[np.r_[: freedom // 2 + 1, 20 : 20 + freedom - freedom // 2 + 1]]
    has = np.zeros(80, bool)
    has[few] = True
    found = rectified_difference(hide(real, ~has), made, GROUPS)
    assert found.trust.any() == used and found.worth.any() == used


def test_p_is_that_of_the_interval():
    real, made, hidden = cohort(7)
    found = rectified_difference(hide(real, hidden), made, GROUPS)
    assert ((found.p < 0.05) == ((found.low > 0) | (found.high < 0))).all() and 0 < found.p.min() < found.p.max() < 1
    t = found.difference / ((found.high - found.low) / 2 / stats.t.ppf(0.975, 37))  # 40 with a scan; 2 means, a slope
    assert found.p == pytest.approx(2 * stats.t.sf(np.abs(t), 37))
    assert found.sd == pytest.approx(
        np.sqrt((real[:40][~hidden[:40]].var(0, ddof=1) + real[40:][~hidden[40:]].var(0, ddof=1)) / 2)
    )


def test_worth_is_what_the_correlation_says():
    """With r = .7 and half of the scans missing: r^2 / (2 - r^2) of a real scan, and the variance of the estimates."""
    worth = [rectified_difference(hide(real, hidden), made, GROUPS).worth.mean()
             for real, made, hidden in map(cohort, range(40))]  # fmt: skip
    assert np.mean(worth) == pytest.approx(0.49 / 1.51, abs=0.02)


@pytest.mark.parametrize("knows_nothing", [np.zeros_like, lambda values: np.full_like(values, 7.0)])
def test_a_constant_adds_nothing(knows_nothing):
    real, made, hidden = cohort(1)
    found = rectified_difference(hide(real, hidden), knows_nothing(made), GROUPS)
    assert found.difference == pytest.approx(found.complete_cases, rel=1e-12)
    assert not found.trust.any() and not found.worth.any()


def test_a_stranger_adds_nothing():
    """Each participant's synthesised scan given to another of the group and site: worth nothing, but for its price."""
    worth = []
    for seed in range(20):
        real, made, hidden = cohort(seed)
        shuffled = np.concatenate([np.random.default_rng(seed).permutation(part) for part in np.split(made, 2)])
        worth.append(rectified_difference(hide(real, hidden), shuffled, GROUPS).worth.mean())
    assert abs(np.mean(worth)) < 0.02


def test_real_scans_in_their_place_restore_all():
    real, _, hidden = cohort(2)
    found = rectified_difference(hide(real, hidden), real, GROUPS)
    assert found.difference == pytest.approx(real[GROUPS == "AD"].mean(0) - real[GROUPS == "NC"].mean(0))
    assert found.worth == pytest.approx(1, abs=0.06)  # less the slope, which is estimated


def test_it_is_taken_within_sites():
    """A scanner's offset that goes with the group is no effect."""
    real, made, hidden = cohort(3, truth=0.0)
    sites = np.where(np.arange(80) % 4 == 0, "b", "a")
    sites[:20] = "b"  # more of AD
    offset = np.where(sites == "b", 50.0, 0.0)[:, None]
    plain = rectified_difference(hide(real, hidden), made, GROUPS, sites=sites)
    moved = rectified_difference(hide(real + offset, hidden), made - offset, GROUPS, sites=sites)
    assert moved.difference == pytest.approx(plain.difference) and np.abs(plain.difference).max() < 2


def test_where_nothing_is_missing_real_scans_speak():
    real, made, _ = cohort(5)
    found = rectified_difference(real, made, GROUPS, sites=np.tile(["a", "b"], 40))
    assert found.difference == pytest.approx(found.complete_cases, rel=1e-12) and not found.trust.any()


def test_too_few_are_refused():
    real, made, hidden = cohort(4)
    few = np.arange(80) >= 39  # one of AD has both scans
    found = rectified_difference(real, np.where((hidden | few)[:, None], made, np.nan), GROUPS)
    assert np.isfinite(found.difference).all() and not found.trust.any()
    hidden[:39] = True
    with pytest.raises(ValueError, match="two participants of AD"):
        rectified_difference(hide(real, hidden), made, GROUPS)
    with pytest.raises(ValueError, match="give each participant one"):
        rectified_difference(real, made, GROUPS[:3])
    with pytest.raises(ValueError, match="no site has real scans of both AD and NC"):
        rectified_difference(real, made, GROUPS, sites=GROUPS)
    holed = np.where(np.arange(30) == 4, np.nan, real)
    with pytest.raises(ValueError, match="some regions and lacks others"):
        rectified_difference(holed, made, GROUPS)
