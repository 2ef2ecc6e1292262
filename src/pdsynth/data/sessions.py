"""Prepares one session of a cohort: writes its shard of volumes and its record. This is one task of `prepare`.

The record is a JSON file next to the shard. It is written last and holds the settings and the digests of the input
files. A session whose record is still valid is not made again.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, Field

import pdsynth
from pdsynth.cohorts.cohort import Session, Subject, session_name
from pdsynth.cohorts.names import REFERENCE
from pdsynth.data.means import confounds
from pdsynth.data.preprocessing import Preprocessing
from pdsynth.data.shards import AGAIN, FOLDER, write_shard
from pdsynth.data.standardise import FLIRT_TEMPLATE, Standardised, brain_region, intensity_scale, refused, standardise
from pdsynth.files import sha256, write_json
from pdsynth.freshness import renewed, stamp, unchanged
from pdsynth.imaging.intensity import RobustScale
from pdsynth.imaging.nifti import Volume, read_volume
from pdsynth.imaging.spatial import Grid, resample
from pdsynth.resources import refuse_lost, stops_run
from pdsynth.schemas import Affine, Count, Kind, Stamp, read_object
from pdsynth.types import InputError, Modality

TRUTH = Path("derivatives") / "truth"
FIRST = Modality.FMRI  # the fMRI of a pair is registered to MNI, and the dMRI to the fMRI


class _Step(BaseModel):
    name: str
    matrix: Affine


class _Digest(BaseModel):
    sha256: Any = None  # `Pairs.scan_digests` names the scan without one


class Inputs(BaseModel):
    """The entries of a session's record that the readers of a prepared folder need."""

    inputs: dict[str, _Digest | None] = {}
    steps: dict[Kind, list[_Step]] = {}


class _Quality(BaseModel):
    coverage: float | None = None
    overlap: float | None = None
    mutual_information: float | None = None
    correlation: float | None = None
    motion_mm: float | None = None
    notes: list[str] = []


class Record(BaseModel):
    """The entries of a session's record, which `make` writes and a later `prepare` reads."""

    settings: dict[str, Any]
    inputs: dict[str, Stamp | None]
    steps: dict[Kind, list[_Step]]
    final: bool
    volumes: list[str]
    dmri_bval: float | None
    rows: list[dict[Annotated[str, Field(pattern="^(fmri|dmri)_scale$")], float]]
    paths: dict[Kind, str]
    masks: dict[Kind, str | None]
    quality: dict[Kind, _Quality]
    rejected: list[Annotated[list[str], Field(min_length=3, max_length=3)]]
    bytes: Count = 0
    sha256: str = ""


@dataclass(frozen=True)
class Settings:
    """The settings of `prepare` that determine the volumes of a session, together with the session's files.

    preprocessing: the steps from scan to volume. segments: number of parts of a scan whose means are prepared besides
    that of the whole; 1 for the whole scan alone.
    """

    preprocessing: Preprocessing
    segments: int = 1

    def entries(self) -> dict[str, Any]:
        """The settings by name as JSON values, with the version of pdsynth and the edge of the grid's voxels in mm."""
        return {
            "version": pdsynth.__version__,
            "grid_mm": float(self.preprocessing.grid.spacing_mm[0]),
            "segments": self.segments,
            **self.preprocessing.model_dump(),
        }


