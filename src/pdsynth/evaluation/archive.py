"""The results folder: what `evaluate` leaves for the report, and how its files are named.

`metrics.json` (whose block `times` alone differs between two runs), `metrics.tsv` (one row per scan, method and
direction), `patterns.tsv` and `regions.tsv` (see `patterns`), and `predictions/` with `participants.tsv` (which scans,
in the order of the arrays), `grid.json` (the affine), `fmri.npy`, `dmri.npy`, `fmri_brain.npy`, `dmri_brain.npy`,
`<method>_<direction>.npy` and, from a method that states an uncertainty or gives samples,
`<method>_<direction>_std.npy`: float16 or bool, (scans, X, Y, Z).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd

from pdsynth import files
from pdsynth.data.pairs import Pairs
from pdsynth.types import Direction

SHOWN_SCANS = 24  # scans whose images are kept for the report
METRICS, SECONDS = "metrics.json", "seconds_per_volume"
KEYS = ["participant_id", "session_id", "site", "diagnosis"]


def image_name(method: str, direction: Direction) -> str:
    """The stem of a method's images; signs that a file name can't hold are escaped.

    >>> image_name("pds (run/model)", Direction.FMRI_TO_DMRI)
    'pds%20%28run%2Fmodel%29_fmri_to_dmri'
    """
    return f"{quote(method, safe='')}_{direction.value}"


def run_folder(out: Path, entry: str) -> Path:
    """The folder of an entry of the benchmark in `out`: a recipe's name, and ":small" where it is not the full size.

    >>> run_folder(Path("out"), "pds-paper:small").as_posix()
    'out/runs/pds-paper-small'
    """
    return out / "runs" / entry.replace(":", "-")


def recipe_of(entry: str) -> tuple[str, str]:
    """The recipe and the size that an entry of a benchmark names.

    >>> recipe_of("pds-paper:small"), recipe_of("pds")
    (('pds-paper', 'small'), ('pds', 'full'))
    """
    name, _, size = entry.partition(":")
    return name, size or "full"


def read_by_site(path: Path) -> pd.DataFrame:
    """A table with a column `site`; who has none is at the site n/a."""
    table = pd.read_csv(path, sep="\t", dtype={"site": str})
    return table.assign(site=table["site"].fillna("n/a"))


def scores_folder(out: Path, entry: str) -> Path:
    """The results folder of an entry of the benchmark in `out`."""
    return run_folder(out, entry) / "scores"


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table of results: tabs between the columns, six digits, n/a for what is not known."""
    files.write_table(path, table, float_format="%.6g", na_rep="n/a")


def read_table(path: Path, text: Sequence[str] = ()) -> pd.DataFrame:
    """Read what `write_table` wrote: n/a is NaN, and nothing else; the columns of `text` stay as they are written."""
    return pd.read_csv(path, sep="\t", dtype=dict.fromkeys(text, str), keep_default_na=False, na_values=["n/a"])


def read_metrics(results: Path) -> dict[str, Any]:
    """metrics.json of a results folder, in the form that `evaluate` writes today.

    Folders of before `times` stood apart have the seconds among the scores; they are moved here. Raises
    FileNotFoundError where there is no such file, ValueError where it is damaged.
    """
    metrics: dict[str, Any] = json.loads((results / METRICS).read_text(encoding="utf-8"))
    if "times" not in metrics:
        metrics["times"] = {
            name: {d: {SECONDS: scores.pop(SECONDS)} for d, scores in entry.items() if SECONDS in scores}
            for name, entry in metrics.get("methods", {}).items()
        }
    return metrics


def scores_and_times(metrics: Mapping[str, Any], method: str, direction: Direction) -> dict[str, Any]:
    """What metrics.json has of a method in one direction; empty where it has nothing.

    >>> metrics = {"methods": {"unet": {"fmri_to_dmri": {"within_site_r": 0.5}}}, "times": {}}
    >>> scores_and_times(metrics, "unet", Direction.FMRI_TO_DMRI)
    {'within_site_r': 0.5}
    """
    of_method = (metrics[block].get(method, {}) for block in ("methods", "times"))
    return {name: value for entry in of_method for name, value in entry.get(direction.value, {}).items()}


class Archive:
    """Writes a results folder; every file appears whole under its name or not at all."""

    def __init__(self, out: Path, scans: Pairs) -> None:
        self.out, self.images = out, out / "predictions"
        self.images.mkdir(parents=True, exist_ok=True)
        for stale in self.images.glob("*.npy"):
            stale.unlink()
        kept = range(min(len(scans), SHOWN_SCANS))
        for direction in Direction:
            target = direction.target
            self.keep(target.value, [scans.volume(target, row) for row in kept])
            self._array(f"{target.value}_brain", np.stack([scans.brain(target, row) for row in kept]))
        self._text("predictions/grid.json", json.dumps({"affine": np.asarray(scans.grid.affine).tolist()}))
        write_table(self.images / "participants.tsv", scans.table[KEYS].head(SHOWN_SCANS))

    def keep(self, name: str, volumes: Sequence[np.ndarray]) -> None:
        """Write the images of the first SHOWN_SCANS scans, (X, Y, Z) each, as float16."""
        self._array(name, np.stack(volumes).astype(np.float16))

    def finish(self, result: dict[str, Any], table: pd.DataFrame) -> None:
        """Write the metrics, which make the folder complete."""
        write_table(self.out / "metrics.tsv", table)
        self._text(METRICS, json.dumps(result, indent=2, allow_nan=False))

    def _array(self, name: str, array: np.ndarray) -> None:
        with files.complete_or_absent(self.images / f"{name}.npy") as temporary:
            np.save(temporary, array)

    def _text(self, name: str, text: str) -> None:
        files.write_text(self.out / name, text)
