"""The grid of a standard space, and affine transforms to it as files that ANTs reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pdsynth.files import write_text
from pdsynth.imaging.spatial import Grid
from pdsynth.types import Space

TEMPLATE = "ICBM 2009a nonlinear symmetric, which nilearn ships"  # to which scans are registered
FEAT = "the template image of FSL FEAT"  # of scans with a matrix of it
RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])  # its own inverse


def standard_grid(space: Space) -> Grid:
    """The grid of a standard space with voxels of 2 mm, that of the template of this resolution in TemplateFlow.

    Raises ValueError for the native space.

    >>> standard_grid(Space.MNI152NLIN6ASYM).shape
    (91, 109, 91)
    """
    if space is Space.NATIVE:
        raise ValueError("the native space has the grid of the scan, not a standard one. Name a standard space.")
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = (-90, -126, -72)
    return Grid((91, 109, 91), affine)


def write_itk(matrix: np.ndarray, path: Path) -> None:
    """Write an affine transform as a text file of ITK, which ANTs and SimpleITK read; an existing file is replaced.

    matrix: (4, 4), from mm of the moving image to mm of the fixed image, RAS+ as in NIfTI. `antsApplyTransforms` with
    this file resamples the moving image on a grid of the fixed one. The file has the inverse matrix in LPS+, because
    ITK maps points of the fixed image to the moving one and measures x and y in the other direction.
    """
    inverse = RAS_TO_LPS @ np.linalg.inv(matrix) @ RAS_TO_LPS
    numbers = " ".join(repr(float(value)) for value in (*inverse[:3, :3].ravel(), *inverse[:3, 3]))
    lines = ("#Insight Transform File V1.0", "#Transform 0", "Transform: AffineTransform_double_3_3")
    write_text(path, "\n".join((*lines, f"Parameters: {numbers}", "FixedParameters: 0 0 0", "")))
