"""The scans that the report shows, and their panels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pdsynth.evaluation.metrics import PRIMARY
from pdsynth.report import words
from pdsynth.report.filled import Filled
from pdsynth.report.pictures import EDGES, PLANES, View
from pdsynth.report.shown import Shown, about, saved, score_texts, view_of
from pdsynth.results.archive import image_name
from pdsynth.results.folder import Results
from pdsynth.types import Direction

AXIAL = 2
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


def missing_scans(scans: Sequence[Filled], tops: dict[str, float]) -> list[dict[str, Any]]:
    """Pictures of synthesised scans that the cohort lacks: the scan, its source if found, its SD if given.

    They are in the space of their source scans. tops: upper ends of the colour scales, from `shown.limits`.
    """
    return [_missing(scan, tops) for scan in scans]


def _missing(scan: Filled, tops: dict[str, float]) -> dict[str, Any]:
    view, (source, target) = scan.view, (scan.direction.source, scan.direction.target)
    columns = []
    if scan.source is not None:
        columns.append(_column("source", f"Source {words.MODALITIES[source]}", view.slices(scan.source, 1)))
    columns.append(_column("synthesised", f"Synthesised {words.MODALITIES[target]}", view.slices(scan.volume, 1)))
    if scan.deviation is not None:
        pictures = view.slices(scan.deviation, tops["deviation"], "deviation")
        columns.append(_column("deviation", "Uncertainty", pictures))
    return {
        "name": words.DIRECTIONS[scan.direction],
        "file": scan.file,
        "columns": columns,
        "planes": _planes(view),
    }


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
