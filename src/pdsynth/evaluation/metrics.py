"""Image quality of one synthesised volume against the real one.

Every function takes `pred` and `real` (X, Y, Z) in [0, 1] (data range 1) and, unless its name says `full`, a boolean
`mask` (X, Y, Z): the real brain, dilated by one voxel. A prediction is never rescaled with the target's statistics.
"""

from __future__ import annotations

from functools import lru_cache
from typing import cast

import numpy as np
from scipy import fft, ndimage
from skimage.metrics import structural_similarity

PERFECT_PSNR = 100.0  # dB given to identical images, so that tables and JSON hold no infinity
SSIM_SIGMA, SSIM_RADIUS = 1.5, 5  # skimage's Gaussian window of 11 voxels
HFEN_SIGMA, HFEN_TRUNCATE, HFEN_RADIUS = 1.5, 4.7, 7  # a kernel of 15 voxels (Ravishankar and Bresler 2011)
MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001)  # the first 3 of Wang et al. 2003's 5 scales: 4 mm brains hold no more
BANDS = ("low", "mid", "high")  # thirds of the radial frequencies below Nyquist


def dilate(mask: np.ndarray) -> np.ndarray:
    """The mask and its face neighbours.

    >>> int(dilate(np.pad(np.ones((1, 1, 1), bool), 1)).sum())
    7
    """
    return ndimage.binary_dilation(mask)


def psnr(pred: np.ndarray, real: np.ndarray, mask: np.ndarray) -> float:
    """Peak signal-to-noise ratio inside the mask, dB: 10 log10(1 / MSE), at most 100.

    >>> round(psnr(np.zeros(8), np.full(8, 0.1), np.ones(8, bool)), 6)
    20.0
    """
    return _decibel(np.mean(np.square(pred[mask] - real[mask], dtype=np.float64)))


def psnr_full(pred: np.ndarray, real: np.ndarray) -> float:
    """The same over the whole grid, dB. Background adds several dB: for comparison with papers only."""
    return _decibel(np.mean(np.square(pred - real, dtype=np.float64)))


def psnr_affine(pred: np.ndarray, real: np.ndarray, mask: np.ndarray) -> float:
    """PSNR inside the mask after the best scale and offset of the prediction (least squares), dB."""
    p, r = pred[mask].astype(np.float64), real[mask].astype(np.float64)
    variance = p.var()
    slope = np.mean((p - p.mean()) * (r - r.mean())) / variance if variance > 1e-12 else 0.0
    return _decibel(np.mean(np.square(slope * (p - p.mean()) + r.mean() - r)))


def mae(pred: np.ndarray, real: np.ndarray, mask: np.ndarray) -> float:
    """Mean absolute error inside the mask."""
    return float(np.mean(np.abs(pred[mask] - real[mask]), dtype=np.float64))


def voxel_r(pred: np.ndarray, real: np.ndarray, mask: np.ndarray) -> float:
    """Pearson correlation of the voxels inside the mask; 0 where either image is constant.

    >>> voxel_r(np.zeros(4), np.arange(4.0), np.ones(4, bool))
    0.0
    """
    p, r = pred[mask].astype(np.float64), real[mask].astype(np.float64)
    p, r = p - p.mean(), r - r.mean()
    norm = np.sqrt(np.sum(p * p) * np.sum(r * r))
    return float(np.sum(p * r) / norm) if norm > 1e-12 else 0.0


def ssim_map(pred: np.ndarray, real: np.ndarray) -> tuple[float, np.ndarray]:
    """skimage's mean structural similarity (its border left out) and its map (X, Y, Z), Wang et al. 2004 in 3D."""
    mean, image = structural_similarity(
        real, pred, data_range=1.0, gaussian_weights=True, sigma=SSIM_SIGMA, use_sample_covariance=False, full=True
    )
    return float(mean), image


def ssim(pred: np.ndarray, real: np.ndarray, mask: np.ndarray) -> float:
    """Structural similarity: its map averaged inside the mask, at most 1."""
    box = bounding_box(mask, SSIM_RADIUS)
    return float(ssim_map(pred[box], real[box])[1][mask[box]].mean(dtype=np.float64))


def ssim_full(pred: np.ndarray, real: np.ndarray) -> float:
    """Structural similarity over the whole grid, as papers report it: an empty image scores about .5."""
    return ssim_map(pred, real)[0]


