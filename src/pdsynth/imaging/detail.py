"""Detail of a synthesised volume at the resolution of its source scan, by local regression on the source."""

from __future__ import annotations

import numpy as np

from pdsynth.imaging.intensity import flatten, local_mean
from pdsynth.imaging.nifti import Volume
from pdsynth.imaging.spatial import FWHM

ESTIMATE_MM = 8.0  # FWHM of an estimate on the 4 mm grid, as measured by the blur of a real scan that resembles it most
AROUND_MM = 12.0  # SD of the weights of the regression
LEAST_SD = 0.2  # of the source in units of its local mean: a source that varies less gives little detail


def source_detail(estimate: Volume, source: Volume, brain: np.ndarray) -> np.ndarray:
    """The detail of its source that an estimate lacks, (X, Y, Z) float32 in its unit; 0 outside the brain.

    estimate and source lie on one grid. estimate is smooth, in any unit. source is the mean of the scan from which it
    was synthesised, in any unit. brain is (X, Y, Z) bool. Around each voxel, the estimate is regressed on the source,
    both at the resolution of the estimate. The part of the source that this blur removes, times the slope, is the
    detail (guided upsampling, He et al. 2013). Where estimate and source are unrelated, the slope is near 0.

    >>> flat = Volume(np.ones((8, 8, 8), np.float32), np.eye(4))
    >>> bool(np.allclose(source_detail(flat, flat, np.ones((8, 8, 8), bool)), 0))
    True
    """
    spacing = estimate.spacing_mm
    sharp = flatten(source, brain).data
    blurred = local_mean(sharp, brain, ESTIMATE_MM / FWHM, spacing)
    products = np.stack([blurred, estimate.data, blurred * blurred, blurred * estimate.data])
    source_mean, estimate_mean, squared, product = local_mean(products, brain, AROUND_MM, spacing)
    variance = np.maximum(squared - source_mean**2, 0)
    covariance = product - source_mean * estimate_mean
    slope = local_mean(covariance / (variance + np.float32(LEAST_SD**2)), brain, AROUND_MM, spacing)
    return np.where(brain, slope * (sharp - blurred), 0).astype(np.float32)
