"""What a model does with what it has not seen: a lesion, noise that looks like none, a known change of a person.

A model is a function of one whole source volume. Of a `Method` it is made by the caller, as
`lambda volume: method.predict(source_batch(volume, brain, direction, bval), direction)` less the batch's axes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage, signal, stats

from pdsynth.atlas import Atlas, region_means
from pdsynth.statistics.resampling import Estimate, bootstrap_weights, paired, ratio

Predict = Callable[[np.ndarray], np.ndarray]
ELSEWHERE = 95  # percentile of the changes elsewhere that a lesion's has to pass
APART = 2  # radii between a lesion's centre and a place that counts as elsewhere


@dataclass(frozen=True, eq=False)
class LesionResponse:
    """How an output answers to lesions in its source, and to noise without any.

    contrast_to_noise (L,): of each lesion, |mean change inside - mean change elsewhere| over the SD elsewhere, voxel by
    voxel; 0 where nothing changes, inf where the lesion alone does. detected (L,) bool: the mean change inside passes
    the 95th percentile of those of equal spheres elsewhere, so that 5 % are detected in an output that knows nothing of
    the lesion. false_positives: share of places that change, by noise alone, by more than half of what a lesion changes
    (the median over lesions).
    """

    contrast_to_noise: np.ndarray
    detected: np.ndarray
    false_positives: float

    @property
    def sensitivity(self) -> float:
        """Share of lesions that the output shows."""
        return float(self.detected.mean())


@dataclass(frozen=True, eq=False)
class CounterfactualResponse:
    """The synthesised change between two severities of the same people against the real one.

    real, synthesised (R,): mean over people of each region's change. clear (R,) bool: the real change differs from 0
    (t test over people, p < .05, not corrected). slope: of synthesised on real through the origin over all regions; 1
    is ideal, 0 an output that does not follow. sign_agreement: share of clear regions that change in the real
    direction; nan without any. Intervals are over people.
    """

    real: np.ndarray
    synthesised: np.ndarray
    clear: np.ndarray
    slope: Estimate
    sign_agreement: Estimate


def insert_lesion(
    volume: np.ndarray,
    brain: np.ndarray,
    centre_voxel: np.ndarray,
    radius_mm: float,
    spacing_mm: np.ndarray,
    factor: float,
) -> np.ndarray:
    """The volume with its brain times `factor` inside a sphere, clipped to 0..1: (X, Y, Z) float32.

    brain (X, Y, Z) bool. The edge is smooth, a raised cosine from one to the other over a voxel (the coarsest axis)
    about the radius. factor above 1 brightens, below 1 darkens.

    >>> row = np.full((9, 1, 1), 0.5)
    >>> insert_lesion(row, row > 0, np.array([4, 0, 0]), 2.0, np.ones(3), 1.5)[:, 0, 0].tolist()
    [0.5, 0.5, 0.625, 0.75, 0.75, 0.75, 0.625, 0.5, 0.5]
    """
    spacing_mm = np.asarray(spacing_mm, float)
    beyond = np.clip((_distance(volume.shape, centre_voxel, spacing_mm) - radius_mm) / spacing_mm.max(), -0.5, 0.5)
    weight = (brain > 0) * 0.5 * (1 - np.sin(np.pi * beyond))
    return np.asarray(np.clip(volume * (1 + (factor - 1) * weight), 0, 1), np.float32)


def lesion_response(
    predict: Predict,
    source: np.ndarray,
    brain: np.ndarray,
    spacing_mm: np.ndarray,
    radius_mm: float = 8.0,
    factor: float = 1.5,
    noise_sd: float = 0.02,
    lesions: int = 10,
    seed: int = 0,
) -> LesionResponse:
    """Insert lesions, one at a time at random places deep in the brain, each under fresh noise, and watch the output.

    source (X, Y, Z) in 0..1; brain (X, Y, Z) bool. noise_sd is of the Gaussian noise, in the source's units, that a
    repeated scan would differ by; it is added in the brain alone, with a lesion and without, and calls `predict`
    1 + 2 * lesions times. With the identity for `predict` the answer is the source's own: what could be seen at best.
    Raises ValueError where no sphere of that radius fits into the brain, or noise or lesions are not positive.

    Local means are compared rather than single voxels, since noise that a model makes is smooth.
    """
    if noise_sd <= 0 or lesions < 1:
        raise ValueError(f"noise_sd is {noise_sd} and lesions {lesions}; give noise above 0 and at least one lesion.")
    brain, spacing_mm = np.asarray(brain) > 0, np.asarray(spacing_mm, float)
    depth = ndimage.distance_transform_edt(np.pad(brain, 1), sampling=spacing_mm)[1:-1, 1:-1, 1:-1]
    deep = depth > radius_mm
    if not deep.any():
        raise ValueError(f"no sphere of {radius_mm} mm fits into the brain; choose a smaller radius.")
    generator = np.random.default_rng(seed)
    centres = np.argwhere(deep)[generator.integers(deep.sum(), size=lesions)]
    still = predict(np.asarray(source, np.float32))
    sizes, contrasts, detected, noise_only = [], [], [], []
    for centre in centres:
        noise = brain * generator.normal(0, noise_sd, brain.shape)
        hurt = insert_lesion(source, brain, centre, radius_mm, spacing_mm, factor)
        change = predict(np.asarray(hurt + noise, np.float32)) - still
        distance = _distance(brain.shape, centre, spacing_mm)
        inside, elsewhere = distance <= radius_mm, distance > APART * radius_mm
        local = np.abs(_local_mean(change, radius_mm, spacing_mm))
        if not (deep & elsewhere).any():
            raise ValueError(f"the brain has no room beside a lesion of {radius_mm} mm; choose a smaller radius.")
        contrasts.append(_contrast(change[inside], change[elsewhere & brain]))
        detected.append(local[tuple(centre)] > np.percentile(local[deep & elsewhere], ELSEWHERE))
        sizes.append(local[tuple(centre)])
        unhurt = predict(np.asarray(source + noise, np.float32)) - still
        noise_only.append(np.abs(_local_mean(unhurt, radius_mm, spacing_mm))[deep])
    false_positives = float(np.mean(np.concatenate(noise_only) > np.median(sizes) / 2))
    return LesionResponse(np.array(contrasts), np.array(detected), false_positives)


def counterfactual_response(
    predict_low: np.ndarray,
    predict_high: np.ndarray,
    real_low: np.ndarray,
    real_high: np.ndarray,
    atlas: Atlas,
    seed: int = 0,
) -> CounterfactualResponse:
    """Does the output change as the person does? Volumes (N people, X, Y, Z) of the target at the two severities.

    predict_*: synthesised from the same person's source at that severity; real_*: the target itself. Raises ValueError
    for fewer than two people or volumes that do not fit each other.
    """
    if len(real_low) < 2:
        raise ValueError(f"{len(real_low)} person(s) give no interval; probe at least 2.")
    real, synthesised = paired(
        region_means(real_high, atlas) - region_means(real_low, atlas),
        region_means(predict_high, atlas) - region_means(predict_low, atlas),
    )
    n = len(real)
    weights = bootstrap_weights(np.zeros(n), seed) / n
    means_real, means_synthesised = weights @ real, weights @ synthesised
    slope = ratio((means_real * means_synthesised).sum(1), np.square(means_real).sum(1))
    clear = np.abs(real.mean(0)) > stats.t.ppf(0.975, n - 1) * stats.sem(real, axis=0)
    same = np.sign(means_synthesised) == np.sign(real.mean(0))
    agreement = same[:, clear].mean(1) if clear.any() else np.full(len(weights), np.nan)
    return CounterfactualResponse(
        real=means_real[0],
        synthesised=means_synthesised[0],
        clear=clear,
        slope=Estimate.of(slope),
        sign_agreement=Estimate.of(agreement, 0, 1),
    )


def _distance(shape: tuple[int, ...], centre_voxel: np.ndarray, spacing_mm: np.ndarray) -> np.ndarray:
    """Of every voxel from one of them, mm."""
    offsets = np.indices(shape).T - np.asarray(centre_voxel)
    return np.asarray(np.linalg.norm(offsets * spacing_mm, axis=-1).T)


def _local_mean(change: np.ndarray, radius_mm: float, spacing_mm: np.ndarray) -> np.ndarray:
    """Mean in the sphere about every voxel, (X, Y, Z); zero beyond the grid."""
    reach = np.floor(radius_mm / spacing_mm).astype(int)
    ball = _distance(tuple(2 * reach + 1), reach, spacing_mm) <= radius_mm
    return np.asarray(signal.fftconvolve(change.astype(np.float64), ball / ball.sum(), mode="same"))


def _contrast(inside: np.ndarray, elsewhere: np.ndarray) -> float:
    """|difference of means| over the SD elsewhere; 0 where they do not differ, inf where nothing varies elsewhere."""
    difference = abs(float(inside.mean(dtype=np.float64)) - float(elsewhere.mean(dtype=np.float64)))
    spread = float(elsewhere.std(dtype=np.float64))
    if difference == 0:
        return 0.0
    return difference / spread if spread > 0 else float("inf")
