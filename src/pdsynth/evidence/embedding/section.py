"""The report on whether synthesised scans can be distinguished from real ones. It gives no facts to the cards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pdsynth.evidence.embedding.files import FIGURE, SEPARATIONS
from pdsynth.report import words
from pdsynth.report.cells import number
from pdsynth.report.sections import Section, Table, figures
from pdsynth.results.folder import Results

ADDRESSES: Mapping[str, str] = {}


def sections(results: Results) -> Iterator[Section]:
    """The report's section on whether real and synthesised scans can be distinguished, with Figure 7.

    There is none without separation.tsv. Without figure7.png, the section has no figure.
    """
    rows = SEPARATIONS.read(results.root)
    if not rows:
        return
    head = ["Target", "Grouped by", "scans", "silhouette", "nearest-neighbour accuracy", "chance"]
    cells = [
        [
            words.MODALITIES[row.modality],
            row.by,
            f"{row.n}",
            number(row.silhouette),
            number(row.knn_accuracy),
            number(row.chance),
        ]
        for row in rows
    ]
    lead = (
        "The figure shows t-SNE maps of the region patterns (all region means of a scan) of real scans and of scans "
        f"synthesised by {rows[0].method} together. The maps depend on the seed and the perplexity, which are settings "
        "of t-SNE, so they prove nothing. The table does not use these t-SNE maps: it measures, by all region means, "
        "how far groups of scans are apart, by diagnosis, by site, and real from synthesised (provenance). The "
        "silhouette is 1 for groups that are far apart and about 0 for groups that overlap. The nearest-neighbour "
        "accuracy is the share of scans whose group is that of most of the 5 nearest scans of other participants; "
        "chance is the share of the largest group. If synthesised scans cannot be distinguished from real ones, the "
        "accuracy for provenance is near chance."
    )
    table = Table("Separation of groups of scans by all region means", head, cells)
    drawn = figures(results, [FIGURE], "t-SNE of region patterns")
    fewest = min(row.n for row in rows) // 2  # a real and a synthesised scan per participant
    yield Section("embedding", "Do real and synthesised scans mix?", 60, lead, [], [table], drawn, people=fewest)


def facts(results: Results) -> Mapping[str, str]:
    """An empty dict: the cards have no text on whether real and synthesised scans can be distinguished."""
    return {}
