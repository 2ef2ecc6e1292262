"""The report on uncertainty, and the facts for the cards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pdsynth.evidence.calibration.files import Entry
from pdsynth.report import words
from pdsynth.report.facts import both_directions
from pdsynth.report.sections import Section, Table
from pdsynth.results.folder import Results
from pdsynth.types import Direction

ADDRESSES: Mapping[str, str] = {}
COVERAGE = "coverage_90"  # a metric of every method that states an SD or was sampled


def sections(results: Results) -> Iterator[Section]:
    """The report's section on uncertainty: whether the SD of each method is correct; none if no method has an SD.

    The SD is that which a method states with each prediction, or that of repeated samples.
    """
    rows = [
        (name, direction, entry[direction.value])
        for name, entry in results.methods.items()
        for direction in Direction
        if COVERAGE in entry[direction.value]
    ]
    if not rows:
        return
    columns = words.UNCERTAINTY
    cells = [
        [
            name,
            words.DIRECTIONS[direction],
            *(words.number(words.value_of(scores, column.key)[0], column.decimals) for column in columns),
        ]
        for name, direction, scores in rows
    ]
    lead = (
        "The methods in this table give an expected error at every voxel of a synthesised volume: a standard deviation "
        "(SD). A method states it with each prediction, or it is the SD of repeated samples. The intervals assume "
        "normally distributed errors. A correct 90 % interval contains the real value in 90 % of the voxels inside the "
        "brain. If the real value is inside the interval less often, the SD is too small; if it is inside more often, "
        "the SD is too large. CRPS (continuous ranked probability score) is the error of the whole predicted "
        "distribution, in the unit of the images (0 to 1); lower is better. The error-SD rank r is the correlation "
        "over voxels of the ranks of absolute error and SD; higher is better."
    )
    table = Table(
        "Uncertainty",
        ["Method", "Direction", *(column.label for column in columns)],
        cells,
        notes=[words.spread(name, results.metrics) for name, _, _ in rows],
        meanings=["", "", *(column.meaning for column in columns)],
    )
    title = "Is the stated uncertainty correct?"
    yield Section("uncertainty", title, 0, lead, [], [table], label="Uncertainty")


def facts(results: Results) -> Mapping[str, str]:
    """Correctness of the SD of the method under test, and its calibration, as text by name for the cards.

    "coverage_50", "coverage_90": shares of voxels inside the 50 and the 90 % interval, by direction; "spread": the
    origin of the SD; "calibrated": number of calibration participants and factors. A fact is "" if it is not known;
    "calibrated" also if the SD is that of repeated samples.
    """
    tested = results.tested
    states = COVERAGE in next(iter(results.methods[tested].values()))
    sampled = tested in results.metrics.get("uncertainty_from_samples", [])  # then the SD of draws is audited
    entry = None if sampled else Entry.of(results.model.get("card", {}))
    return {
        "coverage_50": both_directions(results, tested, "coverage_50", 3),
        "coverage_90": both_directions(results, tested, COVERAGE, 3),
        "spread": words.spread(tested, results.metrics) if states else "",
        "calibrated": "" if entry is None else calibrated(entry),
    }


def calibrated(entry: Entry) -> str:
    """Number and cohort of the calibration participants, and the factor of the SD by direction, as text."""
    kind = "SIMULATED participants" if entry.simulated else "participants"
    scale = ", ".join(f"{direction} {factor}" for direction, factor in entry.scale.items())
    return f"on {entry.n_participants} {kind} of cohort {entry.cohort}; calibration factors: {scale}"