def ms_ssim(pred: np.ndarray, real: np.ndarray, mask: np.ndarray) -> float:
    """Multi-scale structural similarity inside the mask over three scales, each half of the last (Wang et al. 2003).

    The last scale's map holds luminance, contrast and structure, the others contrast and structure; negative means
    count as 0.
    """
    box = bounding_box(mask, SSIM_RADIUS * 4)
    pred, real, inside = pred[box], real[box], mask[box].astype(np.float32)
    weights = np.asarray(MS_SSIM_WEIGHTS) / sum(MS_SSIM_WEIGHTS)
    score = 1.0
    for scale, weight in enumerate(weights):
        if scale:
            pred, real, inside = _halve(pred), _halve(real), _halve(inside)
        contrast, luminance = _ssim_terms(pred, real)
        image = contrast * luminance if scale == len(weights) - 1 else contrast
        score *= max(float(np.average(image, weights=inside)), 0.0) ** weight
    return float(score)


def hfen(pred: np.ndarray, real: np.ndarray, mask: np.ndarray) -> float:
    """High-frequency error norm inside the mask: |LoG(pred - real)| / |LoG(real)|; 0 is ideal, an empty image has 1."""
    box = bounding_box(mask, HFEN_RADIUS)
    edges = [
        ndimage.gaussian_laplace(image[box].astype(np.float32), HFEN_SIGMA, truncate=HFEN_TRUNCATE)[mask[box]]
        for image in (pred - real, real)
    ]
    return _ratio(float(np.linalg.norm(edges[0])), float(np.linalg.norm(edges[1])))


def sharpness(pred: np.ndarray, real: np.ndarray, mask: np.ndarray) -> float:
    """Mean gradient magnitude inside the mask over the real image's; 1 is ideal, below 1 is blur."""
    box = bounding_box(mask, 1)
    slopes = [np.sqrt(sum(np.square(g) for g in np.gradient(image[box])))[mask[box]].mean() for image in (pred, real)]
    return _ratio(*slopes)


def spectrum_ratios(pred: np.ndarray, real: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """Spectral power of the masked prediction over the real image's in three radial bands; 1 is ideal.

    The bands are thirds of the frequencies up to Nyquist, without the mean. Keys are `BANDS`.
    """
    bands = _radial_bands(mask.shape)
    totals = []
    for image in (pred, real):
        waves = fft.rfftn(np.where(mask, image, np.float32(0)))
        power = np.square(waves.real) + np.square(waves.imag)
        totals.append(np.bincount(bands, power.ravel(), len(BANDS) + 2)[1:-1])
    return {band: _ratio(p, r) for band, p, r in zip(BANDS, *totals, strict=True)}


def image_quality(pred: np.ndarray, real: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """Every metric of one volume by its name in metrics.json. The SSIM map is computed once for brain and full."""
    full, image = ssim_map(pred, real)
    return {
        "psnr_brain": psnr(pred, real, mask),
        "psnr_brain_affine": psnr_affine(pred, real, mask),
        "psnr_full": psnr_full(pred, real),
        "ssim_brain": float(image[mask].mean(dtype=np.float64)),
        "ssim_full": full,
        "ms_ssim": ms_ssim(pred, real, mask),
        "mae": mae(pred, real, mask),
        "voxel_r": voxel_r(pred, real, mask),
        "hfen": hfen(pred, real, mask),
        "sharpness": sharpness(pred, real, mask),
        **{f"spectrum_{band}": ratio for band, ratio in spectrum_ratios(pred, real, mask).items()},
    }


def bounding_box(mask: np.ndarray, margin: int) -> tuple[slice, ...]:
    """The box around the mask, widened by margin voxels and kept on the grid.

    A filter of that radius has the same values inside the mask on the box as on the whole grid. Raises ValueError for
    an empty mask.
    """
    found = ndimage.find_objects(mask.astype(np.uint8))
    if not found:
        raise ValueError("the brain mask is empty; check the prepared masks.")
    box = cast("tuple[slice, ...]", found[0])
    return tuple(slice(max(s.start - margin, 0), min(s.stop + margin, n)) for s, n in zip(box, mask.shape, strict=True))


def _decibel(mse: float) -> float:
    return float(min(-10 * np.log10(mse), PERFECT_PSNR)) if mse > 0 else PERFECT_PSNR


def _ratio(a: float, b: float) -> float:
    return float(a / b) if b > 0 else 0.0


@lru_cache(maxsize=4)
def _radial_bands(shape: tuple[int, ...]) -> np.ndarray:
    """For each frequency of a flattened rfftn: 0 for the mean, 1 to 3 for BANDS, 4 beyond Nyquist's sphere."""
    axes = [np.fft.fftfreq(n) for n in shape[:-1]] + [np.fft.rfftfreq(shape[-1])]
    radius = np.sqrt(sum(np.square(f) for f in np.meshgrid(*axes, indexing="ij", sparse=True)))
    return np.digitize(radius.ravel(), np.linspace(0, 0.5, len(BANDS) + 1), right=True)


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
