"""Does a generator repeat the people it was trained on?"""

from __future__ import annotations

import numpy as np
from sklearn.metrics import pairwise_distances_argmin_min

from pdsynth.statistics.resampling import RESAMPLES, Estimate, bootstrap_weights


def nearest_neighbour_ratio(synthesised: np.ndarray, train: np.ndarray, held_out: np.ndarray) -> float:
    """Median distance of synthesised images to their nearest real training image, over that of held-out real images.

    Each (N, F): images of a modality, flattened. About 1: as near as people who were never seen; 0: copies. A smooth
    image is nearer to everybody than a noisy one, so before a ratio below 1 is called copying, compare it with that
    of as many other held-out images in the place of `train`. Distances are Euclidean. Raises ValueError where a set
    is empty, or where half of the held-out images are in the training set.

    >>> nearest_neighbour_ratio(np.array([[0.5]]), train=np.array([[0.0], [9.0]]), held_out=np.array([[1.0]]))
    0.5
    """
    sets = {"synthesised": synthesised, "train": train, "held_out": held_out}
    for name, images in sets.items():
        if len(images) == 0:
            raise ValueError(f"there are no {name} images to compare; give at least one.")
    centre = np.mean(train, axis=0, dtype=np.float64)  # distances of centred images keep their precision
    made, known, unseen = (images - centre for images in sets.values())
    usual = float(np.median(_to_nearest(unseen, known)))
    if usual <= 1e-6 * np.sqrt(np.mean(np.sum(known**2, axis=1))):
        raise ValueError("half of the held-out images are training images; hold out other participants.")
    return float(np.median(_to_nearest(made, known))) / usual


def membership_auc(member_errors: np.ndarray, other_errors: np.ndarray, seed: int = 0, n: int = RESAMPLES) -> Estimate:
    """AUC of "the error is lower on people it was trained on": ideal .5; 1: every member is known by their error.

    member_errors (M,), other_errors (N,): one a participant, training and never seen. The bootstrap resamples each set
    n times. Where the sets do not overlap at all the interval has no width, which is no certainty. It is nan for fewer
    than two participants in a set. Raises ValueError where a set is empty.

    >>> membership_auc(np.array([1.0, 2.0, 3.0]), np.array([2.5, 3.5])).value
    0.8333333333333334
    """
    members, others = np.asarray(member_errors, np.float64), np.asarray(other_errors, np.float64)
    if min(len(members), len(others)) == 0:
        raise ValueError(f"{len(members)} members and {len(others)} others can't be told apart; give some of each.")
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
