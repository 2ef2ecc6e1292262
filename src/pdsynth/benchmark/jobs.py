"""Runs the entries of a benchmark, one process each, here or on a cluster, and writes what comes of them."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from queue import Queue
from typing import Any

import torch

from pdsynth import api, folders, manifest
from pdsynth.benchmark.joined import clear_joined, join_scores
from pdsynth.benchmark.runs import Terms, begun_as, run_entry
from pdsynth.benchmark.tables import ALL, FIGURES, tested_of, write_tables
from pdsynth.data.pairs import Pairs
from pdsynth.evaluation.evaluate import ORACLE
from pdsynth.evaluation.provenance import provenance
from pdsynth.files import sha256
from pdsynth.recipes import CONTROLS, RECIPES, settings_of
from pdsynth.report.benchmark import write_page
from pdsynth.results.entries import recipe_of, run_folder
from pdsynth.types import InputError, Size
from pdsynth.workers import start_worker, terminate

Told = Callable[[int, int], None]
SLURM_SLACK = 3.0  # times the budget, for fits, caches and scores
SLURM_LEAST_MINUTES = 120


def benchmark(
    prepared: str | Path,
    out: str | Path,
    entries: Sequence[str] | None = None,
    *,
    budget: float | None = None,
    steps: int | None = None,
    seed: int = 0,
    jobs: int = 1,
    device: str = "cpu",
    cluster: str | None = None,
    progress: Told | None = None,
) -> Path:
    """Train and score every entry on an equal budget, and write tables, figures and a page; returns the page's path.

    `out` becomes a results folder of all entries, as `evaluate` writes one.

    entries are recipes by name, "name:small" for their small size; None for all rows of the tables that can be run
    here. The budget is wall time of training in seconds, or
    steps. `jobs` entries run at once, each in a process of its own with an equal part of the threads; with `cluster`,
    "slurm" or "local", submitit runs them instead. A run that `out` holds already is taken as it is, one that was cut
    goes on, and the tables show all that are finished. Raises ValueError for an unknown entry, or without a budget;
    InputError where `out` was made under other terms, the test split has fewer than two participants, or, after the
    others are done, an entry failed.
    """
    prepared, out = Path(prepared), Path(out)
    if not (budget or steps):
        raise ValueError("neither a budget nor steps are given. Set --budget or --steps, equal for every recipe.")
    entries = None if entries is None else _checked(entries)
    pairs = Pairs.open(prepared)
    if pairs.test.table["participant_id"].nunique() < 2:
        raise InputError(prepared, "holds fewer than two test participants", "prepare with a larger --split")
    if entries is None:
        on_cpu = {"pds-paper": "pds-paper:small"} if device == "cpu" else {}
        entries = [on_cpu.get(name, name) for name in ALL if pairs.has_oracle or name != ORACLE]
    if ORACLE in entries and not pairs.has_oracle:
        raise InputError(prepared, "has no oracle, as only simulated cohorts have", "leave oracle out of --recipes")
    threads = max(1, torch.get_num_threads() // jobs)
    terms = Terms(budget, steps, seed, device, threads)
    failed: dict[str, str] = {}
    with folders.making(
        out,
        update=True,
        resume="give the same command again",
        again=lambda before: _refuse_other_terms(out, before, prepared, terms),
        inputs=[prepared],
    ) as work:
        page = _page(prepared, work.folder, entries, pairs, terms, jobs, cluster, progress, failed)
    if failed:
        listed = "; ".join(f"{entry}: {why}" for entry, why in failed.items())
        problem = f"lacks {len(failed)} of {len(entries)} entries, which failed ({listed})"
        raise InputError(out, problem, "mend what they name, and give the same command again")
    return out / page.name


def _page(
    prepared: Path,
    out: Path,
    entries: Sequence[str],
    pairs: Pairs,
    terms: Terms,
    jobs: int,
    cluster: str | None,
    progress: Told | None,
    failed: dict[str, str],
) -> Path:
    """Run what is not finished and write what comes of all; entries that fail get into `failed` with the reason."""
    with manifest.recorded(
        out, "benchmark", inputs=[prepared], seed=terms.seed, terms=asdict(terms), jobs=jobs
    ) as kept:
        kept["simulated"] = pairs.simulated
        kept["n_train"] = int(pairs.train.table["participant_id"].nunique())
        done = _finished(prepared, out, terms, entries)
        left = [entry for entry in entries if entry not in done]
        clear_joined(out)  # until all is done again, nothing is to stand under this manifest
        failed |= _run_all(prepared, out, left, terms, jobs, cluster, progress)
        finished = _finished(prepared, out, terms, entries)
        changed = "the code or the pairs changed while it ran; run it again"
        failed |= {entry: changed for entry in left if entry not in {*finished, *failed}}
        kept |= {"failed": failed, "entries": list(finished), "machine": ", ".join(sorted(set(finished.values())))}
        kept |= provenance(_models(out, finished), pairs)
        kept["notes"] = ["All were trained on the training split of this cohort, on an equal budget, or fitted to it."]
    if not finished:
        listed = "; ".join(f"{entry}: {why}" for entry, why in failed.items())
        raise InputError(prepared, f"every entry failed ({listed})", "mend what they name")
    tested = tested_of(list(finished))
    join_scores(out, sorted(finished, key=lambda entry: _rank(entry, tested)), terms.seed)
    titles = write_tables(out, list(finished), terms.seed)
    figures = {number: (title, _entries(rows, finished)) for number, (title, rows) in FIGURES.items()}
    return write_page(out, titles, figures, tested)


def _checked(entries: Sequence[str]) -> list[str]:
    """The entries, each once; ValueError where one is none, or a recipe is asked for in two sizes."""
    found: dict[str, str] = {}
    for entry in entries:
        name, size = recipe_of(entry)
        if name not in RECIPES:
            raise ValueError(f"there is no recipe {name!r}. Choose from {', '.join(RECIPES)}.")
        settings_of(RECIPES[name], size)
        entry = name if size == Size.FULL else entry
        if found.setdefault(name, entry) != entry:
            raise ValueError(f"{name} is asked for in two sizes. Ask for one of them.")
    return list(found.values())


def _finished(prepared: Path, out: Path, terms: Terms, asked: Sequence[str]) -> dict[str, str]:
    """All entries that are done in `out`, with the machine of each; of two sizes of a recipe the one that is asked."""
    found: dict[str, tuple[str, str]] = {}
    for folder in sorted((out / "runs").glob("*/"), key=lambda folder: _entry_of(folder) in asked):
        run, entry = manifest.read(folder), _entry_of(folder)
        recipe = recipe_of(entry)[0]
        if recipe in RECIPES and run.get("finished") and _key(run) == begun_as(prepared, entry, terms):
            found[recipe] = entry, run["machine"]
    return dict(sorted(found.values()))


def _entry_of(folder: Path) -> str:
    """The entry whose run a folder holds; "" where it does not say."""
    return str(_key(manifest.read(folder)).get("entry", ""))


def _key(run: Mapping[str, Any]) -> Mapping[str, Any]:
    return run.get("parameters", {}).get("begun_as", {})


def _rank(entry: str, tested: str | None) -> tuple[bool, bool, bool]:
    """What is under test comes first; where `pds` is not there, any method rather than a control."""
    recipe = recipe_of(entry)[0]
    return entry != tested, recipe in CONTROLS, recipe == ORACLE


def _models(out: Path, entries: Iterable[str]) -> dict[str, api.Model]:
    """Of the entries that have one: the oracle is no model."""
    folders = {entry: run_folder(out, entry) / "model" for entry in entries}
    return {entry: api.load(folder, "cpu") for entry, folder in folders.items() if folder.exists()}


def _entries(recipes: Sequence[str], done: Iterable[str]) -> list[str]:
    """The finished entries of some recipes, in the recipes' order."""
    return [entry for recipe in recipes for entry in done if recipe_of(entry)[0] == recipe]


