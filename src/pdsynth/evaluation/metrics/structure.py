"""Structural similarity (Wang et al. 2003, 2004) in 3D."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from skimage.metrics import structural_similarity

from pdsynth.evaluation.metrics.masks import bounding_box
from pdsynth.evaluation.metrics.metric import Better, Metric

SSIM_SIGMA, SSIM_RADIUS = 1.5, 5  # skimage's Gaussian window of 11 voxels
MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001)  # 3 of the 5 scales of Wang et al. 2003: 4 mm brains are too small for more


def ssim_map(pred: np.ndarray, real: np.ndarray) -> tuple[float, np.ndarray]:
    """Structural similarity of two volumes: its mean over the whole volume, and its map (X, Y, Z).

    pred, real (X, Y, Z) in 0..1. By skimage, after Wang et al. 2004 in 3D. The mean leaves out a border of 5 voxels,
    half of the window; the map does not. 1 means equal volumes. Raises ValueError if an axis has fewer than 11 voxels.
    """
    mean, image = structural_similarity(
        real, pred, data_range=1.0, gaussian_weights=True, sigma=SSIM_SIGMA, use_sample_covariance=False, full=True
    )
    return float(mean), image


def ssim(pred: np.ndarray, real: np.ndarray, mask: np.ndarray) -> float:
    """Structural similarity inside the mask (Wang et al. 2004): the mean of its map; at most 1, for equal volumes.

    pred, real (X, Y, Z): the synthesised and the real volume, in 0..1; mask (X, Y, Z) bool. Raises ValueError if the
    mask is empty, or if the mask and the 5 voxels around it, as far as the grid has them, are fewer than 11 along an
    axis.
    """
    box = bounding_box(mask, SSIM_RADIUS)
    return float(ssim_map(pred[box], real[box])[1][mask[box]].mean(dtype=np.float64))


def ssim_full(pred: np.ndarray, real: np.ndarray) -> float:
    """Structural similarity over the whole grid, as many publications compute it; at most 1, for equal volumes.

    pred, real (X, Y, Z): the synthesised and the real volume, in 0..1. Background that is 0 in both counts as similar,
    so that an empty image has about 0.5 against a brain. A border of 5 voxels is left out. Raises ValueError if an axis
    has fewer than 11 voxels.
    """
    return ssim_map(pred, real)[0]


def ssim_means(pred: np.ndarray, real: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """Structural similarity inside the mask (key "brain") and over the whole grid (key "full"), from one computation.

    pred, real (X, Y, Z): the synthesised and the real volume, in 0..1; mask (X, Y, Z) bool. At most 1, for equal
    volumes. "full" leaves out a border of 5 voxels; "brain" is nan if the mask is empty. Raises ValueError if an axis
    has fewer than 11 voxels.
    """
    full, image = ssim_map(pred, real)
    return {"brain": float(image[mask].mean(dtype=np.float64)), "full": full}


def ms_ssim(pred: np.ndarray, real: np.ndarray, mask: np.ndarray) -> float:
    """Multi-scale structural similarity inside the mask (Wang et al. 2003), at full, half and quarter resolution.

    pred, real (X, Y, Z): the synthesised and the real volume, in 0..1; mask (X, Y, Z) bool. The result is between 0 and
    1, and 1 for equal volumes. The map of the coarsest resolution is the product of luminance, contrast and structure;
    those of the other two are contrast times structure. The result is the product of the means of the maps inside the
    mask, to the powers of Wang et al. for these three; a negative mean counts as 0. Raises ValueError if the mask is
    empty, or has no voxel at half or quarter resolution, which leave out the last plane of an odd axis.
    """
    box = bounding_box(mask, SSIM_RADIUS * 4)
    pred, real, inside = pred[box], real[box], mask[box].astype(np.float32)
    weights = np.asarray(MS_SSIM_WEIGHTS) / sum(MS_SSIM_WEIGHTS)
    score = 1.0
    for scale, weight in enumerate(weights):
        if scale:
            pred, real, inside = _halve(pred), _halve(real), _halve(inside)
        if not inside.any():
            problem = "the brain mask has voxels only in the last planes of the grid, which lower resolutions leave out"
            raise ValueError(f"{problem}; check the prepared masks.")
        contrast, luminance = _ssim_terms(pred, real)
        image = contrast * luminance if scale == len(weights) - 1 else contrast
        score *= max(float(np.average(image, weights=inside)), 0.0) ** weight
    return float(score)


def _halve(image: np.ndarray) -> np.ndarray:
    """Averages of 2x2x2 voxels; an odd last plane is dropped."""
    x, y, z = (n // 2 for n in image.shape)
    return image[: 2 * x, : 2 * y, : 2 * z].reshape(x, 2, y, 2, z, 2).mean((1, 3, 5))


def _ssim_terms(pred: np.ndarray, real: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Contrast-structure and luminance maps (Wang et al. 2004, Eqs. 6, 9 and 10), (X, Y, Z) each."""
    c1, c2 = 0.01**2, 0.03**2

    def blur(image: np.ndarray) -> np.ndarray:
        return ndimage.gaussian_filter(image, SSIM_SIGMA, radius=SSIM_RADIUS)

    mean_p, mean_r = blur(pred), blur(real)
    var_p, var_r = blur(pred * pred) - mean_p**2, blur(real * real) - mean_r**2
    covariance = blur(pred * real) - mean_p * mean_r
    contrast = (2 * covariance + c2) / (var_p + var_r + c2)
    return contrast, (2 * mean_p * mean_r + c1) / (mean_p**2 + mean_r**2 + c1)


METRICS = (
    Metric(
        "ssim_brain",
        "SSIM",
        "",
        Better.HIGH,
        3,
        "Structural similarity, its map averaged inside the brain; at most 1, for equal scans.",
        ssim_means,
        "brain",
    ),
    Metric(
        "ms_ssim",
        "MS-SSIM",
        "",
        Better.HIGH,
        3,
        "Structural similarity at three resolutions inside the brain; at most 1, for equal scans.",
        ms_ssim,
    ),
    Metric(
        "ssim_full",
        "SSIM full",
        "",
        Better.NEITHER,
        3,
        "Structural similarity over the whole grid; an empty image scores about 0.5.",
        ssim_means,
        "full",
    ),
)
