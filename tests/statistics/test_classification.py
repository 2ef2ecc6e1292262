"""The protocol of diagnosis: nothing leaks between folds, and metrics are scikit-learn's own."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pdsynth.statistics import classification
from pdsynth.statistics.classification import (
    ELASTIC_NET_C,
    Block,
    Predictions,
    balanced_interval,
    balanced_mean,
    fit_predict,
    out_of_fold,
    scores,
)

THREE = ("NC", "MCI", "AD")


def cohort(n=45, regions=6, signal=3.0, seed=0, classes=THREE):
    """Participants of equally frequent classes, the first regions of whom carry the class."""
    generator = np.random.default_rng(seed)
    labels = np.resize(np.array(classes), n)
    values = generator.normal(0, 1, (n, regions))
    values[:, : len(classes)] += signal * (labels[:, None] == np.array(classes))
    return Block(values, labels, np.array([f"sub-{i:03d}" for i in range(n)]))


def guesses(n=80, classes=THREE, seed=0):
    generator = np.random.default_rng(seed)
    labels = generator.choice(classes, n, p=np.arange(1, len(classes) + 1) / np.arange(1, len(classes) + 1).sum())
    people = np.array([f"sub-{i:03d}" for i in range(n)])
    return Predictions(classes, labels, people, generator.dirichlet(np.ones(len(classes)), n))


@pytest.mark.parametrize("classes", [THREE, ("NC", "AD")])
def test_metrics_are_those_of_scikit_learn(classes):
    made = guesses(classes=classes)
    found, labels, predicted = scores(made), made.labels, made.predicted
    assert found["n"] == 80
    assert found["accuracy"].value == pytest.approx(metrics.accuracy_score(labels, predicted))
    assert found["balanced_accuracy"].value == pytest.approx(metrics.balanced_accuracy_score(labels, predicted))
    assert found["balanced_accuracy"].value == pytest.approx(balanced_mean(made.correct, labels))
    for name in ("f1", "recall", "precision"):
        assert found[name] == pytest.approx(getattr(metrics, f"{name}_score")(labels, predicted, average="macro"))
    order = np.argsort(classes)  # scikit-learn wants the names sorted
    ordered, names = made.probabilities[:, order], np.array(classes)[order]
    auc = {
        2: lambda: metrics.roc_auc_score(labels == names[1], ordered[:, 1]),
        3: lambda: metrics.roc_auc_score(labels, ordered, multi_class="ovr", average="macro", labels=names),
    }
    assert found["auc"] == pytest.approx(auc[len(classes)]())
    brier = metrics.brier_score_loss(labels, ordered, labels=names, scale_by_half=False) if len(classes) == 3 else (
        2 * metrics.brier_score_loss(labels == names[1], ordered[:, 1])
    )  # fmt: skip
    assert found["brier"] == pytest.approx(brier)
    table = pd.DataFrame(json.loads(found["confusion"])).T  # real in rows, predicted in columns
    assert list(table.index) == list(table.columns) == list(classes)
    assert np.array_equal(table.to_numpy(), metrics.confusion_matrix(labels, predicted, labels=classes))
    assert found["accuracy"].low < found["accuracy"].value < found["accuracy"].high


def test_sessions_of_a_participant_count_once():
    once = guesses(30)
    noise = np.random.default_rng(1).normal(0, 0.01, once.probabilities.shape)
    twice = Predictions(
        once.classes,
        np.tile(once.labels, 2),
        np.tile(once.participants, 2),
        np.concatenate([once.probabilities + noise, once.probabilities - noise]),
    )
    assert scores(twice) == pytest.approx(scores(once))
    converted = Predictions(
        ("NC", "MCI"), np.array(["NC", "MCI"]), np.array(["a", "a"]), np.array([[0.9, 0.1], [0.2, 0.8]])
    )
    assert converted.by_participant().correct.tolist() == [True, True]


def test_the_balanced_interval_has_the_width_of_its_closed_form_and_draws_participants_whole():
    generator = np.random.default_rng(0)
    labels = np.repeat(["AD", "NC"], [60, 300])
    values = generator.normal(0, 1, 360) + 2 * (labels == "AD")
    people = np.arange(360).astype(str)
    low, high = balanced_interval(values, labels, people)
    se = np.sqrt(sum(values[labels == name].var() / np.sum(labels == name) for name in ("AD", "NC"))) / 2
    centre = balanced_mean(values, labels)
    assert (low, high) == pytest.approx((centre - 1.96 * se, centre + 1.96 * se), abs=0.1 * se)
    repeated = [np.concatenate([part, part]) for part in (values, labels, people)]
    assert balanced_interval(*repeated) == pytest.approx((low, high))
    assert balanced_interval(np.ones(360), labels, people) == (1, 1)


def test_strong_signal_is_found_and_shuffled_labels_bring_chance():
    block = cohort(90)
    found = scores(out_of_fold([block], [block], repeats=1)[0])
    assert found["balanced_accuracy"].value > 0.9 and found["auc"] > 0.97
    labels = np.random.default_rng(0).permutation(block.labels)
    blind = Block(block.values, labels, block.participants)
    chance = scores(out_of_fold([blind], [blind], repeats=1)[0])
    assert chance["balanced_accuracy"].low < 1 / 3 < chance["balanced_accuracy"].high
    assert chance["balanced_accuracy"].high < 0.55


def test_participants_with_several_sessions_do_not_recognise_themselves():
    generator = np.random.default_rng(0)
    person = np.repeat(np.arange(50), 3)
    names = np.array([f"sub-{p:02d}" for p in person])
    honest = []
    for _ in range(4):
        values = generator.normal(0, 1, (50, 60))[person] + generator.normal(0, 0.01, (150, 60))
        labels = np.resize(np.array(["NC", "AD"]), 50)[generator.permutation(50)][person]
        block, naive = Block(values, labels, names), Block(values, labels, np.arange(150).astype(str))
        honest.append(scores(out_of_fold([block], [block], "linear-svm", repeats=1)[0])["balanced_accuracy"].value)
    leaked = scores(out_of_fold([naive], [naive], "linear-svm", repeats=1)[0])["balanced_accuracy"].value
    assert leaked > 0.9  # what folds over sessions would report
    assert np.mean(honest) == pytest.approx(0.5, abs=0.12)


def test_a_participant_on_both_sides_is_refused():
    block = cohort()
    with pytest.raises(ValueError, match="'sub-004' is in training and test"):
        fit_predict([block.where(np.arange(45) > 3)], [block.where(np.arange(45) < 5)], THREE)


def test_training_blocks_never_hold_those_who_are_tested(monkeypatch):
    block, seen = cohort(30), []

    def spy(train, tests, classes, classifier, seed):
        seen.append((set().union(*(b.participants for b in train)), set(tests[0].participants)))
        assert all(np.array_equal(t.participants, tests[0].participants) for t in tests)
        return [np.full((len(t.labels), 3), 1 / 3) for t in tests]

    monkeypatch.setattr(classification, "fit_predict", spy)
    doubled = Block(block.values + 1, block.labels, block.participants)
    out_of_fold([block, doubled], [block, doubled], repeats=2)
    everyone = set(block.participants)
    assert len(seen) == 10
    assert all(not train & test and train | test == everyone for train, test in seen)
    assert all(set().union(*(test for _, test in seen[i : i + 5])) == everyone for i in (0, 5))
    assert {frozenset(test) for _, test in seen[:5]} != {frozenset(test) for _, test in seen[5:]}


def test_another_participants_test_scan_changes_nothing():
    block = cohort(30)
    shifted = block.values.copy()
    shifted[7] += 1e6
    plain, moved = out_of_fold([block], [block, Block(shifted, block.labels, block.participants)], repeats=1)
    others = np.arange(30) != 7
    assert np.array_equal(plain.probabilities[others], moved.probabilities[others])
    assert not np.allclose(plain.probabilities[7], moved.probabilities[7])


def test_a_classifier_is_scaled_and_filled_by_training_rows_alone():
    block, new = cohort(45, signal=1.0), cohort(12, signal=1.0, seed=1)
    values = block.values * 7 + 100
    values[0, 0] = np.nan
    mean, test = np.nanmean(values, axis=0), new.values * 7 + 100
    test[3, 2] = np.nan
    train = Block(values, block.labels, block.participants)
    (found,) = fit_predict([train], [Block(test, new.labels, np.char.add("new-", new.participants))], THREE)
    filled = [np.where(np.isnan(v), mean, v) for v in (values, test)]
    scaled = [(v - mean) / filled[0].std(0) for v in filled]
    codes = np.array([THREE.index(label) for label in block.labels])
    references = [
        LogisticRegression(C=c, l1_ratio=0.5, solver="saga", tol=1e-8, max_iter=50_000).fit(scaled[0], codes)
        for c in ELASTIC_NET_C
    ]
    distances = [np.abs(found - model.predict_proba(scaled[1])).max() for model in references]
    assert min(distances) < 0.02 and sorted(distances)[1] > 0.05


def test_the_penalty_is_chosen_for_balanced_accuracy_in_inner_folds_by_participant():
    once = cohort(30, regions=20, signal=0.8, seed=4)
    generator = np.random.default_rng(0)
    values = np.repeat(once.values, 2, axis=0) + generator.normal(0, 0.3, (60, 20))
    train = Block(values, np.repeat(once.labels, 2), np.repeat(once.participants, 2))
    codes = np.array([THREE.index(label) for label in train.labels])
    models = [
        make_pipeline(StandardScaler(), LogisticRegression(C=c, l1_ratio=0.5, solver="saga", tol=1e-6, max_iter=20_000))
        for c in ELASTIC_NET_C
    ]
    folds = list(StratifiedGroupKFold(3, shuffle=True, random_state=5).split(values, codes, train.participants))
    score = metrics.balanced_accuracy_score
    reached = [
        np.mean([score(codes[b], m.fit(values[a], codes[a]).predict(values[b])) for a, b in folds]) for m in models
    ]
    new = cohort(9, regions=20, seed=1)
    test = Block(new.values, new.labels, np.char.add("new-", new.participants))
    (found,) = fit_predict([train], [test], THREE, seed=5)
    wanted = [m.fit(values, codes).predict_proba(new.values) for m in models]
    distances = [np.abs(found - w).max() for w in wanted]
    assert len(set(reached)) == 3
    assert np.argmin(distances) == np.argmax(reached) and min(distances) < 0.02


def test_folds_and_fits_follow_the_seed():
    block = cohort(30, signal=0.5)
    first, again, other = (out_of_fold([block], [block], repeats=1, seed=s)[0].probabilities for s in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.allclose(first, other)
    assert first.sum(1) == pytest.approx(np.ones(30))


@pytest.mark.parametrize("classes", [THREE, ("NC", "AD")])
def test_the_support_vector_machine_finds_the_signal_too(classes):
    block = cohort(40, classes=classes)
    (made,) = out_of_fold([block], [block], "linear-svm", repeats=1)
    assert made.probabilities.sum(1) == pytest.approx(np.ones(40))
    assert scores(made)["balanced_accuracy"].value > 0.85 and scores(made)["auc"] > 0.93


def test_a_table_of_covariates_is_encoded_in_the_fold():
    block = cohort(30, classes=("NC", "AD"))
    generator = np.random.default_rng(0)
    sites = np.where(block.labels == "AD", "a", "b").astype(object)
    sites[11] = "seen only here"
    table = pd.DataFrame({"site": sites, "age": generator.normal(70, 8, 30), "education": np.nan})
    table.loc[3, "age"] = np.nan
    told = Block(table, block.labels, block.participants)
    (made,) = out_of_fold([told], [told], repeats=1)
    assert np.delete(made.correct, 11).all()


def test_too_few_of_a_class_are_named():
    block = cohort(45)
    few = block.where((block.labels != "AD") | (np.arange(45) < 9))
    with pytest.raises(ValueError, match="AD has 3 participant"):
        out_of_fold([few], [few])
    one = block.where(block.labels == "MCI")
    with pytest.raises(ValueError, match="diagnoses are MCI"):
        out_of_fold([one], [one])
    without = block.where(block.labels != "AD")
    with pytest.raises(ValueError, match="AD has 0 participants to train on"):
        out_of_fold([without], [block])
    for train in ([block], [without, block]):
        with pytest.raises(ValueError, match=r"'AD' is a diagnosis of training rows, but not one of .* NC, MCI;"):
            out_of_fold(train, [without])
    with pytest.raises(ValueError, match="'Control' is not a diagnosis"):
        out_of_fold([block], [Block(block.values, np.array(["Control"] * 45), block.participants)])
    with pytest.raises(ValueError, match="different rows"):
        out_of_fold([block], [block, few])
    with pytest.raises(ValueError, match="no classifier 'forest'"):
        out_of_fold([block], [block], "forest")


def test_one_participant_of_a_class_is_trained_on_without_choosing_a_penalty():
    block, new = cohort(30, signal=1.0), cohort(9, signal=1.0, seed=1)
    train = block.where((block.labels != "AD") | (np.arange(30) == 2))
    (found,) = fit_predict([train], [Block(new.values, new.labels, np.char.add("new-", new.participants))], THREE)
    scaled = [(v - train.values.mean(0)) / train.values.std(0) for v in (train.values, new.values)]
    codes = np.array([THREE.index(label) for label in train.labels])
    model = LogisticRegression(C=ELASTIC_NET_C[1], l1_ratio=0.5, solver="saga", tol=1e-8, max_iter=50_000)
    assert found == pytest.approx(model.fit(scaled[0], codes).predict_proba(scaled[1]), abs=0.02)
