"""Effects against pingouin and a linear model, and slopes of methods whose knowledge is known."""

import time
import warnings

import numpy as np
import pandas as pd
import pingouin
import pytest
from statsmodels.api import OLS

from pdsynth.evidence.effects.compute import effect_recovery
from pdsynth.statistics.contrast import Contrast, slope
from pdsynth.types import Diagnosis


def hedges_g(a, b):
    """Of a less b in each region, (R,)."""
    values = np.concatenate([a, b])
    first = np.arange(len(values)) < len(a)
    return Contrast(np.ones((1, len(values))), first, np.zeros(len(values), int)).g(values, values)[0]


def on_truth(effects, truth):
    """Slope of a method's effects on the true ones, which have no sampling error."""
    return slope(effects[None], truth)[0]


def cohort(seed=0, n=20, regions=40, effect=0.8, noise=1.0):
    """Real patterns of n NC, n MCI and n AD participants, and the effects of AD in each region in SD."""
    generator = np.random.default_rng(seed)
    truth = generator.normal(0, effect, regions)
    groups = np.repeat(["NC", "MCI", "AD"], n)
    real = 5 + np.outer(groups == "AD", truth) + noise * generator.standard_normal((3 * n, regions))
    return real, groups, truth, generator


@pytest.mark.parametrize(("n_a", "n_b"), [(12, 30), (3, 2)])
def test_g_equals_pingouin(n_a, n_b):
    generator = np.random.default_rng(n_a)
    a, b = generator.normal(1, 1, (n_a, 7)), generator.normal(0, 2, (n_b, 7))
    expected = [pingouin.compute_effsize(x, y, eftype="hedges") for x, y in zip(a.T, b.T, strict=True)]
    assert hedges_g(a, b) == pytest.approx(np.array(expected))
    assert hedges_g(b, a) == pytest.approx(-np.array(expected))


def test_recovery_holds_g_of_the_contrast_whatever_the_rest():
    real, groups, _, generator = cohort()
    synthesised = 0.5 * real + generator.normal(0, 0.3, real.shape)
    found = effect_recovery(real, synthesised, groups, n=50)
    assert found.g_real == pytest.approx(hedges_g(real[groups == "AD"], real[groups == "NC"]))
    assert found.g_synthesised == pytest.approx(hedges_g(synthesised[groups == "AD"], synthesised[groups == "NC"]))
    assert found.slope.value == pytest.approx(
        np.linalg.lstsq(found.g_real[:, None], found.g_synthesised_by_real_sd, rcond=None)[0][0]
    )
    assert found.slope_own_sd.value == pytest.approx(
        np.linalg.lstsq(found.g_real[:, None], found.g_synthesised, rcond=None)[0][0]
    )
    assert found.r.value == pytest.approx(np.corrcoef(found.g_synthesised_by_real_sd, found.g_real)[0, 1])
    strong = np.abs(found.g_real) > 0.3
    same = np.sign(found.g_synthesised_by_real_sd) == np.sign(found.g_real)
    assert found.n_strong == strong.sum() and 20 < found.n_strong < 40
    assert found.sign_agreement.value == pytest.approx(same[strong].mean())
    early = effect_recovery(real, synthesised, groups, (Diagnosis.MCI, Diagnosis.NC), n=50)
    assert early.g_real == pytest.approx(hedges_g(real[groups == "MCI"], real[groups == "NC"]))


def test_with_sites_it_is_a_linear_model_with_a_term_a_site():
    real, groups, _, generator = cohort(seed=3)
    sites = np.where(groups == "AD", generator.choice(["a", "b", "c"], 60, p=[0.7, 0.2, 0.1]), "")
    sites = np.where(sites == "", generator.choice(["a", "b", "c", "d"], 60), sites)
    synthesised = 0.7 * real + generator.normal(0, 0.3, real.shape)
    found = effect_recovery(real, synthesised, groups, sites=sites, n=10)
    kept = groups != "MCI"
    design = np.column_stack([groups[kept] == "AD", pd.get_dummies(pd.Series(sites[kept]))]).astype(float)
    cells = pd.Series(np.char.add(groups[kept], sites[kept]))
    for region in (0, 7):
        within = pd.Series(real[kept, region]).groupby(cells.to_numpy())
        df = kept.sum() - cells.nunique()
        sd = np.sqrt(((within.count() - 1) * within.var().fillna(0)).sum() / df)
        for values, g in ((real, found.g_real), (synthesised, found.g_synthesised_by_real_sd)):
            coefficient = OLS(values[kept, region], design).fit().params[0]
            assert g[region] == pytest.approx((1 - 3 / (4 * df - 1)) * coefficient / sd)


