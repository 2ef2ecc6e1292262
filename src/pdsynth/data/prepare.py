"""Prepare a cohort: write a folder with one shard of volumes and one record per session, tables and a manifest.

The folder gets its name only when it is complete. A scan that cannot be used becomes a row of rejected.tsv. Sessions
that a stopped run had finished, and sessions that are unchanged since the last run, are not made again. A session whose
scans cannot be read in this run stays as it was, unless `prune` is set.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from pdsynth import folders, manifest
from pdsynth.cohorts.cohort import Cohort, Rejection, Scan, Session, Subject, asks_for_action
from pdsynth.data import sessions
from pdsynth.data.means import require_dipy
from pdsynth.data.preprocessing import UNRECORDED, Preprocessing
from pdsynth.data.rows import COLUMNS, Record, pairs_table, quality_of, read_pairs, read_splits
from pdsynth.data.sessions import Settings, Task, make, relative
from pdsynth.data.shards import FOLDER, Shards
from pdsynth.data.splits import near_duplicates, splits_table
from pdsynth.files import link_or_copy, read_json, sha256, write_table
from pdsynth.imaging.spatial import mni_grid
from pdsynth.options import PrepareOptions
from pdsynth.schemas import read_object
from pdsynth.types import NA, Diagnosis, InputError, Modality
from pdsynth.workers import Workers

if TYPE_CHECKING:  # imported in the parent process only, since a worker does not need torch
    from pdsynth.data.pairs import Pairs

TABLES = ("pairs.tsv", "splits.tsv", "rejected.tsv", "quality.tsv")


def prepare(
    cohort: Cohort,
    out: str | Path,
    *,
    grid_mm: float = PrepareOptions.grid_mm,
    segments: int = PrepareOptions.segments,
    split: tuple[float, float, float] = PrepareOptions.split,
    seed: int = PrepareOptions.seed,
    denoise: bool = PrepareOptions.denoise,
    realign: bool = PrepareOptions.realign,
    preprocessing: Preprocessing | None = None,
    jobs: int | Workers = 1,
    overwrite: bool = False,
    prune: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Pairs:
    """Standardise every session of a cohort, write a prepared folder, and return it opened.

    The folder holds tables, and per session a file of volumes (shard) and one on how they were made (record).

    grid_mm is the voxel size in mm (0.5 to 8, default 4), and split the fractions of the participants in train, val and
    test (default 0.8, 0.1, 0.1). seed determines who is in which split. segments > 1 adds one row per segment to the
    row of the whole scan. denoise (of dMRI) and realign (head motion) correct the volumes of a series before they are
    averaged, which takes minutes per scan. preprocessing takes the place of grid_mm, denoise and realign, and may not
    be given beside them: that of a model gives pairs on which the model can be evaluated. The sessions are distributed
    over `jobs` processes, or the `Workers` of a cluster; their number does not change the result. progress(done,
    sessions), with the number of finished sessions and that of all, is called at the start and when a session is
    finished.

    If `out` was prepared before with the same settings, only sessions that are new or whose files changed are made, and
    participants keep their split. A stopped run leaves `out`.partial, and the next run continues from it. A session of
    `out` with a scan that is missing or cannot be read in this run stays as it was. With prune it is made from the
    scans that can be read, or removed if there is none. overwrite makes all sessions and splits again, also if `out`
    was prepared in another way. Raises InputError if `out` was prepared in another way and overwrite is false, if it
    holds other files, or if no scan can be used, and ValueError for an invalid argument.
    """
    options = PrepareOptions(
        grid_mm=grid_mm, segments=segments, split=split, seed=seed, denoise=denoise, realign=realign
    )
    return prepare_cohort(
        cohort,
        Path(out),
        options,
        Workers.of(jobs),
        preprocessing=preprocessing,
        overwrite=overwrite,
        prune=prune,
        progress=progress,
    )


def prepare_cohort(
    cohort: Cohort,
    out: Path,
    options: PrepareOptions,
    workers: Workers,
    *,
    preprocessing: Preprocessing | None = None,
    overwrite: bool = False,
    prune: bool = False,
    progress: Callable[[int, int], None] | None = None,
    page: Callable[[Path], object] | None = None,
) -> Pairs:
    """`prepare` with its options as one object, by processes of this machine or the workers of a cluster.

    options: grid_mm, segments, split, seed, denoise and realign. The other arguments, and the errors, are those of
    `prepare`. page(folder), which may write an HTML page into the folder, is called before the folder gets its name.
    Raises ValueError also for relative paths with a cluster.
    """
    by_options = Preprocessing(grid=mni_grid(options.grid_mm), denoise=options.denoise, realign=options.realign)
    if preprocessing is None:
        preprocessing = by_options
    elif by_options != Preprocessing():
        raise ValueError("a preprocessing was given beside grid_mm, denoise or realign. Give one or the other.")
    if preprocessing.denoise:
        require_dipy()  # once, rather than as the refusal of every scan
    if options.segments < 1:
        raise ValueError(f"segments={options.segments} must be 1 or more.")
    seed = options.seed
    settings, grid = Settings(preprocessing, options.segments), preprocessing.grid
    if workers.remote and not (cohort.root.is_absolute() and out.is_absolute()):
        raise ValueError("a cluster's workers need absolute paths. Give the dataset and the output folder as such.")
    parameters = {"root": _digest(cohort.root), "split": list(options.split), **settings.entries()}
    with folders.making(
        out,
        overwrite=overwrite,
        update=True,
        resume="give the same command again",
        check_manifest=lambda was: _refuse_other(out, was, parameters | {"seed": seed}),
        inputs=[cohort.root],
    ) as work:
        folder = work.folder
        before = None if overwrite else _splits_before(out, parameters | {"seed": seed})
        old = {} if overwrite or prune or before is None else _sessions_before(out, cohort, settings)
        with manifest.recorded(folder, "prepare", seed=seed, **parameters) as entries:
            tasks = [
                Task(folder, cohort.root, *visit, settings=settings, simulated=cohort.simulated) for visit in cohort
            ]
            _check_names(cohort.root, tasks)
            tasks, unchanged = _make_or_keep(folder, tasks, old, workers, progress=progress)
            records = {task: read_json(task.record_path) for task in tasks}
            rejected = [*cohort.rejected, *_refused(records)]
            rejected += _refuse_duplicates(Shards(folder, grid.shape), records)
            table = pairs_table(records)
            if table.empty:
                cause = next((r for r in rejected if asks_for_action(r.remedy)), None)
                first = f"; the first refusal: {cause.path}: {cause.reason}" if cause else ""
                remedy = cause.remedy if cause else "add fMRI or dMRI scans"
                shutil.rmtree(folder)
                raise InputError(cohort.root, f"holds no usable scan{first}", remedy)
            refusals = [(relative(r.path, cohort.root), r.reason, r.remedy) for r in rejected]
            tables = {
                "pairs.tsv": table,
                "splits.tsv": splits_table(table, options.split, str(options.seed), before),
                "rejected.tsv": pd.DataFrame(refusals, columns=["path", "reason", "remedy"]),
                "quality.tsv": quality_of(records),
            }
            for name, content in tables.items():
                write_table(folder / name, content)
            entries.update(
                simulated=cohort.simulated,
                **preprocessing.entries(),
                masks_given=sum(mask is not None for r in records.values() for mask in r["masks"].values()),
                volumes=sorted({name for record in records.values() for name in record["volumes"]}),
                shards={task.shard.name: record["bytes"] for task, record in records.items() if record["rows"]},
                outputs={name: sha256(folder / name) for name in TABLES},
                kept=unchanged,
            )
        if page is not None:
            page(folder)

    from pdsynth.data.pairs import Pairs

    return Pairs.open(out)


def plan(cohort: Cohort, out: Path, options: PrepareOptions, overwrite: bool = False) -> tuple[int, int]:
    """The numbers of sessions that `prepare_cohort` would make, and of those made before; writes nothing."""
    preprocessing = Preprocessing(grid=mni_grid(options.grid_mm), denoise=options.denoise, realign=options.realign)
    settings = Settings(preprocessing, options.segments)
    folders.refuse_occupied(out, True, [cohort.root])
    before = folders.unfinished(out) or out
    if not overwrite and (was := manifest.read(before)):
        parameters = {"root": _digest(cohort.root), "split": list(options.split), **settings.entries()}
        _refuse_other(before, was, parameters | {"seed": options.seed})
    tasks = [Task(before, cohort.root, *visit, settings=settings, simulated=cohort.simulated) for visit in cohort]
    finished = 0 if overwrite else sum(task.is_made(look_only=True) for task in tasks)
    return len(tasks) - finished, finished


def is_prepared(out: Path, dataset: Path) -> bool:
    """Whether `out` is a folder that `prepare` made from a dataset, of which `dataset` is the root."""
    with suppress(InputError):
        entries = manifest.read(out)
        return manifest.made_by_pdsynth(entries) and _digest(dataset) == entries["parameters"].get("root")
    return False


def _digest(root: Path) -> str:
    """Digest of a dataset's path, which identifies the dataset without publishing the path."""
    return hashlib.sha256(str(root.resolve()).encode(errors="surrogateescape")).hexdigest()[:16]


