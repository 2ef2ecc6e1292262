"""Diagnosis with real and synthesised scans (the paper's Tables V and IX), every scheme beside its control."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from pdsynth.results.patterns import REAL
from pdsynth.results.patterns import Values as Features
from pdsynth.statistics.classification import Block, Classifier, Predictions, classes_of, out_of_fold, scores
from pdsynth.statistics.inference import bca_interval, holm
from pdsynth.statistics.power import mcnemar_exact, wilson_interval
from pdsynth.types import Diagnosis, Modality

SYNTHESISED = "synthesised"
REAL_FMRI, REAL_DMRI, REAL_BOTH = "real fMRI", "real dMRI", "real both"
COVARIATES, SITE, MAJORITY, PERMUTED = "covariates only", "site only", "majority class", "permuted labels"
PAPER_CASES = 53
F, D = Modality.FMRI, Modality.DMRI

Origins = Mapping[Modality, str]
Columns = tuple[tuple[Modality, str], ...]


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
) -> pd.DataFrame:
    """Accuracy of every scheme with every method's scans, and of the controls, against each other.

    features: (N, R) by modality and origin, "real" or a method's name; people: N rows with participant_id, site,
    diagnosis, age, sex, education. Rows without a diagnosis are left out. Scans of a method must come from one that
    never saw these participants. A row a (method, scheme); controls that need no synthesis have the method "". Columns:
    those of `classification.scores`, the paper's accuracy with the Wilson interval that its 53 cases leave; against
    (the control), difference (accuracy less the control's) with a BCa interval over participants, p (exact McNemar)
    and p_holm, the schemes of a method being one family. Schemes for which a method has no scans are left out.
    `without` names a method's counterpart that lacks a part of it: gain, its interval, gain_p and gain_p_holm are those
    of the method's accuracy less the counterpart's in the same scheme. Raises ValueError where real scans are
    lacking, a method has none at all, or `out_of_fold` refuses.
    """
    features, people = diagnosed(features, people, methods)
    schemes = [("", scheme) for scheme in CONTROLS]
    schemes += [(m, s) for m in methods for s in SCHEMES if _columns(s, m) <= set(features)]
    found = _tested(schemes, features, people, classifier, repeats, seed)
    found |= _controls(features, people, classifier, repeats, seed)
    found = {key: predictions.by_participant() for key, predictions in found.items()}
    rated = {(method, scheme.name): scheme for method, scheme in schemes}
    rows = [_row(key, rated.get(key), found, seed) for key in found]
    for row, (method, scheme) in zip(rows, found, strict=True):
        if without and method in without:
            other = found.get((without[method], scheme))
            row |= _compared("gain", "gain_p", found[method, scheme], other, seed)
    table = _with_holm(pd.DataFrame(rows), "p")
    return _with_holm(table, "gain_p") if without else table


def block_of(columns: Columns, features: Features, people: pd.DataFrame) -> Block:
    """Region means of the named modalities and origins side by side, with the people's diagnoses."""
    labels, participants = (people[name].to_numpy(str) for name in ("diagnosis", "participant_id"))
    return Block(np.hstack([features[column] for column in columns]), labels, participants)


def diagnosed(
    features: Features, people: pd.DataFrame, methods: Sequence[str]
) -> tuple[dict[tuple[Modality, str], np.ndarray], pd.DataFrame]:
    """Features and people, the rows without a diagnosis left out.

    Raises ValueError where real scans of a modality, or any of a method, are lacking, or rows do not match the people.
    """
    for modality in Modality:
        if (modality, REAL) not in features:
            raise ValueError(f"there are no real {modality} scans; evaluate participants who have both.")
    for (modality, origin), values in features.items():
        if len(values) != len(people):
            raise ValueError(f"{origin} {modality} has {len(values)} rows for {len(people)} people; give one a row.")
    origins = {origin for _, origin in features} - {REAL}
    for method in methods:
        if method not in origins:
            raise ValueError(f"there are no scans by {method!r}; choose among {', '.join(sorted(origins)) or 'none'}.")
    known = people["diagnosis"].isin(list(Diagnosis)).to_numpy()
    return {key: values[known] for key, values in features.items()}, people[known].reset_index(drop=True)


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
    return numbers.join(table[["sex", "site"]].astype(object).fillna("n/a").astype(str))


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
    method, name = key
    row: dict[str, Any] = {"method": method, "scheme": name} | scores(found[key], seed)
    paper = scheme.paper if scheme else None
    low, high = (np.nan, np.nan) if paper is None else wilson_interval(round(paper * PAPER_CASES), PAPER_CASES)
    row |= {"paper": np.nan if paper is None else paper, "paper_low": low, "paper_high": high}
    control = scheme.control if scheme else None
    other = None if control is None else found["", control]
    return row | {"against": control or ""} | _compared("difference", "p", found[key], other, seed)


def _compared(name: str, p: str, own: Predictions, other: Predictions | None, seed: int) -> dict[str, float]:
    """Accuracy less the other's, with interval, and exact McNemar; nan where there is no other."""
    if other is None:
        return dict.fromkeys((name, f"{name}_low", f"{name}_high", p), np.nan)
    difference = own.correct.astype(float) - other.correct
    low, high = bca_interval(difference, seed=seed)
    found = {name: float(difference.mean()), f"{name}_low": low, f"{name}_high": high}
    return found | {p: mcnemar_exact(own.correct, other.correct)}


def _with_holm(table: pd.DataFrame, p: str) -> pd.DataFrame:
    """A family a method: another method beside it, a control say, changes no verdict on this one."""
    table[f"{p}_holm"] = np.nan
    for _, rows in table[table[p].notna()].groupby("method"):
        table.loc[rows.index, f"{p}_holm"] = holm(rows[p].tolist())
    return table