def test_scanners_that_saw_more_of_one_group_make_no_effect_within_sites():
    real, groups, _, generator = cohort(effect=0)
    sites = np.where(generator.random(60) < np.where(groups == "AD", 0.8, 0.2), "a", "b")
    scanner = np.where((sites == "a")[:, None], generator.normal(0, 2, 40), 0)
    alone = effect_recovery(real, real, groups, sites=sites, n=50)
    moved = effect_recovery(real + scanner, real + scanner, groups, sites=sites, n=50)
    assert moved.g_real == pytest.approx(alone.g_real)
    site_only = effect_recovery(real + scanner, scanner, groups, sites=sites, n=50)
    assert site_only.slope.value == 0 and site_only.sign_agreement.value == 0
    assert effect_recovery(real + scanner, scanner, groups, n=50).slope.value > 0.7


def test_the_same_image_for_everyone_recovers_exactly_nothing():
    real, groups, truth, _ = cohort()
    found = effect_recovery(real, np.full_like(real, 0.1), groups, n=200)
    assert on_truth(found.g_synthesised_by_real_sd, truth) == 0
    for estimate in (found.slope, found.sign_agreement):
        assert (estimate.value, estimate.low, estimate.high) == (0, 0, 0)
    assert np.isnan([found.slope_own_sd.value, found.r.value, *found.g_synthesised]).all()


def test_a_copy_recovers_everything_and_half_of_each_person_half():
    real, groups, truth, _ = cohort()
    for share in (1.0, 0.5):
        found = effect_recovery(real, share * real, groups, n=200)
        assert np.array([found.slope.value, found.slope.low, found.slope.high]) == pytest.approx(np.full(3, share))
        assert found.slope_own_sd.value == pytest.approx(1)
        assert (found.r.value, found.sign_agreement.value) == pytest.approx((1, 1))
        assert on_truth(found.g_synthesised_by_real_sd, truth) == pytest.approx(share * on_truth(found.g_real, truth))


def test_an_ideal_estimate_exceeds_1_only_by_its_own_sd():
    generator = np.random.default_rng(0)
    groups = np.repeat(["NC", "AD"], 2000)
    shared = np.outer(groups == "AD", generator.normal(0, 0.8, 40)) + generator.standard_normal((4000, 40))
    real = shared + generator.standard_normal(shared.shape)  # E[real | shared] is shared
    found = effect_recovery(real, shared, groups, n=50)
    assert found.slope.value == pytest.approx(1, abs=0.02)
    assert found.slope_own_sd.value == pytest.approx(np.sqrt(2), abs=0.03)


def test_who_knows_the_disease_but_not_the_person_has_the_slope_of_reliability():
    slopes, shares, expected, true_slopes = [], [], [], []
    for seed in range(60):
        real, groups, truth, _ = cohort(seed, n=15, regions=80, effect=0.5)
        found = effect_recovery(real, np.outer(groups == "AD", truth), groups, n=1)
        slopes.append(found.slope.value)
        shares.append(found.reliability)
        expected.append(np.sum(truth**2) / (np.sum(truth**2) + 80 * 2 / 15))
        true_slopes.append(on_truth(found.g_synthesised_by_real_sd, truth))
    assert np.mean(slopes) == pytest.approx(np.mean(expected), abs=0.02)
    assert np.mean(shares) == pytest.approx(np.mean(expected), abs=0.02)
    assert np.mean(true_slopes) == pytest.approx(1, abs=0.02)


