"""A cohort becomes a folder of cached pairs: memory-mapped arrays, tables, transforms and a manifest.

The folder appears under its name only when it is complete. One bad scan becomes a row of rejected.tsv.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from pdsynth import manifest
from pdsynth.cohorts.cohort import Cohort, Rejection, Session, Subject
from pdsynth.data.splits import assign_splits, near_duplicates
from pdsynth.data.standardise import (
    SHELL,
    ScanMeans,
    Standardised,
    brain_region,
    place,
    refused,
    scan_means,
    standardise_all,
    to_partner,
)
from pdsynth.imaging.nifti import Volume, read_volume
from pdsynth.imaging.spatial import Grid, Transform, mni_grid, resample
from pdsynth.types import InputError, Modality

if TYPE_CHECKING:  # at run time only in the parent: a worker needs no torch
    from pdsynth.data.pairs import Pairs

TRUTH = Path("derivatives") / "truth"
ORACLE = {Modality.FMRI: "boldref", Modality.DMRI: "dwiref"}
FIRST = Modality.FMRI  # a pair goes to MNI by its fMRI; the dMRI follows through it


def prepare(
    cohort: Cohort,
    out: str | Path,
    grid_mm: float = 4.0,
    segments: int = 1,
    split: tuple[float, float, float] = (0.8, 0.1, 0.1),
    seed: int = 0,
    jobs: int = 1,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Pairs:
    """Standardise every session of a cohort and write pairs.tsv, splits.tsv, rejected.tsv, arrays and transforms.

    segments > 1 adds a row for each segment to the row of the whole scan. jobs processes share the sessions; they do
    not change the result. progress(done, sessions) is called after each session. Raises InputError where `out` exists
    already, no scan can be used, or two participants hold the same image; ValueError for a bad argument.
    """
    if segments < 1 or jobs < 1:
        raise ValueError(f"segments={segments} and jobs={jobs} must be 1 or more.")
    grid = mni_grid(grid_mm)
    tasks = [_Task(cohort.root, *pair, grid, segments, cohort.simulated) for pair in cohort]
    asked: dict[str, Any] = {
        "root": cohort.root,
        "grid_mm": grid_mm,
        "segments": segments,
        "split": list(split),
        "jobs": jobs,
    }
    with (
        manifest.complete_folder(Path(out), overwrite) as folder,
        manifest.recorded(folder, "prepare", seed=seed, **asked) as entries,
    ):
        rows, rejected, hashes = _write_sessions(folder, tasks, grid, jobs, progress, list(cohort.rejected))
        table = pd.DataFrame(rows)
        _check_duplicates(folder, table, cohort.root)
        _write_table(table, folder / "pairs.tsv")
        _write_table(_splits(table, split, seed), folder / "splits.tsv")
        refusals = [(_relative(r.path, cohort.root), r.reason, r.remedy) for r in rejected]
        _write_table(pd.DataFrame(refusals, columns=["path", "reason", "remedy"]), folder / "rejected.tsv")
        entries.update(
            root=str(cohort.root),
            simulated=cohort.simulated,
            grid_shape=list(grid.shape),
            grid_affine=grid.affine.tolist(),
            inputs=hashes,
            outputs={name: manifest.sha256(folder / name) for name in ("pairs.tsv", "splits.tsv", "rejected.tsv")},
        )

    from pdsynth.data.pairs import Pairs

    return Pairs.open(out)


@dataclass(frozen=True)
class _Task:
    """One session to standardise: all that a worker needs."""

    root: Path
    subject: Subject
    session: Session
    grid: Grid
    segments: int
    simulated: bool

    @property
    def name(self) -> str:
        return "_".join(filter(None, [self.subject.participant_id, self.session.session_id]))


@dataclass
class _Done:
    """What a worker hands back: a table row and the arrays of each, in order; steps and hashes by name."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    arrays: list[dict[str, np.ndarray]] = field(default_factory=list)
    rejected: list[Rejection] = field(default_factory=list)
    transforms: dict[str, str] = field(default_factory=dict)
    hashes: dict[str, str] = field(default_factory=dict)


