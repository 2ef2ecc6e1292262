"""The report on diagnosis, and the facts for the cards."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

from pdsynth.evidence.diagnosis.files import (
    PATTERN_LOSS,
    PERMUTED,
    POWER,
    SCHEME_SCORES,
    PairedScores,
    Power,
    SchemeScores,
)
from pdsynth.report.cells import number, p_value, spread
from pdsynth.report.sections import Section, Table
from pdsynth.results.folder import Results
from pdsynth.types import Split

ADDRESSES = {"diagnosis": "diagnosis from synthesised scans"}
QUESTIONS = {  # by scheme; controls without scans answer none
    "real fMRI": "How accurate is the fMRI alone?",
    "real dMRI": "How accurate is the dMRI alone?",
    "real both": "How accurate are both scans?",
    "S1": "Can synthesised fMRI replace real training fMRI?",
    "S2": "Can synthesised scans replace both real training scans?",
    "S3": "Can synthesised dMRI replace real training dMRI?",
    "S4": "Is synthesised fMRI better than its source dMRI?",
    "S5": "Are both synthesised scans as accurate as both real ones?",
    "S6": "Is synthesised dMRI better than its source fMRI?",
    "S7": "Do additional synthesised training scans help?",
    "S8": "Does synthesised dMRI help beside its source fMRI?",
    "S9": "Does synthesised fMRI help beside its source dMRI?",
}
DIFFERENCE = 0.04  # in accuracy: the difference between 68 and 64 % in the paper
HEAD = ["Scheme", "Scans synthesised by", "balanced accuracy", "balanced accuracy, linear SVM", "accuracy", "AUC",
        "macro F1", "Brier", "control", "accuracy minus control", "p, Holm", "accuracy in the paper"]  # fmt: skip


def sections(results: Results) -> Iterator[Section]:
    """The report's section on diagnosis: scores by choice of scans, controls and power; none without table5.tsv."""
    rows = SCHEME_SCORES.read(results.root)
    if not rows:
        return
    split = results.metrics["split"]
    lead = (
        "Can a classifier recognise the diagnosis from synthesised scans? The classifier is an elastic-net logistic "
        f"regression on region means. It is tested on {rows[0].n} participants (split: {split}) by nested "
        "cross-validation: all scans of a participant are in one fold, and every fit uses the training folds only. A "
        "scheme (S1 to S9) is a choice of the real and synthesised scans in training and test, and is named with its "
        "question. Each scheme is compared with a control. If a scheme tests synthesised scans, the control uses the "
        "source scans instead. If a scheme only trains on synthesised scans, the control trains on real scans. A "
        "synthesised scan contains no information that its source lacks. Further controls use no scans (covariates "
        "only: age, education, sex and site; site only; majority class: always the most frequent diagnosis), or real "
        "scans with diagnoses that were exchanged at random between participants (permuted labels). Balanced accuracy "
        "is the mean over diagnoses of the share of participants with a correct prediction. AUC and macro F1 are "
        "averaged over diagnoses. Brier is the mean squared distance of the predicted probabilities from the truth (0 "
        "best, 2 worst). Accuracy minus control is above 0 if the scheme is better than its control; its p value is "
        "that of an exact McNemar test, corrected over the schemes of a method. The accuracies in the paper (PDS, "
        "arXiv 2511.04963) come from 53 test cases; their 95 % intervals, printed beside them, overlap each other."
    )
    warning = (
        "The model that synthesised the scans was trained on these participants. For other people, the accuracy will "
        "be lower."
    )
    tables = [_schemes("Schemes and controls (Table V of the paper)", rows, results.tested)]
    if paired := PATTERN_LOSS.read(results.root):
        title = "Training with a loss on region means (pds-ne-pa) and without it (pds-ne) (Table IX of the paper)"
        tables.append(_schemes(title, paired, "pds-ne-pa"))
    if power := POWER.read(results.root):
        tables.append(_power(power, rows[0].n))
    found = [warning] if split == Split.TRAIN else []
    yield Section("diagnosis", "Diagnosis", 40, lead, found, tables, people=rows[0].n)


