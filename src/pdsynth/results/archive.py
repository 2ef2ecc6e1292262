"""Writes the results folder of `evaluate`, and names its files.

The folder contains `metrics.json`, of which only the entry `times` differs between two runs; `metrics.tsv`, with one
row per scan, method and direction; `patterns.tsv` and `regions.tsv` (see `patterns`); and `predictions/`. That folder
contains `participants.tsv`, the scans in the order of the arrays; `grid.json`, the affine; and arrays (scans, X, Y, Z):
`fmri.npy`, `dmri.npy` and `<method>_<direction>.npy` in float16, `fmri_brain.npy` and `dmri_brain.npy` in bool, and
for a method that states an SD or gives samples `<method>_<direction>_std.npy` in float16.
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
IMAGES, GRID, SCANS_TSV = "predictions", "grid.json", "participants.tsv"
SAVED_SCANS = 24  # scans whose images are saved for the report
SECONDS = "seconds_per_volume"
KEYS = ["participant_id", "session_id", "site", "diagnosis"]


def image_name(method: str, direction: Direction) -> str:
    """The file name, without .npy, of the volumes that a method synthesised in one direction.

    Characters that are not allowed in a file name are escaped.

    >>> image_name("pds (run/model)", Direction.FMRI_TO_DMRI)
    'pds%20%28run%2Fmodel%29_fmri_to_dmri'
    """
    return f"{quote(method, safe='')}_{direction.value}"


class Archive:
    """Writes the results folder of an evaluation. A reader sees every file complete, or does not see it.

    out: the folder. scans: the evaluated scans. The real volumes and brain masks of the first 24 of them are written at
    once, into out/predictions. Arrays of an earlier evaluation in this folder are removed.
    """

    def __init__(self, out: Path, scans: Pairs) -> None:
        self.out, self.images = out, out / IMAGES
        self.images.mkdir(parents=True, exist_ok=True)
        for stale in self.images.glob("*.npy"):
            stale.unlink()
        rows = range(min(len(scans), SAVED_SCANS))
        for direction in Direction:
            target = direction.target
            self.save_images(target.value, [scans.volume(target, row) for row in rows])
            self._array(f"{target.value}_brain", np.stack([scans.brain(target, row) for row in rows]))
        self._text(f"{IMAGES}/{GRID}", json.dumps({"affine": np.asarray(scans.grid.affine).tolist()}))
        write_table(self.images / SCANS_TSV, scans.table[KEYS].head(SAVED_SCANS))

    def save_images(self, name: str, volumes: Sequence[np.ndarray]) -> None:
        """Write the volumes (X, Y, Z) of the first 24 scans, in their order, as float16 into predictions/<name>.npy."""
        self._array(name, np.stack(volumes).astype(np.float16))

    def finish(self, result: dict[str, Any], table: pd.DataFrame) -> None:
        """Write metrics.json with the content `result`, and metrics.tsv with the scores of every scan, `table`.

        metrics.json is the last file, so that a folder which contains it is complete. Raises ValueError if `result`
        contains a number that is not finite.
        """
        write_table(self.out / METRICS_TSV, table)
        self._text(METRICS_JSON, json.dumps(result, indent=2, allow_nan=False))

    def _array(self, name: str, array: np.ndarray) -> None:
        with files.atomic_path(self.images / f"{name}.npy") as temporary:
            np.save(temporary, array)

    def _text(self, name: str, text: str) -> None:
        files.write_text(self.out / name, text)
