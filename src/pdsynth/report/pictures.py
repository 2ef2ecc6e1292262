"""Brain slices as small PNG images in data URLs, in neurological orientation (left is left)."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from markupsafe import Markup
from matplotlib import colormaps
from PIL import Image
from scipy import ndimage

PIXELS_PER_MM = 1.0
MNI_CUTS_MM = (-6.0, -20.0, 8.0)  # x: beside the midline; y: through the hippocampi; z: through ventricles and thalami
PLANES = ("Sagittal", "Coronal", "Axial")
EDGES = (("P", "A", "S"), ("L", "R", "S"), ("L", "R", "A"))  # left, right and top of each plane
EDGE, EDGE_COLOURS = (255, 196, 0), 64  # colour of an outline; number of colours in a picture with an outline
MAPS = {"grey": "gray", "difference": "berlin", "deviation": "inferno"}


@dataclass(frozen=True)
class View:
    """A crop (box) of a canonical (RAS) grid, and the voxel index of the cut along each axis (cuts).

    affine (4, 4): from voxels to mm. Images that are shown side by side share one view.
    """

    affine: np.ndarray
    box: tuple[slice, slice, slice]
    cuts: tuple[int, int, int]

    @classmethod
    def around(cls, masks: np.ndarray, affine: np.ndarray, cuts_mm: tuple[float, ...] | None = MNI_CUTS_MM) -> View:
        """The box around all masks (..., X, Y, Z), one voxel wider, cut at cuts_mm or, if that is None, at its centre.

        cuts_mm: x, y and z of the three cuts, mm. A cut outside the box is moved to its edge.
        """
        union = np.asarray(masks, bool).reshape(-1, *np.shape(masks)[-3:]).any(0)
        found = ndimage.find_objects(union.astype(np.uint8)) or [tuple(slice(0, n) for n in union.shape)]
        box = tuple(slice(max(s.start - 1, 0), min(s.stop + 1, n)) for s, n in zip(found[0], union.shape, strict=True))
        if cuts_mm is None:
            voxel = np.array([(s.start + s.stop - 1) / 2 for s in box])
        else:
            voxel = np.linalg.solve(affine[:3, :3], np.asarray(cuts_mm) - affine[:3, 3])
        x, y, z = (int(np.clip(round(v), s.start, s.stop - 1)) for v, s in zip(voxel, box, strict=True))
        return cls(affine, (box[0], box[1], box[2]), (x, y, z))

    @property
    def spacing_mm(self) -> np.ndarray:
        return np.sqrt(np.square(self.affine[:3, :3]).sum(0))

    @property
    def labels(self) -> list[str]:
        """Position of the cut of each plane, such as "x = -6 mm"."""
        at = self.affine[:3, :3] @ np.asarray(self.cuts) + self.affine[:3, 3]
        return [
            f"{axis} = {value:+.0f} mm".replace("-", "\N{MINUS SIGN}") for axis, value in zip("xyz", at, strict=True)
        ]

    def width_mm(self, axis: int) -> float:
        """Width of the picture of a plane, mm. axis: 0 sagittal, 1 coronal, 2 axial."""
        across = 1 if axis == 0 else 0
        return float((self.box[across].stop - self.box[across].start) * self.spacing_mm[across])

    def slices(self, volume: np.ndarray, top: float, kind: str = "grey") -> list[Markup]:
        """Data URLs of three planes of a volume (X, Y, Z): sagittal, coronal, axial. See `picture` for top and kind."""
        return [self.slice(volume, axis, top, kind) for axis in range(3)]

    def slice(self, volume: np.ndarray, axis: int, top: float, kind: str = "grey") -> Markup:
        """Data URL of one plane of a volume (X, Y, Z): sagittal (axis 0), coronal (1) or axial (2). See `picture`."""
        return picture(self.plane(volume, axis), self._zoom(axis), top, kind)

    def _zoom(self, axis: int) -> tuple[float, float]:
        """Pixels per voxel of a plane, along rows and columns."""
        down, across = ((2, 1), (2, 0), (1, 0))[axis]
        return self.spacing_mm[down] * PIXELS_PER_MM, self.spacing_mm[across] * PIXELS_PER_MM

    def outlined(self, volume: np.ndarray, mask: np.ndarray, axis: int, top: float = 1.0) -> Markup:
        """Data URL of one plane of a volume in grey with the outline of a mask; both are (X, Y, Z)."""
        grey = _indices(self.plane(volume, axis), self._zoom(axis), 0, top)
        inside = _enlarged(self.plane(mask, axis), self._zoom(axis)) > 0.5
        rgb = np.repeat(grey[..., None], 3, axis=2)
        rgb[inside & ~ndimage.binary_erosion(inside)] = EDGE
        return _address(Image.fromarray(rgb).quantize(EDGE_COLOURS))

    def plane(self, volume: np.ndarray, axis: int) -> np.ndarray:
        """One plane of a volume (X, Y, Z) as (rows, columns), starting at the top left corner of the picture."""
        index = [*self.box]
        index[axis] = slice(self.cuts[axis], self.cuts[axis] + 1)
        return np.asarray(volume[tuple(index)], np.float32).squeeze(axis).T[::-1]


def picture(plane: np.ndarray, zoom: tuple[float, float], top: float, kind: str) -> Markup:
    """Data URL of a plane (rows, columns) as an 8-bit PNG, enlarged by cubic interpolation.

    kind: a key of MAPS. Colours run from 0 (or -top for kind "difference") to top; values outside are clipped.
    """
    image = Image.fromarray(_indices(plane, zoom, -top if kind == "difference" else 0.0, top))
    if kind != "grey":
        image.putpalette(_palette(kind))
    return _address(image)


def _indices(plane: np.ndarray, zoom: tuple[float, float], low: float, top: float) -> np.ndarray:
    large = _enlarged(plane, zoom)
    return np.clip((large - low) / (top - low) * 255, 0, 255).round().astype(np.uint8)


def _enlarged(plane: np.ndarray, zoom: tuple[float, float]) -> np.ndarray:
    return ndimage.zoom(plane, zoom, order=3, mode="nearest", grid_mode=True)


@lru_cache
def colour_bar(kind: str) -> Markup:
    """Data URL of a colour scale, from its low end (left) to its high end (right). kind is a key of MAPS."""
    image = Image.fromarray(np.tile(np.arange(256, dtype=np.uint8), (1, 1)))
    image.putpalette(_palette(kind))
    return _address(image)


def colours(kind: str) -> np.ndarray:
    """The 256 colours of a scale, (256, 3) in 0..1."""
    rgb = colormaps[MAPS[kind]](np.arange(256) / 255)[:, :3]
    if kind == "difference":  # a difference of 0 is black, like the background
        rgb = rgb * np.minimum(1, np.abs(np.linspace(-1, 1, 256)) * 6)[:, None]
    return rgb


def _palette(kind: str) -> bytes:
    return (colours(kind) * 255).round().astype(np.uint8).tobytes()


def _address(image: Image.Image) -> Markup:
    with io.BytesIO() as file:
        image.save(file, "PNG", optimize=True)
        return Markup("data:image/png;base64," + base64.b64encode(file.getvalue()).decode())
