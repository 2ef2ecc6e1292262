"""Does the output follow its source, and does the method know what it does not know?"""

from __future__ import annotations

from collections.abc import Sequence

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


def identification_rate(predictions: np.ndarray, targets: np.ndarray, masks: np.ndarray) -> float:
    """Share of predictions that lie nearest (mean squared error) to their own target among all targets.

    predictions, targets (N, X, Y, Z); masks (N, X, Y, Z). Distances are taken where all masks meet, so that the
    outline of the head alone identifies nobody. Chance is 1 / N, which any constant image scores.

    >>> faces = np.eye(3).reshape(3, 3, 1, 1)
    >>> identification_rate(faces, faces, np.ones_like(faces, bool))
    1.0
    """
    common = np.all(masks, axis=0)
    p, t = predictions[:, common].astype(np.float32), targets[:, common].astype(np.float32)
    centre = t.mean(0)  # distances of centred images keep their precision in float32
    p, t = p - centre, t - centre
    distance = np.sum(t * t, axis=1)[None] - 2 * p @ t.T  # |p - t|^2 without |p|^2, which ranks nothing
    return float(np.mean(np.argmin(distance, axis=1) == np.arange(len(p))))


def within_site_r(predictions: np.ndarray, targets: np.ndarray, sites: Sequence[str]) -> float:
    """Correlation of what sets a participant apart from the others at the same site, predicted against real.

    predictions, targets (N, features...): site means are subtracted from each, then all values are pooled. A site mean
    that never saw the participant scores 0, where the plain correlation is high. 0 where nothing varies.
    """
    p, t = _site_deviations(predictions, sites), _site_deviations(targets, sites)
    norm = np.sqrt(np.sum(p * p) * np.sum(t * t))
    return float(np.sum(p * t) / norm) if norm > 1e-9 else 0.0


def within_site_slope(predictions: np.ndarray, targets: np.ndarray, sites: Sequence[str]) -> float:
    """Slope of predicted on real deviations from the site's mean; 1 is ideal, below 1 the individual is flattened."""
    p, t = _site_deviations(predictions, sites), _site_deviations(targets, sites)
    total = np.sum(t * t)
    return float(np.sum(p * t) / total) if total > 1e-9 else 0.0


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


def _site_deviations(values: np.ndarray, sites: Sequence[str]) -> np.ndarray:
    """values (N, ...) -> (N, features) float64, each site's mean subtracted."""
    flat = np.asarray(values, np.float64).reshape(len(values), -1)
    labels = np.asarray(sites, str)
    deviations = np.empty_like(flat)
    for site in np.unique(labels):
        deviations[labels == site] = flat[labels == site] - flat[labels == site].mean(0)
    return deviations
