"""The report on memory, lesions and known changes, and the facts for the cards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pdsynth.evidence.probes.files import Counterfactual, Lesion, Lesions, Memorisation, Probes
from pdsynth.report import words
from pdsynth.report.cells import by_direction, number, spread
from pdsynth.report.sections import Section, Table
from pdsynth.results.folder import Results

ADDRESSES = {"memorisation": "memorisation", "lesions": "inserted lesions"}


def sections(results: Results) -> Iterator[Section]:
    """One section per probe, of probes that were measured and of those that could not be."""
    probes = Probes.read(results.root)
    if probes is None:
        return
    yield _memorisation(probes.memorisation, probes.reasons.get("memorisation", ""))
    yield _lesions(probes.lesions, probes.recipe, probes.reasons.get("lesions", ""))
    if probes.counterfactual is not None:
        yield _counterfactual(probes.counterfactual, probes.recipe)


def facts(results: Results) -> Mapping[str, str]:
    """Membership, sensitivity to lesions, and the slope of a known change."""
    probes = Probes.read(results.root)
    if probes is None:
        return {}
    memory, lesions, change = probes.memorisation, probes.lesions, probes.counterfactual
    return {
        "membership": by_direction(memory.rows if memory else [], lambda row: spread(row.membership)),
        "lesions": by_direction(
            lesions.rows if lesions else [], lambda row: f"{number(row.sensitivity)} in {_seen_in(row, probes.recipe)}"
        ),
        "counterfactual": by_direction(change.rows if change else [], lambda row: spread(row.slope)),
    }


def _memorisation(found: Memorisation | None, reason: str) -> Section:
    lead = (
        "Does the model reproduce people of its training? The distance ratio divides the distance of its scans of new "
        "people to the nearest training scan by the same distance of these people's real scans; copies have 0. A "
        "smooth image is nearer to everybody. So beside it stand the ratio to as many training participants, and to as "
        "many people never seen. Membership is the probability that the error is lower for a training participant than "
        "for another; 0.5 is ideal."
    )
    if found is None:
        tables = []
    else:
        head = ["Direction", f"ratio to all {found.trained_on}", f"to {found.few} of them",
                f"to {found.strangers} never seen", "membership"]  # fmt: skip
        cells = [
            [
                words.DIRECTIONS[row.direction],
                number(row.ratio_to_all),
                number(row.ratio_to_few),
                number(row.ratio_to_strangers),
                spread(row.membership),
            ]
            for row in found.rows
        ]
        tables = [Table(f"{found.members} training participants, {found.others} others", head, cells)]
    return Section("memorisation", "Memory of training participants", 80, lead, _not_measured(reason), tables)


def _lesions(found: Lesions | None, recipe: str, reason: str) -> Section:
    inserted = "" if found is None else (
        f"The source is multiplied by {found.factor:g} inside spheres of {found.radius_mm:g} mm, one at a time at "
        f"random places, and noise of SD {found.noise_sd:g} is added. "
    )  # fmt: skip
    lead = (
        f"Does the output show a lesion of its source? {inserted}Sensitivity is the share of lesions that the output "
        "shows: its change inside exceeds 95 % of the changes of equal spheres elsewhere; an output that knows nothing "
        "of the lesion reaches 0.05. False positives are the share of places that noise alone changes by half as much. "
        "The source itself gives the upper limit. A lesion in the output need not be right there: a real lesion of the "
        "target may look different, or not be visible."
    )
    if found is None:
        tables = []
    else:
        head = ["Seen in", "Direction", "sensitivity", "false positives", "contrast to noise, median"]
        cells = [
            [
                _seen_in(row, recipe),
                words.DIRECTIONS[row.direction],
                number(row.sensitivity),
                number(row.false_positives),
                number(row.contrast_to_noise),
            ]
            for row in found.rows
        ]
        tables = [Table(f"{found.lesions} lesions in each of {found.people} participants", head, cells)]
    return Section("lesions", "Inserted lesions", 90, lead, _not_measured(reason), tables)


def _counterfactual(found: Counterfactual, recipe: str) -> Section:
    low, high = found.severities
    lead = (
        f"SIMULATED people, each simulated at severity {low:g} and at {high:g} with all else equal, show the true "
        "effect of the disease in a person, without sampling error. The slope is that of the synthesised on the real "
        "change over regions, means over people; signs are compared where the real change is clear. Intervals: over "
        "people."
    )
    head = ["Direction", "slope", "sign agrees", "clear regions"]
    cells = [
        [words.DIRECTIONS[row.direction], spread(row.slope), spread(row.sign_agreement), f"{row.clear_regions}"]
        for row in found.rows
    ]
    table = Table(f"{found.people} SIMULATED people at two severities, {recipe}", head, cells)
    return Section("counterfactual", "The same person, healthy and ill", 100, lead, [], [table])


def _seen_in(row: Lesion, recipe: str) -> str:
    return "the source" if row.of_source else f"{recipe}'s output"


def _not_measured(reason: str) -> list[str]:
    return [f"Not measured: {reason.rstrip('.')}."] if reason else []