def _run_all(
    prepared: Path, out: Path, entries: Sequence[str], terms: Terms, jobs: int, cluster: str | None, told: Told | None
) -> dict[str, str]:
    """Run the entries; returns those that failed, and why."""
    failed: dict[str, str] = {}
    if told is not None:
        told(0, len(entries))
    pool = ThreadPoolExecutor(jobs)
    processes: list[ProcessPoolExecutor] = []
    begun: dict[Any, str]
    try:
        if cluster is not None:
            submit = _submitter(out, cluster, terms)
            begun = {submit(run_entry, prepared, out, entry, terms): entry for entry in entries}
        else:
            free = _free_gpus(jobs) if terms.device == "cuda" else None
            given = (processes, free, prepared, out)
            begun = {pool.submit(_in_a_process, *given, entry, terms): entry for entry in entries}
        for number, job in enumerate(begun if cluster is not None else as_completed(begun), 1):
            try:
                job.result()
            except Exception as error:
                failed[begun[job]] = f"{type(error).__name__}: {error}"
            if told is not None:
                told(number, len(entries))
    except BaseException:  # an interruption: what waits is not begun, and what is on goes on with the next run
        pool.shutdown(wait=False, cancel_futures=True)
        terminate(processes)
        raise
    finally:
        pool.shutdown(cancel_futures=True)
    return failed


