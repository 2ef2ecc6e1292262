"""Runs the entries of a benchmark, one process each, here or on a cluster, and writes what comes of them."""

from __future__ import annotations

import multiprocessing
import os
import platform
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from queue import Queue
from typing import Any

import torch

from pdsynth import manifest
from pdsynth.benchmark.runs import Terms, run_entry
from pdsynth.benchmark.tables import FIGURES, tested_of, write_tables
from pdsynth.data.pairs import Pairs
from pdsynth.recipes import RECIPES, settings_of
from pdsynth.report.benchmark import write_page
from pdsynth.types import InputError

Told = Callable[[int, int], None]
SLURM_SLACK = 3.0  # times the budget, for fits, caches and scores
SLURM_LEAST_MINUTES = 120


def benchmark(
    prepared: str | Path,
    out: str | Path,
    entries: Sequence[str],
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

    entries are recipes by name, "name:small" for their small size. The budget is wall time of training in seconds, or
    steps. `jobs` entries run at once, each in a process of its own with an equal part of the threads; with `cluster`,
    "slurm" or "local", submitit runs them instead. What `out` holds already is taken as it is, and a run that was cut
    goes on. Raises ValueError for an unknown entry, or without a budget; InputError where `out` was made under other
    terms, or the test split has fewer than two participants; RuntimeError, after the others are done, where an entry
    failed.
    """
    prepared, out = Path(prepared), Path(out)
    if not (budget or steps):
        raise ValueError("neither a budget nor steps are given. Set --budget or --steps, equal for every recipe.")
    for entry in entries:
        name, _, size = entry.partition(":")
        if name not in RECIPES:
            raise ValueError(f"there is no recipe {name!r}. Choose from {', '.join(RECIPES)}.")
        settings_of(RECIPES[name], size or "full")
    pairs = Pairs.open(prepared)
    if pairs.test.table["participant_id"].nunique() < 2:
        raise InputError(prepared, "holds fewer than two test participants", "prepare with a larger --split")
    threads = max(1, torch.get_num_threads() // jobs)
    terms = Terms(budget, steps, seed, device, threads)
    _refuse_other_terms(out, prepared, terms)
    with manifest.recorded(out, "benchmark", inputs=[prepared], seed=seed, terms=asdict(terms), jobs=jobs) as kept:
        kept |= {"machine": _machine(device), "simulated": pairs.simulated}
        kept["n_train"] = int(pairs.train.table["participant_id"].nunique())
        failed = _run_all(prepared, out, entries, terms, jobs, cluster, progress)
        done = [entry for entry in entries if entry not in failed]
        kept |= {"entries": done, "failed": failed}
    titles = write_tables(out, done, seed)
    figures = {number: (title, _entries(rows, done)) for number, (title, rows) in FIGURES.items()}
    page = write_page(out, titles, figures, tested_of(done))
    if failed:
        listed = "; ".join(f"{entry}: {why}" for entry, why in failed.items())
        raise RuntimeError(f"{len(failed)} of {len(entries)} entries failed ({listed}); the tables hold the others")
    return page


def _entries(recipes: Sequence[str], done: Sequence[str]) -> list[str]:
    """The finished entries of some recipes, in the recipes' order."""
    return [entry for recipe in recipes for entry in done if entry.partition(":")[0] == recipe]


def _run_all(
    prepared: Path, out: Path, entries: Sequence[str], terms: Terms, jobs: int, cluster: str | None, told: Told | None
) -> dict[str, str]:
    """Run the entries; returns those that failed, and why."""
    failed: dict[str, str] = {}
    if told is not None:
        told(0, len(entries))
    if cluster is not None:
        begun = {_submitted(out, cluster, terms)(run_entry, prepared, out, e, terms): e for e in entries}
        finished: Any = begun  # in the order of submission
        workers: AbstractContextManager[Any] = nullcontext()
    else:
        pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), max_tasks_per_child=1)
        workers = _cancelled_on_error(pool)
    with workers:
        if cluster is None:
            free = _free_gpus(jobs) if terms.device == "cuda" else None
            begun = {pool.submit(_here, free, prepared, out, e, terms): e for e in entries}
            finished = as_completed(begun)
        for number, job in enumerate(finished, 1):
            try:
                job.result()
            except Exception as error:
                failed[begun[job]] = f"{type(error).__name__}: {error}"
            if told is not None:
                told(number, len(entries))
    return failed


@contextmanager
def _cancelled_on_error(pool: Executor) -> Any:
    """What waits is not begun where the caller is interrupted."""
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _free_gpus(jobs: int) -> Queue[str]:
    """As many places on the GPUs as there are jobs."""
    free: Queue[str] = multiprocessing.Manager().Queue()
    for number in range(jobs):
        free.put(str(number % torch.cuda.device_count()))
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


def _submitted(out: Path, cluster: str, terms: Terms) -> Callable[..., Any]:
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


def _refuse_other_terms(out: Path, prepared: Path, terms: Terms) -> None:
    """Raise InputError unless `out` is free, or a benchmark of these pairs under these terms."""
    before = manifest.read(out)
    if not out.exists() or not any(out.iterdir()):
        return
    if before.get("command") != "benchmark":
        raise InputError(out, "exists and is no benchmark", "choose another folder")
    differs = [
        f"{name} {value}, not {asdict(terms)[name]}"
        for name, value in before["parameters"]["terms"].items()
        if value != asdict(terms)[name]
    ]
    if before["inputs"] != {str(prepared): manifest.sha256(prepared)}:
        differs.append("other pairs")
    if differs:
        raise InputError(out, f"was begun with {'; '.join(differs)}", "give the same, or choose another folder")


def _machine(device: str) -> str:
    """In words, for the page."""
    if device == "cuda":
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    return f"{platform.machine()} CPU, {os.cpu_count()} cores"
