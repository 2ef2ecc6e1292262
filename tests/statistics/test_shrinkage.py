"""Shrinkage against known methods, fairness against scipy and made-up groups."""

import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from pdsynth.statistics.inference import bca_interval
from pdsynth.statistics.shrinkage import group_table, shrinkage_slope, variance_ratio


def test_variance_ratio_is_numpys():
    real, synthesised = np.random.default_rng(0).normal(0, [[1.0]], (2, 30, 5)) * np.array([[[1]], [[0.4]]])
    assert variance_ratio(real, synthesised) == pytest.approx(synthesised.var(0, ddof=1) / real.var(0, ddof=1))
    assert variance_ratio(real, 3 - 0.5 * real) == pytest.approx(np.full(5, 0.25))


def test_an_ideal_estimate_keeps_the_share_of_variance_that_the_source_explains_and_the_same_slope():
    generator = np.random.default_rng(0)
    shared = generator.normal(0, 1, (3000, 8))
    real = shared + generator.normal(0, 0.5, shared.shape)  # E[real | shared] is shared
    assert variance_ratio(real, shared) == pytest.approx(np.full(8, 0.8), abs=0.03)
    assert shrinkage_slope(real, shared, mean=np.zeros(8), n=50).value == pytest.approx(0.8, abs=0.03)


def test_slope_is_the_regression_through_the_populations_mean():
    generator = np.random.default_rng(1)
    real, mean = generator.normal(2, 1, (40, 6)), np.linspace(1, 3, 6)
    synthesised = mean + 0.4 * (real - mean) + generator.normal(0, 0.1, real.shape)
    found = shrinkage_slope(real, synthesised, mean, n=500)
    one = [np.linalg.lstsq((real - mean)[:, [r]], (synthesised - mean)[:, r], rcond=None)[0][0] for r in range(6)]
    for r, expected in enumerate(one):
        alone = shrinkage_slope(real[:, [r]], synthesised[:, [r]], mean[[r]], n=1)
        assert alone.value == pytest.approx(expected)
    pooled = np.linalg.lstsq((real - mean).reshape(-1, 1), (synthesised - mean).ravel(), rcond=None)[0][0]
    assert found.value == pytest.approx(pooled)
    assert found.low < pooled < found.high and found.low < 0.4 < found.high
    assert found.high - found.low == pytest.approx(2 * 1.96 * 0.1 / np.sqrt(np.sum((real - mean) ** 2)), rel=0.3)
    again, other = (shrinkage_slope(real, synthesised, mean, seed=seed, n=500) for seed in (0, 1))
    assert again == found and other != found


def test_the_populations_mean_has_slope_0_and_a_copy_1():
    real, mean = np.random.default_rng(0).normal(0.1, 1, (20, 4)), np.full(4, 0.1)
    printed = shrinkage_slope(real, np.broadcast_to(mean, real.shape), mean, n=50)
    assert (printed.value, printed.low, printed.high) == (0, 0, 0)
    copied = shrinkage_slope(real, real, mean, n=50)
    assert (copied.low, copied.high) == pytest.approx((1, 1))


def test_degenerate_patterns_give_nan_without_a_warning():
    real = np.random.default_rng(0).normal(0, 1, (20, 4))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        same = np.full_like(real, 0.1)
        assert np.isnan(variance_ratio(same, real)).all() and np.all(variance_ratio(real, same) == 0)
        assert np.isnan(variance_ratio(real[:2], real[:2])).all()
        for few in (shrinkage_slope(same, real, same[0], n=20), shrinkage_slope(real[:2], real[:2], same[0])):
            assert np.isnan([few.value, few.low]).all()


def people(generator, n=90):
    return pd.DataFrame(
        {
            "site": generator.choice(["b", "a"], n),
            "sex": generator.choice(["F", "M"], n),
            "age": generator.uniform(60, 105, n).round(1),
            "diagnosis": generator.choice(["AD", "MCI", "NC"], n),
            "participant_id": [f"sub-{i}" for i in range(n)],
        }
    )


def test_the_group_that_is_served_worse_is_found_and_the_others_are_not():
    generator = np.random.default_rng(0)
    table = people(generator)
    scores = 25 + generator.normal(0, 1, 90) - 3 * (table["site"] == "b")
    found = group_table(scores.to_numpy(), table, seed=2)
    assert found["by"].drop_duplicates().tolist() == ["site", "sex", "age", "diagnosis"]
    assert found["group"].tolist()[:4] == ["a", "b", "F", "M"] and found["group"].tolist()[-3:] == ["NC", "MCI", "AD"]
    assert found.loc[found["worst"] & (found["by"] == "site"), "group"].tolist() == ["b"]
    assert found.groupby("by")["worst"].sum().tolist() == [1, 1, 1, 1]
    p = found.drop_duplicates("by").set_index("by")["p"]
    assert p["site"] < 1e-6 and p.drop("site").min() > 0.01
    b = scores[table["site"] == "b"].to_numpy()
    row = found[found["group"] == "b"].iloc[0]
    assert (row["n"], row["mean"]) == (len(b), pytest.approx(b.mean()))
    assert (row["mean_low"], row["mean_high"]) == bca_interval(b, seed=2)
    by_sex = [scores[table["sex"] == sex] for sex in ("F", "M")]
    assert p["sex"] == pytest.approx(stats.kruskal(*by_sex).pvalue)
    expected = multipletests(p.to_numpy(), method="holm")[1]
    assert found.drop_duplicates("by")["p_holm"].to_numpy() == pytest.approx(expected)


def test_ages_are_cut_in_thirds_from_young_to_old():
    table = people(np.random.default_rng(1))
    scores = -table["age"].to_numpy()
    found = group_table(scores, table[["age"]])
    assert found["n"].tolist() == [30, 30, 30]
    assert found["worst"].tolist() == [False, False, True]
    ages = np.sort(table["age"])
    assert found["group"].tolist() == [f"{ages[i]:g} to {ages[i + 29]:g}" for i in (0, 30, 60)]
    assert found["mean"].to_numpy() == pytest.approx([-ages[i : i + 30].mean() for i in (0, 30, 60)])


def test_what_is_unknown_alone_or_the_same_is_not_compared():
    scores = np.array([20.0, 21.0, 22.0, 23.0, 5.0])
    table = pd.DataFrame(
        {
            "site": ["a", "a", "b", "b", "c"],
            "sex": ["F", "F", "n/a", "", None],
            "age": [70, 70, 70, "n/a", None],
            "diagnosis": [np.nan] * 5,
        }
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = group_table(scores, table)
        same = group_table(np.full(5, 20.0), table[["site"]])
        nobody = group_table(scores, table[["diagnosis"]])
    assert list(zip(found["by"], found["group"], found["n"], strict=True)) == [
        ("site", "a", 2), ("site", "b", 2), ("site", "c", 1), ("sex", "F", 2),
    ]  # fmt: skip
    assert found["worst"].tolist() == [True, False, False, False]  # one participant says nothing of a site
    assert found["p"].tolist()[:3] == [pytest.approx(stats.kruskal([20, 21], [22, 23]).pvalue)] * 3
    assert np.isnan(found["p"].iloc[3]) and np.isnan(found["p_holm"].iloc[3]) and np.isnan(found["mean_low"].iloc[2])
    assert np.isnan(same["p"]).all() and len(nobody) == 0
    with pytest.raises(ValueError, match="5 participants"):
        group_table(scores[:4], table)
