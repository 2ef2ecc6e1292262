"""The reader of a results folder, of `evaluate` or of a benchmark; nothing is computed from scans here.

Required files: `metrics.json` and `metrics.tsv` as `archive` writes them, and for pictures `predictions/`. Optional
files: `manifest.json`, and, in the folder or below it, `rejected.tsv` and synthesised scans
(`*_desc-synthetic_*.nii.gz`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pdsynth import manifest
from pdsynth.imaging.nifti import Sidecar
from pdsynth.resources import stops_run
from pdsynth.results.archive import GRID, IMAGES, METRICS_JSON, METRICS_TSV, SCANS_TSV, SECONDS
from pdsynth.results.schema import Metrics, Place, ResultsManifest
from pdsynth.schemas import Score, Way, check, read_object, read_table
from pdsynth.types import NA, Direction, InputError, Modality

TEXT_COLUMNS = ("participant_id", "session_id", "site", "diagnosis")
TEXT = (*TEXT_COLUMNS, "method", "direction")
COLUMNS = {**dict.fromkeys((*TEXT_COLUMNS, "method"), str), "direction": Way, "psnr_brain": Score}  # of metrics.tsv
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
    InputError if the file is missing, or has an entry that does not fit.
    """
    metrics = read_object(results / METRICS_JSON, Metrics, REMEDY)
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
        """Read a results folder.

        Raises InputError if metrics.json or metrics.tsv is missing or does not fit its schema, or if metrics.tsv has
        more or fewer scans of a method and direction than metrics.json states. Raises it also if manifest.json has an
        entry that does not fit; a manifest that is not a JSON object counts as none.
        """
        root = Path(root)
        metrics, entries = read_metrics(root), manifest.read(root)
        table = read_table(root / METRICS_TSV, COLUMNS, REMEDY, others=Score, text=TEXT, na_values=[NA])
        check(entries, ResultsManifest, root / manifest.NAME, REMEDY)
        scans = table.groupby(["method", "direction"]).size()
        for name in metrics["methods"]:
            for direction in Direction:
                if (found := int(scans.get((name, direction.value), 0))) != metrics["n_scans"]:
                    problem = f"has {found} scans of {name}, {direction}, and {METRICS_JSON} {metrics['n_scans']}"
                    raise InputError(root / METRICS_TSV, problem, REMEDY)
        return cls(root, metrics, table, entries)

    @cached_property
    def imaged(self) -> pd.DataFrame:
        """The scans whose volumes are saved in predictions/, one row per scan, in the order of the saved arrays.

        The columns are participant_id, session_id, site and diagnosis; an unknown value is "". Raises InputError if
        predictions/participants.tsv is missing or damaged.
        """
        path = self.root / IMAGES / SCANS_TSV
        scans = read_table(path, dict.fromkeys(TEXT_COLUMNS, str), REMEDY, text=TEXT_COLUMNS).replace(NA, "")
        if not 1 <= len(scans) <= self.metrics["n_scans"]:
            raise InputError(path, f"has {len(scans)} scans, and {METRICS_JSON} {self.metrics['n_scans']}", REMEDY)
        return scans

    @cached_property
    def affine(self) -> np.ndarray:
        """Affine (4, 4) from voxels of the saved volumes to mm (MNI space).

        Raises InputError if predictions/grid.json is missing or damaged.
        """
        return np.asarray(read_object(self.root / IMAGES / GRID, Place, REMEDY)["affine"], np.float64)

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
        scans is that of `imaged`. Raises InputError if the file is damaged, or holds volumes of another number or type.
        """
        volumes = self._array(name)
        if volumes is not None and volumes.shape != (len(self.imaged), *self._shape):
            path = self.root / IMAGES / f"{name}.npy"
            raise InputError(path, f"holds {volumes.shape} volumes, other than the files beside it", REMEDY)
        return volumes

    @cached_property
    def _shape(self) -> tuple[int, ...]:
        """The shape of the saved volumes of the real scans, (X, Y, Z); () without any."""
        arrays = (self._array(modality) for modality in Modality)
        return next((array.shape[1:] for array in arrays if array is not None), ())

    def _array(self, name: str) -> np.ndarray | None:
        path = self.root / IMAGES / f"{name}.npy"
        if not path.exists():
            return None
        try:
            volumes = np.load(path, mmap_mode="r")
        except Exception as error:  # numpy evaluates the header, and a damaged one raises many types of errors
            if stops_run(error):
                raise
            raise InputError(path, f"is damaged ({' '.join(str(error).split())})", REMEDY) from error
        kind = np.dtype(bool if name.endswith("_brain") else np.float16)
        if not isinstance(volumes, np.ndarray) or volumes.ndim != 4 or volumes.dtype != kind or not volumes.size:
            raise InputError(path, f"is not an array of volumes in {kind}", REMEDY)
        return volumes

    def scan_scores(self, method: str, direction: Direction) -> pd.DataFrame:
        """The scores of one method in one direction: its rows of metrics.tsv, in the order of the scans."""
        chosen = (self.table["method"] == method) & (self.table["direction"] == direction.value)
        return self.table[chosen].reset_index(drop=True)

    @cached_property
    def rejected(self) -> pd.DataFrame:
        """The refused files: the rows of every rejected.tsv in the folder or below, with path, reason and remedy."""
        columns = dict.fromkeys(("path", "reason", "remedy"), str)
        paths = sorted(self.root.rglob("rejected.tsv"))
        tables = [read_table(path, columns, "run `pdsynth prepare` again", text=tuple(columns)) for path in paths]
        return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=list(columns))

    @cached_property
    def synthesised(self) -> list[Synthesised]:
        """The synthesised volumes in the folder or below, with their source scans if these are there, too."""
        return synthesised_in(self.root, self.root)


def synthesised_in(root: Path, sources: Path) -> list[Synthesised]:
    """The synthesised volumes (files *_desc-synthetic_*.nii.gz) in a folder or below, sorted by path.

    sources: a folder in which their source scans are looked for, or the file of one. A volume that was also resampled
    on the grid of a standard space counts once, in the space of its source. Raises InputError if a sidecar does not
    fit.
    """
    files = sorted(sources.rglob("*")) if sources.is_dir() else [sources]
    scans = {p.name: p for p in reversed(files) if "derivatives" not in p.relative_to(sources).parts}
    return [
        Synthesised(
            image=path,
            deviation=_existing(path.with_name(path.name.replace("_desc-synthetic_", "_desc-syntheticstd_"))),
            sidecar=sidecar,
            source=next((scans.get(Path(name).name) for name in sidecar.get("Sources", [])), None),  # without folder
        )
        for path in sorted(root.rglob("*_desc-synthetic_*.nii.gz"))
        if "Space" not in (sidecar := _sidecar(path))
    ]


def _sidecar(image: Path) -> dict[str, Any]:
    path = image.with_name(image.name.removesuffix(".nii.gz") + ".json")
    return read_object(path, Sidecar, "synthesise the scan again") if path.exists() else {}


def _existing(path: Path) -> Path | None:
    return path if path.exists() else None
