"""Classification of scans by diagnosis in nested cross-validation; folds are formed by participant.

Every fitting step (imputation, scaling, encoding, choice of the penalty) uses the training folds only.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy.special import softmax
from sklearn.base import BaseEstimator
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import (
    balanced_accuracy_score,
    confusion_matrix,
    precision_recall_fscore_support,
    roc_auc_score,
)
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import LinearSVC

from pdsynth.statistics.power import wilson_interval
from pdsynth.statistics.resampling import Estimate, bootstrap_weights, ratio
from pdsynth.types import Diagnosis

Classifier = Literal["elastic-net", "linear-svm"]
# Strongest penalty first, because the first value of the grid is chosen if inner folds give equal scores.
ELASTIC_NET_C = (0.05, 0.2, 1.0)
LINEAR_SVM_C = (1e-3, 1e-2, 1e-1)
INNER_FOLDS = 3


@dataclass(frozen=True, eq=False)
class Block:
    """Features and diagnoses of N scans (or sessions), for training or testing a classifier.

    values (N, F): F features as an array or as a table. In columns of numbers, NaN is a missing value: a classifier
    replaces it by the mean of the training rows, and scales the column. Columns of text are one-hot encoded. labels
    (N,): diagnosis of each row; participants (N,): its participant.
    """

    values: np.ndarray | pd.DataFrame
    labels: np.ndarray
    participants: np.ndarray

    def where(self, keep: np.ndarray) -> Block:
        """The rows for which keep (N,) bool is true."""
        return Block(self.values[keep], self.labels[keep], self.participants[keep])


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predicted probabilities of the diagnoses of N scans, by classifiers that were not trained on their participants.

    classes: the K diagnoses. labels (N,): the real diagnoses; participants (N,): the participant of each scan.
    probabilities (N, K): columns in the order of classes; each row sums to 1.
    """

    classes: tuple[str, ...]
    labels: np.ndarray
    participants: np.ndarray
    probabilities: np.ndarray

    @property
    def predicted(self) -> np.ndarray:
        """The most probable diagnosis of each row, (N,) text."""
        return np.asarray(self.classes)[np.argmax(self.probabilities, axis=1)]

    @property
    def correct(self) -> np.ndarray:
        """Whether the most probable diagnosis of each row is the real one, (N,) bool."""
        return self.predicted == self.labels

    def by_participant(self) -> Predictions:
        """One row per participant and diagnosis: probabilities averaged over the sessions with this diagnosis.

        A participant whose diagnosis changes between sessions has several rows. Rows are in the order of first
        occurrence.
        """
        table = pd.DataFrame(self.probabilities).groupby([self.participants, self.labels], sort=False).mean()
        people, labels = (table.index.get_level_values(level).to_numpy(str) for level in (0, 1))
        return Predictions(self.classes, labels, people, table.to_numpy())


def classes_of(labels: np.ndarray) -> tuple[str, ...]:
    """The diagnoses that occur in labels, in the order NC, MCI, AD.

    Raises ValueError for other labels or fewer than two diagnoses.

    >>> classes_of(np.array(["AD", "NC", "AD"]))
    ('NC', 'AD')
    """
    present = set(labels.tolist())
    classes = tuple(d.value for d in Diagnosis if d in present)
    if unknown := sorted(map(str, present - set(classes))):
        raise ValueError(f"{unknown[0]!r} is not a diagnosis; leave out participants that are not NC, MCI or AD.")
    if len(classes) < 2:
        raise ValueError(f"diagnoses are {' '.join(classes) or 'none'}; a classifier needs two, so add another.")
    return classes


