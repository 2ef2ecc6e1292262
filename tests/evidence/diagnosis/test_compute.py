"""Schemes and controls of diagnosis: a perfect copy equals real scans, noise is chance, and every figure adds up."""

import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from pdsynth.evidence.diagnosis.compute import (
    CONTROLS,
    DIFFERENCES,
    SCHEMES,
    block_of,
    covariates,
    permuted_labels,
    power_of,
)
from pdsynth.evidence.diagnosis.compute import (
    diagnose as scored,
)
from pdsynth.evidence.diagnosis.files import PATTERN_LOSS, POWER, SCHEME_SCORES
from pdsynth.statistics.classification import out_of_fold
from pdsynth.types import Modality

pytestmark = pytest.mark.usefixtures("penalty_unchosen")

F, D = Modality.FMRI, Modality.DMRI
THREE = ["NC", "MCI", "AD"]


def diagnose(*given, **options):
    """The rows of `diagnose` as a table."""
    file = PATTERN_LOSS if "without" in options else SCHEME_SCORES
    return file.table(scored(*given, **options))


def cohort(n=45, regions=6, signal=2.0, classes=THREE, seed=0):
    """Real scans that carry the class, a method that copies them and one that prints noise."""
    generator = np.random.default_rng(seed)
    labels = np.resize(np.array(classes, object), n)
    people = pd.DataFrame(
        {
            "participant_id": [f"sub-{i:03d}" for i in range(n)],
            "site": generator.choice(["a", "b"], n),
            "diagnosis": labels,
            "age": generator.normal(70, 8, n),
            "sex": generator.choice(["F", "M"], n),
            "education": np.nan,
        }
    )
    features = {}
    for modality in Modality:
        real = generator.normal(0, 1, (n, regions))
        real[:, : len(classes)] += signal * (labels[:, None] == np.array(classes))
        features[modality, "real"] = features[modality, "copy"] = real
        features[modality, "noise"] = generator.normal(0, 1, (n, regions))
    return features, people


@pytest.fixture(scope="module")
def table(penalty_unchosen):
    features, people = cohort()
    return diagnose(features, people, ["copy", "noise"], repeats=1).set_index(["method", "scheme"])


def test_schemes_are_those_of_the_paper():
    shown = {s.name: ([dict(t) for t in s.train], dict(s.test)) for s in SCHEMES}
    r, s = "real", "synthesised"
    assert shown == {
        "S1": ([{F: s}], {F: r}),
        "S2": ([{F: s, D: s}], {F: r, D: r}),
        "S3": ([{D: s}], {D: r}),
        "S4": ([{F: r}], {F: s}),
        "S5": ([{F: r, D: r}], {F: s, D: s}),
        "S6": ([{D: r}], {D: s}),
        "S7": ([{F: r, D: r}, {F: s, D: s}], {F: r, D: r}),
        "S8": ([{F: r, D: s}], {F: r, D: s}),
        "S9": ([{F: s, D: r}], {F: s, D: r}),
    }
    controls = {c.name: c for c in CONTROLS}
    for scheme in SCHEMES:
        control = controls[scheme.control]
        assert control.train == (control.test,) and set(control.test.values()) == {r}
        if s not in scheme.test.values():
            assert control.test == scheme.test  # the same question to a classifier trained on real scans
        else:  # source only: the scans that the tested ones were made from, or are
            sources = {m.other if origin == s else m for m, origin in scheme.test.items()}
            assert set(control.test) == sources


def test_a_perfect_copy_tells_what_real_scans_tell(table):
    same = {"S1": "real fMRI", "S2": "real both", "S3": "real dMRI", "S4": "real fMRI", "S5": "real both"}
    same |= {"S6": "real dMRI", "S8": "real both", "S9": "real both"}
    for scheme, control in same.items():
        assert table.loc[("copy", scheme), "confusion"] == table.loc[("", control), "confusion"]
        assert table.loc[("copy", scheme), "brier"] == table.loc[("", control), "brier"]
    for scheme in ("S1", "S2", "S3", "S5"):
        row = table.loc[("copy", scheme)]
        assert (row["difference"], row["difference_low"], row["difference_high"], row["p"]) == (0, 0, 0, 1)


