"""The report on a site that was not in the training set, and the facts for the cards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pdsynth.evidence.sites.files import SITES
from pdsynth.report import words
from pdsynth.report.cells import number, p_value, spread
from pdsynth.report.sections import Section, Table
from pdsynth.results.folder import Results

ADDRESSES = {"sites": "a site that was not in the training set"}


def sections(results: Results) -> Iterator[Section]:
    """The report's section on sites that were not in the training set; none without sites.tsv."""
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
        "How much quality is lost on a scanner that was not in the training set? For each site, a model trained "
        "without the site is compared with a model trained on the same number of participants from all sites. Scores "
        "are the PSNR in the brain, averaged over the test participants of the site; the difference is the score "
        "without minus the score with the site, and its p value (paired permutation test) is corrected over all rows. "
        "Each model was trained once, so the interval does not include the variation between training runs."
    )
    people, within = [row.n_participants for row in rows], [row.direction for row in rows]
    table = Table("Each site left out of the training set once", head, cells, people=people, within=within)
    yield Section("sites", "A site that was not in the training set", 70, lead, [], [table])


def facts(results: Results) -> Mapping[str, str]:
    """One fact for the cards, "unseen_sites": PSNR (dB) without minus PSNR with the site in the training set, as text.

    There is one difference, with its interval, per site and direction of synthesis; "" without sites.tsv.
    """
    differences = (
        f"{words.DIRECTIONS[row.direction]} at {row.site} {spread(row.difference)} dB"
        for row in SITES.read(results.root)
    )
    return {"unseen_sites": "; ".join(differences)}
