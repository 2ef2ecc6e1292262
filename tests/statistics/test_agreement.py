"""Agreement of patterns against pingouin, numpy and closed forms."""

import warnings

import numpy as np
import pandas as pd
import pingouin
import pytest
from scipy import stats

from pdsynth.evaluation.audit import WithinSite
from pdsynth.statistics.agreement import (
    agreement_summary,
    agreement_table,
    bland_altman,
    ccc,
    icc_2_1,
    pattern_correlation,
    within_site_correlation,
)

SITES = ["a", "b", "c"] * 8


def patterns(seed=0, n=24, regions=6):
    """Real and synthesised, with an offset and a smaller scale."""
    generator = np.random.default_rng(seed)
    real = generator.normal(0.5, 0.1, (n, regions)) + generator.normal(0, 0.3, regions)
    return real, 0.6 * real + 0.2 + generator.normal(0, 0.05, (n, regions))


@pytest.mark.parametrize(("seed", "n"), [(0, 24), (1, 5), (2, 60)])
def test_icc_equals_pingouin(seed, n):
    real, synthesised = patterns(seed, n)
    expected = []
    for a, b in zip(real.T, synthesised.T, strict=True):
        person, rater = np.tile(np.arange(n), 2), np.repeat(["real", "synthesised"], n)
        long = pd.DataFrame({"person": person, "rater": rater, "value": np.concatenate([a, b])})
        table = pingouin.intraclass_corr(long, targets="person", raters="rater", ratings="value")
        expected.append(table.set_index("Type").loc["ICC(A,1)", "ICC"])
    assert icc_2_1(real, synthesised) == pytest.approx(np.array(expected), abs=1e-9)


def test_ccc_is_one_less_the_squared_distance_relative_to_chance():
    real, synthesised = patterns()
    squared = np.mean((real - synthesised) ** 2, axis=0)
    by_chance = np.mean((real[:, None] - synthesised[None]) ** 2, axis=(0, 1))  # anybody's against anybody's
    assert ccc(real, synthesised) == pytest.approx(1 - squared / by_chance)
    assert ccc(real, real) == pytest.approx(np.ones(6))


def test_icc_and_ccc_ask_for_the_same_values_where_correlation_does_not():
    real, _ = patterns()
    for index in (icc_2_1, ccc):
        assert np.all(index(real, real + 0.3) < 0.5)
        assert np.all(index(real, 0.3 * real) < 0.7)
        assert np.all(index(real, np.full_like(real, 0.5)) == 0)
    assert within_site_correlation(real, 0.3 * real + 7, SITES) == pytest.approx(np.ones(6))


def test_limits_of_agreement_hold_95_of_100_differences():
    generator = np.random.default_rng(0)
    real = generator.normal(0, 1, (4000, 3))
    synthesised = real + generator.normal(0.2, [0.1, 0.5, 1.0], (4000, 3))
    found = bland_altman(real, synthesised)
    inside = (synthesised - real > found.lower) & (synthesised - real < found.upper)
    assert inside.mean(0) == pytest.approx(np.full(3, 0.95), abs=0.01)
    assert found.bias == pytest.approx(np.full(3, 0.2), abs=0.05)
    assert found.sd == pytest.approx(np.std(synthesised - real, axis=0, ddof=1))


def test_correlation_within_sites_is_that_of_residuals_and_the_audits():
    real, synthesised = patterns()
    real[::3] += 5
    synthesised[::3] += 5
    found = within_site_correlation(real, synthesised, SITES)
    dummies = pd.get_dummies(pd.Series(SITES)).to_numpy(float)
    for region in range(6):
        columns = [values[:, region] for values in (real, synthesised)]
        left = [c - dummies @ np.linalg.lstsq(dummies, c, rcond=None)[0] for c in columns]
        assert found[region] == pytest.approx(np.corrcoef(*left)[0, 1])
        pooled = WithinSite()
        for row, site in enumerate(SITES):
            pooled.add(synthesised[row, [region]], real[row, [region]], site)
        assert found[region] == pytest.approx(pooled.r)


def test_a_sites_mean_correlates_over_sites_and_not_within():
    real, _ = patterns()
    real += np.repeat([[0], [3], [6]], 8, axis=0)
    sites = np.repeat(["a", "b", "c"], 8)
    means = np.stack([real[sites == site].mean(0) for site in sites])
    assert stats.pearsonr(means[:, 0], real[:, 0]).statistic > 0.9
    assert np.isnan(within_site_correlation(real, means, sites)).all()