def test_noise_tells_nothing_and_is_found_worse_than_its_control(table):
    for scheme in ("S1", "S2", "S3", "S4", "S5", "S6"):
        row = table.loc[("noise", scheme)]
        assert row["balanced_accuracy_low"] < 1 / 3 + 0.1 and row["balanced_accuracy"] < 0.55
        assert row["difference_high"] < 0 and row["p_holm"] < 0.05
    assert table.loc[("noise", "S8"), "balanced_accuracy"] > 0.6


def test_controls_are_computed_once_and_compared_with_nothing(table):
    controls = table.loc[""]
    assert sorted(controls.index) == sorted(
        ["real fMRI", "real dMRI", "real both", "covariates only", "site only", "majority class", "permuted labels"]
    )
    assert (controls["against"] == "").all() and controls[["p", "p_holm", "difference"]].isna().all(axis=None)
    assert len(table) == 7 + 2 * len(SCHEMES)


def test_differences_p_and_holm_add_up(table):
    compared = table[table["against"] != ""]
    control = table.loc[""].loc[compared["against"], "accuracy"].to_numpy()
    assert compared["difference"].to_numpy() == pytest.approx(compared["accuracy"].to_numpy() - control)
    for _, family in compared.groupby(level="method"):
        assert family["p_holm"].to_numpy() == pytest.approx(multipletests(family["p"], method="holm")[1])
    inside = compared["difference"].between(compared["difference_low"], compared["difference_high"])
    assert inside.all()


def test_p_is_the_exact_mcnemar_test_of_the_predictions():
    features, people = cohort(signal=1.0)
    row = diagnose(features, people, ["noise"], repeats=1, seed=3).set_index(["method", "scheme"]).loc[("noise", "S4")]
    real, noise, other = (block_of((c,), features, people) for c in ((F, "real"), (F, "noise"), (D, "real")))
    own = out_of_fold([real], [noise], repeats=1, seed=3)[0].correct
    control = out_of_fold([other], [other], repeats=1, seed=3)[0].correct
    counts = [[np.sum(own & control), np.sum(own & ~control)], [np.sum(~own & control), np.sum(~own & ~control)]]
    assert row["p"] == pytest.approx(mcnemar(counts, exact=True).pvalue)


def test_the_papers_figure_comes_with_the_interval_of_its_53_cases(table):
    row = table.loc[("copy", "S5")]
    assert (row["paper"], row["paper_low"], row["paper_high"]) == pytest.approx((0.679, 0.545, 0.789), abs=1e-3)
    assert np.isnan(table.loc[("copy", "S2"), "paper"]) and np.isnan(table.loc[("copy", "S2"), "paper_low"])


def test_the_majority_class_has_its_closed_form():
    features, people = cohort(40, classes=["NC", "NC", "MCI", "AD"])
    row = diagnose(features, people, [], repeats=1).set_index("scheme").loc["majority class"]
    assert (row["accuracy"], row["balanced_accuracy"], row["auc"]) == pytest.approx((1 / 2, 1 / 3, 1 / 2))
    assert row["brier"] == pytest.approx(1 - (1 / 4 + 1 / 16 + 1 / 16))


def test_permuted_labels_are_chance(table):
    row = table.loc[("", "permuted labels")]
    assert row["balanced_accuracy_low"] < 1 / 3 < row["balanced_accuracy_high"]
    assert table.loc[("", "real both"), "balanced_accuracy"] > 0.85


def test_labels_are_permuted_by_participant():
    labels, people = np.repeat(["NC", "MCI", "AD"], 20), np.repeat(np.arange(30), 2).astype(str)
    found = permuted_labels(labels, people, seed=1)
    assert np.array_equal(found[::2], found[1::2])
    assert sorted(found) == sorted(labels) and not np.array_equal(found, labels)
    assert np.array_equal(found, permuted_labels(labels, people, seed=1))


