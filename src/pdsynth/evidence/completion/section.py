"""The report on filling in what is missing, and the facts for the cards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import isnan

from pdsynth.evidence.completion.files import ARMS, COMPLETE, MEAN, ONE_SCAN, RIVALS, SYNTHESISED, Arm
from pdsynth.report.cells import p_value, spread
from pdsynth.report.sections import Section, Table
from pdsynth.results.folder import Results
from pdsynth.statistics.inference import SIGNIFICANT

ADDRESSES: Mapping[str, str] = {}
WAYS = {MEAN: "filling in the mean", COMPLETE: "leaving participants out", ONE_SCAN: "a classifier for each scan"}


def sections(results: Results) -> Iterator[Section]:
    """Arms of completion, and a verdict on each method."""
    rows = ARMS.read(results.root)
    if not rows:
        return
    head = ["Missing scans", "by", "balanced accuracy", "accuracy", "less the mean's", "p, Holm",
            "less complete cases'", "p, Holm", "less one-scan's", "p, Holm"]  # fmt: skip
    cells = [
        [
            row.arm,
            row.method,
            spread(row.balanced_accuracy),
            spread(row.accuracy),
            spread(row.over_mean),
            p_value(row.over_mean_p_holm),
            spread(row.over_complete_cases),
            p_value(row.over_complete_cases_p_holm),
            spread(row.over_one_scan),
            p_value(row.over_one_scan_p_holm),
        ]
        for row in rows
    ]
    lead = (
        "A third of the participants lack the fMRI and a third the dMRI, at random and repeatedly. Is a classifier "
        "that needs both served better by synthesised scans than by the average scan (mean), by leaving participants "
        "out of the training (complete-cases), or by one classifier per scan (one-scan)? The upper limit is its "
        "accuracy where nothing is missing (real)."
    )
    table = Table("Completion", head, cells)
    yield Section("completion", "Filling in what is missing", 50, lead, [verdict(rows)], [table])


def facts(results: Results) -> Mapping[str, str]:
    """The verdict on the method under test."""
    return {"completion": verdict([row for row in ARMS.read(results.root) if row.method == results.tested])}


def verdict(rows: Sequence[Arm]) -> str:
    """For each method's scans: better or worse than each rival, or that the data do not show which.

    A difference is shown where the interval excludes 0 and the corrected p is below .05.
    """
    sentences = []
    for row in rows:
        parts = [_judged(row, name) for name in RIVALS if not isnan(getattr(row, name).value)]
        if row.arm == SYNTHESISED and parts:
            sentences.append(f"Filling in missing scans with those by {row.method}: {'; '.join(parts)}.")
    return " ".join(sentences)


def _judged(row: Arm, name: str) -> str:
    found, p = getattr(row, name), getattr(row, f"{name}_p_holm")
    difference, low, high = (100 * value for value in (found.value, found.low, found.high))
    rival = WAYS[RIVALS[name]]
    if p < SIGNIFICANT and low > 0:
        judged = f"it beats {rival}"
    elif p < SIGNIFICANT and high < 0:
        judged = f"it is worse than {rival}"
    else:
        judged = f"it is not shown to differ from {rival}"
    interval = f"95 % interval {low:+.1f} to {high:+.1f}, corrected p {p:.2g}"
    return f"{judged} ({difference:+.1f} points of balanced accuracy, {interval})"
