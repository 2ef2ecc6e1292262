"""t-SNE maps of real and synthesised patterns (the paper's Fig. 7), and their separation in the original space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.metrics import silhouette_score
from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from pdsynth.evidence.embedding.files import POINTS, SEPARATIONS, Point, Separation
from pdsynth.results.patterns import REAL, Patterns
from pdsynth.results.tables import records
from pdsynth.types import Modality

PERPLEXITIES = (5.0, 15.0, 30.0)
COMPONENTS = 50
NEIGHBOURS = 5


@dataclass(frozen=True)
class Embedding:
    """t-SNE maps of real and synthesised scans, and measures of their separation.

    points: rows of embedding.tsv. separations: rows of separation.tsv.
    """

    points: list[Point]
    separations: list[Separation]

    def write(self, root: Path) -> None:
        """Write embedding.tsv and separation.tsv into an existing results folder, in place of earlier ones.

        Their rows are those of `points` and of `separations`.
        """
        POINTS.write(root, self.points)
        SEPARATIONS.write(root, self.separations)


def embedding(patterns: Patterns, method: str) -> Embedding:
    """t-SNE maps of the real scans and of those of one method, and measures of their separation, for both modalities.

    The separation is by diagnosis, by site and by origin (real or synthesised). patterns: region means, one row per
    participant; method: the method that synthesised the scans. Raises ValueError for fewer than four participants, and
    KeyError if the method lacks a modality.
    """
    points: list[Point] = []
    separations: list[Separation] = []
    names = patterns.people["participant_id"].tolist()
    for modality in Modality:
        origins = {origin: patterns.values[modality, origin] for origin in (REAL, method)}
        points += [Point(**row, modality=modality) for row in records(embed(origins, names))]
        found = records(separation(origins, patterns.people))
        separations += [Separation(**row, modality=modality, method=method) for row in found]
    return Embedding(points, separations)


def embed(
    origins: Mapping[str, np.ndarray],
    participants: Sequence[str],
    seeds: Sequence[int] = (0, 1, 2),
    perplexities: Sequence[float] = PERPLEXITIES,
) -> pd.DataFrame:
    """t-SNE maps (van der Maaten and Hinton 2008) of real and synthesised scans of one modality together.

    origins: region means (N, R) by origin ("real" or a method's name), one row per participant; participants: their N
    names. Region means are standardised and reduced by PCA to 50 components, or fewer if there are fewer scans or
    regions. Returns one row per scan, seed and perplexity with the columns seed, perplexity, origin, participant, x, y.
    A perplexity above (S - 1) / 3, where S is the number of scans of all origins, is lowered to it; equal perplexities
    give one map. Differences between seeds are not properties of the data. Raises ValueError for fewer than four
    participants.
    """
    values = _standardised(origins)
    people = len(set(participants))
    if people < 4:
        raise ValueError(f"{people} participant(s) are too few for a map; give at least 4.")
    reduced = PCA(min(COMPONENTS, *values.shape), random_state=0).fit_transform(values)
    keys = pd.DataFrame([(origin, person) for origin in origins for person in participants])
    keys.columns = ["origin", "participant"]
    tables = []
    for perplexity in sorted({min(p, (len(values) - 1) / 3) for p in perplexities}):
        for seed in seeds:
            points = TSNE(perplexity=perplexity, init="random", random_state=seed).fit_transform(reduced)
            table = keys.assign(x=points[:, 0].astype(float), y=points[:, 1].astype(float))
            table.insert(0, "seed", seed)
            table.insert(1, "perplexity", perplexity)
            tables.append(table)
    return pd.concat(tables, ignore_index=True)


def separation(origins: Mapping[str, np.ndarray], people: pd.DataFrame) -> pd.DataFrame:
    """Measures of how far groups of scans of one modality are apart: by diagnosis, by site, and real from synthesised.

    origins: region means (N, R) by origin ("real" or a method's name); people: N rows with participant_id, diagnosis,
    site. Region means are standardised. Returns one row per grouping, with by ("diagnosis", "site" or "provenance", the
    origin), n (scans), groups (number of groups), silhouette (Rousseeuw 1987; -1 to 1), knn_accuracy (share of scans
    whose group is the most frequent one among the 5 nearest scans of other participants) and chance (the accuracy of
    always guessing the largest group). Scans whose label is NaN are left out of that row; the text "n/a" is a label
    like others. Measures are nan if there are fewer than two groups, if each scan is a group, or if a participant has
    fewer than 5 scans of others. With good synthesis, knn_accuracy for provenance is near chance.
    """
    values = _standardised(origins)
    copies = len(origins)
    participants = np.tile(people["participant_id"].to_numpy(str), copies)
    labels = {
        "diagnosis": np.tile(people["diagnosis"].to_numpy(object), copies),
        "site": np.tile(people["site"].to_numpy(object), copies),
        "provenance": np.repeat(np.array(list(origins), object), len(people)),
    }
    rows = []
    for by, groups in labels.items():
        known = ~pd.isna(groups)
        measured = _separation(values[known], groups[known].astype(str), participants[known])
        rows.append({"by": by, "n": int(known.sum()), "groups": len(set(groups[known]))} | measured)
    return pd.DataFrame(rows)


def _standardised(origins: Mapping[str, np.ndarray]) -> np.ndarray:
    """The scans of all origins together, (origins x N, R), each region with mean 0 and SD 1 over all scans."""
    return StandardScaler().fit_transform(np.concatenate(list(origins.values())))


def _separation(values: np.ndarray, groups: np.ndarray, participants: np.ndarray) -> dict[str, float]:
    """Silhouette, knn_accuracy and chance of one grouping (see `separation`); values (N, R), the others (N,)."""
    counts = np.unique(groups, return_counts=True)[1]
    nothing = {"silhouette": np.nan, "knn_accuracy": np.nan, "chance": np.nan}
    fewest_others = len(values) - np.unique(participants, return_counts=True)[1].max() if len(values) else 0
    if not 2 <= len(counts) < len(values) or fewest_others < NEIGHBOURS:
        return nothing
    nearest = cross_val_predict(
        KNeighborsClassifier(NEIGHBOURS), values, groups, groups=participants, cv=LeaveOneGroupOut()
    )
    return {
        "silhouette": float(silhouette_score(values, groups)),
        "knn_accuracy": float(np.mean(nearest == groups)),
        "chance": float(counts.max() / counts.sum()),
    }