def test_anybodys_pattern_is_like_anybody_elses_until_the_mean_is_taken_away():
    generator = np.random.default_rng(0)
    average = generator.normal(0, 1, 160)
    real = average + generator.normal(0, 0.2, (30, 160))
    other = np.roll(real, 1, axis=0)
    assert np.all(pattern_correlation(real, other) > 0.9)
    assert abs(pattern_correlation(real, other, average).mean()) < 0.05
    follows = average + 0.3 * (real - average)
    assert pattern_correlation(real, follows, average) == pytest.approx(np.ones(30))
    found = pattern_correlation(real, other, average)
    expected = [np.corrcoef(a - average, b - average)[0, 1] for a, b in zip(real, other, strict=True)]
    assert found == pytest.approx(np.array(expected))
    printed = np.broadcast_to(average.astype(np.float32), real.shape)
    assert np.isnan(pattern_correlation(real, printed, average.astype(np.float32))).all()


def test_table_has_a_row_a_region():
    real, synthesised = patterns()
    names, networks = [f"r{i}" for i in range(6)], ["default"] * 3 + ["occipital"] * 3
    table = agreement_table(real, synthesised, SITES, names, networks)
    assert table["name"].tolist() == names and table["network"].tolist() == networks
    assert np.array_equal(table["icc"], icc_2_1(real, synthesised))
    assert np.array_equal(table["ccc"], ccc(real, synthesised))
    assert np.array_equal(table["within_site_r"], within_site_correlation(real, synthesised, SITES))
    assert (table["upper"] - table["lower"]).to_numpy() == pytest.approx(
        2 * 1.96 * table["sd_of_difference"].to_numpy()
    )
    assert ((table["upper"] + table["lower"]) / 2).to_numpy() == pytest.approx((synthesised - real).mean(0))


def test_summary_holds_medians_with_scipys_bootstrap_spread():
    real, synthesised = patterns(n=60)
    sites = ["a", "b", "c"] * 20
    centre = real.mean(0)
    found = agreement_summary(real, synthesised, sites, centre, seed=4, n=1000)
    assert found == agreement_summary(real, synthesised, sites, centre, seed=4, n=1000)
    assert found != agreement_summary(real, synthesised, sites, centre, seed=5, n=1000)
    expected = {
        "icc": np.median(icc_2_1(real, synthesised)),
        "ccc": np.median(ccc(real, synthesised)),
        "within_site_r": np.median(within_site_correlation(real, synthesised, sites)),
        "bias": np.median((synthesised - real).mean(0)),
        "pattern_r": np.median(pattern_correlation(real, synthesised)),
        "own_pattern_r": np.median(pattern_correlation(real, synthesised, centre)),
    }
    assert {name: estimate.value for name, estimate in found.items()} == pytest.approx(expected)
    assert all(estimate.low <= estimate.value <= estimate.high for estimate in found.values())
    slow = stats.bootstrap(
        (np.arange(60),), lambda i: np.median(icc_2_1(real[i], synthesised[i])), vectorized=False, n_resamples=1000,
        method="percentile", rng=np.random.default_rng(0),
    )  # fmt: skip
    interval = slow.confidence_interval
    assert found["icc"].high - found["icc"].low == pytest.approx(interval.high - interval.low, rel=0.15)


def test_degenerate_patterns_give_nan_without_a_warning():
    real, synthesised = patterns()
    same = np.full_like(real, 0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for index in (icc_2_1, ccc):
            assert np.isnan(index(same, same)).all() and np.isnan(index(same, same + 1)).all()
            assert np.isnan(index(real[:2], synthesised[:2])).all()
        assert np.isnan(within_site_correlation(real, same, SITES)).all()
        assert np.isnan(within_site_correlation(real[:2], synthesised[:2], SITES[:2])).all()
        assert np.isnan(bland_altman(real[:2], synthesised[:2]).upper).all()
        assert np.isnan(pattern_correlation(real, same)).all()
        assert all(np.isnan(e.value) for e in agreement_summary(real[:2], real[:2], SITES[:2], real.mean(0)).values())
        found = agreement_summary(real, same, SITES, real.mean(0), n=50)
        assert (found["icc"].low, found["icc"].value, found["icc"].high) == (0, 0, 0)
        assert np.isnan([found["within_site_r"].value, found["pattern_r"].value, found["pattern_r"].low]).all()
        opposite = 2 * real[:3].mean(0) - real[:3]
        reverse = agreement_summary(real[:3], opposite, SITES[:3], real.mean(0), n=50)["icc"]
        assert (reverse.low, reverse.value) == pytest.approx((-3, -3))  # the least ICC(2,1) is -N / (N - 2), and not -1
        three = agreement_summary(real[:3], synthesised[:3], SITES[:3], real.mean(0), n=50)
        assert not np.isinf([[e.value, e.low, e.high] for e in three.values()]).any()
