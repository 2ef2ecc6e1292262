"""Brain mask, receive field and robust intensity scale of a mean volume."""

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

FIELD_MM = 25.0  # SD of the blur that estimates the receive field
TOP = 2.5  # in units of the median in the brain: the intensity that becomes 1
BRIGHTEST = 3.0  # in units of the local mean
AIR_PERCENTILE = 25  # taken as the noise floor of air, which is subtracted
SURROUNDINGS_MM = 20.0  # SD of the blur that gives the local mean of a voxel's surroundings
BRIGHT, FLOOR = 0.6, 0.12  # threshold in units of the local mean; least local mean, in units of the 98th percentile
OPEN_MM, CLOSE_MM = 6.0, 9.0  # radii: the scalp is thinner than the first, sulci are narrower than the second
LEAST_HEAD_MM, TYPICAL_VIEW_MM, SLAB_MM = 120.0, 220.0, 60.0  # fields of view
DEEP_MM, FAR_MM = 5.0, 3.0  # a voxel deeper inside the template brain is brain; one farther outside is not
LEAST_DICE = 0.75  # of rough mask and registered template; with less overlap the template is not used,
LEAST_INSIDE = 0.9  # unless the rough mask holds so much of the template: then it is the brain with the scalp,
MOST_VOLUME = 2.1  # which is at most so many times the brain; a rough mask that is larger is of another size


@dataclass(frozen=True, eq=False)
class RobustScale:
    """Division by the receive field, if there is one, and by a unit, then clipping to [0, 1].

    unit: the intensity of the scan that becomes 1. field: the relative receive field, (X, Y, Z) float32, finite and
    above 0 everywhere; None leaves the scan's field in place.

    >>> RobustScale(200.0).apply(np.array([-1.0, 50.0, 300.0])).tolist()
    [0.0, 0.25, 1.0]
    >>> scale = RobustScale(200.0, field=np.array([0.5, 1.0, 2.0]))
    >>> scale.apply(np.array([50.0, 100.0, 200.0])).tolist()
    [0.5, 0.5, 0.5]
    """

    unit: float
    field: np.ndarray | None = None

    @classmethod
    def by_percentile(cls, volume: np.ndarray, mask: np.ndarray, percentile: float = 99.5) -> RobustScale:
        """The scale whose unit is a percentile of a volume (X, Y, Z) inside a mask (X, Y, Z).

        percentile: 0 to 100. The scale does not divide by a receive field. Raises ValueError if the mask is empty or
        the intensity at the percentile is not positive.
        """
        unit = float(np.percentile(_inside(volume, mask), percentile))
        _require_signal(unit, f"percentile {percentile:g}")
        return cls(unit)

    @classmethod
    def flat_median(cls, volume: Volume, mask: np.ndarray) -> RobustScale:
        """The scale that removes the receive field, and whose unit is 2.5 (TOP) times the median inside a mask.

        mask is (X, Y, Z) bool. The field is relative: division by it leaves the median inside the mask as it is. It
        continues outside the mask as the mean of the mask's intensities near by, and is 1 at voxels that are more than
        about 75 mm away. Raises ValueError if the mask is empty or the median is not positive.
        """
        median = float(np.median(_inside(volume.data, mask)))
        _require_signal(median, "the median")
        field = receive_field(volume, mask)
        signal = mask & (field > 0)
        flat = np.median(volume.data[signal] / field[signal])
        relative = field * np.float32(flat / median)
        return cls(TOP * median, np.where(relative > 0, relative, np.float32(1)))

    def apply(self, x: np.ndarray) -> np.ndarray:
        """x / field / unit, clipped to [0, 1], float32, of the shape of x: intensities (X, Y, Z) of the scan."""
        flat = np.asarray(x, np.float32) if self.field is None else np.asarray(x, np.float32) / self.field
        return np.clip(flat / np.float32(self.unit), 0, 1)


