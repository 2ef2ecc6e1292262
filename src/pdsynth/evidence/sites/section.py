"""The report on a site that was never seen, and the facts for the cards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pdsynth.evidence.sites.files import SITES
from pdsynth.report import words
from pdsynth.report.cells import number, p_value, spread
from pdsynth.report.sections import Section, Table
from pdsynth.results.folder import Results

ADDRESSES = {"sites": "leave-one-site-out"}


def sections(results: Results) -> Iterator[Section]:
    """Scores with and without the site in the training."""
    rows = SITES.read(results.root)
    if not rows:
        return
    head = ["Site", "Direction", "Participants", "trained with it, dB", "trained without it, dB", "difference, dB",
            "p, Holm"]  # fmt: skip
    cells = [
        [
            row.site,
            words.DIRECTIONS[row.direction],
            f"{row.n_participants}",
            number(row.psnr_seen),
            number(row.psnr_unseen),
            spread(row.difference),
            p_value(row.p_holm),
        ]
        for row in rows
    ]
    lead = (
        "What does a scanner cost that the model never saw? A model trained without a site is compared with one "
        "trained on as many people of all sites. There is one training of each, so the interval does not hold the "
        "variation between trainings."
    )
    table = Table("Leave one site out", head, cells)
    yield Section("sites", "A site that was never seen", 70, lead, [], [table])


def facts(results: Results) -> Mapping[str, str]:
    """Differences of PSNR at each site."""
    differences = (
        f"{words.DIRECTIONS[row.direction]} at {row.site} {spread(row.difference)} dB"
        for row in SITES.read(results.root)
    )
    return {"unseen_sites": "; ".join(differences)}
