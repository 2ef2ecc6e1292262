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
    """How a volume is shown in pictures: a box around the brain, and the voxels at which the three planes are cut.

    affine (4, 4): from voxels to mm; the axes of the grid must point to the right, front and top (RAS). box: slices of
    x, y and z. cuts: voxel index of the plane along x, y and z. Volumes that are shown side by side share one view.
    """

    affine: np.ndarray
    box: tuple[slice, slice, slice]
    cuts: tuple[int, int, int]

    @classmethod
    def around(cls, masks: np.ndarray, affine: np.ndarray, cuts_mm: tuple[float, ...] | None = MNI_CUTS_MM) -> View:
        """The view of a box around all masks (..., X, Y, Z), one voxel wider on each side; if empty, the whole grid.

        cuts_mm: x, y and z of the three planes, mm (MNI by default); None means the centre of the box. A plane outside
        the box is moved to its edge. affine (4, 4): from voxels to mm.
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
        """Position of each of the three planes (sagittal, coronal, axial) in mm, as text such as "x = −6 mm"."""
        at = self.affine[:3, :3] @ np.asarray(self.cuts) + self.affine[:3, 3]
        return [
            f"{axis} = {value:+.0f} mm".replace("-", "\N{MINUS SIGN}") for axis, value in zip("xyz", at, strict=True)
        ]

    def width_mm(self, axis: int) -> float:
        """Width of the picture of one plane, mm. axis: 0 for the sagittal, 1 for the coronal, 2 for the axial plane."""
        across = 1 if axis == 0 else 0
        return float((self.box[across].stop - self.box[across].start) * self.spacing_mm[across])

    def slices(self, volume: np.ndarray, top: float, kind: str = "grey") -> list[Markup]:
        """Pictures of the sagittal, coronal and axial plane of a volume (X, Y, Z), as data URLs of PNG images.

        Colours run from 0 to `top`. kind: "grey", "deviation" (of an SD), or "difference", whose colours run from -top
        to top.
        """
        return [self.slice(volume, axis, top, kind) for axis in range(3)]

    def slice(self, volume: np.ndarray, axis: int, top: float, kind: str = "grey") -> Markup:
        """Picture of one plane of a volume (X, Y, Z), as the data URL of a PNG image.

        axis: 0 for the sagittal, 1 for the coronal, 2 for the axial plane. Colours run from 0 to `top`. kind: "grey",
        "deviation" (of an SD), or "difference", whose colours run from -top to top.
        """
        return picture(self.plane(volume, axis), self._zoom(axis), top, kind)

    def _zoom(self, axis: int) -> tuple[float, float]:
        """Pixels per voxel of a plane, along rows and columns."""
        down, across = ((2, 1), (2, 0), (1, 0))[axis]
        return self.spacing_mm[down] * PIXELS_PER_MM, self.spacing_mm[across] * PIXELS_PER_MM

    def outlined(self, volume: np.ndarray, mask: np.ndarray, axis: int, top: float = 1.0) -> Markup:
        """Picture of one plane of a volume in grey with the outline of a mask, as the data URL of a PNG image.

        volume, mask: (X, Y, Z). axis: 0 for the sagittal, 1 for the coronal, 2 for the axial plane. Grey runs from 0 to
        `top`.
        """
        grey = _indices(self.plane(volume, axis), self._zoom(axis), 0, top)
        inside = _enlarged(self.plane(mask, axis), self._zoom(axis)) > 0.5
        rgb = np.repeat(grey[..., None], 3, axis=2)
        rgb[inside & ~ndimage.binary_erosion(inside)] = EDGE
        return _address(Image.fromarray(rgb).quantize(EDGE_COLOURS))

    def plane(self, volume: np.ndarray, axis: int) -> np.ndarray:
        """One plane of a volume (X, Y, Z) as an array (rows, columns), with the top left corner of the picture first.

        axis: 0 for the sagittal, 1 for the coronal, 2 for the axial plane.
        """
        index = [*self.box]
        index[axis] = slice(self.cuts[axis], self.cuts[axis] + 1)
        return np.asarray(volume[tuple(index)], np.float32).squeeze(axis).T[::-1]


def picture(plane: np.ndarray, zoom: tuple[float, float], top: float, kind: str) -> Markup:
    """Picture of a plane (rows, columns) in colours, as the data URL of an 8-bit PNG image.

    zoom: pixels per voxel along rows and columns; the plane is enlarged by cubic interpolation. kind: "grey",
    "deviation" (of an SD) or "difference". Colours run from 0 (or -top for "difference") to top; values outside are
    clipped.
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
    """Picture of a colour scale, from its low end (left) to its high end (right), as the data URL of a PNG image.

    kind: "grey", "deviation" (of an SD) or "difference".
    """
    image = Image.fromarray(np.tile(np.arange(256, dtype=np.uint8), (1, 1)))
    image.putpalette(_palette(kind))
    return _address(image)


def colours(kind: str) -> np.ndarray:
    """The 256 colours of a scale from its low to its high end, red, green and blue: (256, 3) in 0..1.

    kind: "grey", "deviation" (of an SD) or "difference".
    """
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
