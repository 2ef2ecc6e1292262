"""The report on filling in missing scans for a diagnosis, and the facts for the cards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import isnan

from pdsynth.evidence.completion.files import ARMS, COMPLETE, MEAN, ONE_SCAN, RIVALS, SYNTHESISED, Arm
from pdsynth.report.cells import p_value, spread
from pdsynth.report.sections import Section, Table
from pdsynth.results.folder import Results
from pdsynth.statistics.inference import SIGNIFICANT

ADDRESSES: Mapping[str, str] = {}
WAYS = {
    MEAN: "filling in the mean",
    COMPLETE: "leaving participants out of the training",
    ONE_SCAN: "one classifier per scan",
}


def sections(results: Results) -> Iterator[Section]:
    """The report's section on diagnosis if scans are missing; none without completion.tsv."""
    rows = ARMS.read(results.root)
    if not rows:
        return
    head = ["Missing scans", "scans synthesised by", "balanced accuracy", "accuracy", "minus mean", "p, Holm",
            "minus complete-cases", "p, Holm", "minus one-scan", "p, Holm"]  # fmt: skip
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
        "Is a classifier that needs both scans more accurate if synthesised scans replace missing ones? A third of the "
        "participants lack the fMRI and another third the dMRI; they are drawn at random several times, and accuracies "
        "are averaged. The first column names the way to deal with a missing scan. Synthesised scans replace it, in "
        "training and in the test (synthesised). The alternatives are the average training scan in its place (mean), "
        "training without the participants who lack a scan, with the average in its place only in the test "
        "(complete-cases), and one classifier for the fMRI and one for the dMRI, whose predictions are averaged if a "
        "participant has both (one-scan). For comparison, no scan is missing (real). Balanced accuracy is the mean "
        "over diagnoses of the share of participants with a correct prediction. The columns with minus are the "
        "balanced accuracy with synthesised scans minus that of the alternative in the heading: above 0, synthesised "
        "scans are better. Their p values (paired permutation test) are corrected over the three alternatives of a "
        "method."
    )
    table = Table("Diagnosis with missing scans", head, cells)
    fewest = min(row.n for row in rows)
    yield Section("completion", "Filling in missing scans", 50, lead, [verdict(rows)], [table], people=fewest)


def facts(results: Results) -> Mapping[str, str]:
    """One fact for the cards, "completion": whether scans by the method under test are better in place of missing ones.

    It is the text of `verdict` on the diagnosis with missing scans; "" without completion.tsv.
    """
    return {"completion": verdict([row for row in ARMS.read(results.root) if row.method == results.tested])}


def verdict(rows: Sequence[Arm]) -> str:
    """Whether synthesised scans are better or worse than other ways to deal with missing scans, as text.

    rows: of completion.tsv. There is one sentence per method, which compares it with three alternatives: the mean in
    place of a missing scan, training without the participants who lack one, and one classifier per scan. A difference
    of balanced accuracy counts as shown if its 95 % interval excludes 0 and its corrected p value is below 0.05;
    otherwise the sentence says that no difference is shown. A difference that is nan is left out. Returns "" if no row
    is of synthesised scans.
    """
    sentences = []
    for row in rows:
        parts = [_comparison(row, name) for name in RIVALS if not isnan(getattr(row, name).value)]
        if row.arm == SYNTHESISED and parts:
            sentences.append(f"Filling in scans synthesised by {row.method} is {'; '.join(parts)}.")
    return " ".join(sentences)


def _comparison(row: Arm, name: str) -> str:
    """The outcome of one comparison in words. name: a key of RIVALS, the field of `row` with the difference."""
    found, p = getattr(row, name), getattr(row, f"{name}_p_holm")
    difference, low, high = (100 * value for value in (found.value, found.low, found.high))
    rival = WAYS[RIVALS[name]]
    if p < SIGNIFICANT and low > 0:
        outcome = f"better than {rival}"
    elif p < SIGNIFICANT and high < 0:
        outcome = f"worse than {rival}"
    else:
        outcome = f"not shown to differ from {rival}"
    interval = f"95 % interval {low:+.1f} to {high:+.1f}, corrected p {p:.2g}"
    return f"{outcome} ({difference:+.1f} points of balanced accuracy, {interval})"
