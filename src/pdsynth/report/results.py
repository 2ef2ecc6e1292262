"""What a results folder holds, read for the report; nothing is computed from scans here.

Required: `metrics.json`, `metrics.tsv` and `predictions/` as `pdsynth.evaluation.evaluate` writes them. Read where
there: `manifest.json`, `rejected.tsv` (in the folder or below) and synthesised scans (`*_desc-synthetic_*.nii.gz`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pdsynth.evaluation.archive import read_metrics, read_table
from pdsynth.types import Direction, InputError, Modality

TEXT_COLUMNS = ("participant_id", "session_id", "site", "diagnosis")
REMEDY = "run `pdsynth evaluate` with this folder as --out first"


@dataclass(frozen=True)
class Synthesised:
    """A synthesised scan on disk with its SD and its sidecar; source is the scan it was made from, where found."""

    image: Path
    deviation: Path | None
    sidecar: dict[str, Any]
    source: Path | None

    @property
    def target(self) -> Modality:
        return Modality.FMRI if "_boldref" in self.image.name else Modality.DMRI


@dataclass(frozen=True)
class Results:
    """A results folder: metrics (metrics.json), table (metrics.tsv), manifest, shown (participants.tsv), affine."""

    root: Path
    metrics: dict[str, Any]
    table: pd.DataFrame
    manifest: dict[str, Any]
    shown: pd.DataFrame
    affine: np.ndarray

    @classmethod
    def read(cls, root: Path) -> Results:
        """Raises InputError that names the file that is missing or damaged."""
        try:
            return cls(
                root=root,
                metrics=read_metrics(root),
                table=read_table(root / "metrics.tsv", TEXT_COLUMNS),
                manifest=_json(root / "manifest.json") if (root / "manifest.json").exists() else {},
                shown=_text(root / "predictions" / "participants.tsv"),
                affine=np.asarray(_json(root / "predictions" / "grid.json")["affine"], np.float64),
            )
        except FileNotFoundError as error:
            raise InputError(error.filename, "is missing, so there is nothing to report", REMEDY) from error
        except (ValueError, KeyError) as error:
            raise InputError(root, f"holds a result file that cannot be read ({error})", REMEDY) from error

    @property
    def simulated(self) -> bool:
        return bool(self.metrics["simulated"])

    @property
    def methods(self) -> dict[str, dict[str, Any]]:
        return self.metrics["methods"]

    @property
    def tested(self) -> str:
        """The method under test: the first that was evaluated."""
        return next(iter(self.methods))

    def images(self, name: str) -> np.ndarray | None:
        """One of predictions/*.npy, (scans, X, Y, Z), mapped from disk; None where it was not written."""
        path = self.root / "predictions" / f"{name}.npy"
        return np.load(path, mmap_mode="r") if path.exists() else None

    def scan_scores(self, method: str, direction: Direction) -> pd.DataFrame:
        """metrics.tsv of one method and direction, in the order of the scans."""
        chosen = (self.table["method"] == method) & (self.table["direction"] == direction.value)
        return self.table[chosen].reset_index(drop=True)

    @cached_property
    def rejected(self) -> pd.DataFrame:
        """Rows of every rejected.tsv: path, reason, remedy."""
        tables = [pd.read_csv(p, sep="\t", dtype=str).fillna("") for p in sorted(self.root.rglob("rejected.tsv"))]
        return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=["path", "reason", "remedy"])

    @cached_property
    def synthesised(self) -> list[Synthesised]:
        """Synthesised scans anywhere in the folder."""
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
        """The first source's file, which a sidecar names without its folder."""
        if not sources:
            return None
        name = Path(sources[0]).name
        found = (p for p in sorted(self.root.rglob(name)) if "derivatives" not in p.relative_to(self.root).parts)
        return next(found, None)


def _text(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False).replace("n/a", "")


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def _sidecar(image: Path) -> dict[str, Any]:
    path = image.with_name(image.name.removesuffix(".nii.gz") + ".json")
    return _json(path) if path.exists() else {}


def _existing(path: Path) -> Path | None:
    return path if path.exists() else None