def _differences(was: dict[str, Any], parameters: dict[str, Any]) -> list[str]:
    """The differences, in words, between a prepared folder's parameters (`was`, its manifest) and these."""
    before = UNRECORDED | was.get("parameters", {}) | {"seed": was.get("seed")}
    return [
        "from another dataset" if name == "root" else f"with {name} {_short(before.get(name))}, not {_short(now)}"
        for name, now in (UNRECORDED | parameters).items()
        if before.get(name) != now
    ]


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _refuse_other(out: Path, was: dict[str, Any], parameters: dict[str, Any]) -> None:
    """Raise InputError if the folder to update, or the stopped run to resume, was made in another way."""
    if not manifest.made_by_pdsynth(was) or was.get("command") != "prepare":
        raise InputError(out, "was not written by pdsynth prepare", "choose another folder")
    if differences := _differences(was, parameters):
        problem = f"was prepared {'; '.join(differences)}"
        raise InputError(out, problem, "choose another folder, or replace it with --overwrite")
    for name in ("splits.tsv", "pairs.tsv"):
        if manifest.read(out) and not (out / name).exists():
            raise InputError(out, f"has lost its {name}", "choose another folder, or replace it with --overwrite")


def _splits_before(out: Path, parameters: dict[str, Any]) -> pd.DataFrame | None:
    """splits.tsv of the folder to update; None if there is no such folder or it was prepared in another way."""
    was = manifest.read(out)
    if was.get("command") != "prepare" or _differences(was, parameters):  # resumes a run with --overwrite
        return None
    return read_splits(out)


