"""The difference between two groups within sites, for all resamples of the participants at once.

In this module, weights (B, N) are B resamples of N participants, as `bootstrap_weights` gives them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pdsynth.statistics.resampling import deviations, ratio, scatter
from pdsynth.types import Diagnosis

Groups = tuple[Diagnosis, Diagnosis]  # the contrast is the first group minus the second
AD_LESS_NC: Groups = (Diagnosis.AD, Diagnosis.NC)


def contrasted(
    n: int, groups: Sequence[str], sites: Sequence[str] | None, contrast: Groups
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Select the participants of two groups that are to be compared.

    groups, sites: the group and the site of each of n participants; sites is None if all are at one site. contrast: the
    two groups. Returns whether each of n participants is in one of the two groups, (n,) bool, and for those M
    participants whether they are in the first group, (M,) bool, and their sites, (M,). Raises ValueError if the number
    of groups or sites is not n.

    >>> contrasted(3, ["NC", "MCI", "AD"], None, AD_LESS_NC)[:2]
    (array([ True, False,  True]), array([False,  True]))
    """
    labels = np.asarray(groups, str)
    site_labels = np.zeros(n, str) if sites is None else np.asarray(sites, str)
    if not len(labels) == len(site_labels) == n:
        raise ValueError(
            f"{n} participants have {len(labels)} groups and {len(site_labels)} sites; give each participant one."
        )
    in_contrast = np.isin(labels, [str(group) for group in contrast])
    return in_contrast, labels[in_contrast] == contrast[0], site_labels[in_contrast]


class Contrast:
    """The difference between two groups of participants within sites, for each of B resamples of N participants.

    weights (B, N): number of times that each participant is drawn in each resample. first (N,) bool: whether a
    participant is in the first group; the difference is the first group minus the other. sites (N,): site of each
    participant. Attributes: pairs (B, 1), the sum over sites of n_a n_b / (n_a + n_b), where n_a and n_b are the
    numbers of participants of the two groups at the site; this is 1 / variance of the difference for values with SD 1,
    and 0 if one of the groups has fewer than two of the N participants. df (B, 1): degrees of freedom within groups and
    sites, the number of drawn participants minus one for each group at each site.

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
        """Hedges' g of R regions, (B, R): the group difference within sites, divided by an SD within groups and sites.

        values (N, R): one row per participant. The difference is the first group minus the other. spread (N, R): the
        values from which the SD is computed: `values` themselves, or other values of the same participants, such as
        those of real scans. The result is multiplied by 1 - 3 / (4 df - 1), which corrects for small samples. nan where
        `difference` is nan, or if `spread` does not vary within groups and sites.
        """
        sd = np.sqrt(self.covariance(spread, spread))
        return (1 - 3 / (4 * np.maximum(self.df, 1) - 1)) * ratio(self.difference(values), sd)

    def coefficients(self) -> np.ndarray:
        """Coefficients (B, N) of the participants in the group difference: difference(values) = coefficients @ values.

        All are 0 if no site has both groups, or if a group has fewer than two participants.
        """
        return np.nan_to_num(ratio(sum(pairs * one for pairs, one in self.by_site()), self.pairs))

    def by_site(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """The group difference at each site, as a list: its weight (B, 1) and the coefficients (B, N) of participants.

        The weight is n_a n_b / (n_a + n_b), where n_a and n_b are the numbers of participants of the two groups at the
        site. Weight and coefficients are 0 in a resample in which the site has none of one group. The list is sorted by
        site.
        """
        found = []
        for site in np.unique(self.sites):
            a, b = (self.weights * (group & (self.sites == site)) for group in self.groups)
            n_a, n_b = a.sum(1, keepdims=True), b.sum(1, keepdims=True)
            pairs = n_a * n_b / np.maximum(n_a + n_b, 1)
            found.append((pairs, (pairs > 0) * (a / np.maximum(n_a, 1) - b / np.maximum(n_b, 1))))
        return found

    def covariance(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Covariance (B, R) of a and b (N, R), one row per participant, within groups and sites.

        The divisor is df, or 1 if df is 0.
        """
        return scatter(self.weights, a, b, self.cells) / np.maximum(self.df, 1)

    def reliability(self, g: np.ndarray) -> float:
        """Share of the sum over regions of g^2 that is not sampling variance, from 0 to 1, without resampling.

        g (B, R): from the method `g`; only its row 0, that of the participants themselves, is used. The sampling
        variance of a region is 1 / pairs + g^2 / (2 df) (Hedges and Olkin 1985). nan if g is 0 or nan in all regions.
        """
        squares = g[0][np.isfinite(g[0])] ** 2
        noise = np.sum(1 / np.maximum(self.pairs[0], 1e-9) + squares / (2 * np.maximum(self.df[0], 1)))
        return float(np.maximum(1 - ratio(noise, squares.sum()), 0))

    def difference(self, values: np.ndarray) -> np.ndarray:
        """Group difference within sites, (B, R): mean of the first group minus mean of the second, of values (N, R).

        values: one row per participant. The differences at the sites are averaged with weights n_a n_b / (n_a + n_b),
        where n_a and n_b are the numbers of participants of the two groups at the site. nan if no site has both groups,
        or if a group has fewer than two participants.
        """
        total = np.zeros((len(self.weights), values.shape[1]))
        for site in np.unique(self.sites):
            inside = self.sites == site
            own = deviations(values[inside])
            weights = [self.weights[:, inside] * group[inside] for group in self.groups]
            (n_a, n_b), (sum_a, sum_b) = ([w.sum(1, keepdims=True) for w in weights], [w @ own for w in weights])
            total += (n_b * sum_a - n_a * sum_b) / np.maximum(n_a + n_b, 1)
        return ratio(total, self.pairs)


def gap(weights: np.ndarray, first: np.ndarray, sites: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Coefficients (B, N) of the group difference in one part of the participants minus that in the other part.

    weights (B, N): number of times that each participant is drawn in each of B resamples; first (N,) bool: whether a
    participant is in the first group; sites (N,): their sites. one, other (N,) bool: the two parts. Both differences
    use the same weights of sites, so that an offset of a group at a site that is equal in both parts cancels. The
    weight of a site is the inverse of the variance of its gap. Coefficients are 0 if no site has both groups in both
    parts.
    """
    parts = [Contrast(weights * part, first, sites).by_site() for part in (one, other)]
    total, sum_of_weights = np.zeros_like(weights), np.zeros((len(weights), 1))
    for (n, c), (m, d) in zip(*parts, strict=True):
        weight = n * m / np.maximum(n + m, 1e-9)
        total += weight * (c - d)
        sum_of_weights += weight
    return np.nan_to_num(ratio(total, sum_of_weights))


def slope(y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Slope (B,) of y on x through the origin, over regions; y (B, R): R regions in each of B resamples.

    x (B, R), or (R,) if it is the same in all resamples. Only regions where both are finite count. nan if x is 0 in all
    these regions.
    """
    x = np.broadcast_to(x, y.shape)
    known = np.isfinite(x) & np.isfinite(y)
    return ratio(np.sum(x * y, axis=1, where=known), np.sum(x * x, axis=1, where=known))