def _inside(volume: np.ndarray, mask: np.ndarray) -> np.ndarray:
    inside = np.asarray(volume)[np.asarray(mask) > 0]
    if inside.size == 0:
        raise ValueError("the brain mask is empty; check the scan and its mask.")
    return inside


def _require_signal(value: float, name: str) -> None:
    if not value > 0:
        raise ValueError(f"{name} in the brain is {value}; check that the scan contains a signal.")


def receive_field(volume: Volume, mask: np.ndarray) -> np.ndarray:
    """The smooth part of a volume: at each voxel, the mean intensity of a mask near by, (X, Y, Z) float32.

    mask is (X, Y, Z) bool. The mean is over voxels of the mask only, weighted by a Gaussian of FWHM 59 mm
    (`local_mean`), so that the edge of the mask is as bright as its inside. Negative intensities count as 0. The field
    is also defined outside the mask, and 0 beyond about 75 mm from it.
    """
    return local_mean(np.maximum(volume.data, 0), mask, FIELD_MM, volume.spacing_mm)


def local_mean(values: np.ndarray, mask: np.ndarray, sd_mm: float, spacing_mm: np.ndarray) -> np.ndarray:
    """The mean of the mask's values around each voxel, weighted by a Gaussian: (..., X, Y, Z).

    values is one volume or several, float32 or float64 as the result. They must be finite, also outside the mask, which
    is (X, Y, Z) bool. sd_mm is the SD of the Gaussian, which ends at three SDs, and spacing_mm (3,) are the edges of a
    voxel. Voxels outside the mask have no weight (normalised convolution, Knutsson and Westin 1993). The mean is 0
    where no voxel of the mask is in reach.

    >>> mask = np.arange(4) < np.full((4, 4, 1), 2)
    >>> local_mean(np.where(mask, 7.0, 100.0), mask, 1.0, np.ones(3))[0, 0].round(4).tolist()
    [7.0, 7.0, 7.0, 7.0]
    """
    inside = mask.astype(np.float32)
    sigma = sd_mm / spacing_mm
    total = ndimage.gaussian_filter(values * inside, (*[0.0] * (values.ndim - 3), *sigma), truncate=3)
    weight = ndimage.gaussian_filter(inside, sigma, truncate=3)
    return np.divide(total, weight, out=np.zeros_like(total), where=weight > 0)


def flatten(volume: Volume, mask: np.ndarray) -> Volume:
    """The volume divided by its receive field inside the mask, and zero outside it.

    mask is (X, Y, Z) bool; with an empty one the result is zero everywhere. The receive field is the local mean of the
    mask's intensities (`receive_field`). The result is in units of this mean; it is limited to 0..3.
    """
    field = receive_field(volume, mask)
    flat = np.divide(np.maximum(volume.data, 0), field, out=np.zeros_like(field), where=mask & (field > 0))
    return Volume(np.minimum(flat, BRIGHTEST).astype(np.float32), volume.affine)


def brain_mask(volume: Volume) -> np.ndarray:
    """Brain mask of a mean BOLD, b0 or mean b>0 volume, with or without skull: (X, Y, Z) bool, read-only.

    1. Voxels brighter than 0.6 of their local mean form a rough mask. Morphological opening separates scalp and eyes
       from it, and its largest connected piece is kept.
    2. The template brain is registered to the rough mask. Voxels more than 5 mm inside the registered template are
       added to the mask whatever their intensity, because CSF is dark at b>0 and susceptibility causes signal loss.
       Voxels more than 3 mm outside it are removed.

    Step 2 is omitted without a whole head: for a slab below 60 mm along an axis, and for an image below 120 mm along
    all axes, whose header has lost the voxel size. It is also omitted if template and rough mask overlap too little
    (Dice coefficient below 0.75), unless the rough mask holds 90 % of the template and is at most 2.1 times as large.
    Such a mask is the brain with a bright scalp, which step 2 removes. The mask is cached for the lifetime of the
    volume.

    Raises ValueError if no bright piece is left in step 1, if the registration fails, or if the mask has less than 2 %
    or more than 95 % of the voxels.
    """
    if volume not in _MASKS:
        _MASKS[volume] = _brain_mask(volume)
    return _MASKS[volume]


