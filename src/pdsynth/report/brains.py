"""The scans that the report shows, and their panels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from pdsynth.cohorts.scans import single_scan
from pdsynth.data.means import scan_means
from pdsynth.data.preprocessing import Preprocessing
from pdsynth.evaluation.metrics import PRIMARY
from pdsynth.report import words
from pdsynth.report.pictures import EDGES, PLANES, View
from pdsynth.report.shown import Shown, about, saved, score_texts, view_of
from pdsynth.results.archive import image_name
from pdsynth.results.folder import Results, Synthesised
from pdsynth.types import Direction, InputError

SHOWN_MISSING = 4
AXIAL = 2
SHOWN_SIGNAL = 0.02  # voxels of a synthesised volume above this signal count as brain
MOST_FIGURES = 9  # most figures per row of the gallery


def participants(results: Results, scans: Sequence[Shown], tops: dict[str, float]) -> list[dict[str, Any]]:
    """Pictures of the three planes of some scans with all volumes of both directions, for the report.

    tops: upper ends of the colour scales, from `shown.limits`. Returns one dict per scan, as the template needs it.
    """
    return [
        {
            "id": results.imaged["participant_id"][scan.row],
            "about": about(results, scan.row),
            "rank": scan.rank,
            "directions": [_panels(results, scan.row, d, tops) for d in Direction],
        }
        for scan in scans
    ]


def _panels(results: Results, row: int, direction: Direction, tops: dict[str, float]) -> dict[str, Any]:
    """Columns of three planes each: source, real, synthesised, difference and, if the method has one, SD."""
    names = (direction.source.value, direction.target.value, image_name(results.tested, direction))
    source, real, synthesised = (saved(results, name, row) for name in names)
    brain = saved(results, f"{direction.target}_brain", row) > 0
    view = view_of(results)
    top = tops["signal"]
    columns = [
        _column("source", f"Source {words.MODALITIES[direction.source]}", view.slices(source, top)),
        _column("real", f"Real {words.MODALITIES[direction.target]}", view.slices(real, top)),
        _column("synthesised", f"Synthesised {words.MODALITIES[direction.target]}", view.slices(synthesised, top)),
        _column(
            "difference",
            "Synthesised \N{MINUS SIGN} real",
            view.slices((synthesised - real) * brain, tops["difference"], "difference"),
        ),
    ]
    deviation = results.images(f"{image_name(results.tested, direction)}_std")
    if deviation is not None:
        spread = np.asarray(deviation[row], np.float32) * brain
        columns.append(_column("deviation", "Uncertainty", view.slices(spread, tops["deviation"], "deviation")))
    return {
        "name": words.DIRECTIONS[direction],
        "scores": score_texts(results, row, direction),
        "columns": columns,
        "planes": _planes(view),
    }


def gallery(results: Results, tops: dict[str, float]) -> list[dict[str, Any]]:
    """Pictures of one scan as every method synthesises it, with the difference from the real scan.

    Returns one dict per direction of synthesis, as the template needs it. One axial slice is shown. The scan is that of
    middle rank by PSNR of the method under test, among those with saved volumes. tops: upper ends of the colour scales,
    from `shown.limits`.
    """
    panels = []
    number = len(results.imaged)
    for direction in Direction:
        scores = results.scan_scores(results.tested, direction)[PRIMARY].to_numpy(float)[:number]
        row = int(np.argsort(-scores)[number // 2])
        real, brain = (saved(results, f"{direction.target}{end}", row) for end in ("", "_brain"))
        view = view_of(results)
        tiles = []
        for name in results.methods:
            image = saved(results, image_name(name, direction), row)
            error = (image - real) * (brain > 0)
            score = results.scan_scores(name, direction)[PRIMARY].iloc[row]
            tiles.append(
                {
                    "name": name,
                    "group": words.group_of(name, results.tested),
                    "psnr": words.number(float(score), 1),
                    "image": view.slice(image, AXIAL, tops["signal"]),
                    "difference": view.slice(error, AXIAL, tops["difference"], "difference"),
                }
            )
        figures = len(tiles) + 2
        panels.append(
            {
                "name": words.DIRECTIONS[direction],
                "target": words.MODALITIES[direction.target],
                "participant": results.imaged["participant_id"][row],
                "real": view.slice(real, AXIAL, tops["signal"]),
                "source": view.slice(saved(results, direction.source, row), AXIAL, tops["signal"]),
                "cut": view.labels[AXIAL],
                "tiles": tiles,
                "columns": -(-figures // -(-figures // MOST_FIGURES)),  # rows of equal length
            }
        )
    return panels


def missing_scans(results: Results, tops: dict[str, float]) -> list[dict[str, Any]]:
    """Pictures of up to four synthesised scans that the cohort lacks: the scan, its source if found, its SD if given.

    They are in the space of their source scans. At most two are shown per synthesised modality. tops: upper ends of the
    colour scales, from `shown.limits`.
    """
    scans: list[Synthesised] = []
    for target in dict.fromkeys(each.target for each in results.synthesised):
        scans += [each for each in results.synthesised if each.target is target][: SHOWN_MISSING // 2]
    return [_missing(each, results.root, tops) for each in scans]


def _missing(scan: Synthesised, root: Path, tops: dict[str, float]) -> dict[str, Any]:
    volume, affine = _canonical(nib.Nifti1Image.from_filename(scan.image))
    view = View.around(volume > SHOWN_SIGNAL, affine, None)
    direction = Direction.to(scan.target)
    columns = []
    source = _source_mean(scan)
    if source is not None and source.shape == volume.shape:
        inside = source[volume > SHOWN_SIGNAL]
        top = float(np.percentile(inside, 99.5)) if inside.size else 1.0
        columns.append(_column("source", f"Source {words.MODALITIES[direction.source]}", view.slices(source, top)))
    columns.append(_column("synthesised", f"Synthesised {words.MODALITIES[direction.target]}", view.slices(volume, 1)))
    if scan.deviation is not None:
        spread = _canonical(nib.Nifti1Image.from_filename(scan.deviation))[0] * (volume > SHOWN_SIGNAL)
        columns.append(_column("deviation", "Uncertainty", view.slices(spread, tops["deviation"], "deviation")))
    return {
        "name": words.DIRECTIONS[direction],
        "file": scan.image.relative_to(root).as_posix(),
        "sources": [Path(s).name for s in scan.sidecar.get("Sources", [])],
        "columns": columns,
        "planes": _planes(view),
    }


def _source_mean(scan: Synthesised) -> np.ndarray | None:
    """The mean of the source scan as in preparation (fMRI: steady volumes; dMRI: one shell), (X, Y, Z) in RAS order.

    None if the file of the scan was not found or cannot be used.
    """
    if scan.source is None:
        return None
    try:
        mean = scan_means(single_scan(scan.source), Preprocessing()).means[0]
    except InputError:
        return None
    return _canonical(nib.Nifti1Image(mean.data, mean.affine))[0]


def _canonical(image: nib.Nifti1Image) -> tuple[np.ndarray, np.ndarray]:
    """Data (X, Y, Z) and affine, with the axes in the order right, anterior, superior."""
    turned = nib.as_closest_canonical(image)
    return np.asarray(turned.dataobj, np.float32), turned.affine


def _column(kind: str, title: str, slices: list[Any]) -> dict[str, Any]:
    return {"kind": kind, "title": title, "slices": slices}


def _planes(view: View) -> list[dict[str, Any]]:
    """Name, cut and edge letters of the three planes of a view, one per row of panels.

    share: width divided by that of the widest plane, so that all planes have the same scale in mm.
    """
    widths = [view.width_mm(axis) for axis in range(3)]
    return [
        {"name": name, "cut": cut, "left": edge[0], "right": edge[1], "top": edge[2], "share": width / max(widths)}
        for name, cut, edge, width in zip(PLANES, view.labels, EDGES, widths, strict=True)
    ]