@dataclass(frozen=True, eq=False)
class Task:
    """One session of a cohort to prepare, with everything that a process needs to do this.

    folder: the prepared folder, to which the result is written. root: the folder of the cohort. subject, session: the
    participant and the session. settings: those of the volumes. simulated: whether the cohort is simulated. `name` is
    that of the session, such as "sub-1_ses-a"; `shard` (volumes) and `record_path` (record) are the files to write.
    """

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
        """The file of the session's oracle volume; None if it does not exist or the cohort is not simulated.

        The oracle volume of a simulated scan is the mean of all scans that the anatomy, which fMRI and dMRI share,
        could give.
        """
        path = oracle_path(self.root, self.name, modality)
        return path if self.simulated and path.exists() else None

    def inputs(self) -> dict[str, Path]:
        """All files that determine the session's volumes, by their path relative to the cohort's folder.

        They are the scans, gradient tables, brain masks, tables of confounds, FSL's matrices with their template, and
        oracle volumes (see `oracle_path`). A file outside this folder has its name alone.
        """
        files: list[Path | None] = []
        for modality, scan in self.session.scans.items():
            files += [scan.path, scan.bval, scan.bvec, scan.mask, confounds(scan), self.oracle_path(modality)]
            files += [scan.flirt, scan.flirt.with_name(FLIRT_TEMPLATE)] if scan.flirt is not None else []
        return {relative(path, self.root): path for path in files if path is not None}

    def is_made(self, look_only: bool = False) -> bool:
        """Whether the session is prepared already, by the JSON file (the record) that `make` wrote on it.

        This holds if settings, version of pdsynth and input files are those of the record, and the file of volumes is
        intact. It does not hold if a scan was refused for an error of the file system, which may be temporary. If an
        input file has another time or inode but the same content, time and inode are updated in the record, unless
        look_only is true.
        """
        try:
            record = read_object(self.record_path, Record, AGAIN)
        except InputError:  # it is missing or does not fit: the session is made again
            return False
        if record["settings"] != self.settings.entries() or not record["final"]:
            return False
        if record["rows"] and not (self.shard.exists() and sha256(self.shard) == record.get("sha256")):
            return False
        files, before = self.inputs(), record["inputs"]
        if files.keys() != before.keys():
            return False
        now = {name: renewed(path, before[name]) for name, path in files.items()}
        if not all(unchanged(before[name], now[name]) for name in now):
            return False
        if now != before and not look_only:  # a file has another time or inode: the next run shall not read it again
            write_json(self.record_path, record | {"inputs": now})
        return True


def make(task: Task) -> None:
    """Prepare a session: read, register and standardise its scans, and write its file of volumes and its record.

    The record is a JSON file with settings, inputs and results. A scan that cannot be used is written into its list of
    rejections, and the other scan is prepared alone. Without a usable scan only the record is written. Earlier files of
    the session are removed first. Errors that would affect every scan, such as a full disk, are raised.
    """
    task.record_path.unlink(missing_ok=True)
    task.shard.unlink(missing_ok=True)
    inputs = {name: stamp(path) for name, path in task.inputs().items()}
    standard: dict[Modality, Standardised] = {}
    preprocessing, segments = task.settings.preprocessing, task.settings.segments
    record: dict[str, Any] = {"settings": task.settings.entries(), "inputs": inputs, "final": True, "volumes": []}
    record |= {"dmri_bval": None, "rows": [], "steps": {}, "paths": {}, "masks": {}, "quality": {}, "rejected": []}
    for modality in (FIRST, FIRST.other):
        scan = task.session.scans.get(modality)
        if scan is None:
            continue
        try:
            result = standardise(scan, preprocessing, segments, standard.get(FIRST))
        except Exception as error:  # an error of one scan does not stop the cohort
            if stops_run(error):  # except an error that the other scans would have too
                raise
            refuse_lost(task.root)
            refusal = refused(scan, error)
            record["rejected"].append([relative(refusal.path, task.root), refusal.problem, refusal.remedy])
            # an error of the file system may be temporary, so that the next run tries again
            record["final"] &= not isinstance(error, OSError)
            continue
        standard[modality] = result
        record["steps"][modality] = result.transform.entries()
        record["paths"][modality] = relative(scan.path, task.root)
        record["masks"][modality] = None if result.mask is None else relative(result.mask, task.root)
        record["quality"][modality] = asdict(result.placement) | {"motion_mm": result.motion_mm}
        record["quality"][modality]["notes"] = list(result.notes)
    if standard:
        if len(standard) == 2:
            record["quality"][FIRST.other]["correlation"] = _correlation(standard, preprocessing.grid)
        if Modality.DMRI in standard:
            record["dmri_bval"] = standard[Modality.DMRI].bval
        record["rows"] = [{f"{m}_scale": s.scales[row].unit for m, s in standard.items()} for row in _rows(standard)]
        oracle = _oracles(task, standard)
        volumes = [_arrays(standard, row) | oracle for row in _rows(standard)]
        size = write_shard(task.shard, volumes)
        record |= {"volumes": list(volumes[0]), "bytes": size, "sha256": sha256(task.shard)}
    write_json(task.record_path, record)


