"""Differences of intensity, voxel by voxel."""

from __future__ import annotations

import numpy as np

from pdsynth.evaluation.metrics.masks import refuse_empty
from pdsynth.evaluation.metrics.metric import PRIMARY, Better, Metric

PERFECT_PSNR = 100.0  # dB for identical images, so that tables and JSON contain no infinity


def psnr(pred: np.ndarray, real: np.ndarray, mask: np.ndarray) -> float:
    """Peak signal-to-noise ratio inside the mask, dB: 10 log10(1 / MSE), at most 100.

    pred, real: the synthesised and the real volume, in 0..1; mask: bool, of the same shape. MSE: mean squared
    difference. Raises ValueError if the mask is empty.

    >>> round(psnr(np.zeros(8), np.full(8, 0.1), np.ones(8, bool)), 6)
    20.0
    """
    refuse_empty(mask)
    return _decibel(np.mean(np.square(pred[mask] - real[mask], dtype=np.float64)))


def psnr_full(pred: np.ndarray, real: np.ndarray) -> float:
    """Peak signal-to-noise ratio over the whole grid, dB: 10 log10(1 / MSE), at most 100.

    pred, real: the synthesised and the real volume, in 0..1. Empty background adds several dB, so it is only for
    comparison with publications that do the same.
    """
    return _decibel(np.mean(np.square(pred - real, dtype=np.float64)))


def psnr_affine(pred: np.ndarray, real: np.ndarray, mask: np.ndarray) -> float:
    """Peak signal-to-noise ratio inside the mask, dB, after a scale and an offset of the prediction; at most 100.

    pred, real: the synthesised and the real volume, in 0..1; mask: bool. Scale and offset are those that fit the real
    volume best, by least squares inside the mask, so that only errors of the pattern remain; the scale may be negative,
    and is 0 for a constant prediction. Raises ValueError if the mask is empty.
    """
    refuse_empty(mask)
    p, r = pred[mask].astype(np.float64), real[mask].astype(np.float64)
    variance = p.var()
    slope = np.mean((p - p.mean()) * (r - r.mean())) / variance if variance > 1e-12 else 0.0
    return _decibel(np.mean(np.square(slope * (p - p.mean()) + r.mean() - r)))


def mae(pred: np.ndarray, real: np.ndarray, mask: np.ndarray) -> float:
    """Mean absolute error inside the mask, in the unit of the images (0 to 1); 0 is ideal.

    pred, real: the synthesised and the real volume; mask: bool, of the same shape. nan if the mask is empty.
    """
    return float(np.mean(np.abs(pred[mask] - real[mask]), dtype=np.float64))


def voxel_r(pred: np.ndarray, real: np.ndarray, mask: np.ndarray) -> float:
    """Pearson correlation of the synthesised and the real volume over the voxels inside the mask, -1 to 1.

    0 if either volume is constant there, or if the mask is empty. pred, real: the two volumes; mask: bool, of the same
    shape.

    >>> voxel_r(np.zeros(4), np.arange(4.0), np.ones(4, bool))
    0.0
    """
    p, r = pred[mask].astype(np.float64), real[mask].astype(np.float64)
    p, r = p - p.mean(), r - r.mean()
    norm = np.sqrt(np.sum(p * p) * np.sum(r * r))
    return float(np.sum(p * r) / norm) if norm > 1e-12 else 0.0


def _decibel(mse: float) -> float:
    return float(min(-10 * np.log10(mse), PERFECT_PSNR)) if mse > 0 else PERFECT_PSNR


METRICS = (
    Metric(
        PRIMARY,
        "PSNR",
        "dB",
        Better.HIGH,
        1,
        "Peak signal-to-noise ratio inside the brain, for a data range of 1. The primary endpoint.",
        psnr,
    ),
    Metric(
        "psnr_brain_affine",
        "after scale",
        "dB",
        Better.HIGH,
        1,
        "PSNR inside the brain after the scale and offset of the synthesised scan that fit the real scan best.",
        psnr_affine,
    ),
    Metric(
        "mae",
        "MAE",
        "",
        Better.LOW,
        3,
        "Mean absolute error inside the brain, in the unit of the images (0 to 1).",
        mae,
    ),
    Metric(
        "voxel_r",
        "voxel r",
        "",
        Better.HIGH,
        3,
        "Correlation of synthesised and real values over the voxels inside the brain of a scan.",
        voxel_r,
    ),
    Metric(
        "psnr_full",
        "PSNR full",
        "dB",
        Better.NEITHER,
        1,
        "PSNR over the whole grid, including empty background: only for comparison with publications that do the same.",
        lambda pred, real, mask: psnr_full(pred, real),
    ),
)