def out_of_fold(
    train: Sequence[Block],
    tests: Sequence[Block],
    classifier: Classifier = "elastic-net",
    folds: int = 5,
    repeats: int = 2,
    seed: int = 0,
) -> list[Predictions]:
    """Predictions for each test block, by classifiers that were not trained on the predicted participants.

    They are made by a nested, repeated cross-validation whose folds are balanced by diagnosis and keep all rows of a
    participant together (StratifiedGroupKFold). All train blocks together, without the participants of the test fold,
    are the training data; they may have no other diagnoses than the test blocks. The test blocks are different data for
    the same rows (such as real and synthesised scans), so that each classifier is fitted only once. classifier:
    "elastic-net" or "linear-svm". folds: number of test folds. repeats: repetitions with other folds, over which
    probabilities are averaged. The folds depend only on labels, participants and seed. Raises ValueError if a class has
    fewer participants than folds, if a class has no training participants in a fold, if a training block has a
    diagnosis that the test blocks lack, or if the test blocks have different rows.
    """
    first = tests[0]
    for test in tests[1:]:
        if not np.array_equal(test.participants, first.participants) or not np.array_equal(test.labels, first.labels):
            raise ValueError("the test blocks have different rows; test them in separate calls.")
    classes = classes_of(first.labels)
    for name, count in _participants(first, classes).items():
        if count < folds:
            few = f"{name} has {count} participant(s), fewer than the {folds} folds of the cross-validation"
            raise ValueError(f"{few}; add participants, or leave {name} out.")
    total = [np.zeros((len(first.labels), len(classes))) for _ in tests]
    for state in np.random.default_rng(seed).integers(2**31, size=repeats).tolist():
        outer = StratifiedGroupKFold(folds, shuffle=True, random_state=state)
        for _, held in outer.split(first.labels, first.labels, first.participants):
            tested = np.isin(np.arange(len(first.labels)), held)
            people = first.participants[held]
            others = [block.where(~np.isin(block.participants, people)) for block in train]
            predictions = fit_predict(others, [test.where(tested) for test in tests], classes, classifier, state)
            for probabilities, found in zip(total, predictions, strict=True):
                probabilities[tested] += found / repeats
    return [Predictions(classes, first.labels, first.participants, probabilities) for probabilities in total]


def fit_predict(
    train: Sequence[Block],
    tests: Sequence[Block],
    classes: tuple[str, ...],
    classifier: Classifier = "elastic-net",
    seed: int = 0,
) -> list[np.ndarray]:
    """Fit one classifier to all train blocks; returns its probabilities (N, K) of the classes for each test block.

    classes: the K diagnoses, in the order of the columns of the result. classifier: "elastic-net" or "linear-svm". The
    strength of the penalty is that of three with the best balanced accuracy in three inner folds of the training
    participants (two folds if a class has two participants); if a class has one participant, the middle strength is
    used. A linear SVM has margins and no probabilities: their softmax is returned. Raises ValueError if a participant
    is in both training and test, if a class has no training participants, or if a training row has a diagnosis that is
    not among the classes.
    """
    block = _joined(train)
    for test in tests:
        if shared := set(block.participants.tolist()) & set(test.participants.tolist()):
            raise ValueError(f"participant {min(shared)!r} is in training and test; keep each on one side.")
    if unknown := sorted(set(map(str, block.labels.tolist())) - set(classes)):
        problem = f"{unknown[0]!r} is a diagnosis of training rows, but not one of the tested {', '.join(classes)}"
        raise ValueError(f"{problem}; leave these rows out.")
    counts = _participants(block, classes)
    for name, count in counts.items():
        if count == 0:
            raise ValueError(f"{name} has 0 participants to train on in a fold; add some or leave it out.")
    pipeline, grid = _pipeline(block.values, classifier, seed)
    splits = min(INNER_FOLDS, *counts.values())
    model: BaseEstimator = pipeline
    if splits > 1:
        inner = StratifiedGroupKFold(splits, shuffle=True, random_state=seed)
        model = GridSearchCV(pipeline, grid, scoring="balanced_accuracy", cv=inner, error_score="raise")
        model.fit(block.values, _codes(block.labels, classes), groups=block.participants)
    else:  # one participant cannot be in two inner folds: use the middle of the grid
        model.fit(block.values, _codes(block.labels, classes))
    return [_probabilities(model, test.values) for test in tests]


def scores(predictions: Predictions, seed: int = 0) -> dict[str, Any]:
    """Measures of the accuracy of predicted diagnoses, by name, over participants.

    Probabilities are first averaged over the sessions of a participant with the same diagnosis, so that a participant
    whose diagnosis changes counts once per diagnosis. Keys: n (number of participants, counted in this way); accuracy
    with its Wilson 95 % interval; balanced_accuracy, the mean recall of the diagnoses that occur, with a bootstrap 95 %
    interval over participants; f1, recall, precision (averages over all classes, in which a class that does not occur
    counts as 0); auc (average over classes, one versus rest; nan if a class does not occur); brier (mean squared
    distance of the probabilities from the truth, 0 to 2); confusion (JSON text: counts of predicted classes by real
    class).
    """
    people = predictions.by_participant()
    labels, predicted, classes = people.labels, people.predicted, people.classes
    right, n = int(people.correct.sum()), len(labels)
    balanced = balanced_interval(people.correct, labels, people.participants, seed)
    precision, recall, f1, _ = precision_recall_fscore_support(
        labels, predicted, labels=classes, average="macro", zero_division=0
    )
    truth = labels[:, None] == np.asarray(classes)
    table = confusion_matrix(labels, predicted, labels=classes)
    return {
        "n": n,
        "accuracy": Estimate(right / n, *wilson_interval(right, n)),
        "balanced_accuracy": Estimate(float(balanced_accuracy_score(labels, predicted)), *balanced),
        "f1": float(f1),
        "recall": float(recall),
        "precision": float(precision),
        "auc": float(roc_auc_score(truth, people.probabilities, average="macro")),
        "brier": float(np.mean(np.sum((people.probabilities - truth) ** 2, axis=1))),
        "confusion": json.dumps(
            {real: dict(zip(classes, row, strict=True)) for real, row in zip(classes, table.tolist(), strict=True)}
        ),
    }


