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
from pdsynth.cohorts.cohort import Session, Subject, session_name
from pdsynth.cohorts.names import REFERENCE
from pdsynth.data.means import confounds
from pdsynth.data.preprocessing import Preprocessing
from pdsynth.data.shards import FOLDER, write_shard
from pdsynth.data.standardise import FLIRT_TEMPLATE, Standardised, brain_region, refused, standardise
from pdsynth.files import read_json, sha256, write_json
from pdsynth.imaging.nifti import Volume, read_volume
from pdsynth.imaging.spatial import Grid, resample
from pdsynth.resources import refuse_lost, stops_run
from pdsynth.types import Modality

TRUTH = Path("derivatives") / "truth"
FIRST = Modality.FMRI  # a pair goes to MNI by its fMRI; the dMRI follows through it


@dataclass(frozen=True)
class Settings:
    """What of a run decides the volumes of a session, besides its files."""

    preprocessing: Preprocessing
    segments: int = 1

    def entries(self) -> dict[str, Any]:
        """As the record and the manifest's parameters name them."""
        return {
            "version": pdsynth.__version__,
            "grid_mm": float(self.preprocessing.grid.spacing_mm[0]),
            "segments": self.segments,
            **self.preprocessing.model_dump(),
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
            files += [scan.path, scan.bval, scan.bvec, scan.mask, confounds(scan), self.oracle_path(modality)]
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
    standard: dict[Modality, Standardised] = {}
    preprocessing, segments = task.settings.preprocessing, task.settings.segments
    record: dict[str, Any] = {"settings": task.settings.entries(), "inputs": inputs, "final": True, "volumes": []}
    record |= {"dmri_bval": None, "rows": [], "steps": {}, "paths": {}, "masks": {}, "quality": {}, "rejected": []}
    for modality in (FIRST, FIRST.other):
        scan = task.session.scans.get(modality)
        if scan is None:
            continue
        try:
            there = standardise(scan, preprocessing, segments, standard.get(FIRST))
        except Exception as error:  # whatever one scan does, the cohort goes on
            if stops_run(error):  # unless no other would fare better
                raise
            refuse_lost(task.root)
            refusal = refused(scan, error)
            record["rejected"].append([relative(refusal.path, task.root), refusal.problem, refusal.remedy])
            # with a file that can be opened it may go well: the next run tries again
            record["final"] &= not isinstance(error, OSError)
            continue
        standard[modality] = there
        record["steps"][modality] = there.transform.entries()
        record["paths"][modality] = relative(scan.path, task.root)
        record["masks"][modality] = None if there.mask is None else relative(there.mask, task.root)
        record["quality"][modality] = asdict(there.placement) | {"motion_mm": there.motion_mm}
    if standard:
        if len(standard) == 2:
            record["quality"][FIRST.other]["correlation"] = _correlation(standard, preprocessing.grid)
        if Modality.DMRI in standard:
            record["dmri_bval"] = standard[Modality.DMRI].bval
        record["rows"] = [{f"{m}_scale": s.scales[row].p995 for m, s in standard.items()} for row in _rows(standard)]
        oracle = _oracles(task, standard)
        volumes = [_arrays(standard, row) | oracle for row in _rows(standard)]
        size = write_shard(task.shard, volumes)
        record |= {"volumes": list(volumes[0]), "bytes": size, "sha256": sha256(task.shard)}
    write_json(task.record_path, record)


def _rows(standard: dict[Modality, Standardised]) -> range:
    """The whole scan's row and one per segment, of which both scans have as many."""
    return range(len(next(iter(standard.values())).volumes))


def _correlation(standard: dict[Modality, Standardised], grid: Grid) -> float | None:
    """Of the mean fMRI with the b0, or what stands for it, where both brains are: how well they lie on each other."""
    both = standard[Modality.FMRI].brain & standard[Modality.DMRI].brain
    seen = [resample(standard[m].reference, grid, standard[m].transform.matrix)[both] for m in Modality]
    return float(np.corrcoef(seen)[0, 1]) if both.sum() > 1 else None


def _arrays(standard: dict[Modality, Standardised], row: int) -> dict[str, np.ndarray]:
    arrays = {}
    for modality, there in standard.items():
        arrays[modality.value] = there.volumes[row].astype(np.float16)
        arrays[f"{modality}_brain"] = there.brain
    return arrays


def _oracles(task: Task, standard: dict[Modality, Standardised]) -> dict[str, np.ndarray]:
    """E[volume | shared anatomy] by the volume's own transform; only of a simulated cohort with its truth."""
    arrays = {}
    for modality, there in standard.items():
        if (path := task.oracle_path(modality)) is not None:
            arrays[f"oracle_{modality}"] = _oracle(read_volume(path), there, task.settings.preprocessing)
    return arrays


def _oracle(native: Volume, there: Standardised, preprocessing: Preprocessing) -> np.ndarray:
    """An oracle, whose redraws were scaled at native resolution, on the grid and in its target's scale, float16."""
    grid, percentile = preprocessing.grid, preprocessing.percentile
    data = resample(native, grid, there.transform.matrix)
    back = there.transform.inverse().matrix
    inside = resample(Volume(there.brain, grid.affine), Grid.of(native), back) > 0.5
    # The target's scale is taken after resampling, which lowers the brightest voxels: 1.5 dB if it is not undone
    gain = np.percentile(native.data[inside], percentile) / np.percentile(data[there.brain], percentile)
    return np.where(brain_region(grid, preprocessing.margin_mm), np.clip(gain * data, 0, 1), 0).astype(np.float16)


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