def _session(task: _Task) -> _Done:
    """Read, register and standardise one session. A scan that fails is refused; the other goes on alone."""
    done = _Done()
    read: dict[Modality, ScanMeans] = {}
    standard: dict[Modality, list[Standardised]] = {}
    affine: np.ndarray | None = None
    for modality in (FIRST, FIRST.other):
        scan = task.session.scans.get(modality)
        if scan is None:
            continue
        try:
            read[modality] = scan_means(scan, task.segments)
            reference = read[modality].reference
            # a partner that a tool has warped to MNI is no place to go rigidly to
            if affine is None or scan.in_mni or task.session.scans[FIRST].in_mni:
                transform = place(scan, reference, task.grid)
            else:
                rigid = to_partner(reference, read[FIRST].reference)
                transform = Transform({f"rigid to {FIRST}": rigid, "affine to MNI": affine})
            standard[modality] = standardise_all(read[modality].means, reference, task.grid, transform)
        except Exception as error:  # whatever one scan does, the cohort goes on
            refusal = refused(scan, error)
            done.rejected.append(Rejection(refusal.path, refusal.problem, refusal.remedy))
            continue
        affine = transform.matrix if modality is FIRST else affine
        done.transforms[f"{task.name}_{modality}.json"] = transform.to_json()
        done.hashes[_relative(scan.path, task.root)] = manifest.sha256(scan.path)
    if standard:
        oracle = _oracles(task, standard)
        bval = read[Modality.DMRI].bval if Modality.DMRI in standard else None
        for k in range(len(next(iter(standard.values())))):
            volumes = {modality: several[k] for modality, several in standard.items()}
            done.rows.append(_row(task, "mean" if k == 0 else str(k - 1), volumes, bval))
            done.arrays.append(_arrays(volumes, task.grid) | oracle)
    return done


def _row(task: _Task, segment: str, volumes: dict[Modality, Standardised], bval: float | None) -> dict[str, Any]:
    subject, session = task.subject, task.session
    row: dict[str, Any] = {
        "participant_id": subject.participant_id,
        "session_id": session.session_id,
        "segment": segment,
        "site": subject.site or "n/a",
        "diagnosis": session.diagnosis or "n/a",
        "dx_gap_days": _or_na(session.dx_gap_days),
        "scan_gap_days": session.scan_gap_days,
        "age": _or_na(session.age),
        "sex": subject.sex or "n/a",
        "education": _or_na(subject.education),
        "mmse": session.scores.get("mmse", "n/a"),
        "moca": session.scores.get("moca", "n/a"),
        "available": "both" if len(volumes) == 2 else str(next(iter(volumes))),
    }
    for modality in Modality:
        there = modality in volumes
        row[f"{modality}_path"] = _relative(session.scans[modality].path, task.root) if there else ""
        row[f"{modality}_scale"] = volumes[modality].scale.p995 if there else "n/a"
    return row | {"dmri_bval": SHELL if bval is None else bval}


def _or_na(value: float | None) -> float | str:
    return "n/a" if value is None else value


def _arrays(volumes: dict[Modality, Standardised], grid: Grid) -> dict[str, np.ndarray]:
    arrays = {}
    for modality in Modality:
        there = volumes.get(modality)
        arrays[modality.value] = np.zeros(grid.shape, np.float16) if there is None else there.volume.astype(np.float16)
        arrays[f"{modality}_brain"] = np.zeros(grid.shape, bool) if there is None else there.brain
    return arrays


def _oracles(task: _Task, standard: dict[Modality, list[Standardised]]) -> dict[str, np.ndarray]:
    """E[volume | shared anatomy] by the volume's own transform; only of a simulated cohort with its truth."""
    arrays = {}
    for modality, volumes in standard.items():
        path = oracle_path(task.root, task.name, modality)
        if task.simulated and path.exists():
            arrays[f"oracle_{modality}"] = _oracle(read_volume(path), volumes[0], task.grid).astype(np.float16)
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
    return root / TRUTH / name.split("_")[0] / f"{name}_desc-oracle_{ORACLE[modality]}.nii.gz"


