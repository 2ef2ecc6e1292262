"""Audits of a method: the dependence of its output on the source scan, and the calibration of its uncertainty."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from scipy import special, stats


def shuffle_sources(n: int, groups: Sequence[str] | None = None, seed: int = 0) -> np.ndarray:
    """A donor for each of n participants: the index (n,) of another participant, whose source replaces their own.

    Donors follow a random cyclic permutation: each participant is a donor once, and nobody is their own donor. With
    groups (n,), donors come from the same group if it has two members or more; participants without another member in
    their group are shuffled among each other. Raises ValueError if a single participant remains, for whom there is no
    donor.

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
            raise ValueError(f"cannot shuffle the sources of {n} participant(s); evaluate at least two per group.")
        cycle = generator.permutation(members)
        donors[cycle] = np.roll(cycle, 1)
    return donors


def nearest(predictions: np.ndarray, targets: Iterable[np.ndarray], centre: np.ndarray) -> np.ndarray:
    """The index of the real scan that is nearest to each prediction, by mean squared error: (B,).

    predictions: (B, V). targets: N real scans in blocks (b, V), numbered from 0 in their order. The V voxels should be
    inside the brain masks of all scans, so that the outline of the head alone identifies nobody. centre (V,): a volume
    near all of them, such as the mean of the targets; it is subtracted, so that float32 distances are precise. Memory
    holds the predictions and one block of targets for any N. If all predictions are the same, they are nearest to the
    same target, so that 1 / N of them is nearest to its own.

    >>> scans = np.eye(3)
    >>> nearest(scans[[0, 2]], [scans[:2], scans[2:]], scans.mean(0)).tolist()
    [0, 2]
    """
    p = predictions - centre
    blocks = (block - centre for block in targets)
    # |p - t|^2 without |p|^2, which is the same for all targets
    distance = np.concatenate([np.sum(t * t, axis=1)[None] - 2 * p @ t.T for t in blocks], axis=1)
    return np.argmin(distance, axis=1)


class WithinSite:
    """How well predicted scans follow the differences between participants of the same site: correlation and slope.

    The mean of the site's predictions is subtracted from each prediction, and the mean of the site's real scans from
    each real scan. The correlation and the slope are of the first deviations on the second, over all voxels and scans
    together; both are 0 if no site has two scans. Means and products are updated by each added pair (Welford 1962), so
    that memory holds two means per site and not the participants. A prediction that is the same for a whole site has
    deviations of exactly 0.

    >>> within = WithinSite()
    >>> for real in np.arange(6.0).reshape(3, 2):
    ...     within.add(0.5 * real + 3, real, "a")
    >>> within.r, within.slope
    (1.0, 0.5)
    """

    def __init__(self) -> None:
        self._means: dict[str, tuple[int, np.ndarray]] = {}
        self._products = np.zeros((2, 2))

    def add(self, prediction: np.ndarray, target: np.ndarray, site: str) -> None:
        """Add the predicted and the real values of one scan, (V,) each, over the same V voxels for all scans.

        site: the name of the site at which the scan was acquired.
        """
        values = np.stack([prediction, target]).astype(np.float64)
        number, mean = self._means.setdefault(site, (0, values.copy()))
        deviation = values - mean
        self._products += number / (number + 1) * np.sum(deviation[:, None] * deviation, axis=-1)
        mean += deviation / (number + 1)  # in place
        self._means[site] = number + 1, mean

    @property
    def r(self) -> float:
        """Correlation of predicted and real deviations from the mean of the site; 0 if one of them does not vary.

        If a site's mean is predicted for each of its participants, r is 0, although the correlation without the
        subtraction of site means is high.
        """
        norm = np.sqrt(self._products[0, 0] * self._products[1, 1])
        return float(self._products[0, 1] / norm) if norm > 1e-9 else 0.0

    @property
    def slope(self) -> float:
        """Slope of predicted on real deviations from the mean of the site; 0 if the real ones do not vary.

        1 is ideal; below 1 the predicted differences between participants are too small.
        """
        total = self._products[1, 1]
        return float(self._products[0, 1] / total) if total > 1e-9 else 0.0


def uncertainty_of_samples(samples: np.ndarray, real: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """Scores of the uncertainty that random samples of one scan show, over the voxels of the mask.

    samples (K, X, Y, Z): K samples of the scan, at least 3; real (X, Y, Z): the real scan; mask (X, Y, Z) bool, not
    empty. Keys: `coverage_50`, `coverage_90` (share of voxels whose real value is within the 50 or 90 % Student-t
    predictive interval of K samples; ideal .5 and .9), `crps` (mean continuous ranked probability score in the unit of
    the images, lower is better, by the fair ensemble estimator of Ferro 2014), `error_sd_rank_r` (Spearman correlation
    over voxels of the absolute error of the samples' mean with their SD; 0 if one of them does not vary) and `mean_sd`
    (mean over voxels of the SD of the samples). At an SD of 0 the interval is a point. Raises ValueError for fewer than
    three samples.
    """
    k = len(samples)
    if k < 3:
        raise ValueError(f"{k} samples are too few to estimate coverage; draw at least 3, better 8 or more.")
    draws, truth = samples[:, mask].astype(np.float64), real[mask].astype(np.float64)
    centre, sd = draws.mean(0), draws.std(0, ddof=1)
    error = np.abs(truth - centre)
    reach = sd * np.sqrt(1 + 1 / k)
    ordered = np.sort(draws, axis=0)
    weights = 2 * np.arange(1, k + 1) - k - 1  # give the sum of |x_i - x_j| over pairs from order statistics
    spread = 2 * np.tensordot(weights, ordered, 1) / (k * (k - 1))
    return {
        "coverage_50": float(np.mean(error <= stats.t.ppf(0.75, k - 1) * reach)),
        "coverage_90": float(np.mean(error <= stats.t.ppf(0.95, k - 1) * reach)),
        "crps": float(np.mean(np.abs(draws - truth).mean(0) - spread / 2)),
        "error_sd_rank_r": _rank_r(error, sd),
        "mean_sd": float(sd.mean()),
    }


def uncertainty_of_sd(pred: np.ndarray, sd: np.ndarray, real: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """Scores of the SD that a method gives with its estimate `pred`, over the voxels of the mask.

    pred, sd, real, mask (X, Y, Z); mask is bool and not empty. The real value is assumed to be normally distributed
    around `pred` with this SD. Keys: `coverage_50`, `coverage_90` (share of voxels whose real value is within the 50 or
    90 % interval of this distribution; ideal .5 and .9), `crps` (mean continuous ranked probability score in the unit
    of the images, lower is better; Gneiting and Raftery 2007, Eq. 21), `error_sd_rank_r` (Spearman correlation over
    voxels of the absolute error with the SD; 0 if one of them does not vary) and `mean_sd` (mean of the SD over
    voxels). At an SD of 0 the interval is a point, and the CRPS is the absolute error.

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
    """Spearman correlation of two arrays (V,); 0 if the error or the SD does not vary."""
    return float(stats.spearmanr(error, sd).statistic) if np.ptp(sd) > 0 and np.ptp(error) > 0 else 0.0
