"""Responses of a model to changes of its source: an inserted lesion, noise, and a known change of a person.

A model is a function of one whole source volume (X, Y, Z). The caller wraps a `Method`, as in
`lambda volume: method.predict(source_batch(volume, brain, direction, bval), direction)[0, 0]`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage, signal, stats

from pdsynth.atlas import Atlas, region_means
from pdsynth.statistics.resampling import Estimate, bootstrap_weights, paired, ratio

Predict = Callable[[np.ndarray], np.ndarray]
ELSEWHERE = 95  # a lesion is detected if its change exceeds this percentile of the changes elsewhere
APART = 2  # voxels farther than this from the centre of a lesion count as elsewhere, in radii


class NotMeasurableError(ValueError):
    """Too few participants, or too little room in a brain, for a measurement."""


@dataclass(frozen=True, eq=False)
class LesionResponse:
    """Response of an output to L lesions that are inserted into its source, and to noise without a lesion.

    A change is an output minus the output of the source without lesion and noise; "elsewhere" is farther from the
    centre of the lesion than twice its radius. contrast_to_noise (L,): |mean change inside the lesion - mean change
    elsewhere| divided by the SD of the change over voxels of the brain elsewhere; 0 if both means are equal, inf if
    only the lesion changes. detected (L,) bool: whether the absolute mean change inside exceeds the 95th percentile of
    those in equal spheres elsewhere, so that 5 % of lesions are detected in an output that ignores them.
    false_positives: share of positions in the brain where noise alone changes the mean of a sphere by more than half of
    the median, over the L lesions, of the absolute mean change inside. Spheres are inside the brain and have the radius
    of the lesions.
    """

    contrast_to_noise: np.ndarray
    detected: np.ndarray
    false_positives: float

    @property
    def sensitivity(self) -> float:
        """Share of lesions that are detected in the output, 0 to 1."""
        return float(self.detected.mean())


@dataclass(frozen=True, eq=False)
class CounterfactualResponse:
    """The synthesised change between two severities of the same people, compared with the real change.

    real, synthesised (R,): change of the mean signal in each of R regions (higher minus lower severity), mean over
    people. clear (R,) bool: the real change differs from 0 (t test over people, p < 0.05, not corrected). slope: of
    synthesised on real changes, through the origin, over all regions; 1 is ideal, 0 means that the output does not
    follow; nan if nothing real changes. sign_agreement: share of clear regions whose synthesised change has the sign of
    the real one; nan if there is no clear region. Intervals are 95 %, over people.
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
    """Put a bright or dark spherical lesion into a volume; returns (X, Y, Z) float32, clipped to 0..1.

    volume (X, Y, Z) in 0..1; brain (X, Y, Z) bool. Voxels of the brain inside the sphere are multiplied by `factor`:
    above 1 brightens, below 1 darkens. centre_voxel: index of the centre (3,); spacing_mm: voxel spacing (3,), mm. The
    edge is smooth: a raised cosine from `factor` to 1 across one voxel (of the coarsest axis) at the radius.

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
    *,
    radius_mm: float = 8.0,
    factor: float = 1.5,
    noise_sd: float = 0.02,
    lesions: int = 10,
    seed: int = 0,
) -> LesionResponse:
    """Measure whether an output shows lesions that are inserted into its source, one lesion at a time.

    predict: the output as a function of the source (X, Y, Z). source (X, Y, Z) in 0..1; brain (X, Y, Z) bool;
    spacing_mm (3,): voxel spacing. lesions: number of lesions, at random positions more than radius_mm (mm) inside the
    brain. factor: signal inside a lesion divided by the signal without it. noise_sd: SD of Gaussian noise in the units
    of the source, as the difference of a repeated scan. seed: of positions and noise.

    Two outputs are computed for each lesion: that of the source with the lesion and new noise in the brain, and that of
    the source with the same noise alone. The output of the source itself, which is computed once, is subtracted from
    both. The first difference is the change by the lesion, the second gives the false positives (see `LesionResponse`).

    With the identity as `predict`, the result is that of the source itself, for comparison: an output with less noise
    than the source can have a higher contrast-to-noise ratio. Means of spheres are compared, because the noise in the
    output of a model is smooth. Raises NotMeasurableError if no sphere of this radius fits into the brain or beside a
    lesion, and ValueError if noise_sd or lesions is not positive.
    """
    if noise_sd <= 0 or lesions < 1:
        raise ValueError(f"noise_sd is {noise_sd} and lesions {lesions}; give noise above 0 and at least one lesion.")
    brain, spacing_mm = np.asarray(brain) > 0, np.asarray(spacing_mm, float)
    depth = ndimage.distance_transform_edt(np.pad(brain, 1), sampling=spacing_mm)[1:-1, 1:-1, 1:-1]
    deep = depth > radius_mm
    if not deep.any():
        raise NotMeasurableError(f"no sphere of {radius_mm} mm fits into the brain; choose a smaller radius.")
    generator = np.random.default_rng(seed)
    centres = np.argwhere(deep)[generator.integers(deep.sum(), size=lesions)]
    still = predict(np.asarray(source, np.float32))
    sizes, contrasts, detected, noise_only = [], [], [], []
    for centre in centres:
        noise = brain * generator.normal(0, noise_sd, brain.shape)
        lesioned = insert_lesion(source, brain, centre, radius_mm, spacing_mm, factor)
        change = predict(np.asarray(lesioned + noise, np.float32)) - still
        distance = _distance(brain.shape, centre, spacing_mm)
        inside, elsewhere = distance <= radius_mm, distance > APART * radius_mm
        local = np.abs(_local_mean(change, radius_mm, spacing_mm))
        if not (deep & elsewhere).any():
            raise NotMeasurableError(
                f"the brain has no room beside a lesion of {radius_mm} mm; choose a smaller radius."
            )
        contrasts.append(_contrast(change[inside], change[elsewhere & brain]))
        detected.append(local[tuple(centre)] > np.percentile(local[deep & elsewhere], ELSEWHERE))
        sizes.append(local[tuple(centre)])
        by_noise = predict(np.asarray(source + noise, np.float32)) - still
        noise_only.append(np.abs(_local_mean(by_noise, radius_mm, spacing_mm))[deep])
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
    """Compare the change of the output between two severities of the same people (high minus low) with the real change.

    All volumes are of the target modality, (people, X, Y, Z), with the same people in the same order. predict_low,
    predict_high: synthesised from the source of the same person at that severity; real_low, real_high: the real target.
    atlas: the regions whose mean changes are compared. seed: of the bootstrap over people. Raises ValueError for fewer
    than two people, or if the shapes differ.
    """
    if len(real_low) < 2:
        raise ValueError(f"{len(real_low)} person(s) are too few for an interval; give at least 2.")
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
    """Distance of every voxel from the voxel `centre_voxel`, mm."""
    offsets = np.indices(shape).T - np.asarray(centre_voxel)
    return np.asarray(np.linalg.norm(offsets * spacing_mm, axis=-1).T)


def _local_mean(change: np.ndarray, radius_mm: float, spacing_mm: np.ndarray) -> np.ndarray:
    """Mean in the sphere around every voxel, (X, Y, Z). Voxels outside the grid count as 0."""
    reach = np.floor(radius_mm / spacing_mm).astype(int)
    ball = _distance(tuple(2 * reach + 1), reach, spacing_mm) <= radius_mm
    return np.asarray(signal.fftconvolve(change.astype(np.float64), ball / ball.sum(), mode="same"))


def _contrast(inside: np.ndarray, elsewhere: np.ndarray) -> float:
    """|difference of means| divided by the SD elsewhere; 0 if the means are equal, else inf if the SD is 0."""
    difference = abs(float(inside.mean(dtype=np.float64)) - float(elsewhere.mean(dtype=np.float64)))
    spread = float(elsewhere.std(dtype=np.float64))
    if difference == 0:
        return 0.0
    return difference / spread if spread > 0 else float("inf")
