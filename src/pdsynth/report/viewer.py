"""The volumes that the report contains for its viewer, as 8-bit levels in data URLs."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pdsynth.imaging.spatial import block_means
from pdsynth.report import words
from pdsynth.report.filled import Filled
from pdsynth.report.pictures import View, colours
from pdsynth.report.shown import Shown, about, saved, score_texts, view_of
from pdsynth.results.archive import image_name
from pdsynth.results.folder import Results
from pdsynth.types import Direction, Modality

LEVELS = 255
COLOURED = ("difference", "deviation")
BLOCK_MM = 2.0  # widest block of voxels whose mean is shown, of scans finer than half of it, to limit the page
ONE = np.ones(3, int)


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


def contents(
    results: Results, scans: Sequence[Shown], missing: Sequence[Filled], tops: dict[str, float]
) -> dict[str, Any]:
    """All that the viewer needs, as numbers and texts for JSON; volumes are those of `encoded`.

    scans: of participants with both scans. missing: synthesised scans of participants without. tops: upper ends of the
    colour scales, from `shown.limits`. Keys: tops; colours, 256 times red, green and blue by name of the scale; marks,
    the words in the pictures of real and synthesised volumes; grids, the boxes that are shown (see `_grid`), first that
    of all `scans`, then one per missing scan; people, one entry per scan, with the number of its grid, its real volumes
    by modality, and by direction of synthesis the synthesised volume, its SD (null if the method has none), and the
    bits of the brain mask, of the real scan or else of the synthesised one.
    """
    view = view_of(results)
    grids = [_grid(view, "MNI"), *(_grid(scan.view, "scanner", _edge(scan.view)) for scan in missing)]
    people = [_person(results, scan, view.box) for scan in scans]
    people += [_missing(scan, number) for number, scan in enumerate(missing, 1)]
    return _page(tops, results.simulated, grids, people)


def of_synthesised(scans: Sequence[Filled], tops: dict[str, float], simulated: bool) -> dict[str, Any]:
    """All that the viewer needs for synthesised scans outside a results folder, as in `contents`.

    simulated: whether the scans are of simulated people.
    """
    grids = [_grid(scan.view, "scanner", _edge(scan.view)) for scan in scans]
    return _page(tops, simulated, grids, [_missing(scan, number) for number, scan in enumerate(scans)])


def _page(
    tops: dict[str, float], simulated: bool, grids: list[dict[str, Any]], people: list[dict[str, Any]]
) -> dict[str, Any]:
    return {
        "tops": tops,
        "colours": {kind: _text((colours(kind) * LEVELS).round().astype(np.uint8)) for kind in COLOURED},
        "marks": {"real": "SIMULATED" * simulated, "synthesised": words.synthetic(simulated)},
        "grids": grids,
        "people": people,
    }


def _grid(view: View, space: str, edge: np.ndarray = ONE) -> dict[str, Any]:
    """The box of a view, in blocks of `edge` voxels along each axis.

    Keys: size, the blocks along x, y and z; affine (4, 4), from blocks to mm; cut, the block at which the three planes
    meet first; space, the name of the coordinates.
    """
    starts, stops = np.array([(each.start, each.stop) for each in view.box]).T
    size = (stops - starts) // edge
    affine = np.array(view.affine)
    affine[:3, 3] += affine[:3, :3] @ (starts + (edge - 1) / 2)
    affine[:3, :3] *= edge
    cut = np.minimum((np.array(view.cuts) - starts) // edge, size - 1)
    return {"size": size.tolist(), "affine": affine.tolist(), "cut": cut.tolist(), "space": space}


def _edge(view: View) -> np.ndarray:
    """Voxels along each axis whose mean the viewer shows: blocks of 1 to 2 mm, or single voxels of more than 1 mm."""
    return np.maximum(1, np.floor(BLOCK_MM / view.spacing_mm)).astype(int)


def _person(results: Results, scan: Shown, box: tuple[slice, slice, slice]) -> dict[str, Any]:
    details = [f"rank {scan.rank} of {len(results.imaged)}", *about(results, scan.row)]  # a narrow list cuts the end
    return {
        "name": " · ".join([results.imaged["participant_id"][scan.row], *details]),
        "grid": 0,
        "scans": {m.value: encoded(saved(results, m.value, scan.row)[box]) for m in Modality},
        "directions": {d.value: _synthesised(results, scan.row, d, box) for d in Direction},
    }


def _synthesised(results: Results, row: int, direction: Direction, box: tuple[slice, slice, slice]) -> dict[str, Any]:
    name = image_name(results.tested, direction)
    deviation = results.images(f"{name}_std")
    return _named(direction) | {
        "scores": score_texts(results, row, direction),
        "volume": encoded(saved(results, name, row)[box]),
        "deviation": None if deviation is None else encoded(np.asarray(deviation[row], np.float32)[box]),
        "brain": _text(np.packbits(saved(results, f"{direction.target}_brain", row)[box] > 0)),
    }


def _missing(scan: Filled, grid: int) -> dict[str, Any]:
    edge, direction = _edge(scan.view), scan.direction

    def in_blocks(volume: np.ndarray) -> dict[str, Any]:
        return encoded(block_means(volume[scan.view.box], edge))

    brain = block_means(scan.brain[scan.view.box].astype(np.float32), edge) > 0.5
    synthesised = _named(direction) | {
        "scores": scan.scores,
        "volume": in_blocks(scan.volume),
        "deviation": None if scan.deviation is None else in_blocks(scan.deviation),
        "brain": _text(np.packbits(brain)),
    }
    names = [part for part in Path(scan.file).name.split("_") if part.startswith(("sub-", "ses-"))]
    return {
        "name": " · ".join([*names, f"missing {words.MODALITIES[direction.target]}"]),
        "grid": grid,
        "scans": {} if scan.source is None else {direction.source.value: in_blocks(scan.source)},
        "directions": {direction.value: synthesised},
    }


def _named(direction: Direction) -> dict[str, Any]:
    return {
        "source": direction.source.value,
        "target": direction.target.value,
        "names": [words.MODALITIES[direction.source], words.MODALITIES[direction.target]],
    }


def _text(array: np.ndarray) -> str:
    return "data:;base64," + base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
