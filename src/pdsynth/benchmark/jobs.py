"""Runs the entries of a benchmark, each in its own process or cluster job, and writes tables, figures and a page."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from queue import Queue
from typing import Any

import torch

from pdsynth import api, folders, manifest
from pdsynth.benchmark.joined import clear_joined, join_scores
from pdsynth.benchmark.runs import Terms, begun_as, run_entry
from pdsynth.benchmark.tables import ALL, FIGURES, tested_of, write_tables
from pdsynth.clusters.settings import LostTaskError
from pdsynth.data.pairs import Pairs
from pdsynth.evaluation.evaluate import ORACLE
from pdsynth.evaluation.provenance import provenance
from pdsynth.files import sha256
from pdsynth.recipes import CONTROLS, RECIPES, settings_of
from pdsynth.report.benchmark import write_page
from pdsynth.results.entries import recipe_of, run_folder
from pdsynth.types import InputError, Size
from pdsynth.workers import Workers, start_worker, terminate

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class _Plan:
    """The folders and the terms of a benchmark, and the way to run its entries (recipes in one of their sizes).

    terms: the settings that are equal for all entries (budget, steps, seed, device, threads). prepared: prepared folder
    of the pairs. out: folder that the runs and results are written into. workers: the argument `jobs` of `benchmark`.
    """

    prepared: Path
    out: Path
    terms: Terms
    workers: Workers
    progress: Progress | None


def benchmark(
    prepared: str | Path,
    out: str | Path,
    entries: Sequence[str] | None = None,
    *,
    budget: float | None = None,
    steps: int | None = None,
    seed: int = 0,
    jobs: int | Workers = 1,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Path:
    """Train and score several recipes with an equal budget; write tables, figures and an HTML page with them.

    Returns the path of the page. `out` becomes a results folder of all recipes, in the format of `pdsynth evaluate`.
    prepared: prepared folder of the pairs. entries: names of recipes, or "name:small" for their small size; None for
    all rows of the paper's tables that can be run with these pairs, on a CPU with pds-paper in its small size. budget:
    training time of each recipe in seconds (wall time). steps: number of training steps of each recipe. If both are
    given, a training ends at the first of the two; recipes that are fitted in closed form need neither. seed: of
    training and scores. jobs: number of recipes that run at the same time, each in its own process with an equal share
    of the threads; or the workers of a cluster, to which all recipes are submitted at once. On the workers of dask, the
    peak memory is that of the worker since its start. device: "cpu" or "cuda". A finished run in `out` is used again, a
    stopped run is resumed, and the tables contain all finished runs. progress(done, total) is called at the start and
    after each recipe; it counts those that are not yet finished in `out`.

    Raises ValueError for an unknown recipe or size, for two sizes of one recipe, and without budget and steps. Raises
    InputError if `out` was written with other pairs or other settings (budget, steps, seed, device, threads per
    recipe), or by another command; if the test split has fewer than two participants; if the oracle is given and the
    pairs are not simulated; or, after the results of all other recipes are written, if a recipe failed.
    """
    prepared, out = Path(prepared), Path(out)
    if not (budget or steps):
        raise ValueError("neither a budget nor steps are given. Set --budget or --steps, equal for every recipe.")
    entries = None if entries is None else _checked(entries)
    pairs = Pairs.open(prepared)
    if pairs.test.participants < 2:
        remedy = "prepare two or more such participants, or a larger last fraction in --split"
        raise InputError(prepared, "has fewer than two test participants with both scans", remedy)
    if entries is None:
        on_cpu = {"pds-paper": "pds-paper:small"} if device == "cpu" else {}
        entries = [on_cpu.get(name, name) for name in ALL if pairs.has_oracle or name != ORACLE]
    if ORACLE in entries and not pairs.has_oracle:
        raise InputError(prepared, "is not simulated, so it has no oracle", "leave oracle out of --recipes")
    workers = Workers.of(jobs)
    threads = max(1, torch.get_num_threads() // workers.jobs)
    terms = Terms(budget, steps, seed, device, threads)
    failed: dict[str, str] = {}
    with folders.making(
        out,
        update=True,
        resume="give the same command again",
        check_manifest=lambda before: _refuse_other_terms(out, before, prepared, terms),
        inputs=[prepared],
    ) as work:
        plan = _Plan(prepared, work.folder, terms, workers, progress)
        page = _page(plan, pairs, entries, failed)
    if failed:
        listed = "; ".join(f"{entry}: {why}" for entry, why in failed.items())
        problem = f"lacks {len(failed)} of {len(entries)} entries, which failed ({listed})"
        raise InputError(out, problem, "correct the causes, and give the same command again")
    return out / page.name


def _page(plan: _Plan, pairs: Pairs, entries: Sequence[str], failed: dict[str, str]) -> Path:
    """Run the unfinished entries, and write the results of all finished entries; returns the path of the page.

    An entry is "recipe", or "recipe:small" for its small size. Entries that fail are added to `failed` with the reason.
    Raises InputError if no entry is finished.
    """
    out, terms = plan.out, plan.terms
    with manifest.recorded(
        out, "benchmark", inputs=[plan.prepared], seed=terms.seed, terms=asdict(terms), jobs=plan.workers.jobs
    ) as record:
        record["simulated"] = pairs.simulated
        record["n_train"] = pairs.train.participants
        done = _finished(plan, entries)
        left = [entry for entry in entries if entry not in done]
        clear_joined(out)  # the new manifest must not describe old joined results
        failed |= _run_all(plan, left)
        finished = _finished(plan, entries)
        changed = "the code or the pairs changed while it ran; run it again"
        failed |= {entry: changed for entry in left if entry not in {*finished, *failed}}
        record |= {"failed": failed, "entries": list(finished), "machine": ", ".join(sorted(set(finished.values())))}
        record |= provenance(_models(out, finished), pairs)
        note = "All methods were trained on, or fitted to, the training split of this cohort, with an equal budget."
        record["notes"] = [note]
    if not finished:
        listed = "; ".join(f"{entry}: {why}" for entry, why in failed.items())
        raise InputError(plan.prepared, f"every entry failed ({listed})", "correct the causes")
    tested = tested_of(list(finished))
    join_scores(out, sorted(finished, key=lambda entry: _rank(entry, tested)), terms.seed)
    titles = write_tables(out, list(finished), terms.seed)
    figures = {number: (title, _entries(rows, finished)) for number, (title, rows) in FIGURES.items()}
    return write_page(out, titles, figures, tested)


def _checked(entries: Sequence[str]) -> list[str]:
    """The entries without duplicates; "recipe:full" becomes "recipe".

    Raises ValueError for an unknown recipe or size, or for two sizes of one recipe.
    """
    found: dict[str, str] = {}
    for entry in entries:
        name, size = recipe_of(entry)
        if name not in RECIPES:
            raise ValueError(f"there is no recipe {name!r}. Choose from {', '.join(RECIPES)}.")
        settings_of(RECIPES[name], size)
        entry = name if size == Size.FULL else entry
        if found.setdefault(name, entry) != entry:
            raise ValueError(f"{name} is given in two sizes. Give one of them.")
    return list(found.values())


def _finished(plan: _Plan, requested: Sequence[str]) -> dict[str, str]:
    """The finished entries in the folder of the plan, with the machine of each; one entry per recipe.

    An entry is "recipe", or "recipe:small" for its small size. A run counts if it was run with the plan's pairs and
    terms (budget, steps, seed, device, threads) and the present code. Of two finished sizes of a recipe, the requested
    one is returned.
    """
    found: dict[str, tuple[str, str]] = {}
    for folder in sorted((plan.out / "runs").glob("*/"), key=lambda folder: _entry_of(folder) in requested):
        run, entry = manifest.read(folder), _entry_of(folder)
        recipe = recipe_of(entry)[0]
        if recipe in RECIPES and run.get("finished") and _key(run) == begun_as(plan.prepared, entry, plan.terms):
            found[recipe] = entry, run["machine"]
    return dict(sorted(found.values()))


def _entry_of(folder: Path) -> str:
    """The entry ("recipe" or "recipe:small") of the run in a folder; "" if its manifest does not name one."""
    return str(_key(manifest.read(folder)).get("entry", ""))


def _key(run: Mapping[str, Any]) -> Mapping[str, Any]:
    """The key of a run (see `begun_as`) in its manifest; empty if there is none."""
    return run.get("parameters", {}).get("begun_as", {})


def _rank(entry: str, tested: str | None) -> tuple[bool, bool, bool]:
    """Sort key of an entry ("recipe" or "recipe:small"): the tested entry, other methods, controls, and the oracle.

    Controls are simple methods for comparison; the oracle knows the simulated truth.
    """
    recipe = recipe_of(entry)[0]
    return entry != tested, recipe in CONTROLS, recipe == ORACLE


def _models(out: Path, entries: Iterable[str]) -> dict[str, api.Model]:
    """The trained models in the benchmark `out`, by entry ("recipe" or "recipe:small"); the oracle has none."""
    folders = {entry: run_folder(out, entry) / "model" for entry in entries}
    return {entry: api.load(folder, "cpu") for entry, folder in folders.items() if folder.exists()}


def _entries(recipes: Sequence[str], done: Iterable[str]) -> list[str]:
    """Those of the finished entries (`done`) that belong to one of the recipes, in the order of the recipes.

    An entry is "recipe", or "recipe:small" for its small size.
    """
    return [entry for recipe in recipes for entry in done if recipe_of(entry)[0] == recipe]


def _run_all(plan: _Plan, entries: Sequence[str]) -> dict[str, str]:
    """Run the entries ("recipe" or "recipe:small"); returns the reason by entry for those that failed."""
    failed: dict[str, str] = {}
    if plan.progress is not None:
        plan.progress(0, len(entries))
    for number, (entry, why) in enumerate((_on_cluster if plan.workers.remote else _here_all)(plan, entries), 1):
        if why is not None:
            failed[entry] = why
        if plan.progress is not None:
            plan.progress(number, len(entries))
    return failed


def _on_cluster(plan: _Plan, entries: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """Run the entries as tasks of a cluster, one per job of Slurm; yields each with the reason if it failed."""
    workers = replace(plan.workers, jobs=max(1, len(entries)), threads=plan.terms.threads)
    left = list(entries)
    try:
        for entry, why in workers.run(partial(_attempt, plan.prepared, plan.out, plan.terms), entries):
            left.remove(entry)
            yield entry, why
    except LostTaskError as error:  # all other entries have ended
        for entry in left:
            yield entry, str(error)


def _attempt(prepared: Path, out: Path, terms: Terms, entry: str) -> str | None:
    """Run an entry; returns the reason if it fails, since the failure of one does not stop the others."""
    try:
        run_entry(prepared, out, entry, terms)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def _here_all(plan: _Plan, entries: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """Run the entries in processes of this machine; yields each with the reason if it failed."""
    pool = ThreadPoolExecutor(plan.workers.jobs)
    processes: list[ProcessPoolExecutor] = []
    try:
        free = _free_gpus(plan.workers.jobs) if plan.terms.device == "cuda" else None
        resources = (processes, free, plan.prepared, plan.out)
        started = {pool.submit(_in_a_process, *resources, entry, plan.terms): entry for entry in entries}
        for job in as_completed(started):
            error = job.exception()
            if error is not None and not isinstance(error, Exception):
                raise error
            yield started[job], None if error is None else f"{type(error).__name__}: {error}"
    except BaseException:  # an interruption: waiting entries are not started; the next run resumes the running ones
        pool.shutdown(wait=False, cancel_futures=True)
        terminate(processes)
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _in_a_process(processes: list[ProcessPoolExecutor], free: Queue[str] | None, *given: Any) -> str:
    """Run an entry in a new process, so that its peak memory is measured alone, and a crash stops only this entry.

    processes: the new process is added to this list. free, given: arguments of `_here`.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=start_worker) as process:
        processes.append(process)
        return process.submit(_here, free, *given).result()


