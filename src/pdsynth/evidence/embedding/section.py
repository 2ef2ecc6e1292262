"""The report on how real and synthesised scans mix. The cards have no fact of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pdsynth.evidence.embedding.files import FIGURE, SEPARATIONS
from pdsynth.report import words
from pdsynth.report.cells import number
from pdsynth.report.sections import Section, Table, figures
from pdsynth.results.folder import Results

ADDRESSES: Mapping[str, str] = {}


def sections(results: Results) -> Iterator[Section]:
    """Separation by diagnosis, site and provenance, and Figure 7."""
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
        "t-SNE of region patterns, real and synthesised scans embedded together. The pictures change with seed and "
        "perplexity and prove nothing; the table holds measures in the original space, beside chance. Where "
        "synthesised scans cannot be distinguished from real ones, provenance is at chance."
    )
    table = Table("In the original space", head, cells)
    drawn = figures(results, [FIGURE], "t-SNE of region patterns")
    yield Section("embedding", "Do real and synthesised scans mix?", 60, lead, [], [table], drawn)


def facts(results: Results) -> Mapping[str, str]:
    """None."""
    return {}