_MASKS: WeakKeyDictionary[Volume, np.ndarray] = WeakKeyDictionary()


def _brain_mask(volume: Volume) -> np.ndarray:
    extent = np.array(volume.data.shape) * volume.spacing_mm
    lost = extent.max() < LEAST_HEAD_MM  # smaller than any head: the voxel size is wrong, and a typical view is assumed
    spacing_mm = volume.spacing_mm * (TYPICAL_VIEW_MM / extent.max() if lost else 1)
    rough = bright_piece(np.maximum(volume.data, 0), spacing_mm)
    mask = rough if lost or extent.min() < SLAB_MM else _guided(volume, rough)
    if not 0.02 <= mask.mean() <= 0.95:
        raise ValueError(
            f"the brain mask has {mask.mean():.1%} of the voxels; check that the scan shows a head, and its header."
        )
    mask.flags.writeable = False
    return mask


def bright_piece(data: np.ndarray, spacing_mm: np.ndarray) -> np.ndarray:
    """The largest connected piece of the voxels brighter than 0.6 of their local mean, without holes.

    The 25th percentile of the data, the noise of air, is subtracted first. Morphological opening (6 mm) separates the
    pieces, and closing (9 mm) fills the sulci of the largest. data (X, Y, Z) and the result, bool, have the same grid;
    spacing_mm (3,) are its voxel edges. Surface coils make the rim of the head several times brighter than its centre,
    so that one global threshold cannot separate brain from air. The local mean is weighted by a Gaussian of SD 20 mm.
    It has a lower limit, 0.12 of the 98th percentile, because noise in air would otherwise count as tissue. Raises
    ValueError without a signal or a piece.
    """
    data = np.maximum(data - np.percentile(data, AIR_PERCENTILE), 0)
    if not (data > 0).any():
        raise ValueError("the volume contains no signal; check the scan.")
    local = ndimage.gaussian_filter(data, SURROUNDINGS_MM / spacing_mm, truncate=2.5)
    bright = data > BRIGHT * np.maximum(local, FLOOR * np.percentile(data[data > 0], 98))
    opened = _morphology(ndimage.binary_opening, bright, OPEN_MM, spacing_mm, "edge")
    closed = _morphology(ndimage.binary_closing, _largest(opened), CLOSE_MM, spacing_mm, "constant")
    return ndimage.binary_fill_holes(closed)


def _guided(volume: Volume, rough: np.ndarray) -> np.ndarray:
    """The rough mask corrected by the registered template brain; unchanged if the two overlap too little."""
    grid = mni_grid(4.0)
    template, brain = epi_template(grid), tissue_template(grid)["brain"]
    inside = brain > 0.5
    to_template = register(
        flatten(volume, rough), flatten(template, inside), "affine", moving_mask=rough, fixed_mask=inside
    )
    prior = resample(Volume(brain, grid.affine), Grid.of(volume), np.linalg.inv(to_template)) > 0.5
    shared, whole = (prior & rough).sum(), prior.sum()
    with_scalp = shared >= LEAST_INSIDE * whole and rough.sum() <= MOST_VOLUME * whole
    if 2 * shared < LEAST_DICE * (whole + rough.sum()) and not with_scalp:
        return rough
    depth = ndimage.distance_transform_edt(prior, sampling=volume.spacing_mm)
    outside = ndimage.distance_transform_edt(~prior, sampling=volume.spacing_mm)
    return ndimage.binary_fill_holes(_largest((rough & (outside <= FAR_MM)) | (depth > DEEP_MM)))


def _morphology(
    operation: Callable[..., np.ndarray], mask: np.ndarray, radius_mm: float, spacing_mm: np.ndarray, border: Any
) -> np.ndarray:
    """Opening or closing with a ball of a radius in mm. border is the mode of `np.pad` beyond the field of view."""
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
