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
DIFFERENCE = 0.04  # of accuracy, that between the paper's 68 and 64 %
HEAD = ["Scheme", "Scans by", "balanced accuracy", "by linear SVM", "accuracy", "AUC", "macro F1", "Brier", "control",
        "accuracy less the control's", "p, Holm", "accuracy in the paper"]  # fmt: skip


def sections(results: Results) -> Iterator[Section]:
    """Schemes and controls, and the power of the participants."""
    rows = SCHEME_SCORES.read(results.root)
    if not rows:
        return
    split = results.metrics["split"]
    lead = (
        f"Nested, grouped cross-validation on {rows[0].n} participants (split: {split}): an elastic-net logistic "
        "regression on region means, with every fit inside the fold. Each scheme stands beside its control. Where "
        "synthesised scans are tested, the control is the same classifier on the scans that they were made from; where "
        "they are trained on, it is the classifier trained on real ones. A synthesised scan adds no information that "
        "its source lacks. The paper's accuracies come from 53 test cases: their 95 % intervals, printed beside them, "
        "overlap each other."
    )
    seen = "The generator was trained on these participants; scans of other people would serve less well."
    tables = [_schemes("Schemes and controls (Table V)", rows, results.tested)]
    if paired := PATTERN_LOSS.read(results.root):
        title = "With the pattern loss (pds-ne-pa) and without it (pds-ne) (Table IX)"
        tables.append(_schemes(title, paired, "pds-ne-pa"))
    if power := POWER.read(results.root):
        tables.append(_power(power, rows[0].n))
    yield Section("diagnosis", "Diagnosis", 40, lead, [seen] if split == Split.TRAIN else [], tables)


def facts(results: Results) -> Mapping[str, str]:
    """Balanced accuracies of the tested method's scans and of real ones, classes, and participants needed."""
    rows = SCHEME_SCORES.read(results.root)
    controls = [row for row in rows if not row.method]
    needed = (
        f"{row.needed_independent} where errors are independent, {row.needed_half_shared} where half of them are shared"
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
    """The diagnoses of a confusion table.

    >>> classes('{"NC": {}, "MCI": {}, "AD": {}}')
    'NC, MCI and AD'
    """
    *others, last = json.loads(confusion)
    return f"{', '.join(others)} and {last}"


def _by_scheme(rows: Sequence[SchemeScores]) -> str:
    return "; ".join(f"{row.scheme} {spread(row.balanced_accuracy)}" for row in rows)


def _schemes(caption: str, rows: Sequence[SchemeScores], marked: str) -> Table:
    paired = isinstance(rows[0], PairedScores)
    cells = [
        [
            ": ".join(part for part in (row.scheme, row.asks) if part),
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
    head = HEAD + ["less without the loss", "p, Holm"] * paired
    return Table(caption, head, cells, [row.method == marked for row in rows])


def _power(rows: Sequence[Power], n: int) -> Table:
    head = ["Difference, points", "participants needed, errors independent", "errors half shared",
            f"power of these {n}, independent", "half shared"]  # fmt: skip
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
    return Table("How many participants a difference of accuracy needs (McNemar, about 66 %, power 80 %)", head, cells)