def _in_a_process(processes: list[ProcessPoolExecutor], free: Queue[str] | None, *given: Any) -> str:
    """Run an entry in a fresh process, so that its peak of memory is its own, and its death harms no other."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=start_worker) as process:
        processes.append(process)
        return process.submit(_here, free, *given).result()


def _free_gpus(jobs: int) -> Queue[str]:
    """As many places on the GPUs that are to be seen as there are jobs."""
    free: Queue[str] = multiprocessing.Manager().Queue()
    seen = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    names = seen if seen != [""] else [str(number) for number in range(torch.cuda.device_count())]
    for number in range(jobs):
        free.put(names[number % len(names)])
    return free


def _here(free: Queue[str] | None, prepared: Path, out: Path, entry: str, terms: Terms) -> str:
    """Run an entry in this process, on a GPU that is free, where there are any."""
    if free is None:
        return run_entry(prepared, out, entry, terms)
    number = free.get()
    os.environ["CUDA_VISIBLE_DEVICES"] = number  # CUDA is not begun yet: each entry has a fresh process
    try:
        return run_entry(prepared, out, entry, terms)
    finally:
        free.put(number)


def _submitter(out: Path, cluster: str, terms: Terms) -> Callable[..., Any]:
    """submitit's `submit`, its logs in out/jobs. Raises ValueError where submitit is not installed."""
    try:
        import submitit
    except ImportError as error:
        raise ValueError("submitit is not installed. pip install 'pdsynth[scale]', or leave out --cluster.") from error
    executor = submitit.AutoExecutor(out / "jobs", cluster=cluster)
    minutes = max(SLURM_LEAST_MINUTES, int((terms.budget or 0) / 60 * SLURM_SLACK))
    gpus = 1 if terms.device == "cuda" else 0
    executor.update_parameters(timeout_min=minutes, cpus_per_task=terms.threads, gpus_per_node=gpus)
    return executor.submit


def _refuse_other_terms(out: Path, before: dict[str, Any], prepared: Path, terms: Terms) -> None:
    """Raise InputError unless the manifest `before` is that of a benchmark of these pairs under these terms."""
    begun = before.get("parameters", {}).get("terms")
    if before.get("command") != "benchmark" or begun is None:
        raise InputError(out, "exists and is no benchmark", "choose another folder")
    now = asdict(terms)
    differs = [f"{name} {value}, not {now[name]}" for name, value in begun.items() if value != now[name]]
    if list(before["inputs"].values()) != [sha256(prepared)]:
        differs.append("other pairs")
    if differs:
        raise InputError(out, f"was begun with {'; '.join(differs)}", "give the same, or choose another folder")
