"""Files of the claim on separation of real and synthesised scans: embedding.tsv, separation.tsv and Figure 7."""

from __future__ import annotations

from dataclasses import dataclass

from pdsynth.results.tables import TableFile
from pdsynth.types import Modality

COMMAND = "pdsynth diagnose"
FIGURE = "figure7.png"


@dataclass(frozen=True)
class Point:
    """Coordinates of one scan in the t-SNE map of one seed and perplexity.

    origin: "real" or the method that synthesised the scan.
    """

    seed: int
    perplexity: float
    origin: str
    participant: str
    x: float
    y: float
    modality: Modality


@dataclass(frozen=True)
class Separation:
    """Separation of real and synthesised scans of one modality by one grouping (see `separation`).

    by: "diagnosis", "site" or "provenance". n: number of scans; groups: number of groups. method: the method that
    synthesised the scans among the real ones.
    """

    by: str
    n: int
    groups: int
    silhouette: float
    knn_accuracy: float
    chance: float
    modality: Modality
    method: str


POINTS = TableFile("embedding.tsv", Point, COMMAND)
SEPARATIONS = TableFile("separation.tsv", Separation, COMMAND)
