"""One session of a cohort becomes its shard and its record: the unit of work of `prepare`, here or on a cluster.

The record, a JSON file beside the shard, is written last and names settings and inputs by their digests: a session
whose record still holds is not made again.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import pdsynth
from pdsynth.cohorts.cohort import Scan, Session, Subject, session_name
from pdsynth.cohorts.names import REFERENCE
from pdsynth.data.means import UNCORRECTED, Corrections, ScanMeans, confounds, scan_means
from pdsynth.data.shards import FOLDER, write_shard
from pdsynth.data.standardise import (
    FLIRT_TEMPLATE,
    Standardised,
    brain_region,
    place,
    refused,
    standardise_all,
    to_partner,
)
from pdsynth.files import read_json, sha256, write_json
from pdsynth.imaging.nifti import Volume, read_volume
from pdsynth.imaging.spatial import Grid, Transform, mni_grid, resample
from pdsynth.resources import refuse_lost, stops_run
from pdsynth.types import Modality

TRUTH = Path("derivatives") / "truth"
FIRST = Modality.FMRI  # a pair goes to MNI by its fMRI; the dMRI follows through it


@dataclass(frozen=True)
class Settings:
    """What of a run decides the volumes of a session, besides its files."""

    grid_mm: float
    segments: int = 1
    corrections: Corrections = UNCORRECTED

    @property
    def grid(self) -> Grid:
        """Raises ValueError for a spacing that is not supported."""
        return mni_grid(self.grid_mm)

    def entries(self) -> dict[str, Any]:
        """As the record names them."""
        return {
            "version": pdsynth.__version__,
            "grid_mm": self.grid_mm,
            "segments": self.segments,
            **asdict(self.corrections),
        }


@dataclass(frozen=True, eq=False)
class Task:
    """One session to standardise into a prepared folder: all that a worker needs."""

    folder: Path
    root: Path
    subject: Subject
    session: Session
    settings: Settings
    simulated: bool

    @property
    def name(self) -> str:
        return session_name(self.subject, self.session)

    @property
    def shard(self) -> Path:
        return self.folder / FOLDER / f"{self.name}.npy"

    @property
    def record_path(self) -> Path:
        return self.folder / FOLDER / f"{self.name}.json"

    def oracle_path(self, modality: Modality) -> Path | None:
        """Where a simulated cohort keeps the scan's oracle volume; None where there is none."""
        path = oracle_path(self.root, self.name, modality)
        return path if self.simulated and path.exists() else None

    def inputs(self) -> dict[str, Path]:
        """Every file that decides the session's volumes, by its path below the cohort's root."""
        files: list[Path | None] = []
        for modality, scan in self.session.scans.items():
            files += [scan.path, scan.bval, scan.bvec, confounds(scan), self.oracle_path(modality)]
            files += [scan.flirt, scan.flirt.with_name(FLIRT_TEMPLATE)] if scan.flirt is not None else []
        return {relative(path, self.root): path for path in files if path is not None}

    def is_made(self) -> bool:
        """Whether the record that `make` wrote still holds: the same settings and files, and the shard whole."""
        record = read_json(self.record_path)
        if record.get("settings") != self.settings.entries() or not record["final"]:
            return False
        if record["rows"] and not (self.shard.exists() and sha256(self.shard) == record["sha256"]):
            return False
        files, before = self.inputs(), record["inputs"]
        return files.keys() == before.keys() and all(_unchanged(path, before[name]) for name, path in files.items())


def make(task: Task) -> None:
    """Read, register and standardise a session, and write its shard and record.

    A scan that fails is refused, and the other goes on alone.
    """
    task.record_path.unlink(missing_ok=True)
    task.shard.unlink(missing_ok=True)
    inputs = {name: _stamp(path) for name, path in task.inputs().items()}
    standard: dict[Modality, list[Standardised]] = {}
    read: dict[Modality, ScanMeans] = {}
    record: dict[str, Any] = {"settings": task.settings.entries(), "inputs": inputs, "final": True, "volumes": []}
    record |= {"dmri_bval": None, "rows": [], "steps": {}, "paths": {}, "quality": {}, "rejected": []}
    for modality in (FIRST, FIRST.other):
        scan = task.session.scans.get(modality)
        if scan is None:
            continue
        try:
            read[modality] = scan_means(scan, task.settings.segments, task.settings.corrections)
            transform = _transform(task, scan, read, standard)
            means, reference = read[modality].means, read[modality].reference
            standard[modality] = standardise_all(means, reference, task.settings.grid, transform)
        except Exception as error:  # whatever one scan does, the cohort goes on
            if stops_run(error):  # unless no other would fare better
                raise
            refuse_lost(task.root)
            refusal = refused(scan, error)
            record["rejected"].append([relative(refusal.path, task.root), refusal.problem, refusal.remedy])
            # with a file that can be opened it may go well: the next run tries again
            record["final"] &= not isinstance(error, OSError)
            continue
        record["steps"][modality] = transform.entries()
        record["paths"][modality] = relative(scan.path, task.root)
        record["quality"][modality] = asdict(standard[modality][0].placement) | {"motion_mm": read[modality].motion_mm}
    if standard:
        if len(standard) == 2:
            record["quality"][FIRST.other]["correlation"] = _correlation(read, standard, task.settings.grid)
        if Modality.DMRI in standard:
            record["dmri_bval"] = read[Modality.DMRI].bval
        rows = [dict(zip(standard, several, strict=True)) for several in zip(*standard.values(), strict=True)]
        record["rows"] = [{f"{m}_scale": there.scale.p995 for m, there in each.items()} for each in rows]
        oracle = _oracles(task, standard)
        volumes = [_arrays(each) | oracle for each in rows]
        size = write_shard(task.shard, volumes)
        record |= {"volumes": list(volumes[0]), "bytes": size, "sha256": sha256(task.shard)}
    write_json(task.record_path, record)


