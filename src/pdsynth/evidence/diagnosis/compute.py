"""Diagnosis with real and synthesised scans (the paper's Tables V and IX), every scheme beside its control."""

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
WITH_AND_WITHOUT = ("pds-ne-pa", "pds-ne")  # Table IX: the noise estimator with the pattern loss, and without
DIFFERENCES = (0.02, 0.04, 0.05, 0.10, 0.15, 0.20)  # of accuracy; .04 lies between the paper's 68 and 64 %
MIDDLE = 0.66  # accuracy about which the differences lie, as in the paper's Table V
REAL_FMRI, REAL_DMRI, REAL_BOTH = "real fMRI", "real dMRI", "real both"
COVARIATES, SITE, MAJORITY = "covariates only", "site only", "majority class"
PAPER_CASES = 53
F, D = Modality.FMRI, Modality.DMRI

Origins = Mapping[Modality, str]
Columns = tuple[tuple[Modality, str], ...]
Scored = TypeVar("Scored", bound=SchemeScores)


@dataclass(frozen=True)
class Scheme:
    """What a classifier is trained on and tested on.

    train: blocks used together; train and test: "real" or "synthesised" by modality, one left out being absent. paper:
    the accuracy in the paper's Table V, 0 to 1, where it can be told. control: the scheme whose accuracy it must beat
    or keep.
    """

    name: str
    train: tuple[Origins, ...]
    test: Origins
    paper: float | None
    asks: str
    control: str | None = None


_BOTH = {F: REAL, D: REAL}
_NEITHER = {F: SYNTHESISED, D: SYNTHESISED}