def facts(results: Results) -> Mapping[str, str]:
    """Balanced accuracies of the diagnosis, with synthesised and with real scans, as text by name for the cards.

    "diagnosed": of the method under test, by scheme (choice of training and test scans); "diagnosed_real": of the
    controls with real scans; "permuted": with permuted diagnoses; "classes": the names of the diagnoses; "needed":
    number of participants needed to show a difference of 4 points of accuracy. A fact is "" if it is not known.
    """
    rows = SCHEME_SCORES.read(results.root)
    controls = [row for row in rows if not row.method]
    needed = (
        f"{row.needed_independent} if the errors of two classifiers are independent, "
        f"{row.needed_half_shared} if half of the errors are shared"
        for row in POWER.read(results.root)
        if row.difference == DIFFERENCE
    )
    return {
        "diagnosed": _by_scheme([row for row in rows if row.method == results.tested]),
        "diagnosed_real": _by_scheme([row for row in controls if row.scheme.startswith("real")]),
        "classes": "".join(classes(row.confusion) for row in controls[:1]),
        "permuted": "".join(spread(row.balanced_accuracy) for row in controls if row.scheme == PERMUTED),
        "needed": "".join(needed),
    }


def classes(confusion: str) -> str:
    """The diagnoses, two or more, in a confusion table (JSON text with the diagnoses as keys), as words.

    >>> classes('{"NC": {}, "MCI": {}, "AD": {}}')
    'NC, MCI and AD'
    """
    *others, last = json.loads(confusion)
    return f"{', '.join(others)} and {last}"


def with_question(scheme: str) -> str:
    """The name of a scheme (choice of training and test scans) with the question that it answers, if it has one.

    >>> with_question("S7"), with_question("site only")
    ('S7: Do additional synthesised training scans help?', 'site only')
    """
    return f"{scheme}: {QUESTIONS[scheme]}" if scheme in QUESTIONS else scheme


def _by_scheme(rows: Sequence[SchemeScores]) -> str:
    return "; ".join(f"{row.scheme} {spread(row.balanced_accuracy)}" for row in rows)


def _schemes(caption: str, rows: Sequence[SchemeScores], marked: str) -> Table:
    paired = isinstance(rows[0], PairedScores)
    cells = [
        [
            with_question(row.scheme),
            row.method,
            spread(row.balanced_accuracy),
            number(row.svm_balanced_accuracy.value),
            spread(row.accuracy),
            number(row.auc),
            number(row.f1),
            number(row.brier, 3),
            row.against,
            spread(row.difference),
            p_value(row.p_holm),
            spread(row.paper),
            *([spread(row.gain), p_value(row.gain_p_holm)] if isinstance(row, PairedScores) else []),
        ]
        for row in rows
    ]
    head = HEAD + ["accuracy minus without the loss", "p, Holm"] * paired
    return Table(caption, head, cells, [row.method == marked for row in rows])


def _power(rows: Sequence[Power], n: int) -> Table:
    head = ["Difference, points of accuracy", "participants needed, errors independent",
            "participants needed, errors half shared", f"power with {n} participants, errors independent",
            "power, errors half shared"]  # fmt: skip
    cells = [
        [
            number(100 * row.difference, 0),
            f"{row.needed_independent}",
            f"{row.needed_half_shared}",
            number(row.power_independent),
            number(row.power_half_shared),
        ]
        for row in rows
    ]
    caption = (
        "Participants needed to show a difference between the accuracies of two classifiers (McNemar's test at p < "
        "0.05, accuracies near 66 %, power 80 %). Errors are independent, or half shared: halfway between independent "
        "errors and errors on the same people"
    )
    return Table(caption, head, cells)
