"""The reader of a results folder, of `evaluate` or of a benchmark; nothing is computed from scans here.

Required files: `metrics.json` and `metrics.tsv` as `archive` writes them, and for pictures `predictions/`. Optional
files: `manifest.json`, and, in the folder or below it, `rejected.tsv` and synthesised scans
(`*_desc-synthetic_*.nii.gz`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pdsynth import manifest
from pdsynth.results.archive import GRID, IMAGES, METRICS_JSON, METRICS_TSV, SCANS_TSV, SECONDS
from pdsynth.results.tables import read_table
from pdsynth.types import NA, Direction, InputError, Modality

TEXT_COLUMNS = ("participant_id", "session_id", "site", "diagnosis")
REMEDY = "run `pdsynth evaluate` with this folder as --out first"


@dataclass(frozen=True)
class Synthesised:
    """The files of one synthesised scan in a results folder.

    image: the volume. deviation: its SD per voxel; None if it was not written. sidecar: the content of its JSON file;
    {} if there is none. source: the scan from which it was synthesised; None if it was not found in the results folder.
    """

    image: Path
    deviation: Path | None
    sidecar: dict[str, Any]
    source: Path | None

    @property
    def target(self) -> Modality:
        """The synthesised modality, from the file name."""
        return Modality.FMRI if "_boldref" in self.image.name else Modality.DMRI


def read_metrics(results: Path) -> dict[str, Any]:
    """Content of metrics.json in a results folder, in the form of this version.

    In a file of version 0.1.0, the seconds per volume are among the scores; they are moved to the key `times`. Raises
    FileNotFoundError if the file is missing, ValueError if it is damaged.
    """
    metrics: dict[str, Any] = json.loads((results / METRICS_JSON).read_text(encoding="utf-8"))
    if "times" not in metrics:
        metrics["times"] = {
            name: {d: {SECONDS: scores.pop(SECONDS)} for d, scores in entry.items() if SECONDS in scores}
            for name, entry in metrics.get("methods", {}).items()
        }
    return metrics


def scores_and_times(metrics: Mapping[str, Any], method: str, direction: Direction) -> dict[str, Any]:
    """All measures of a method in one direction, by name: scores, and seconds per volume; {} if there is none.

    metrics: the content of metrics.json. A score is a number, or a dict of mean and 95 % interval.

    >>> metrics = {"methods": {"unet": {"fmri_to_dmri": {"within_site_r": 0.5}}}, "times": {}}
    >>> scores_and_times(metrics, "unet", Direction.FMRI_TO_DMRI)
    {'within_site_r': 0.5}
    """
    of_method = (metrics[block].get(method, {}) for block in ("methods", "times"))
    return {name: value for entry in of_method for name, value in entry.get(direction.value, {}).items()}


@dataclass(frozen=True)
class Results:
    """The content of a results folder, as `pdsynth evaluate` writes it. root: path of the folder.

    metrics: content of metrics.json. table: metrics.tsv, one row per scan, method and direction of synthesis. manifest:
    content of manifest.json (version, settings, models and data of the run); {} if there is none.
    """

    root: Path
    metrics: dict[str, Any]
    table: pd.DataFrame
    manifest: dict[str, Any]

    @classmethod
    def read(cls, root: str | Path) -> Results:
        """Read a results folder. Raises InputError if metrics.json or metrics.tsv is missing or cannot be read."""
        root = Path(root)
        with _named(root):
            metrics, table = read_metrics(root), read_table(root / METRICS_TSV, TEXT_COLUMNS)
        return cls(root, metrics, table, manifest.read(root))

    @cached_property
    def imaged(self) -> pd.DataFrame:
        """The scans whose volumes are saved in predictions/, one row per scan, in the order of the saved arrays.

        The columns are participant_id, session_id, site and diagnosis; an unknown value is "". Raises InputError if
        predictions/participants.tsv is missing or damaged.
        """
        with _named(self.root):
            return _text(self.root / IMAGES / SCANS_TSV)

    @cached_property
    def affine(self) -> np.ndarray:
        """Affine (4, 4) from voxels of the saved volumes to mm (MNI space).

        Raises InputError if predictions/grid.json is missing or damaged.
        """
        with _named(self.root):
            return np.asarray(_json(self.root / IMAGES / GRID)["affine"], np.float64)

    @property
    def simulated(self) -> bool:
        """Whether the scored participants are simulated."""
        return bool(self.metrics["simulated"])

    @property
    def methods(self) -> dict[str, dict[str, Any]]:
        """Scores as in metrics.json: by method, then by direction of synthesis, then by name of the score."""
        return self.metrics["methods"]

    @property
    def tested(self) -> str:
        """Name of the method under test, which is the first method in metrics.json."""
        return next(iter(self.methods))

    @property
    def model(self) -> dict[str, Any]:
        """The content of the manifest about the model under test: SHA-256, card and settings; {} if it has none."""
        return self.manifest.get("models", {}).get(self.tested, {})

    @property
    def data(self) -> dict[str, Any]:
        """The content of the manifest about the prepared folder: cohort, settings and counts; {} if it has none."""
        return self.manifest.get("data", {})

    def images(self, name: str) -> np.ndarray | None:
        """The saved volumes predictions/<name>.npy, (scans, X, Y, Z), memory-mapped; None if the file is missing.

        name: "fmri" or "dmri" for the real scans, "fmri_brain" or "dmri_brain" for their brain masks (bool), and for a
        method the result of `image_name`, such as "pds_fmri_to_dmri"; with "_std" at its end, its SD. The order of the
        scans is that of `imaged`.
        """
        path = self.root / IMAGES / f"{name}.npy"
        return np.load(path, mmap_mode="r") if path.exists() else None

    def scan_scores(self, method: str, direction: Direction) -> pd.DataFrame:
        """The scores of one method in one direction: its rows of metrics.tsv, in the order of the scans."""
        chosen = (self.table["method"] == method) & (self.table["direction"] == direction.value)
        return self.table[chosen].reset_index(drop=True)

    @cached_property
    def rejected(self) -> pd.DataFrame:
        """The refused files: the rows of every rejected.tsv in the folder or below, with path, reason and remedy."""
        tables = [pd.read_csv(p, sep="\t", dtype=str).fillna("") for p in sorted(self.root.rglob("rejected.tsv"))]
        return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=["path", "reason", "remedy"])

    @cached_property
    def synthesised(self) -> list[Synthesised]:
        """The synthesised volumes (files *_desc-synthetic_*.nii.gz) in the folder or below, sorted by path."""
        return [
            Synthesised(
                image=path,
                deviation=_existing(path.with_name(path.name.replace("_desc-synthetic_", "_desc-syntheticstd_"))),
                sidecar=(sidecar := _sidecar(path)),
                source=self._find(sidecar.get("Sources", [])),
            )
            for path in sorted(self.root.rglob("*_desc-synthetic_*.nii.gz"))
        ]

    def _find(self, sources: list[str]) -> Path | None:
        """The file of the first source; None if it is not found.

        The sidecar names it without its folder, so the results folder is searched, except folders `derivatives`.
        """
        if not sources:
            return None
        name = Path(sources[0]).name
        found = (p for p in sorted(self.root.rglob(name)) if "derivatives" not in p.relative_to(self.root).parts)
        return next(found, None)


@contextmanager
def _named(root: Path) -> Iterator[None]:
    """Convert the errors of missing and damaged files to InputError.

    The error of a missing file gets the name of the file. ValueError and KeyError, which damaged content raises, get
    the name of the folder. Other errors, such as PermissionError, are not converted.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise InputError(error.filename, "is missing, so there is nothing to report", REMEDY) from error
    except (ValueError, KeyError) as error:
        raise InputError(root, f"has a result file that cannot be read ({error})", REMEDY) from error


def _text(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False).replace(NA, "")


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def _sidecar(image: Path) -> dict[str, Any]:
    path = image.with_name(image.name.removesuffix(".nii.gz") + ".json")
    return _json(path) if path.exists() else {}


def _existing(path: Path) -> Path | None:
    return path if path.exists() else None
