"""Effects where half of the scans are hidden: how much each way to complete them loses."""

import numpy as np
import pytest

from pdsynth.evidence.group_effects.files import AS_IF_REAL, COMPLETED, RECTIFIED
from pdsynth.evidence.group_effects.hidden import complete_effects as completed
from pdsynth.types import Direction

GROUPS = np.repeat(["AD", "NC"], 40)


def complete_effects(*given, **options):
    """The rows of `complete_effects` as a table."""
    return COMPLETED.table(completed(Direction.FMRI_TO_DMRI, *given, **options))


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


def test_completion_of_effects():
    """A method that keeps a fifth of the effect: as if real loses two fifths, rectified nothing, at a smaller error."""
    generator = np.random.default_rng(0)
    truth = generator.normal(0, 0.8, 60)
    groups, sites = np.repeat(["AD", "NC", "MCI"], 100), np.tile(["a", "b"], 150)
    person = generator.standard_normal((300, 60))
    real = person + np.outer(groups == "AD", truth)
    made = 0.5 * (person + generator.standard_normal((300, 60))) + 0.2 * np.outer(groups == "AD", truth)
    methods = {"sees the person": made, "average": np.zeros_like(real), "the scan": real}
    table = complete_effects(real, methods, groups, sites=sites, n=100).set_index(["arm", "method"])
    complete, rectified = table.loc["complete-cases", ""], table.loc[RECTIFIED]
    assert complete["n_left"] == 100 and complete["n_hidden"] == 100
    assert complete["slope"] == pytest.approx(1, abs=0.05)
    assert table.loc[(AS_IF_REAL, "sees the person"), "slope"] == pytest.approx(0.6, abs=0.06)
    assert table.loc[(AS_IF_REAL, "average"), "slope"] == pytest.approx(0.5, abs=0.03)
    assert table.loc[(AS_IF_REAL, "the scan"), "rmse"] == pytest.approx(0, abs=1e-9)
    sees = rectified.loc["sees the person"]
    assert sees["slope"] == pytest.approx(1, abs=0.04)
    # of the complete cases' variance about all scans, 1 / 100, r^2 = 1/2 is explained
    assert complete["rmse"] == pytest.approx(0.14, abs=0.02) and sees["rmse"] == pytest.approx(0.1, abs=0.015)
    assert sees["worth_low"] < 1 / 3 < sees["worth_high"] and sees["width"] == pytest.approx(0.866, abs=0.03)
    average = rectified.loc["average"]
    assert average["worth"] == 0 and average["width"] == 1 and average["rmse"] == complete["rmse"]
    assert table.loc[("complete-cases", ""), ["width", "worth"]].isna().all()


def test_the_same_seed_gives_the_same_table():
    real, made, _ = cohort(5)
    tables = [complete_effects(real, {"m": made}, GROUPS, seed=seed, n=20) for seed in (1, 1, 2)]
    assert tables[0].equals(tables[1]) and not tables[0].equals(tables[2])


def test_a_group_of_one_gives_no_figure():
    real, made, _ = cohort(6)
    table = complete_effects(real, {"m": made}, np.where(np.arange(80) == 0, "AD", "NC"), n=20)
    assert table[["slope", "rmse", "width", "worth"]].isna().all(axis=None)


def test_a_group_of_two_of_whom_one_remains_has_no_difference_of_real_scans():
    """One AD scan remains of two: without it counting as a difference of 0, only "as if real" has a slope."""
    real, made, _ = cohort(7)
    table = complete_effects(real, {"m": made}, np.where(np.arange(80) < 2, "AD", "NC"), n=20).set_index("arm")
    few = table.loc[["complete-cases", RECTIFIED], ["slope", "slope_low", "rmse", "width"]]
    assert few.isna().all(axis=None) and table.loc[RECTIFIED, "worth"] == 0
    assert table.loc[AS_IF_REAL, ["slope", "slope_low", "rmse"]].notna().all()


def test_a_region_that_does_not_vary_changes_no_result():
    real, made, _ = cohort(8)
    same = np.full((80, 1), 0.25)
    tables = [
        complete_effects(scans, {"m": synthesised}, GROUPS, n=20)
        for scans, synthesised in ((real, made), (np.hstack([same, real]), np.hstack([same, made])))
    ]
    measured = [table[["slope", "rmse", "width", "worth"]].to_numpy() for table in tables]
    assert np.isfinite(measured[0][2]).all()
    np.testing.assert_allclose(measured[0], measured[1], rtol=1e-9)
