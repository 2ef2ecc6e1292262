"""Diagnosis with real and synthesised scans (the paper's Tables V and IX), each scheme with its control."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isnan, nan
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from pdsynth.evidence.diagnosis.files import (
    PATTERN_LOSS,
    PERMUTED,
    POWER,
    SCHEME_SCORES,
    PairedScores,
    Power,
    SchemeScores,
)
from pdsynth.results.entries import recipe_of
from pdsynth.results.patterns import REAL, Patterns, diagnosed
from pdsynth.results.patterns import Values as Features
from pdsynth.statistics.classification import Block, Classifier, Predictions, classes_of, out_of_fold, scores
from pdsynth.statistics.inference import bca_interval, holm
from pdsynth.statistics.power import (
    discordant_share,
    mcnemar_exact,
    mcnemar_participants,
    mcnemar_power,
    wilson_interval,
)
from pdsynth.statistics.resampling import UNKNOWN, Estimate
from pdsynth.types import NA, Modality

SYNTHESISED = "synthesised"
WITH_AND_WITHOUT = ("pds-ne-pa", "pds-ne")  # Table IX: the noise estimator with the pattern loss, and without it
DIFFERENCES = (0.02, 0.04, 0.05, 0.10, 0.15, 0.20)  # in accuracy; 0.04 is that between 68 and 64 % in the paper
MIDDLE = 0.66  # mean accuracy of the two classifiers that are compared, as in the paper's Table V
REAL_FMRI, REAL_DMRI, REAL_BOTH = "real fMRI", "real dMRI", "real both"
COVARIATES, SITE, MAJORITY = "covariates only", "site only", "majority class"
PAPER_CASES = 53
F, D = Modality.FMRI, Modality.DMRI

Origins = Mapping[Modality, str]
Columns = tuple[tuple[Modality, str], ...]
Scored = TypeVar("Scored", bound=SchemeScores)


@dataclass(frozen=True)
class Scheme:
    """An experiment of classification: the scans to train and to test a classifier of the diagnosis on.

    name: such as "S1", or "real fMRI" for a control. train: one or more training sets, which are used together; each
    gives the origin ("real" or "synthesised") of the scans of each modality. test: origin by modality of the test
    scans. A modality that is absent is not used. paper: accuracy in the paper's Table V, 0 to 1; None if the paper does
    not give it. control: name of the experiment with real scans only, with whose accuracy this one is compared; None
    for a control itself.
    """

    name: str
    train: tuple[Origins, ...]
    test: Origins
    paper: float | None = None
    control: str | None = None


_BOTH = {F: REAL, D: REAL}
_NEITHER = {F: SYNTHESISED, D: SYNTHESISED}

CONTROLS = (
    Scheme(REAL_FMRI, ({F: REAL},), {F: REAL}),
    Scheme(REAL_DMRI, ({D: REAL},), {D: REAL}),
    Scheme(REAL_BOTH, (_BOTH,), _BOTH),
)
# If synthesised scans are tested, the control uses only their source scans, because a synthesised scan contains no
# information that its source lacks. If they are only trained on, the control is the same test after training on real
# scans.
SCHEMES = (
    Scheme("S1", ({F: SYNTHESISED},), {F: REAL}, 0.5660, REAL_FMRI),
    Scheme("S2", (_NEITHER,), _BOTH, None, REAL_BOTH),
    Scheme("S3", ({D: SYNTHESISED},), {D: REAL}, 0.5849, REAL_DMRI),
    Scheme("S4", ({F: REAL},), {F: SYNTHESISED}, 0.6415, REAL_DMRI),
    Scheme("S5", (_BOTH,), _NEITHER, 0.6792, REAL_BOTH),
    Scheme("S6", ({D: REAL},), {D: SYNTHESISED}, 0.6226, REAL_FMRI),
    Scheme("S7", (_BOTH, _NEITHER), _BOTH, 0.6602, REAL_BOTH),
    Scheme("S8", ({F: REAL, D: SYNTHESISED},), {F: REAL, D: SYNTHESISED}, None, REAL_FMRI),
    Scheme("S9", ({F: SYNTHESISED, D: REAL},), {F: SYNTHESISED, D: REAL}, None, REAL_DMRI),
)


def diagnose(
    features: Features,
    people: pd.DataFrame,
    methods: Sequence[str],
    seed: int = 0,
    classifier: Classifier = "elastic-net",
    repeats: int = 2,
    without: Mapping[str, str] | None = None,
) -> list[SchemeScores] | list[PairedScores]:
    """Accuracy of the diagnosis from real and synthesised scans: one row per method and scheme, and rows of controls.

    A scheme is a choice of the training and test scans of a classifier (see `Scheme`). features: region means (N, R) by
    modality and origin, "real" or a method's name; people: N rows with participant_id, site, diagnosis, age, sex,
    education. Rows without a diagnosis of NC, MCI or AD are left out. methods: those whose scans are used; their models
    must not have been trained on these participants. classifier: "elastic-net" or "linear-svm". repeats: repetitions of
    the cross-validation. seed: of the folds and of the intervals.

    Controls use real scans, or no scans (age, education, sex and site; site alone; the most frequent diagnosis), or
    real scans with permuted diagnoses; they have the method "" and nan instead of a comparison. Schemes for which a
    method has no scans are left out. The accuracy of a scheme minus that of its control has a BCa interval over
    participants; p is from the exact McNemar test, and p_holm is corrected over the schemes of a method. The fields
    data and svm_balanced_accuracy are left empty.

    without: by method, the name of another of `methods`, which was trained without one part, such as a loss; the rows
    are then `PairedScores`, which also have the gain over that method (nan if it is not among `methods`). Raises
    ValueError if real scans are missing, if a method has no scans, if there are fewer than two diagnoses, or if one has
    fewer participants than folds (5).
    """
    features, people = diagnosed(features, people, methods)
    schemes = [("", scheme) for scheme in CONTROLS]
    schemes += [(m, s) for m in methods for s in SCHEMES if _columns(s, m) <= set(features)]
    found = _tested(schemes, features, people, classifier, repeats, seed)
    found |= _controls(features, people, classifier, repeats, seed)
    found = {key: predictions.by_participant() for key, predictions in found.items()}
    rated = {(method, scheme.name): scheme for method, scheme in schemes}
    rows = [_row(key, rated.get(key), found, seed) for key in found]
    if without is None:
        return _with_holm([SchemeScores(**row) for row in rows], "p")
    gains = []
    for row, (method, scheme) in zip(rows, found, strict=True):
        other = found.get((without[method], scheme)) if method in without else None
        gain, p = _compared(found[method, scheme], other, seed)
        gains.append(PairedScores(**row, gain=gain, gain_p=p))
    return _with_holm(_with_holm(gains, "p"), "gain_p")


@dataclass(frozen=True)
class Diagnoses:
    """Results on the diagnosis: the rows of table5.tsv (schemes), table9.tsv (pattern_loss) and power.tsv (power).

    schemes: accuracies by choice of training and test scans. pattern_loss: the same for two recipes that differ only by
    one loss of the training; empty unless both recipes of the paper's Table IX were evaluated. power: statistical power
    of McNemar's test between any two classifiers on the same participants, such as a scheme and its control, and the
    participants needed; one row per difference in accuracy.
    """

    schemes: list[SchemeScores]
    pattern_loss: list[PairedScores]
    power: list[Power]

    def write(self, root: Path) -> None:
        """Write table5.tsv (the paper's Table V) and power.tsv (statistical power) into a results folder.

        table9.tsv (Table IX) is written only if it has rows.
        """
        SCHEME_SCORES.write(root, self.schemes)
        if self.pattern_loss:
            PATTERN_LOSS.write(root, self.pattern_loss)
        POWER.write(root, self.power)


def diagnoses(patterns: Patterns, methods: Sequence[str], simulated: bool, seed: int = 0) -> Diagnoses:
    """The paper's Tables V and IX (diagnosis from real and synthesised scans), and the statistical power.

    patterns: region means, real and synthesised, one row per participant; methods: names of the methods whose scans
    Table V uses. Table IX uses the scans of its two recipes, pds-ne-pa and pds-ne, and is empty unless `patterns` holds
    both. The power is that with the participants of Table V. Classifiers are an elastic net and, for comparison, a
    linear SVM. simulated: whether the rows are marked as SIMULATED. seed: of all random numbers. Raises ValueError if
    real scans are missing, if a method has no scans, if there are fewer than two diagnoses, or if one has fewer
    participants than folds (5).
    """

    def table(names: Sequence[str], without: Mapping[str, str] | None = None) -> list[Any]:
        rows = diagnose(patterns.values, patterns.people, names, seed, without=without)
        svm = diagnose(patterns.values, patterns.people, names, seed, "linear-svm", repeats=1)
        return [
            replace(row, data="SIMULATED" if simulated else "real", svm_balanced_accuracy=other.balanced_accuracy)
            for row, other in zip(rows, svm, strict=True)
        ]

    schemes = table(methods)
    of_recipe = {recipe_of(name)[0]: name for name in patterns.methods}  # the name of a small size is "recipe:small"
    pair = [of_recipe[name] for name in WITH_AND_WITHOUT if name in of_recipe]
    pattern_loss = table(pair, dict([pair])) if len(pair) == len(WITH_AND_WITHOUT) else []
    return Diagnoses(schemes, pattern_loss, power_of(schemes[0].n))


def power_of(n: int) -> list[Power]:
    """Power of McNemar's test between two classifiers on the same n participants, one row per difference in accuracy.

    The differences are 2, 4, 5, 10, 15 and 20 points of accuracy. One accuracy is half of the difference above 66 %,
    the other half of it below. A row also has the number of participants needed for a power of 80 %.
    """
    rows = []
    for difference in DIFFERENCES:
        p_a, p_b = MIDDLE - difference / 2, MIDDLE + difference / 2
        shares = (discordant_share(p_a, p_b), discordant_share(p_a, p_b, shared=0.5))
        needed = [mcnemar_participants(p_a, p_b, share) for share in shares]
        power = [mcnemar_power(n, p_a, p_b, share) for share in shares]
        rows.append(Power(difference, *needed, *power))
    return rows


def block_of(columns: Columns, features: Features, people: pd.DataFrame) -> Block:
    """Data for a classifier: region means of several modalities and origins side by side, with the diagnoses as labels.

    columns: (modality, origin) of each part, in the order of the result; the origin is "real" or a method's name.
    features: region means (N, R) by modality and origin. people: N rows with diagnosis and participant_id. The values
    of the result are (N, R * parts). Raises KeyError if `features` lacks a part.
    """
    labels, participants = (people[name].to_numpy(str) for name in ("diagnosis", "participant_id"))
    return Block(np.hstack([features[column] for column in columns]), labels, participants)


def _resolved(origins: Origins, method: str) -> Columns:
    """(modality, origin) of the scans, where the origin "synthesised" becomes the name of the method."""
    return tuple(
        (modality, REAL if origins[modality] == REAL else method) for modality in Modality if modality in origins
    )


def _columns(scheme: Scheme, method: str) -> set[tuple[Modality, str]]:
    """(modality, origin) of all scans that a scheme trains or tests on."""
    return {column for origins in (*scheme.train, scheme.test) for column in _resolved(origins, method)}


def _tested(
    schemes: list[tuple[str, Scheme]],
    features: Features,
    people: pd.DataFrame,
    classifier: Classifier,
    repeats: int,
    seed: int,
) -> dict[tuple[str, str], Predictions]:
    """Predictions by method and scheme. Schemes with the same training scans share the fitted classifiers."""
    trained: dict[tuple[Columns, ...], dict[tuple[str, str], Columns]] = {}
    for method, scheme in schemes:
        train = tuple(_resolved(origins, method) for origins in scheme.train)
        trained.setdefault(train, {})[method, scheme.name] = _resolved(scheme.test, method)
    found: dict[tuple[str, str], Predictions] = {}
    for train, tests in trained.items():
        blocks, views = ([block_of(c, features, people) for c in side] for side in (train, tests.values()))
        predictions = out_of_fold(blocks, views, classifier, repeats=repeats, seed=seed)
        found |= dict(zip(tests, predictions, strict=True))
    return {(method, scheme.name): found[method, scheme.name] for method, scheme in schemes}


def _controls(
    features: Features, people: pd.DataFrame, classifier: Classifier, repeats: int, seed: int
) -> dict[tuple[str, str], Predictions]:
    """Predictions of the controls without scans (covariates, site, majority class) and with permuted labels."""
    real = block_of(((F, REAL), (D, REAL)), features, people)
    blocks = {
        COVARIATES: replace(real, values=covariates(people)),
        SITE: replace(real, values=covariates(people)[["site"]]),
        PERMUTED: replace(real, labels=permuted_labels(real.labels, real.participants, seed)),
    }
    found = {
        ("", name): out_of_fold([block], [block], classifier, repeats=repeats, seed=seed)[0]
        for name, block in blocks.items()
    }
    return found | {("", MAJORITY): majority(real)}


def covariates(people: pd.DataFrame) -> pd.DataFrame:
    """A table for a classifier that sees no scan: age and education as numbers, sex and site as words.

    people: one row per participant. A missing number is NaN, a missing word "n/a"; so is each cell of a column that
    `people` lacks.
    """
    table = people.reindex(columns=["age", "education", "sex", "site"])
    numbers = table[["age", "education"]].apply(pd.to_numeric, errors="coerce").astype(float)
    return numbers.join(table[["sex", "site"]].astype(object).fillna(NA).astype(str))


def permuted_labels(labels: np.ndarray, participants: np.ndarray, seed: int = 0) -> np.ndarray:
    """The diagnoses (N,) after a random exchange between participants, for a control that shows the accuracy by chance.

    labels (N,): diagnosis of each row; participants (N,): participant of each row. The diagnosis of a participant is
    the label of the first row; all rows of a participant get the same new label.

    >>> sorted(permuted_labels(np.array(["NC", "AD", "AD"]), np.array(["a", "b", "c"])).tolist())
    ['AD', 'AD', 'NC']
    """
    _, first, person = np.unique(participants, return_index=True, return_inverse=True)
    return np.random.default_rng(seed).permutation(labels[first])[person]


def majority(block: Block) -> Predictions:
    """Predictions of a control without data: every row gets the shares of the diagnoses among all rows of the block.

    The most frequent diagnosis is thus predicted for everyone. The values of the block are not used. Shares of the
    training folds would be biased, because a class that is frequent in the test fold is rarer in them.
    """
    classes = classes_of(block.labels)
    shares = np.mean(block.labels[:, None] == np.asarray(classes), axis=0)
    return Predictions(classes, block.labels, block.participants, np.tile(shares, (len(block.labels), 1)))


def _row(
    key: tuple[str, str], scheme: Scheme | None, found: Mapping[tuple[str, str], Predictions], seed: int
) -> dict[str, Any]:
    """The fields of `SchemeScores` of one method and scheme."""
    method, name = key
    paper = scheme.paper if scheme else None
    control = scheme.control if scheme else None
    difference, p = _compared(found[key], None if control is None else found["", control], seed)
    return {
        "method": method,
        "scheme": name,
        **scores(found[key], seed),
        "paper": UNKNOWN
        if paper is None
        else Estimate(paper, *wilson_interval(round(paper * PAPER_CASES), PAPER_CASES)),
        "against": control or "",
        "difference": difference,
        "p": p,
    }


def _compared(own: Predictions, other: Predictions | None, seed: int) -> tuple[Estimate, float]:
    """Accuracy of `own` minus that of `other` with its interval, and p of the exact McNemar test.

    Both are nan if `other` is None.
    """
    if other is None:
        return UNKNOWN, nan
    difference = own.correct.astype(float) - other.correct
    interval = bca_interval(difference, seed=seed)
    return Estimate(float(difference.mean()), *interval), mcnemar_exact(own.correct, other.correct)


def _with_holm(rows: Sequence[Scored], p: str) -> list[Scored]:
    """The rows with Holm-corrected p values: those of the field with the name `p`, in the field "{p}_holm".

    Each method is a family, so other methods do not change its p values.
    """
    corrected = list(rows)
    for method in dict.fromkeys(row.method for row in rows):
        family = [i for i, row in enumerate(rows) if row.method == method and not isnan(getattr(row, p))]
        adjusted = holm([getattr(rows[i], p) for i in family])
        for i, value in zip(family, adjusted, strict=True):
            corrected[i] = replace(rows[i], **{f"{p}_holm": float(value)})  # type: ignore[arg-type]
    return corrected