def _rows(standard: dict[Modality, Standardised]) -> range:
    """The row indices of a session: 0 is the whole scan, the others are segments, equally many in both scans."""
    return range(len(next(iter(standard.values())).volumes))


def _correlation(standard: dict[Modality, Standardised], grid: Grid) -> float | None:
    """Correlation over voxels of the fMRI and dMRI reference volumes in both brains, which measures their alignment.

    None if the brains share no two voxels.
    """
    both = standard[Modality.FMRI].brain & standard[Modality.DMRI].brain
    values = [resample(standard[m].reference, grid, standard[m].transform.matrix)[both] for m in Modality]
    return float(np.corrcoef(values)[0, 1]) if both.sum() > 1 else None


def _arrays(standard: dict[Modality, Standardised], row: int) -> dict[str, np.ndarray]:
    """The volumes and brain masks of a row (see `_rows`), by their name in the shard."""
    arrays = {}
    for modality, result in standard.items():
        arrays[modality.value] = result.volumes[row].astype(np.float16)
        arrays[f"{modality}_brain"] = result.brain
    return arrays


def _oracles(task: Task, standard: dict[Modality, Standardised]) -> dict[str, np.ndarray]:
    """The oracle volumes E[volume | shared anatomy] on the grid, by name; empty if the cohort has none."""
    arrays = {}
    for modality, result in standard.items():
        if (path := task.oracle_path(modality)) is not None:
            arrays[f"oracle_{modality}"] = _oracle(read_volume(path), result, task.settings.preprocessing)
    return arrays


def _oracle(native: Volume, target: Standardised, preprocessing: Preprocessing) -> np.ndarray:
    """An oracle volume on the grid, in the intensity scale of `target`, its standardised scan: (X, Y, Z) float16.

    `native` is the oracle on the scan's own grid, where 1 is the 99.5th percentile of the brain of a redraw.
    """
    grid = preprocessing.grid
    data = resample(native, grid, target.transform.matrix)
    scale = intensity_scale(data, target.brain, preprocessing)
    if preprocessing.intensity == "percentile":
        # The peak of a mean of redraws is lower than theirs. Only its loss by resampling is put back; without this, the
        # error is 1.5 dB. The median of the mean is that of the redraws.
        inside = resample(Volume(target.brain, grid.affine), Grid.of(native), target.transform.inverse().matrix) > 0.5
        scale = RobustScale(scale.unit / float(np.percentile(native.data[inside], preprocessing.percentile)))
    region = brain_region(grid, preprocessing.margin_mm)
    return np.where(region, scale.apply(data), 0).astype(np.float16)


def oracle_path(root: Path, name: str, modality: Modality) -> Path:
    """The path of a session's oracle volume in a simulated cohort; it need not exist.

    The oracle volume is E[scan | shared anatomy]: the mean of all scans that the simulated anatomy, which fMRI and dMRI
    share, could give. name: participant and session, such as "sub-1_ses-a".
    """
    return root / TRUTH / name.split("_")[0] / f"{name}_desc-oracle_{REFERENCE[modality]}.nii.gz"


def relative(path: Path, root: Path) -> str:
    """The path relative to root, with forward slashes; for a file outside root, its name alone."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