def _free_gpus(jobs: int) -> Queue[str]:
    """A queue with the number or name of a visible GPU for each of `jobs` jobs; GPUs are shared if there are fewer."""
    free: Queue[str] = multiprocessing.Manager().Queue()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    names = visible if visible != [""] else [str(number) for number in range(torch.cuda.device_count())]
    for number in range(jobs):
        free.put(names[number % len(names)])
    return free


def _here(free: Queue[str] | None, prepared: Path, out: Path, entry: str, terms: Terms) -> str:
    """Run an entry ("recipe" or "recipe:small") in this process, on a GPU of the queue `free` if it is given."""
    if free is None:
        return run_entry(prepared, out, entry, terms)
    number = free.get()
    os.environ["CUDA_VISIBLE_DEVICES"] = number  # CUDA is not initialised yet, because each entry has a new process
    try:
        return run_entry(prepared, out, entry, terms)
    finally:
        free.put(number)


def _refuse_other_terms(out: Path, before: dict[str, Any], prepared: Path, terms: Terms) -> None:
    """Raise InputError unless the manifest `before` is that of a benchmark of these pairs with these terms.

    Terms are the settings that are equal for all entries (budget, steps, seed, device, threads).
    """
    earlier = before.get("parameters", {}).get("terms")
    if before.get("command") != "benchmark" or earlier is None:
        raise InputError(out, "exists and is not a benchmark", "choose another folder")
    now = asdict(terms)
    differs = [f"{name} {value}, not {now[name]}" for name, value in earlier.items() if value != now[name]]
    if list(before["inputs"].values()) != [sha256(prepared)]:
        differs.append("other pairs")
    if differs:
        raise InputError(out, f"was begun with {'; '.join(differs)}", "use the same settings, or choose another folder")