def _write_sessions(
    folder: Path,
    tasks: list[_Task],
    grid: Grid,
    jobs: int,
    progress: Callable[[int, int], None] | None,
    rejected: list[Rejection],
) -> tuple[list[dict[str, Any]], list[Rejection], dict[str, str]]:
    """Run every task and append what it gives to the arrays in the order of tasks."""
    rows: list[dict[str, Any]] = []
    hashes: dict[str, str] = {}
    arrays: dict[str, _Appended] = {}
    (folder / "transforms").mkdir()
    try:
        for n, done in enumerate(_run(tasks, jobs), start=1):
            for row, volumes in zip(done.rows, done.arrays, strict=True):
                rows.append({"index": len(rows)} | row)
                for name, volume in volumes.items():
                    if name not in arrays:
                        arrays[name] = _Appended(folder / f"{name}.npy", grid.shape, volume.dtype)
                    arrays[name].put(len(rows) - 1, volume)
            rejected += done.rejected
            hashes |= done.hashes
            for name, text in done.transforms.items():
                (folder / "transforms" / name).write_text(text)
            if progress is not None:
                progress(n, len(tasks))
    finally:
        for array in arrays.values():
            array.close(len(rows))
    if not rows:
        first = f"; the first refusal: {rejected[0].path}: {rejected[0].reason}" if rejected else ""
        root = tasks[0].root if tasks else folder
        remedy = rejected[0].remedy if rejected else "add fMRI or dMRI scans"
        raise InputError(root, f"holds no usable scan{first}", remedy)
    return rows, rejected, hashes


class _Appended:
    """A .npy file that grows by one (X, Y, Z) array at a time; rows that were skipped are zeros."""

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self.file = open(path, "wb")  # noqa: SIM115 (closed by close)
        self.shape, self.dtype = shape, np.dtype(dtype)
        self.start = self._header(0)

    def _header(self, rows: int) -> int:
        header = {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False}
        self.file.seek(0)
        # NumPy pads the header so that the first axis may grow without moving the data
        np.lib.format.write_array_header_1_0(self.file, header | {"shape": (rows, *self.shape)})
        return self.file.tell()

    def put(self, row: int, array: np.ndarray) -> None:
        self.file.seek(self.start + row * self._row_bytes)
        self.file.write(np.ascontiguousarray(array, self.dtype).tobytes())

    @property
    def _row_bytes(self) -> int:
        return int(np.prod(self.shape)) * self.dtype.itemsize

    def close(self, rows: int) -> None:
        self.file.truncate(self.start + rows * self._row_bytes)
        self._header(rows)
        self.file.close()


def _run(tasks: list[_Task], jobs: int) -> Iterator[_Done]:
    """Results in the order of tasks, from this process or from `jobs` others of one thread each."""
    if jobs == 1:
        with threadpool_limits(1):
            yield from map(_session, tasks)
        return
    pool = ProcessPoolExecutor(min(jobs, max(1, len(tasks))), get_context("spawn"), initializer=_start_worker)
    try:
        yield from pool.map(_session, tasks)
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    """One thread a worker; it ends when its parent does, even if that was killed."""
    threadpool_limits(1)
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _splits(table: pd.DataFrame, split: tuple[float, float, float], seed: int) -> pd.DataFrame:
    """Participants by the first of their rows; those with a pair are dealt apart from those without."""
    people = table.assign(unpaired=table["available"] != "both")
    people = people.sort_values(["participant_id", "unpaired", "session_id"]).drop_duplicates("participant_id")
    return assign_splits(people, split, salt=str(seed), strata=("unpaired", "site", "diagnosis"))


def _check_duplicates(folder: Path, table: pd.DataFrame, root: Path) -> None:
    for modality in Modality:
        rows = table[(table["segment"] == "mean") & table["available"].isin(["both", modality.value])]
        volumes = np.load(folder / f"{modality}.npy", mmap_mode="r")
        near_duplicates((volumes[i] for i in rows["index"]), rows["participant_id"].tolist(), root)


def _write_table(table: pd.DataFrame, path: Path) -> None:
    table.to_csv(path, sep="\t", index=False)


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