CONTROLS = (
    Scheme(REAL_FMRI, ({F: REAL},), {F: REAL}, None, "What does the fMRI alone tell?"),
    Scheme(REAL_DMRI, ({D: REAL},), {D: REAL}, None, "What does the dMRI alone tell?"),
    Scheme(REAL_BOTH, (_BOTH,), _BOTH, None, "What do both scans tell?"),
)
# Where synthesised scans are tested, the control is what they were made from (source only): a synthesised scan holds
# nothing that its source lacks. Where they are trained on, it is the same test after training on real ones.
SCHEMES = (
    Scheme("S1", ({F: SYNTHESISED},), {F: REAL}, 0.5660, "Does synthesised fMRI train as real fMRI does?", REAL_FMRI),
    Scheme("S2", (_NEITHER,), _BOTH, None, "Do both, synthesised, train as both, real, do?", REAL_BOTH),
    Scheme("S3", ({D: SYNTHESISED},), {D: REAL}, 0.5849, "Does synthesised dMRI train as real dMRI does?", REAL_DMRI),
    Scheme("S4", ({F: REAL},), {F: SYNTHESISED}, 0.6415, "Does fMRI made from dMRI tell more than it?", REAL_DMRI),
    Scheme("S5", (_BOTH,), _NEITHER, 0.6792, "Do both, synthesised, tell what both, real, tell?", REAL_BOTH),
    Scheme("S6", ({D: REAL},), {D: SYNTHESISED}, 0.6226, "Does dMRI made from fMRI tell more than it?", REAL_FMRI),
    Scheme("S7", (_BOTH, _NEITHER), _BOTH, 0.6602, "Does adding synthesised scans to the training help?", REAL_BOTH),
    Scheme(
        "S8",
        ({F: REAL, D: SYNTHESISED},),
        {F: REAL, D: SYNTHESISED},
        None,
        "Does dMRI made from the fMRI add to the fMRI?",
        REAL_FMRI,
    ),
    Scheme(
        "S9",
        ({F: SYNTHESISED, D: REAL},),
        {F: SYNTHESISED, D: REAL},
        None,
        "Does fMRI made from the dMRI add to the dMRI?",
        REAL_DMRI,
    ),
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
    """Accuracy of every scheme with every method's scans, and of the controls, against each other.

    features: (N, R) by modality and origin, "real" or a method's name; people: N rows with participant_id, site,
    diagnosis, age, sex, education. Rows without a diagnosis are left out. A method's scans must come from a model that
    never saw these participants. One row per method and scheme; controls that need no synthesis have the method "", and
    schemes for which a method has no scans are left out. The difference to the control has a BCa interval over
    participants, p is the exact McNemar test, and p_holm corrects over the schemes of a method. `without` names a
    method's counterpart that lacks a part of it: the rows are then `PairedScores`. Raises ValueError where real scans
    are missing, a method has none at all, or `out_of_fold` refuses.
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
    """The claim's tables; pattern_loss is empty where the two recipes of Table IX were not both evaluated."""

    schemes: list[SchemeScores]
    pattern_loss: list[PairedScores]
    power: list[Power]

    def write(self, root: Path) -> None:
        """Write table5.tsv, power.tsv and, where it has rows, table9.tsv into a results folder."""
        SCHEME_SCORES.write(root, self.schemes)
        if self.pattern_loss:
            PATTERN_LOSS.write(root, self.pattern_loss)
        POWER.write(root, self.power)


def diagnoses(patterns: Patterns, methods: Sequence[str], simulated: bool, seed: int = 0) -> Diagnoses:
    """Tables V and IX by two classifiers, and the power of these participants.

    patterns: one row per participant; methods: whose scans are used. Raises ValueError as `diagnose` does.
    """
    asks = {scheme.name: scheme.asks for scheme in (*CONTROLS, *SCHEMES)}

    def table(names: Sequence[str], without: Mapping[str, str] | None = None) -> list[Any]:
        rows = diagnose(patterns.values, patterns.people, names, seed, without=without)
        svm = diagnose(patterns.values, patterns.people, names, seed, "linear-svm", repeats=1)
        return [
            replace(
                row,
                data="SIMULATED" if simulated else "real",
                svm_balanced_accuracy=other.balanced_accuracy,
                asks=asks.get(row.scheme, ""),
            )
            for row, other in zip(rows, svm, strict=True)
        ]

    schemes = table(methods)
    of_recipe = {recipe_of(name)[0]: name for name in patterns.methods}  # a benchmark has recipes in a small size too
    pair = [of_recipe[name] for name in WITH_AND_WITHOUT if name in of_recipe]
    pattern_loss = table(pair, dict([pair])) if len(pair) == len(WITH_AND_WITHOUT) else []
    return Diagnoses(schemes, pattern_loss, power_of(schemes[0].n))


def power_of(n: int) -> list[Power]:
    """What n participants can show: one row per difference of accuracy, half above and half below 66 %."""
    rows = []
    for difference in DIFFERENCES:
        p_a, p_b = MIDDLE - difference / 2, MIDDLE + difference / 2
        shares = (discordant_share(p_a, p_b), discordant_share(p_a, p_b, shared=0.5))
        needed = [mcnemar_participants(p_a, p_b, share) for share in shares]
        power = [mcnemar_power(n, p_a, p_b, share) for share in shares]
        rows.append(Power(difference, *needed, *power))
    return rows


def block_of(columns: Columns, features: Features, people: pd.DataFrame) -> Block:
    """Region means of the named modalities and origins side by side, with the people's diagnoses."""
    labels, participants = (people[name].to_numpy(str) for name in ("diagnosis", "participant_id"))
    return Block(np.hstack([features[column] for column in columns]), labels, participants)


def _resolved(origins: Origins, method: str) -> Columns:
    return tuple(
        (modality, REAL if origins[modality] == REAL else method) for modality in Modality if modality in origins
    )


def _columns(scheme: Scheme, method: str) -> set[tuple[Modality, str]]:
    return {column for origins in (*scheme.train, scheme.test) for column in _resolved(origins, method)}


def _tested(
    schemes: list[tuple[str, Scheme]],
    features: Features,
    people: pd.DataFrame,
    classifier: Classifier,
    repeats: int,
    seed: int,
) -> dict[tuple[str, str], Predictions]:
    """Predictions by method and scheme; those that train on the same scans share their classifiers."""
    trained: dict[tuple[Columns, ...], dict[tuple[str, str], Columns]] = {}
    for method, scheme in schemes:
        train = tuple(_resolved(origins, method) for origins in scheme.train)
        trained.setdefault(train, {})[method, scheme.name] = _resolved(scheme.test, method)
    found: dict[tuple[str, str], Predictions] = {}
    for train, tests in trained.items():
        blocks, views = ([block_of(c, features, people) for c in side] for side in (train, tests.values()))
        made = out_of_fold(blocks, views, classifier, repeats=repeats, seed=seed)
        found |= dict(zip(tests, made, strict=True))
    return {(method, scheme.name): found[method, scheme.name] for method, scheme in schemes}


def _controls(
    features: Features, people: pd.DataFrame, classifier: Classifier, repeats: int, seed: int
) -> dict[tuple[str, str], Predictions]:
    """What no scan is needed for, and what chance gives."""
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
    """Age and education as numbers (NaN where missing), sex and site as words ("n/a" where missing)."""
    table = people.reindex(columns=["age", "education", "sex", "site"])
    numbers = table[["age", "education"]].apply(pd.to_numeric, errors="coerce").astype(float)
    return numbers.join(table[["sex", "site"]].astype(object).fillna(NA).astype(str))


def permuted_labels(labels: np.ndarray, participants: np.ndarray, seed: int = 0) -> np.ndarray:
    """Each participant's rows get the (first) diagnosis of a participant drawn without replacement. All (N,).

    >>> sorted(permuted_labels(np.array(["NC", "AD", "AD"]), np.array(["a", "b", "c"])).tolist())
    ['AD', 'AD', 'NC']
    """
    _, first, person = np.unique(participants, return_index=True, return_inverse=True)
    return np.random.default_rng(seed).permutation(labels[first])[person]


def majority(block: Block) -> Predictions:
    """The cohort's shares of the classes said of everyone; not by fold, where a class held out is less frequent."""
    classes = classes_of(block.labels)
    shares = np.mean(block.labels[:, None] == np.asarray(classes), axis=0)
    return Predictions(classes, block.labels, block.participants, np.tile(shares, (len(block.labels), 1)))


def _row(
    key: tuple[str, str], scheme: Scheme | None, found: Mapping[tuple[str, str], Predictions], seed: int
) -> dict[str, Any]:
    """The fields of `SchemeScores` that one row gives."""
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
    """Accuracy less the other's, with interval, and exact McNemar; nan where there is no other."""
    if other is None:
        return UNKNOWN, nan
    difference = own.correct.astype(float) - other.correct
    interval = bca_interval(difference, seed=seed)
    return Estimate(float(difference.mean()), *interval), mcnemar_exact(own.correct, other.correct)


def _with_holm(rows: Sequence[Scored], p: str) -> list[Scored]:
    """The rows with p corrected, a method's rows being a family: a further method changes no verdict on this one."""
    corrected = list(rows)
    for method in dict.fromkeys(row.method for row in rows):
        family = [i for i, row in enumerate(rows) if row.method == method and not isnan(getattr(row, p))]
        adjusted = holm([getattr(rows[i], p) for i in family])
        for i, value in zip(family, adjusted, strict=True):
            corrected[i] = replace(rows[i], **{f"{p}_holm": float(value)})  # type: ignore[arg-type]
    return corrected
