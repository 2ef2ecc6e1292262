"""Edges and spatial frequencies: whether a synthesised volume is as sharp as the real one."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy import fft, ndimage

from pdsynth.evaluation.metrics.masks import bounding_box, ratio
from pdsynth.evaluation.metrics.metric import Better, Metric

HFEN_SIGMA, HFEN_TRUNCATE, HFEN_RADIUS = 1.5, 4.7, 7  # a kernel of 15 voxels (Ravishankar and Bresler 2011)
BANDS = ("low", "mid", "high")  # thirds of the radial frequencies below Nyquist


def hfen(pred: np.ndarray, real: np.ndarray, mask: np.ndarray) -> float:
    """High-frequency error norm inside the mask: |LoG(pred - real)| / |LoG(real)|. 0 is ideal; an empty image has 1.

    pred, real (X, Y, Z): the synthesised and the real volume; mask (X, Y, Z) bool. LoG: Laplacian of a Gaussian with an
    SD of 1.5 voxels, which shows edges. |.|: Euclidean norm over the voxels of the mask. 0 for any prediction if the
    real volume has no edges. Raises ValueError if the mask is empty.
    """
    box = bounding_box(mask, HFEN_RADIUS)
    edges = [
        ndimage.gaussian_laplace(image[box].astype(np.float32), HFEN_SIGMA, truncate=HFEN_TRUNCATE)[mask[box]]
        for image in (pred - real, real)
    ]
    return ratio(float(np.linalg.norm(edges[0])), float(np.linalg.norm(edges[1])))


def sharpness(pred: np.ndarray, real: np.ndarray, mask: np.ndarray) -> float:
    """Mean gradient magnitude inside the mask, divided by that of the real volume; 1 is ideal, below 1 is blur.

    pred, real (X, Y, Z): the synthesised and the real volume; mask (X, Y, Z) bool. 0 for any prediction if the real
    volume has no gradient. Raises ValueError if the mask is empty.
    """
    box = bounding_box(mask, 1)
    slopes = [np.sqrt(sum(np.square(g) for g in np.gradient(image[box])))[mask[box]].mean() for image in (pred, real)]
    return ratio(*slopes)


def spectrum_ratios(pred: np.ndarray, real: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """Spectral power of the prediction, divided by that of the real volume, in three bands of frequency; 1 is ideal.

    pred, real (X, Y, Z): the synthesised and the real volume; both count as 0 outside the mask (X, Y, Z) bool. The
    bands "low", "mid" and "high", the keys, are thirds of the radial spatial frequencies up to the Nyquist frequency,
    without frequency 0. Below 1 in the band "high" is blur. 0 if the real volume has no power in the band.
    """
    bands = _radial_bands(mask.shape)
    totals = []
    for image in (pred, real):
        waves = fft.rfftn(np.where(mask, image, np.float32(0)))
        power = np.square(waves.real) + np.square(waves.imag)
        totals.append(np.bincount(bands, power.ravel(), len(BANDS) + 2)[1:-1])
    return {band: ratio(p, r) for band, p, r in zip(BANDS, *totals, strict=True)}


@lru_cache(maxsize=4)
def _radial_bands(shape: tuple[int, ...]) -> np.ndarray:
    """For each frequency of a flattened rfftn: 0 for the mean, 1 to 3 for BANDS, 4 beyond Nyquist's sphere."""
    axes = [np.fft.fftfreq(n) for n in shape[:-1]] + [np.fft.rfftfreq(shape[-1])]
    radius = np.sqrt(sum(np.square(f) for f in np.meshgrid(*axes, indexing="ij", sparse=True)))
    return np.digitize(radius.ravel(), np.linspace(0, 0.5, len(BANDS) + 1), right=True)


METRICS = (
    Metric(
        "hfen",
        "HFEN",
        "",
        Better.LOW,
        2,
        "Error of the edges inside the brain, divided by the edges of the real scan; 0 is ideal, an empty image has 1.",
        hfen,
    ),
    Metric(
        "sharpness",
        "sharpness",
        "",
        Better.ONE,
        2,
        "Mean gradient inside the brain, divided by that of the real scan; 1 is ideal, below 1 is blur.",
        sharpness,
    ),
    *(
        Metric(
            f"spectrum_{band}",
            "fine detail" if band == "high" else "",
            "",
            Better.ONE,
            2,
            f"Spectral power of the synthesised scan in the {position} third of spatial frequencies, divided by that "
            "of the real scan; 1 is ideal; below 1, power is lost, as by blur.",
            spectrum_ratios,
            band,
        )
        for band, position in zip(BANDS, ("lowest", "middle", "highest"), strict=True)
    ),
)
