"""Does the output follow its source, and does the method know what it does not know?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from scipy import special, stats


def shuffle_sources(n: int, groups: Sequence[str] | None = None, seed: int = 0) -> np.ndarray:
    """For each of n participants the index of another one, each used once: a random cycle (no one keeps their own).

    With groups (n,), donors come from the same group where it has two members; those alone in theirs are shuffled
    among themselves. Raises ValueError where fewer than two participants are left to swap.

    >>> shuffle_sources(4).tolist() != [0, 1, 2, 3]
    True
    """
    generator = np.random.default_rng(seed)
    labels = np.zeros(n, int) if groups is None else np.unique(np.asarray(groups, str), return_inverse=True)[1]
    counts = np.bincount(labels, minlength=1)
    labels = np.where(counts[labels] > 1, labels, -1)
    donors = np.empty(n, int)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        if len(members) < 2:
            raise ValueError(f"cannot shuffle the sources of {n} participant(s); evaluate at least two in a group.")
        cycle = generator.permutation(members)
        donors[cycle] = np.roll(cycle, 1)
    return donors


class Identification:
    """Share of predictions that lie nearest (mean squared error) to their own target among all targets.

    targets: a function that yields the targets of N participants in blocks (b, V), the same at every call. Every block
    of predictions needs all targets, so they are read again for it: memory holds one block of each, however large N
    is. The V voxels are those where all masks meet, so that the outline of the head alone identifies nobody. Chance is
    1 / N, which any constant image scores. Raises ValueError where there is no target.

    >>> faces = np.eye(3)
    >>> found = Identification(lambda: [faces[:2], faces[2:]])
    >>> found.add(faces[[0, 2]], [0, 2])
    >>> found.rate
    1.0
    """

    def __init__(self, targets: Callable[[], Iterable[np.ndarray]]) -> None:
        self._targets = targets
        number, total = 0, np.zeros(())
        for block in targets():
            number, total = number + len(block), total + np.sum(block, axis=0, dtype=np.float64)
        if number == 0:
            raise ValueError("there is no target to identify a prediction among; give at least one.")
        self._centre = (total / number).astype(np.float32)
        self._right = self._number = 0

    def add(self, predictions: np.ndarray, own: Sequence[int] | np.ndarray) -> None:
        """Count predictions (B, V); own (B,): the place of each one's target among the targets."""
        p = predictions - self._centre  # distances of centred images keep their precision in float32
        blocks = (block - self._centre for block in self._targets())
        # |p - t|^2 without |p|^2, which ranks nothing
        distance = np.concatenate([np.sum(t * t, axis=1)[None] - 2 * p @ t.T for t in blocks], axis=1)
        self._right += int(np.sum(np.argmin(distance, axis=1) == own))
        self._number += len(predictions)

    @property
    def rate(self) -> float:
        """The share of what was added, 0 to 1; nan where that is nothing."""
        return self._right / self._number if self._number else float("nan")


class WithinSite:
    """How what sets a participant apart from others at the same site is predicted: its correlation and its slope.

    Site means are subtracted from predictions and targets, then the products of all values are pooled. Pairs are added
    one by one, and means and products follow them (Welford 1962): memory holds the two means of each site, not the
    participants. A prediction that is the same for a whole site deviates by exactly 0.

    >>> found = WithinSite()
    >>> for real in np.arange(6.0).reshape(3, 2):
    ...     found.add(0.5 * real + 3, real, "a")
    >>> found.r, found.slope
    (1.0, 0.5)
    """

    def __init__(self) -> None:
        self._means: dict[str, tuple[int, np.ndarray]] = {}
        self._products = np.zeros((2, 2))

    def add(self, prediction: np.ndarray, target: np.ndarray, site: str) -> None:
        """Add a participant's prediction and target, (V,) each."""
        values = np.stack([prediction, target]).astype(np.float64)
        number, mean = self._means.get(site, (0, values))
        deviation = values - mean
        self._products += number / (number + 1) * np.sum(deviation[:, None] * deviation, axis=-1)
        self._means[site] = number + 1, mean + deviation / (number + 1)

    @property
    def r(self) -> float:
        """Correlation of predicted and real deviations; 0 where either does not vary.

        A site mean that never saw the participant scores 0, where the plain correlation is high.
        """
        norm = np.sqrt(self._products[0, 0] * self._products[1, 1])
        return float(self._products[0, 1] / norm) if norm > 1e-9 else 0.0

    @property
    def slope(self) -> float:
        """Slope of predicted on real deviations: 1 is ideal; below 1, individual differences are flattened."""
        total = self._products[1, 1]
        return float(self._products[0, 1] / total) if total > 1e-9 else 0.0


