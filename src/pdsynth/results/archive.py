"""The writer of a results folder: what `evaluate` leaves for the report, and how its files are named.

`metrics.json` (whose block `times` alone differs between two runs), `metrics.tsv` (one row per scan, method and
direction), `patterns.tsv` and `regions.tsv` (see `patterns`), and `predictions/` with `participants.tsv` (which scans,
in the order of the arrays), `grid.json` (the affine), `fmri.npy`, `dmri.npy`, `fmri_brain.npy`, `dmri_brain.npy`,
`<method>_<direction>.npy` and, from a method that states an uncertainty or gives samples,
`<method>_<direction>_std.npy`: float16 or bool, (scans, X, Y, Z).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd

from pdsynth import files
from pdsynth.data.pairs import Pairs
from pdsynth.results.tables import write_table
from pdsynth.types import Direction

METRICS_JSON, METRICS_TSV = "metrics.json", "metrics.tsv"
IMAGES, GRID, SHOWN = "predictions", "grid.json", "participants.tsv"
SHOWN_SCANS = 24  # scans whose images are kept for the report
SECONDS = "seconds_per_volume"
KEYS = ["participant_id", "session_id", "site", "diagnosis"]


def image_name(method: str, direction: Direction) -> str:
    """The stem of a method's images; signs that a file name can't hold are escaped.

    >>> image_name("pds (run/model)", Direction.FMRI_TO_DMRI)
    'pds%20%28run%2Fmodel%29_fmri_to_dmri'
    """
    return f"{quote(method, safe='')}_{direction.value}"


class Archive:
    """Writes a results folder; every file appears whole under its name or not at all."""

    def __init__(self, out: Path, scans: Pairs) -> None:
        self.out, self.images = out, out / IMAGES
        self.images.mkdir(parents=True, exist_ok=True)
        for stale in self.images.glob("*.npy"):
            stale.unlink()
        kept = range(min(len(scans), SHOWN_SCANS))
        for direction in Direction:
            target = direction.target
            self.keep(target.value, [scans.volume(target, row) for row in kept])
            self._array(f"{target.value}_brain", np.stack([scans.brain(target, row) for row in kept]))
        self._text(f"{IMAGES}/{GRID}", json.dumps({"affine": np.asarray(scans.grid.affine).tolist()}))
        write_table(self.images / SHOWN, scans.table[KEYS].head(SHOWN_SCANS))

    def keep(self, name: str, volumes: Sequence[np.ndarray]) -> None:
        """Write the images of the first SHOWN_SCANS scans, (X, Y, Z) each, as float16."""
        self._array(name, np.stack(volumes).astype(np.float16))

    def finish(self, result: dict[str, Any], table: pd.DataFrame) -> None:
        """Write the metrics, which make the folder complete."""
        write_table(self.out / METRICS_TSV, table)
        self._text(METRICS_JSON, json.dumps(result, indent=2, allow_nan=False))

    def _array(self, name: str, array: np.ndarray) -> None:
        with files.complete_or_absent(self.images / f"{name}.npy") as temporary:
            np.save(temporary, array)

    def _text(self, name: str, text: str) -> None:
        files.write_text(self.out / name, text)