def test_who_follows_the_person_has_slope_1_where_the_disease_does_nothing_and_no_reliability():
    found = [
        effect_recovery(real, real, groups, n=1) for real, groups, *_ in (cohort(seed, effect=0) for seed in range(20))
    ]
    assert all(one.slope.value == pytest.approx(1) for one in found)
    assert np.mean([one.reliability for one in found]) < 0.12


def test_slopes_on_the_truth_are_free_of_sampling_error():
    slopes = []
    for seed in range(60):
        real, groups, truth, generator = cohort(seed, n=15)
        synthesised = 0.5 * np.outer(groups == "AD", truth) + 0.2 * generator.standard_normal(real.shape)
        found = effect_recovery(real, synthesised, groups, n=1)
        slopes.append([on_truth(found.g_real, truth), on_truth(found.g_synthesised_by_real_sd, truth)])
    assert np.mean(slopes, axis=0) == pytest.approx([1, 0.5], abs=0.02)


def test_the_interval_holds_the_slope_of_other_cohorts_as_often_as_it_says():
    found = []
    for seed in range(200):
        generator = np.random.default_rng(seed)
        truth = np.random.default_rng(0).normal(0, 0.6, 30)
        factors = np.random.default_rng(1).normal(0, 1, (4, 30))  # regions vary together, as brains do
        groups = np.repeat(["NC", "AD"], 25)
        person = 0.5 * generator.standard_normal((50, 4)) @ factors
        disease = np.outer(groups == "AD", truth)
        real = disease + person + 0.6 * generator.standard_normal((50, 30))
        synthesised = 0.7 * disease + 0.3 * person + 0.2 * generator.standard_normal((50, 30))
        found.append(effect_recovery(real, synthesised, groups, seed=seed, n=300))
    for name in ("slope", "slope_own_sd", "r", "sign_agreement"):
        estimates = [getattr(one, name) for one in found]
        centre = np.mean([e.value for e in estimates])
        assert 0.89 <= np.mean([e.low <= centre <= e.high for e in estimates]) <= 0.99, name


def test_the_same_seed_gives_the_same_intervals():
    real, groups, _, generator = cohort()
    synthesised = 0.5 * real + generator.normal(0, 0.5, real.shape)
    found = [effect_recovery(real, synthesised, groups, seed=seed, n=100) for seed in (1, 1, 2)]
    assert found[0].slope == found[1].slope and found[0].r == found[1].r
    assert found[0].slope.value == found[2].slope.value and found[0].slope.low != found[2].slope.low


def test_too_few_participants_give_nan_without_a_warning():
    real, groups, *_ = cohort()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for who in (["NC"] * 60, ["NC"] * 59 + ["AD"], ["MCI"] * 60):
            found = effect_recovery(real, real, who, n=20)
            assert np.isnan([found.slope.value, found.r.value, found.sign_agreement.value, *found.g_real]).all()
            assert found.n_strong == 0 and np.isnan(found.reliability)
        apart = effect_recovery(real, real, groups, sites=groups, n=20)
        assert np.isnan([apart.slope.value, *apart.g_real]).all()
        assert np.isnan(hedges_g(real[:1], real[1:9])).all()
        some = real.copy()
        some[:, 0] = 0.1
        found = effect_recovery(some, some, groups, n=20)
        assert np.isnan(found.g_real[0]) and found.slope.value == pytest.approx(1)


def test_wrong_lengths_are_refused():
    real, groups, *_ = cohort()
    with pytest.raises(ValueError, match="60 participants have 59 groups"):
        effect_recovery(real, real, groups[1:])


def test_a_whole_atlas_of_300_participants_takes_seconds():
    generator = np.random.default_rng(0)
    real, synthesised = generator.normal(0, 1, (2, 300, 160))
    started = time.process_time()
    effect_recovery(real, synthesised, np.repeat(["NC", "AD"], 150), sites=generator.choice(list("abcd"), 300))
    assert time.process_time() - started < 5  # of the processor: a busy machine does not count
