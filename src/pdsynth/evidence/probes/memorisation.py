"""Measures of memorisation: whether a model reproduces the people in its training set."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import pairwise_distances_argmin_min

from pdsynth.statistics.resampling import RESAMPLES, Estimate, bootstrap_weights


def nearest_neighbour_ratio(synthesised: np.ndarray, train: np.ndarray, held_out: np.ndarray) -> float:
    """Whether synthesised images are copies of training images: 0 means copies, 1 means as different as new people.

    It is the median distance of synthesised images to the nearest training image, divided by the same distance of
    held-out real images. synthesised, train, held_out: (N, F) flattened images of one modality, with any N. A smooth
    image is closer to every other image than a noisy one. Before you interpret a ratio below 1 as copying, compare it
    with the ratio for as many other held-out images in place of `train`. Distances are Euclidean. Raises ValueError if
    a set is empty, or if more than half of the held-out images are in the training set.

    >>> nearest_neighbour_ratio(np.array([[0.5]]), train=np.array([[0.0], [9.0]]), held_out=np.array([[1.0]]))
    0.5
    """
    sets = {"synthesised": synthesised, "train": train, "held_out": held_out}
    for name, images in sets.items():
        if len(images) == 0:
            raise ValueError(f"there are no {name} images to compare; give at least one.")
    centre = np.mean(train, axis=0, dtype=np.float64)  # distances of centred images keep their precision
    outputs, known, unseen = (images - centre for images in sets.values())
    reference = float(np.median(_to_nearest(unseen, known)))
    if reference <= 1e-6 * np.sqrt(np.mean(np.sum(known**2, axis=1))):
        raise ValueError("half of the held-out images are training images; hold out other participants.")
    return float(np.median(_to_nearest(outputs, known))) / reference


def membership_auc(member_errors: np.ndarray, other_errors: np.ndarray, seed: int = 0, n: int = RESAMPLES) -> Estimate:
    """Probability that the error is lower for a training participant (member) than for another person (AUC).

    0.5 is ideal; with 1, every member can be recognised by the error. Equal errors count half. member_errors (M,),
    other_errors (N,): one error per participant. The 95 % interval is from a bootstrap that resamples each set n times.
    If the two ranges of errors do not overlap, the interval has width 0, although the estimate is not certain. The
    interval is nan if a set has fewer than two participants. Raises ValueError if a set is empty.

    >>> membership_auc(np.array([1.0, 2.0, 3.0]), np.array([2.5, 3.5])).value
    0.8333333333333334
    """
    members, others = np.asarray(member_errors, np.float64), np.asarray(other_errors, np.float64)
    if min(len(members), len(others)) == 0:
        raise ValueError(f"{len(members)} members and {len(others)} others cannot be compared; give some of each.")
    lower = (1 + np.sign(others[None] - members[:, None])) / 2  # ties count half
    auc = float(lower.mean())
    if min(lower.shape) < 2:
        return Estimate(auc, float("nan"), float("nan"))
    sides = np.repeat(["member", "other"], lower.shape)
    weights = bootstrap_weights(sides, seed, n)
    drawn = np.sum((weights[:, : len(members)] @ lower) * weights[:, len(members) :], axis=1) / lower.size
    return Estimate.of(drawn, 0, 1)


def _to_nearest(images: np.ndarray, others: np.ndarray) -> np.ndarray:
    return pairwise_distances_argmin_min(images, others)[1]
