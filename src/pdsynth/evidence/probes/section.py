"""The report on memorisation, inserted lesions and known changes, and the facts for the cards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pdsynth.evidence.probes.files import Counterfactual, Lesion, Lesions, Memorisation, Probes
from pdsynth.report import words
from pdsynth.report.cells import by_direction, number, spread
from pdsynth.report.sections import Section, Table
from pdsynth.results.folder import Results

ADDRESSES = {"memorisation": "memorisation", "lesions": "inserted lesions"}


def sections(results: Results) -> Iterator[Section]:
    """The report's sections on memorisation, inserted lesions and known changes; none without probes.json.

    A section on a test that could not be made gives the reason. Known changes have a section only if they were tested.
    """
    probes = Probes.read(results.root)
    if probes is None:
        return
    yield _memorisation(probes.memorisation, probes.reasons.get("memorisation", ""))
    yield _lesions(probes.lesions, probes.recipe, probes.reasons.get("lesions", ""))
    if probes.counterfactual is not None:
        yield _counterfactual(probes.counterfactual, probes.recipe)


def facts(results: Results) -> Mapping[str, str]:
    """Results of the tests of memorisation, lesions and known changes, as text for the cards; {} without probes.json.

    "membership": probability that the error is lower for a training participant than for another person; "lesions":
    share of detected lesions in the output and, for comparison, in the source; "counterfactual": slope of the
    synthesised on the known change. Each text has a value per direction of synthesis. A fact is "" if it is not known.
    """
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
        "Does the model reproduce people of its training set? The ratio is the distance from a synthesised scan of a "
        "new person to the nearest training scan, divided by the same distance for the real scans of new people "
        "(medians of Euclidean distances). Copies of training scans have a ratio of 0. A smooth image is close to "
        "every scan, so a ratio below 1 alone does not show memorisation: compare the ratio to some of the training "
        "participants (second ratio) with the ratio to about as many people who were not in the training set (third "
        "ratio). Membership is the probability that the error is lower for a training participant than for another "
        "person; 0.5 is ideal."
    )
    if found is None:
        tables = []
    else:
        head = ["Direction", f"ratio to all {found.trained_on} training participants", f"to {found.few} of them",
                f"to {found.strangers} other people", "membership"]  # fmt: skip
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
        tables = [
            Table(
                f"Ratios, and membership from {found.members} training participants and {found.others} other people",
                head,
                cells,
            )
        ]
    fewest = min(found.few, found.strangers, found.members, found.others) if found else None
    title = "Memorisation of training participants"
    return Section("memorisation", title, 80, lead, _not_measured(reason), tables, people=fewest)


def _lesions(found: Lesions | None, recipe: str, reason: str) -> Section:
    inserted = "" if found is None else (
        f"The signal of the source is multiplied by {found.factor:g} inside a sphere with a radius of "
        f"{found.radius_mm:g} mm at a random position, one lesion at a time, and noise with an SD of "
        f"{found.noise_sd:g} (in the unit of the images, 0 to 1) is added in the whole brain. "
    )  # fmt: skip
    lead = (
        f"Does the output show a lesion of its source? {inserted}Sensitivity is the share of lesions that the output "
        "shows: the lesion changes the mean of the output, up or down, more inside the lesion than in 95 % of spheres "
        "of the same size elsewhere in the brain. An output that ignores the lesion reaches 0.05. False positives are "
        "the share of positions in the brain where noise alone, added to the source, changes the mean of a sphere of "
        "the output, up or down, by more than half of the median change inside this person's lesions (mean over "
        "participants). The contrast-to-noise ratio is the absolute "
        "difference between the mean change inside the lesion and elsewhere, divided by the SD of the change "
        "elsewhere. For comparison, the same is measured in the source itself; an output with less noise than the "
        "source can have a higher contrast-to-noise ratio. A lesion in the output need not be correct: a real lesion "
        "may look different in the target modality, or be invisible there."
    )
    if found is None:
        tables = []
    else:
        head = ["Lesion in", "Direction", "sensitivity", "false positives", "contrast-to-noise ratio, median"]
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
    fewest = found.people if found else None
    return Section("lesions", "Inserted lesions", 90, lead, _not_measured(reason), tables, people=fewest)


def _counterfactual(found: Counterfactual, recipe: str) -> Section:
    low, high = found.severities
    lead = (
        "Does the output follow a known change of the disease? Each of these SIMULATED people was simulated twice, at "
        f"disease severity {low:g} and {high:g} (0 healthy, 1 most severe), with the same scanner and noise. The "
        "difference is the true effect of the disease in that person, without sampling error. The slope is that of "
        "the synthesised on the real change over regions; each change is first averaged over people. 1 is ideal. Sign "
        "agrees is the share of the regions with a clear real change (p < 0.05) in which both changes have the same "
        "sign. Intervals: 95 %, bootstrap over people."
    )
    head = ["Direction", "slope", "sign agrees", "clear regions"]
    cells = [
        [words.DIRECTIONS[row.direction], spread(row.slope), spread(row.sign_agreement), f"{row.clear_regions}"]
        for row in found.rows
    ]
    table = Table(f"{found.people} SIMULATED people at two severities, {recipe}", head, cells)
    title = "The same person, healthy and ill"
    return Section("counterfactual", title, 100, lead, [], [table], people=found.people)


def _seen_in(row: Lesion, recipe: str) -> str:
    return "the source" if row.of_source else f"the output of {recipe}"


def _not_measured(reason: str) -> list[str]:
    return [f"Not measured: {reason.rstrip('.')}."] if reason else []
