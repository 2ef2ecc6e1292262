"""Brain mask and robust intensity scale of a mean volume."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from scipy import ndimage

from pdsynth.imaging.nifti import Volume
from pdsynth.imaging.registration import register
from pdsynth.imaging.spatial import Grid, mni_grid, resample
from pdsynth.imaging.template import epi_template, tissue_template

FIELD_MM = 25.0  # SD of the blur that stands for the receive field
BRIGHTEST = 3.0  # in units of the local mean
AIR_PERCENTILE = 25  # of the voxels: air, whose noise floor is subtracted
SURROUNDINGS_MM = 20.0  # SD of the blur that a voxel is compared with
BRIGHT, FLOOR = 0.6, 0.12  # of the surroundings; of the 98th percentile
OPEN_MM, CLOSE_MM = 6.0, 9.0  # radii: scalp is thinner than the first, sulci than the second
LEAST_HEAD_MM, USUAL_VIEW_MM, SLAB_MM = 120.0, 220.0, 60.0  # fields of view
DEEP_MM, FAR_MM = 5.0, 3.0  # from the registered template's edge: inside it surely brain, outside surely not
LEAST_DICE = 0.75  # of rough mask and template, or the template is not used


@dataclass(frozen=True)
class RobustScale:
    """Division by a high percentile inside the brain, the 99.5th if not said otherwise, then clipping to [0, 1].

    >>> RobustScale(200.0).apply(np.array([-1.0, 50.0, 300.0])).tolist()
    [0.0, 0.25, 1.0]
    """

    p995: float

    @classmethod
    def fit(cls, volume: np.ndarray, mask: np.ndarray, percentile: float = 99.5) -> RobustScale:
        """The scale of volume (X, Y, Z) inside mask (X, Y, Z).

        Raises ValueError where the mask is empty or the percentile not positive.
        """
        inside = np.asarray(volume)[np.asarray(mask) > 0]
        if inside.size == 0:
            raise ValueError("the brain mask is empty; check the scan and its mask.")
        p995 = float(np.percentile(inside, percentile))
        if not p995 > 0:
            raise ValueError(f"percentile {percentile:g} in the brain is {p995}; check that the scan holds a signal.")
        return cls(p995)

    def apply(self, x: np.ndarray) -> np.ndarray:
        """x / p99.5, clipped to [0, 1], float32."""
        return np.clip(np.asarray(x, np.float32) / np.float32(self.p995), 0, 1)


def flatten(volume: Volume, mask: np.ndarray) -> Volume:
    """Divide out the receive field: the volume over its own blur (FWHM 59 mm) inside the mask, zero outside it."""
    inside = mask.astype(np.float32)
    sigma = FIELD_MM / volume.spacing_mm
    field = ndimage.gaussian_filter(np.maximum(volume.data, 0) * inside, sigma, truncate=3)
    field /= np.maximum(ndimage.gaussian_filter(inside, sigma, truncate=3), 1e-3)
    flat = np.divide(np.maximum(volume.data, 0), field, out=np.zeros_like(field), where=mask & (field > 0))
    return Volume(np.minimum(flat, BRIGHTEST).astype(np.float32), volume.affine)


def brain_mask(volume: Volume) -> np.ndarray:
    """Brain of a mean BOLD, b0 or mean b>0 volume, with or without skull: (X, Y, Z) bool, read-only, one piece.

    Voxels brighter than 0.6 of their surroundings are opened, so that scalp and eyes come off, and the largest piece is
    registered to the template. The registered template then says where the brain has to be (its inside, whatever the
    intensity: CSF is black at b>0, and susceptibility empties regions) and where it cannot be. Without a whole head (a
    thin slab, a header that lost the voxel size) the first step stands alone. A volume's mask is kept as long as the
    volume is.

    Raises ValueError where there is no such piece, or the mask holds less than 2 % or more than 95 % of the voxels.
    """
    if volume not in _MASKS:
        _MASKS[volume] = _brain_mask(volume)
    return _MASKS[volume]


_MASKS: WeakKeyDictionary[Volume, np.ndarray] = WeakKeyDictionary()


def _brain_mask(volume: Volume) -> np.ndarray:
    extent = np.array(volume.data.shape) * volume.spacing_mm
    lost = extent.max() < LEAST_HEAD_MM  # no head is so small: the voxel size is wrong, so a usual head is assumed
    spacing_mm = volume.spacing_mm * (USUAL_VIEW_MM / extent.max() if lost else 1)
    rough = _bright_piece(np.maximum(volume.data, 0), spacing_mm)
    mask = rough if lost or extent.min() < SLAB_MM else _guided(volume, rough)
    if not 0.02 <= mask.mean() <= 0.95:
        raise ValueError(
            f"the brain mask holds {mask.mean():.1%} of the voxels; check that the scan shows a head, and its header."
        )
    mask.flags.writeable = False
    return mask


def _bright_piece(data: np.ndarray, spacing_mm: np.ndarray) -> np.ndarray:
    """The largest opened piece of what is brighter than 0.6 of its surroundings, its holes filled.

    Surface coils make the rim of the head several times brighter than its centre, so no one threshold tells brain from
    air; the local mean does, kept above a floor or noise would pass for tissue.
    """
    data = np.maximum(data - np.percentile(data, AIR_PERCENTILE), 0)
    if not (data > 0).any():
        raise ValueError("the volume holds no signal; check the scan.")
    local = ndimage.gaussian_filter(data, SURROUNDINGS_MM / spacing_mm, truncate=2.5)
    bright = data > BRIGHT * np.maximum(local, FLOOR * np.percentile(data[data > 0], 98))
    opened = _morphology(ndimage.binary_opening, bright, OPEN_MM, spacing_mm, "edge")
    closed = _morphology(ndimage.binary_closing, _largest(opened), CLOSE_MM, spacing_mm, "constant")
    return ndimage.binary_fill_holes(closed)


def _guided(volume: Volume, rough: np.ndarray) -> np.ndarray:
    """The rough mask corrected by the registered template brain, or as it is where the two do not meet."""
    grid = mni_grid(4.0)
    template, brain = epi_template(grid), tissue_template(grid)["brain"]
    inside = brain > 0.5
    to_template = register(
        flatten(volume, rough), flatten(template, inside), "affine", moving_mask=rough, fixed_mask=inside
    )
    prior = resample(Volume(brain, grid.affine), Grid.of(volume), np.linalg.inv(to_template)) > 0.5
    if 2 * (prior & rough).sum() < LEAST_DICE * (prior.sum() + rough.sum()):
        return rough
    depth = ndimage.distance_transform_edt(prior, sampling=volume.spacing_mm)
    outside = ndimage.distance_transform_edt(~prior, sampling=volume.spacing_mm)
    return ndimage.binary_fill_holes(_largest((rough & (outside <= FAR_MM)) | (depth > DEEP_MM)))


def _morphology(
    operation: Callable[..., np.ndarray], mask: np.ndarray, radius_mm: float, spacing_mm: np.ndarray, border: Any
) -> np.ndarray:
    """Opening or closing with a ball in mm, the mask continued beyond the field of view as `border` says."""
    reach = np.maximum(1, np.floor(radius_mm / spacing_mm)).astype(int)
    axes = np.meshgrid(*[np.arange(-r, r + 1) / r for r in reach], indexing="ij")
    ball = sum(np.square(a) for a in axes) <= 1.01
    result = operation(np.pad(mask, [(r, r) for r in reach], mode=border), ball)
    return result[tuple(slice(r, r + n) for r, n in zip(reach, mask.shape, strict=True))]


def _largest(mask: np.ndarray) -> np.ndarray:
    labels, count = ndimage.label(mask)
    if count == 0:
        raise ValueError("no brain was found in the volume; check that it shows a head.")
    return labels == 1 + np.argmax(np.bincount(labels.ravel())[1:])
