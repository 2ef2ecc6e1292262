"""Files of the claim on mixing: embedding.tsv, separation.tsv and Figure 7."""

from __future__ import annotations

from dataclasses import dataclass

from pdsynth.results.tables import TableFile
from pdsynth.types import Modality

COMMAND = "pdsynth diagnose"
FIGURE = "figure7.png"


@dataclass(frozen=True)
class Point:
    """A scan in a t-SNE map of a seed and perplexity; origin: "real" or the method that synthesised it."""

    seed: int
    perplexity: float
    origin: str
    participant: str
    x: float
    y: float
    modality: Modality


@dataclass(frozen=True)
class Separation:
    """How far scans of a modality separate by a grouping (see `separation`); method: whose synthesised scans."""

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