def balanced_mean(values: np.ndarray, labels: np.ndarray) -> float:
    """Mean over classes of the mean within each class; for correct predictions, the balanced accuracy.

    values (N,): one number per row; labels (N,): its class.

    >>> balanced_mean(np.array([1, 1, 1, 0]), np.array(["NC", "NC", "NC", "AD"]))
    0.5
    """
    return float(np.mean([np.mean(values[labels == name]) for name in np.unique(labels)]))


def balanced_interval(
    values: np.ndarray, labels: np.ndarray, participants: np.ndarray, seed: int = 0
) -> tuple[float, float]:
    """95 % interval (low, high) of the mean over classes of the mean of `values` in each class (see `balanced_mean`).

    values, labels, participants (N,): value, class and participant of each row. Percentile bootstrap over participants,
    who are resampled within the class of their first row; all rows of a participant are drawn together. A class of one
    participant is the same in all resamples.
    """
    _, first, person = np.unique(participants, return_index=True, return_inverse=True)
    weights = bootstrap_weights(labels[first], seed)[1:, person]
    classes = [labels == name for name in np.unique(labels)]
    means = [ratio(weights[:, rows] @ np.asarray(values, float)[rows], weights[:, rows].sum(1)) for rows in classes]
    low, high = np.nanquantile(np.mean(means, axis=0), [0.025, 0.975])
    return float(low), float(high)


def _joined(blocks: Sequence[Block]) -> Block:
    values = [block.values for block in blocks]
    labels, people = (np.concatenate([getattr(b, name) for b in blocks]) for name in ("labels", "participants"))
    frames = [v for v in values if isinstance(v, pd.DataFrame)]
    return Block(pd.concat(frames) if frames else np.concatenate(values), labels, people)


def _participants(block: Block, classes: tuple[str, ...]) -> dict[str, int]:
    """Number of participants of the block in each class, by the name of the class."""
    return {name: len(set(block.participants[block.labels == name].tolist())) for name in classes}


def _codes(labels: np.ndarray, classes: tuple[str, ...]) -> np.ndarray:
    return np.array([classes.index(label) for label in labels.tolist()])


def _pipeline(
    values: np.ndarray | pd.DataFrame, classifier: Classifier, seed: int
) -> tuple[Pipeline, dict[str, tuple[float, ...]]]:
    """Encoder, scaler and classifier as one pipeline that is fitted inside a fold, and the grid of its penalty."""
    numbers = make_pipeline(SimpleImputer(keep_empty_features=True), StandardScaler())
    encoder: BaseEstimator = numbers
    if isinstance(values, pd.DataFrame):
        words = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
        encoder = make_column_transformer(
            (numbers, make_column_selector(dtype_include="number")),
            (words, make_column_selector(dtype_exclude="number")),
        )
    if classifier == "elastic-net":
        grid, middle = ELASTIC_NET_C, ELASTIC_NET_C[1]
        # With tol=1e-3, probabilities differ by at most 0.04 from those with 1e-7 (48 x 400 correlated features, every
        # penalty), and the fit takes a third of the time of 1e-4.
        model = LogisticRegression(
            C=middle, l1_ratio=0.5, solver="saga", tol=1e-3, max_iter=5000, random_state=seed % 2**31
        )
    elif classifier == "linear-svm":
        grid, middle = LINEAR_SVM_C, LINEAR_SVM_C[1]
        model = LinearSVC(C=middle, random_state=seed % 2**31)
    else:
        raise ValueError(f"there is no classifier {classifier!r}; choose elastic-net or linear-svm.")
    return Pipeline([("encode", encoder), ("classify", model)]), {"classify__C": grid}


def _probabilities(model: BaseEstimator, values: np.ndarray | pd.DataFrame) -> np.ndarray:
    """Class probabilities (N, K). For a support vector machine: softmax of its margins, which is not calibrated."""
    if hasattr(model, "predict_proba"):
        return model.predict_proba(values)
    margins = model.decision_function(values)
    return softmax(np.column_stack([-margins, margins]) / 2 if margins.ndim == 1 else margins, axis=1)