def _transform(
    task: Task, scan: Scan, read: dict[Modality, ScanMeans], standard: dict[Modality, list[Standardised]]
) -> Transform:
    """To MNI through the session's fMRI, where there is one; else, or where a tool has been there before, directly."""
    reference = read[scan.modality].reference
    # a partner that a tool has warped to MNI is no place to go rigidly to
    if FIRST not in standard or scan.in_mni or scan.flirt or task.session.scans[FIRST].in_mni:
        return place(scan, reference, task.settings.grid)
    rigid = to_partner(reference, read[FIRST].reference)
    return Transform({f"rigid to {FIRST}": rigid, "affine to MNI": standard[FIRST][0].transform.matrix})


def _correlation(
    read: dict[Modality, ScanMeans], standard: dict[Modality, list[Standardised]], grid: Grid
) -> float | None:
    """Of the mean fMRI with the b0, or what stands for it, where both brains are: how well they lie on each other."""
    both = standard[Modality.FMRI][0].brain & standard[Modality.DMRI][0].brain
    seen = [resample(read[m].reference, grid, standard[m][0].transform.matrix)[both] for m in Modality]
    return float(np.corrcoef(seen)[0, 1]) if both.sum() > 1 else None


def _arrays(volumes: dict[Modality, Standardised]) -> dict[str, np.ndarray]:
    arrays = {}
    for modality, standard in volumes.items():
        arrays[modality.value] = standard.volume.astype(np.float16)
        arrays[f"{modality}_brain"] = standard.brain
    return arrays


def _oracles(task: Task, standard: dict[Modality, list[Standardised]]) -> dict[str, np.ndarray]:
    """E[volume | shared anatomy] by the volume's own transform; only of a simulated cohort with its truth."""
    arrays = {}
    for modality, volumes in standard.items():
        if (path := task.oracle_path(modality)) is not None:
            arrays[f"oracle_{modality}"] = _oracle(read_volume(path), volumes[0], task.settings.grid).astype(np.float16)
    return arrays


def _oracle(native: Volume, there: Standardised, grid: Grid) -> np.ndarray:
    """An oracle, whose redraws were scaled at native resolution, on the grid and in its target's scale."""
    data = resample(native, grid, there.transform.matrix)
    back = there.transform.inverse().matrix
    inside = resample(Volume(there.brain, grid.affine), Grid.of(native), back) > 0.5
    # The target's p99.5 is taken after resampling, which lowers the brightest voxels: 1.5 dB if it is not undone
    gain = np.percentile(native.data[inside], 99.5) / np.percentile(data[there.brain], 99.5)
    return np.where(brain_region(grid), np.clip(gain * data, 0, 1), 0)


def oracle_path(root: Path, name: str, modality: Modality) -> Path:
    """Where a simulated cohort keeps a session's oracle volume."""
    return root / TRUTH / name.split("_")[0] / f"{name}_desc-oracle_{REFERENCE[modality]}.nii.gz"


def relative(path: Path, root: Path) -> str:
    """The path below root; the name alone of a file that lies elsewhere."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name


def _stamp(path: Path) -> dict[str, Any] | None:
    """Size, time and digest of a file; None where it cannot be read, as the scan's refusal will say."""
    try:
        about = path.stat()
        return {"size": about.st_size, "mtime_ns": about.st_mtime_ns, "sha256": sha256(path)}
    except (OSError, ValueError):
        return None


def _unchanged(path: Path, was: dict[str, Any] | None) -> bool:
    """Whether a file is what it was: by size and time, or, where the time differs, by its digest."""
    try:
        about = path.stat()
    except OSError:
        return was is None
    if was is None or about.st_size != was["size"]:
        return False
    return about.st_mtime_ns == was["mtime_ns"] or sha256(path) == was["sha256"]
