"""The volumes that the report contains for its viewer, as 8-bit levels in data URLs."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np

from pdsynth.report import words
from pdsynth.report.pictures import colours
from pdsynth.report.shown import Shown, about, saved, score_texts, view_of
from pdsynth.results.archive import image_name
from pdsynth.results.folder import Results
from pdsynth.types import Direction, Modality

LEVELS = 255
COLOURED = ("difference", "deviation")


def encoded(volume: np.ndarray) -> dict[str, Any]:
    """A volume (X, Y, Z) as text: `data` (a data URL of one byte per voxel, the last axis fastest), `low`, `high`.

    The value of a voxel is low + (high - low) * byte / 255, which differs from the given value by at most
    (high - low) / 510. low and high are the smallest and the largest value; low is at most 0, high at least 1e-3.

    >>> encoded(np.array([[[0.0, 0.5, 1.0]]]))
    {'data': 'data:;base64,AID/', 'low': 0.0, 'high': 1.0}
    """
    low, high = min(float(np.min(volume)), 0.0), max(float(np.max(volume)), 1e-3)
    levels = np.rint((np.asarray(volume, np.float64) - low) / (high - low) * LEVELS).astype(np.uint8)
    return {"data": _text(levels), "low": low, "high": high}


def contents(results: Results, scans: Sequence[Shown], tops: dict[str, float]) -> dict[str, Any]:
    """All that the viewer needs, as numbers and texts for JSON; volumes are those of `encoded`.

    tops: upper ends of the colour scales, from `shown.limits`. Keys: size, the voxels along x, y and
    z of the box around all brains; affine (4, 4), from voxels of the box to mm; cut, the voxel at which the three
    planes meet first; tops; colours, 256 times red, green and blue by name of the scale; marks, the words in
    the pictures of real and synthesised volumes; people, one entry per scan, with its real volumes by modality, and by
    direction of synthesis the synthesised volume, its SD (null if the method has none) and the bits of the brain mask
    of the real scan.
    """
    view = view_of(results)
    box, starts = view.box, [each.start for each in view.box]
    affine = np.array(view.affine)
    affine[:3, 3] += affine[:3, :3] @ starts
    return {
        "size": [each.stop - each.start for each in box],
        "affine": affine.tolist(),
        "cut": [cut - start for cut, start in zip(view.cuts, starts, strict=True)],
        "tops": tops,
        "colours": {kind: _text((colours(kind) * LEVELS).round().astype(np.uint8)) for kind in COLOURED},
        "marks": {"real": "SIMULATED" * results.simulated, "synthesised": words.synthetic(results.simulated)},
        "people": [_person(results, scan, box) for scan in scans],
    }


def _person(results: Results, scan: Shown, box: tuple[slice, slice, slice]) -> dict[str, Any]:
    details = [*about(results, scan.row), f"rank {scan.rank} of {len(results.imaged)}"]
    return {
        "name": " · ".join([results.imaged["participant_id"][scan.row], *details]),
        "scans": {m.value: encoded(saved(results, m.value, scan.row)[box]) for m in Modality},
        "directions": {d.value: _synthesised(results, scan.row, d, box) for d in Direction},
    }


def _synthesised(results: Results, row: int, direction: Direction, box: tuple[slice, slice, slice]) -> dict[str, Any]:
    name = image_name(results.tested, direction)
    brain = saved(results, f"{direction.target}_brain", row)[box] > 0
    deviation = results.images(f"{name}_std")
    return {
        "source": direction.source.value,
        "target": direction.target.value,
        "names": [words.MODALITIES[direction.source], words.MODALITIES[direction.target]],
        "scores": score_texts(results, row, direction),
        "volume": encoded(saved(results, name, row)[box]),
        "deviation": None if deviation is None else encoded(np.asarray(deviation[row], np.float32)[box]),
        "brain": _text(np.packbits(brain)),
    }


def _text(array: np.ndarray) -> str:
    return "data:;base64," + base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