def _sessions_before(out: Path, cohort: Cohort, settings: Settings) -> dict[str, Task]:
    """The sessions of a prepared folder by name, with their scans and the participants' data in its table."""
    table = read_pairs(out, text=tuple(COLUMNS))
    found = {}
    for row in table.drop_duplicates("shard").to_dict("records"):
        known = {column: value for column, value in row.items() if value != NA}

        def number(column: str, known: dict[Any, Any] = known) -> float | None:
            return float(known[column]) if column in known else None

        record = out / FOLDER / Path(row["shard"]).with_suffix(".json")
        paths = read_object(record, sessions.Record, "prepare again with --overwrite, or with --prune")["paths"]
        scans = {Modality(m): Scan(Modality(m), cohort.root / path) for m, path in paths.items()}
        gap = number("dx_gap_days")
        session = Session(
            row["session_id"],
            scans,
            diagnosis=Diagnosis(known["diagnosis"]) if "diagnosis" in known else None,
            age=number("age"),
            dx_gap_days=None if gap is None else int(gap),
            scan_gap_days=int(row["scan_gap_days"]),
            scores={score: value for score in ("mmse", "moca") if (value := number(score)) is not None},
        )
        subject = Subject(
            row["participant_id"],
            sessions=[],
            sex=known.get("sex"),
            site=known.get("site"),
            education=number("education"),
        )
        task = Task(out, cohort.root, subject, session, settings=settings, simulated=cohort.simulated)
        found[task.name] = task
    return found


