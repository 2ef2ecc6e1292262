"""The difference between two groups within sites, for every resample of the participants at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pdsynth.statistics.resampling import deviations, ratio, scatter
from pdsynth.types import Diagnosis

Groups = tuple[Diagnosis, Diagnosis]  # the first less the second
AD_LESS_NC: Groups = (Diagnosis.AD, Diagnosis.NC)


def contrasted(
    n: int, groups: Sequence[str], sites: Sequence[str] | None, contrast: Groups
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which of n participants are of the contrast, (n,) bool; of these, who is of its first group, and the sites.

    Without sites all are of one. Raises ValueError where groups or sites are not n.

    >>> contrasted(3, ["NC", "MCI", "AD"], None, AD_LESS_NC)[:2]
    (array([ True, False,  True]), array([False,  True]))
    """
    labels = np.asarray(groups, str)
    places = np.zeros(n, str) if sites is None else np.asarray(sites, str)
    if not len(labels) == len(places) == n:
        raise ValueError(
            f"{n} participants have {len(labels)} groups and {len(places)} sites; give each participant one."
        )
    kept = np.isin(labels, [str(group) for group in contrast])
    return kept, labels[kept] == contrast[0], places[kept]


class Contrast:
    """The group where `first` (N,) is true less the other, within sites (N,), for each row of weights (B, N).

    pairs (B, 1): 1 / the variance of a difference of values with SD 1. df (B, 1): degrees of freedom within groups and
    sites.

    >>> values = np.array([[3.0], [5.0], [1.0], [1.0]])
    >>> contrast = Contrast(np.ones((1, 4)), np.array([True, True, False, False]), np.zeros(4, int))
    >>> contrast.difference(values).tolist(), contrast.pairs.tolist(), contrast.df.tolist()
    ([[3.0]], [[1.0]], [[2.0]])
    """

    def __init__(self, weights: np.ndarray, first: np.ndarray, sites: np.ndarray) -> None:
        self.weights, self.sites = weights, sites
        self.groups = (first, ~first)
        names, self.cells = np.unique(sites, return_inverse=True)
        self.cells = 2 * self.cells + first
        counts = weights @ (self.cells[:, None] == np.arange(2 * len(names)))
        self.df = np.maximum(counts - 1, 0).sum(1, keepdims=True)
        enough = min(first.sum(), (~first).sum()) > 1
        pairs = counts[:, ::2] * counts[:, 1::2] / np.maximum(counts[:, ::2] + counts[:, 1::2], 1)
        self.pairs = pairs.sum(1, keepdims=True) * enough

    def g(self, values: np.ndarray, spread: np.ndarray) -> np.ndarray:
        """Hedges' g (B, R) of values (N, R), by the SD of `spread` (N, R) within groups and sites."""
        sd = np.sqrt(self.covariance(spread, spread))
        return (1 - 3 / (4 * np.maximum(self.df, 1) - 1)) * ratio(self.difference(values), sd)

    def coefficients(self) -> np.ndarray:
        """Of the participants in `difference`, (B, N)."""
        return np.nan_to_num(ratio(sum(pairs * one for pairs, one in self.by_site()), self.pairs))

    def by_site(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Pairs (B, 1) and coefficients (B, N) of the difference at each site, in the order of their names."""
        found = []
        for site in np.unique(self.sites):
            a, b = (self.weights * (group & (self.sites == site)) for group in self.groups)
            n_a, n_b = a.sum(1, keepdims=True), b.sum(1, keepdims=True)
            pairs = n_a * n_b / np.maximum(n_a + n_b, 1)
            found.append((pairs, (pairs > 0) * (a / np.maximum(n_a, 1) - b / np.maximum(n_b, 1))))
        return found

    def covariance(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Of a and b (N, R) within groups and sites, (B, R)."""
        return scatter(self.weights, a, b, self.cells) / np.maximum(self.df, 1)

    def reliability(self, g: np.ndarray) -> float:
        """Share of the sum of g^2 over regions, g (B, R) as `g` gives it, beyond its sampling variance in the sample.

        That is 1 / pairs + g^2 / (2 df) for each region (Hedges and Olkin 1985).
        """
        squares = g[0][np.isfinite(g[0])] ** 2
        noise = np.sum(1 / np.maximum(self.pairs[0], 1e-9) + squares / (2 * np.maximum(self.df[0], 1)))
        return float(np.maximum(1 - ratio(noise, squares.sum()), 0))

    def difference(self, values: np.ndarray) -> np.ndarray:
        """Of the groups' means of values (N, R), (B, R): averaged over sites with weights n_a n_b / (n_a + n_b)."""
        total = np.zeros((len(self.weights), values.shape[1]))
        for site in np.unique(self.sites):
            inside = self.sites == site
            own = deviations(values[inside])
            weights = [self.weights[:, inside] * group[inside] for group in self.groups]
            (n_a, n_b), (sum_a, sum_b) = ([w.sum(1, keepdims=True) for w in weights], [w @ own for w in weights])
            total += (n_b * sum_a - n_a * sum_b) / np.maximum(n_a + n_b, 1)
        return ratio(total, self.pairs)


def gap(weights: np.ndarray, first: np.ndarray, sites: np.ndarray, here: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Coefficients (B, N) of the difference among `here` less that among `there` (N,), at the same weights of sites.

    Whatever moves a group at a site alike in both parts is gone. A site weighs as the variance of its gap bids; 0 where
    no site has both groups in both parts.
    """
    parts = [Contrast(weights * part, first, sites).by_site() for part in (here, there)]
    total, sum_of_weights = np.zeros_like(weights), np.zeros((len(weights), 1))
    for (n, c), (m, d) in zip(*parts, strict=True):
        weight = n * m / np.maximum(n + m, 1e-9)
        total += weight * (c - d)
        sum_of_weights += weight
    return np.nan_to_num(ratio(total, sum_of_weights))


def slope(y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Through the origin, (B,), over the regions that have both; y (B, R), x (B, R) or (R,)."""
    x = np.broadcast_to(x, y.shape)
    known = np.isfinite(x) & np.isfinite(y)
    return ratio(np.sum(x * y, axis=1, where=known), np.sum(x * x, axis=1, where=known))
