"""The mask that metrics use, its bounding box, and ratios that stay finite."""

from __future__ import annotations

from typing import cast

import numpy as np
from scipy import ndimage


def dilate(mask: np.ndarray) -> np.ndarray:
    """The mask (X, Y, Z) bool, widened by the voxels that share a face with it.

    >>> int(dilate(np.pad(np.ones((1, 1, 1), bool), 1)).sum())
    7
    """
    return ndimage.binary_dilation(mask)


def refuse_empty(mask: np.ndarray) -> None:
    """Raise ValueError if no voxel is in the mask, a bool array of any shape: there is nothing to score."""
    if not mask.any():
        raise ValueError("the brain mask is empty; check the prepared masks.")


def bounding_box(mask: np.ndarray, margin: int) -> tuple[slice, ...]:
    """The box around the mask (X, Y, Z) bool, widened by `margin` voxels on each side and clipped to the grid.

    Returns the slices of x, y and z. Inside the mask, a filter with a radius of `margin` voxels gives the same values
    on the box as on the whole grid. Raises ValueError for an empty mask.
    """
    refuse_empty(mask)
    box = cast("tuple[slice, ...]", ndimage.find_objects(mask.astype(np.uint8))[0])
    return tuple(slice(max(s.start - margin, 0), min(s.stop + margin, n)) for s, n in zip(box, mask.shape, strict=True))


def ratio(a: float, b: float) -> float:
    """a / b, or 0 if b is 0 or negative."""
    return float(a / b) if b > 0 else 0.0