def _make_or_keep(
    folder: Path,
    tasks: list[Task],
    old: dict[str, Task],
    workers: Workers,
    progress: Callable[[int, int], None] | None,
) -> tuple[list[Task], list[str]]:
    """Make the sessions; returns all sessions, and the names of old ones that stay as they were.

    tasks: the sessions of this run. old: those of the earlier prepared folder, by name. An old session stays as it was
    if one of its scans is missing in this run or could not be read. Raises InputError if its old files are missing.
    """
    today = {task.name: task for task in tasks}
    unchanged = {}
    for name, was in old.items():
        now = today.get(name)
        if now is None or not was.session.scans.keys() <= now.session.scans.keys():
            unchanged[name] = _as_it_was(folder, was, now)
    changed = [task for task in tasks if task.name not in unchanged]
    _make_all(folder, changed, unchanged, workers, progress=progress)
    for name, was in old.items():
        if name not in unchanged and not was.session.scans.keys() <= _modalities(today[name]):
            unchanged[name] = _as_it_was(folder, was, today[name])
    for name, task in unchanged.items():
        for path, old_path in ((task.shard, old[name].shard), (task.record_path, old[name].record_path)):
            if not old_path.exists():
                problem = "is missing, and the session's scans cannot be read now"
                raise InputError(old_path, problem, "restore the scans, or prepare with --prune")
            path.unlink(missing_ok=True)
            link_or_copy(old_path, path)
    together = today | unchanged
    return [together[name] for name in sorted(together)] if unchanged else tasks, sorted(unchanged)


def _as_it_was(folder: Path, was: Task, now: Task | None) -> Task:
    """An old session (`was`) with its old scans, and with the current participant data if it is in this run (`now`)."""
    if now is None:
        return replace(was, folder=folder)
    return replace(was, folder=folder, subject=now.subject, session=replace(now.session, scans=was.session.scans))


def _modalities(task: Task) -> set[Modality]:
    """The modalities that the record of a session contains."""
    record = read_json(task.record_path)
    return {modality for modality in Modality if any(f"{modality}_scale" in row for row in record["rows"])}


def _check_names(root: Path, tasks: list[Task]) -> None:
    """Raise InputError if two sessions have the same file name, also on a disk that ignores upper and lower case."""
    by_name: dict[str, Task] = {}
    for task in tasks:
        other = by_name.setdefault(task.name.casefold(), task)
        if other is not task:
            scans = [relative(next(iter(t.session.scans.values())).path, root) for t in (other, task)]
            problem = f"holds two sessions that are both called {task.name}: {scans[0]} and {scans[1]}"
            raise InputError(root, problem, "rename the folder of one of them")


def _make_all(
    folder: Path,
    tasks: list[Task],
    unchanged: dict[str, Task],
    workers: Workers,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Make the sessions that are not made yet or have changed, and remove files of no session.

    unchanged: sessions that are not made in this run, whose files stay.
    """
    for path in folder.iterdir():
        if path.name not in (FOLDER, manifest.NAME, *TABLES):
            path.unlink()
    (folder / FOLDER).mkdir(exist_ok=True)
    ours = {path.name for task in (*tasks, *unchanged.values()) for path in (task.shard, task.record_path)}
    for path in (folder / FOLDER).iterdir():
        if path.name not in ours:
            path.unlink()
    left = [task for task in tasks if not task.is_made()]
    done = len(tasks) - len(left)
    if progress is not None:
        progress(done, len(tasks))
    results = workers.run(make, left, name=lambda task: next(iter(task.session.scans.values())).path)
    for number, _ in enumerate(results, start=done + 1):
        if progress is not None:
            progress(number, len(tasks))


def _refused(records: dict[Task, Record]) -> list[Rejection]:
    """The rejections of all records."""
    return [
        Rejection(task.root / path, reason, remedy)
        for task, record in records.items()
        for path, reason, remedy in record["rejected"]
    ]


def _refuse_duplicates(shards: Shards, records: dict[Task, Record]) -> list[Rejection]:
    """Remove scans that two participants share from `records`, since their owner is unknown; returns the rejections."""
    refused = []
    for modality in Modality:
        tasks = [task for task, record in records.items() if _has(record, modality)]
        volumes = (shards.read(task.shard.name, 0, modality) for task in tasks)
        same: dict[Task, Task] = {}
        for i, j in near_duplicates(volumes, [task.subject.participant_id for task in tasks]):
            same.setdefault(tasks[i], tasks[j])
            same.setdefault(tasks[j], tasks[i])
        for task, other in same.items():
            for row in records[task]["rows"]:
                del row[f"{modality}_scale"]
            del records[task]["quality"][modality]
            if modality is Modality.DMRI:
                records[task]["dmri_bval"] = None
            theirs = relative(other.session.scans[modality].path, task.root)
            path = task.session.scans[modality].path
            refused.append(
                Rejection(path, f"holds the same image as {theirs}", "find out which participant it belongs to")
            )
    return refused


def _has(record: Record, modality: Modality) -> bool:
    return any(f"{modality}_scale" in row for row in record["rows"])
