"""Filling in missing scans: a perfect synthesis equals nothing missing, the mean equals mean imputation."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from pdsynth.evidence.completion.compute import arms, kept_scans
from pdsynth.evidence.completion.files import ARMS, Arm
from pdsynth.evidence.completion.section import verdict
from pdsynth.statistics.classification import Block, out_of_fold
from pdsynth.statistics.inference import holm
from pdsynth.statistics.resampling import Estimate
from pdsynth.types import Modality

pytestmark = pytest.mark.usefixtures("penalty_unchosen")

CLASSES = np.array(["NC", "MCI", "AD"])


def complete(*given, **options):
    """The rows of `arms` as a table."""
    return ARMS.table(arms(*given, **options))


def cohort(n=60, signal=4.0, seed=0):
    """The fMRI tells AD from the others, the dMRI NC: both are needed. "oracle" is the truth, "mean" says nothing."""
    generator = np.random.default_rng(seed)
    labels = np.resize(CLASSES, n)
    people = pd.DataFrame({"participant_id": [f"sub-{i:03d}" for i in range(n)], "diagnosis": labels})
    features = {}
    for modality, told in ((Modality.FMRI, "AD"), (Modality.DMRI, "NC")):
        real = generator.normal(0, 1, (n, 4))
        real[:, 0] += signal * (labels == told)
        features[modality, "real"] = features[modality, "oracle"] = real
        features[modality, "nothing"] = np.full((n, 4), np.nan)
    return features, people


@pytest.fixture(scope="module")
def table(penalty_unchosen):
    return complete(*cohort(), ["oracle", "nothing"], masks=2).set_index(["arm", "method"])


def test_a_third_of_each_class_keeps_both_and_thirds_lack_either():
    labels, people = np.repeat(np.resize(CLASSES, 31), 2), np.repeat(np.arange(31), 2).astype(str)
    has = kept_scans(labels, people, seed=1)
    f, d = has[Modality.FMRI], has[Modality.DMRI]
    assert np.all(f | d)
    for name, size in zip(CLASSES, (11, 10, 10), strict=True):
        rows = labels == name
        third = 2 * (size // 3)
        assert (np.sum(rows & f & ~d), np.sum(rows & d & ~f)) == (third, third)
        assert np.sum(rows & f & d) == 2 * size - 2 * third
    assert np.array_equal(f[::2], f[1::2]) and np.array_equal(d[::2], d[1::2])
    assert np.array_equal(f, kept_scans(labels, people, seed=1)[Modality.FMRI])
    assert not np.array_equal(f, kept_scans(labels, people, seed=2)[Modality.FMRI])


def test_a_perfect_synthesis_equals_nothing_missing_and_beats_both_rivals(table):
    columns = [c for c in table if c.startswith(("accuracy", "balanced"))]
    oracle = table.loc[("synthesised", "oracle")]
    assert oracle[columns].tolist() == table.loc[("real", ""), columns].tolist()
    assert oracle["balanced_accuracy"] > 0.9
    assert oracle["over_mean_low"] > 0 and oracle["over_complete_cases_low"] > 0
    assert oracle["over_mean_p_holm"] < 0.01


def test_nothing_in_a_missing_scans_place_equals_the_training_mean(table):
    nothing = table.loc[("synthesised", "nothing")]
    assert nothing["balanced_accuracy"] == table.loc[("mean", ""), "balanced_accuracy"]
    assert nothing["over_mean"] == nothing["over_mean_low"] == nothing["over_mean_high"] == 0
    assert nothing["over_mean_p"] == 1


def test_differences_and_their_family_add_up(table):
    made = table.loc["synthesised"]
    rivals = {"over_mean": "mean", "over_complete_cases": "complete-cases", "over_one_scan": "one-scan"}
    for name, rival in rivals.items():
        gap = made["balanced_accuracy"] - table.loc[(rival, ""), "balanced_accuracy"]
        assert made[name].to_numpy() == pytest.approx(gap.to_numpy())
        assert made[name].between(made[f"{name}_low"], made[f"{name}_high"]).all()
    p, adjusted = (made[[f"{name}_{end}" for name in rivals]].to_numpy() for end in ("p", "p_holm"))
    for tested, corrected in zip(p, adjusted, strict=True):
        assert corrected == pytest.approx(holm(tested))
    assert table.loc[["mean", "real"], [c for c in table if c.startswith("over_")]].isna().all(axis=None)


def test_complete_cases_are_trained_on_alone_and_the_rest_is_the_training_mean():
    features, people = cohort(signal=2.0)
    table = complete(features, people, [], masks=1, seed=5).set_index("arm")
    seed = int(np.random.default_rng(5).integers(2**31, size=1)[0])
    labels, names = people["diagnosis"].to_numpy(str), people["participant_id"].to_numpy(str)
    has = kept_scans(labels, names, seed)
    holes = np.hstack([np.where(has[m][:, None], features[m, "real"], np.nan) for m in Modality])
    every = Block(holes, labels, names)
    both = every.where(np.isfinite(holes).all(1))
    (expected,) = out_of_fold([both], [every], repeats=1, seed=seed)
    assert len(both.labels) == 24  # 8 of each class of 20
    assert table.loc["complete-cases", "accuracy"] == pytest.approx(expected.correct.mean())


def test_one_scan_averages_the_classifiers_of_the_scans_that_are_there():
    features, people = cohort(signal=2.0)
    table = complete(features, people, [], masks=1, seed=5).set_index("arm")
    seed = int(np.random.default_rng(5).integers(2**31, size=1)[0])
    labels, names = people["diagnosis"].to_numpy(str), people["participant_id"].to_numpy(str)
    has, votes = kept_scans(labels, names, seed), []
    for modality in Modality:
        block = Block(features[modality, "real"], labels, names)
        (said,) = out_of_fold([block.where(has[modality])], [block], repeats=1, seed=seed)
        votes.append(np.where(has[modality][:, None], said.probabilities, np.nan))
    guess = np.array(["NC", "MCI", "AD"])[np.argmax(np.nanmean(votes, axis=0), axis=1)]
    assert table.loc["one-scan", "accuracy"] == pytest.approx(np.mean(guess == labels))


def test_the_same_seed_gives_the_same_table():
    features, people = cohort(30, signal=1.0)
    first, again, other = (complete(features, people, ["oracle"], masks=1, seed=s) for s in (1, 1, 2))
    pd.testing.assert_frame_equal(first, again)
    assert not first.equals(other)


def test_the_verdict_says_what_the_interval_says():
    said = verdict(arms(*cohort(), ["oracle", "nothing"], masks=2))
    assert "by oracle is better than filling in the mean (" in said
    assert "by nothing is not shown to differ from filling in the mean (+0.0 points" in said
    row = Arm(
        arm="synthesised",
        method="pds",
        n=60,
        accuracy=Estimate(0.5, 0.4, 0.6),
        balanced_accuracy=Estimate(0.5, 0.4, 0.6),
        over_mean=Estimate(-0.05, -0.09, -0.01),
        over_mean_p_holm=0.02,
        over_complete_cases=Estimate(0.02, -0.031, 0.07),
        over_complete_cases_p_holm=0.6,
    )
    assert verdict([row]) == (
        "Filling in scans synthesised by pds is worse than filling in the mean (-5.0 points of balanced accuracy, "
        "95 % interval -9.0 to -1.0, corrected p 0.02); not shown to differ from leaving participants out of the "
        "training (+2.0 points of balanced accuracy, 95 % interval -3.1 to +7.0, corrected p 0.6)."
    )
    uncorrected = verdict([replace(row, over_mean_p_holm=0.08)])
    assert "not shown to differ from filling in the mean (-5.0 points" in uncorrected


def test_a_method_of_one_direction_is_refused():
    features, people = cohort(30)
    del features[Modality.DMRI, "oracle"]
    with pytest.raises(ValueError, match="'oracle' has no dmri scans"):
        complete(features, people, ["oracle"])