def uncertainty_of_samples(samples: np.ndarray, real: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """How honest a method's samples are inside the mask.

    samples (K >= 3, X, Y, Z); real, mask (X, Y, Z). Keys: `coverage_50`, `coverage_90` (share of voxels within the
    Student-t predictive interval of K draws; ideal .5 and .9), `crps` (fair ensemble estimator, Ferro 2014),
    `error_sd_rank_r` (Spearman, absolute error of the samples' mean against their SD) and `mean_sd`. Raises ValueError
    for fewer than three samples.
    """
    k = len(samples)
    if k < 3:
        raise ValueError(f"{k} samples say nothing about coverage; draw at least 3 (8 or more is sensible).")
    draws, truth = samples[:, mask].astype(np.float64), real[mask].astype(np.float64)
    centre, sd = draws.mean(0), draws.std(0, ddof=1)
    error = np.abs(truth - centre)
    reach = sd * np.sqrt(1 + 1 / k)
    ordered = np.sort(draws, axis=0)
    weights = 2 * np.arange(1, k + 1) - k - 1  # sum over pairs of |x_i - x_j| from order statistics
    spread = 2 * np.tensordot(weights, ordered, 1) / (k * (k - 1))
    return {
        "coverage_50": float(np.mean(error <= stats.t.ppf(0.75, k - 1) * reach)),
        "coverage_90": float(np.mean(error <= stats.t.ppf(0.95, k - 1) * reach)),
        "crps": float(np.mean(np.abs(draws - truth).mean(0) - spread / 2)),
        "error_sd_rank_r": _rank_r(error, sd),
        "mean_sd": float(sd.mean()),
    }


def uncertainty_of_sd(pred: np.ndarray, sd: np.ndarray, real: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """How honest a stated SD is inside the mask, the target taken as normal around the prediction.

    pred, sd, real, mask (X, Y, Z). The keys of `uncertainty_of_samples`; `crps` is the closed form for a normal
    distribution (Gneiting and Raftery 2007, Eq. 21). Where sd is 0 the interval is a point and CRPS the absolute error.

    >>> point = np.zeros((1, 1, 1))
    >>> round(uncertainty_of_sd(point, point + 1, point, point == 0)["crps"], 4)
    0.2337
    """
    spread = np.maximum(sd[mask].astype(np.float64), np.finfo(np.float32).tiny)
    error = np.abs(real[mask].astype(np.float64) - pred[mask])
    z = error / spread
    crps = spread * (z * (2 * special.ndtr(z) - 1) + 2 * np.exp(-z * z / 2) / np.sqrt(2 * np.pi) - 1 / np.sqrt(np.pi))
    return {
        "coverage_50": float(np.mean(z <= special.ndtri(0.75))),
        "coverage_90": float(np.mean(z <= special.ndtri(0.95))),
        "crps": float(crps.mean()),
        "error_sd_rank_r": _rank_r(error, spread),
        "mean_sd": float(spread.mean()),
    }


def _rank_r(error: np.ndarray, sd: np.ndarray) -> float:
    """Spearman correlation; 0 where either does not vary."""
    return float(stats.spearmanr(error, sd).statistic) if np.ptp(sd) > 0 and np.ptp(error) > 0 else 0.0
