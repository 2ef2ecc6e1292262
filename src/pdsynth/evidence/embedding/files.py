"""Files of the claim on separation of real and synthesised scans: embedding.tsv, separation.tsv and Figure 7."""

from __future__ import annotations

from dataclasses import dataclass

from pdsynth.results.tables import TableFile
from pdsynth.types import Modality

COMMAND = "pdsynth diagnose"
FIGURE = "figure7.png"


@dataclass(frozen=True)
class Point:
    """Row of embedding.tsv: coordinates x, y of one scan in a t-SNE map.

    seed, perplexity: the settings of the map. origin: "real" or the method that synthesised the scan. participant:
    their name. modality: of the scan; each modality has its own maps.
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
    """Row of separation.tsv: how far groups of real and synthesised scans of one modality are apart.

    by: the grouping: "diagnosis", "site" or "provenance" (real or synthesised). n: number of scans; groups: number of
    groups; scans of unknown sites are one group. silhouette: 1 for groups that are far apart, about 0 for groups that
    overlap. knn_accuracy: share of scans whose group is the most frequent one among the 5 nearest scans of other
    participants. chance: share of the largest group. The three measures are nan if there are fewer than two groups or
    too few scans. method: the method that synthesised the scans among the real ones.
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