def test_a_site_that_gives_the_diagnosis_away_is_shown():
    features, people = cohort(30, signal=0, classes=["NC", "AD"])
    people["site"] = np.where(people["diagnosis"] == "AD", "a", "b")
    rows = diagnose(features, people, [], repeats=1).set_index("scheme")
    assert rows.loc["site only", "accuracy"] == 1 and rows.loc["covariates only", "accuracy"] == 1
    assert rows.loc["real both", "accuracy"] < 0.8


def test_missing_covariates_stay_missing_numbers_and_become_a_word():
    people = pd.DataFrame({"age": [70, "n/a"], "sex": ["F", None], "site": ["a", "b"]})
    found = covariates(people)
    assert found["age"].tolist()[0] == 70 and np.isnan(found["age"][1]) and found["education"].isna().all()
    assert found["sex"].tolist() == ["F", "n/a"]
    assert found.select_dtypes("number").columns.tolist() == ["age", "education"]


def test_those_without_a_diagnosis_are_left_out_and_two_classes_are_enough():
    features, people = cohort(36, classes=["NC", "AD"])
    people.loc[[0, 1], "diagnosis"] = None
    people.loc[2, "diagnosis"] = "unsure"
    table = diagnose(features, people, ["copy"], repeats=1)
    assert (table["n"] == 33).all()
    kept = {key: values[3:] for key, values in features.items()}
    pd.testing.assert_frame_equal(table, diagnose(kept, people[3:], ["copy"], repeats=1))


def test_a_method_of_one_direction_has_the_schemes_that_it_can():
    features, people = cohort(30, classes=["NC", "AD"])
    del features[D, "copy"]
    table = diagnose(features, people, ["copy"], repeats=1)
    assert table.loc[table["method"] == "copy", "scheme"].tolist() == ["S1", "S4", "S9"]


def test_what_is_lacking_is_named():
    features, people = cohort(30)
    with pytest.raises(ValueError, match="'unet'; choose among copy, noise"):
        diagnose(features, people, ["unet"])
    with pytest.raises(ValueError, match="30 rows for 29 people"):
        diagnose(features, people[1:], ["copy"])
    with pytest.raises(ValueError, match="no real dmri"):
        diagnose({key: v for key, v in features.items() if key != (D, "real")}, people, ["copy"])


def test_a_method_is_held_against_its_counterpart():
    """copy, whose scans are real ones, gains over noise where it says so, by the two methods' own accuracies."""
    features, people = cohort()
    found = diagnose(features, people, ["copy", "noise"], repeats=1, without={"copy": "noise"})
    found = found.set_index(["method", "scheme"])
    copy, noise = found.loc["copy"], found.loc["noise"]
    assert copy["gain"].to_numpy() == pytest.approx((copy["accuracy"] - noise["accuracy"]).to_numpy())
    assert (copy["gain_low"] <= copy["gain"]).all() and (copy["gain"] <= copy["gain_high"]).all()
    assert copy["gain_p_holm"].to_numpy() == pytest.approx(multipletests(copy["gain_p"], method="holm")[1])
    assert copy.loc["S5", "gain"] > 0.3 and copy.loc["S5", "gain_p"] < 0.01
    assert noise["gain"].isna().all() and found.loc[""]["gain"].isna().all()


def test_the_papers_53_participants_can_tell_20_points_at_best_and_not_4():
    table = POWER.table(power_of(53)).set_index("difference")
    assert table.index.tolist() == list(DIFFERENCES)
    for name in ("independent", "half_shared"):
        assert table[f"needed_{name}"].is_monotonic_decreasing and table[f"power_{name}"].is_monotonic_increasing
        assert table.loc[0.2, f"needed_{name}"] > 53 and table.loc[0.2, f"power_{name}"] < 0.8
        assert table.loc[0.04, f"power_{name}"] < 0.1 and table.loc[0.04, f"needed_{name}"] > 1000
    assert np.all(table["needed_half_shared"] < table["needed_independent"])
    assert np.all(POWER.table(power_of(10_000))[["power_independent", "power_half_shared"]].to_numpy() > 0.8)
