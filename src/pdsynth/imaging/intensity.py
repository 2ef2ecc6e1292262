"""Brain mask and robust intensity scale of a mean volume."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from pdsynth.imaging.nifti import Volume

FIELD_MM = 25.0  # SD of the blur that stands for the receive field
BRIGHTEST = 3.0  # in units of the local mean


@dataclass(frozen=True)
class RobustScale:
    """Division by the 99.5th percentile inside the brain, then clipping to [0, 1].

    >>> RobustScale(200.0).apply(np.array([-1.0, 50.0, 300.0])).tolist()
    [0.0, 0.25, 1.0]
    """

    p995: float

    @classmethod
    def fit(cls, volume: np.ndarray, mask: np.ndarray) -> RobustScale:
        """The scale of volume (X, Y, Z) inside mask (X, Y, Z).

        Raises ValueError where the mask is empty or the percentile not positive.
        """
        inside = np.asarray(volume)[np.asarray(mask) > 0]
        if inside.size == 0:
            raise ValueError("the brain mask is empty; check the scan and its mask.")
        p995 = float(np.percentile(inside, 99.5))
        if not p995 > 0:
            raise ValueError(f"the 99.5th percentile in the brain is {p995}; check that the scan holds a signal.")
        return cls(p995)

    def apply(self, x: np.ndarray) -> np.ndarray:
        """x / p99.5, clipped to [0, 1], float32."""
        return np.clip(np.asarray(x, np.float32) / np.float32(self.p995), 0, 1)

    def invert(self, x: np.ndarray) -> np.ndarray:
        """Back to the scan's units; what was clipped stays clipped."""
        return np.asarray(x, np.float32) * np.float32(self.p995)


def flatten(volume: Volume, mask: np.ndarray) -> Volume:
    """Divide out the receive field: the volume over its own blur (FWHM 59 mm) inside the mask, zero outside it."""
    inside = mask.astype(np.float32)
    sigma = FIELD_MM / volume.spacing_mm
    field = ndimage.gaussian_filter(np.maximum(volume.data, 0) * inside, sigma, truncate=3)
    field /= np.maximum(ndimage.gaussian_filter(inside, sigma, truncate=3), 1e-3)
    flat = np.divide(np.maximum(volume.data, 0), field, out=np.zeros_like(field), where=mask & (field > 0))
    return Volume(np.minimum(flat, BRIGHTEST).astype(np.float32), volume.affine)


def brain_mask(volume: Volume) -> np.ndarray:
    """Brain of a mean BOLD, b0 or mean b>0 volume: (X, Y, Z) bool."""
    data = volume.data
    threshold = 0.4 * np.percentile(data[data > 0], 95)
    mask = ndimage.binary_opening(data > threshold, iterations=2)
    labels, n = ndimage.label(mask)
    if n == 0:
        raise ValueError("no brain found in the volume; check that it holds a head.")
    mask = labels == 1 + np.argmax(np.bincount(labels.ravel())[1:])
    return ndimage.binary_fill_holes(ndimage.binary_closing(mask, iterations=2))
