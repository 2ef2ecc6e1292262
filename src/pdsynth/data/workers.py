"""Where the sessions of a cohort are made: this process, others of this machine, or a cluster."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from typing import Any, TypeVar

from threadpoolctl import threadpool_limits

Task = TypeVar("Task")
SECONDS = 20  # to wait for a scheduler
SLURM_MEMORY, SLURM_HOURS = "4GB", 12


@dataclass(frozen=True)
class Workers:
    """jobs processes of one thread each: here; or, of a dask cluster, those of a scheduler that runs (its address), or
    as many Slurm jobs as `jobs` says. Raises ValueError for both."""

    jobs: int = 1
    dask: str | None = None
    slurm: bool = False

    def __post_init__(self) -> None:
        if self.jobs < 1:
            raise ValueError(f"jobs={self.jobs} must be 1 or more.")
        if self.dask and self.slurm:
            raise ValueError("--dask and --slurm are two clusters. Choose one.")

    def run(self, work: Callable[[Task], Any], tasks: Sequence[Task]) -> Iterator[None]:
        """Do the work on every task, in any order; yields after each. What a task raises is raised."""
        if not tasks:
            return
        if self.dask or self.slurm:
            yield from self._on_cluster(work, tasks)
        elif self.jobs == 1:
            for task in tasks:
                _one_thread(work, task)
                yield
        else:
            count = min(self.jobs, len(tasks))
            pool = ProcessPoolExecutor(count, get_context("spawn"), initializer=_start_worker)
            try:
                for done in as_completed([pool.submit(_one_thread, work, task) for task in tasks]):
                    done.result()
                    yield
            finally:
                pool.shutdown(cancel_futures=True)

    def _on_cluster(self, work: Callable[[Task], Any], tasks: Sequence[Task]) -> Iterator[None]:
        with _client(self) as client:
            from dask.distributed import as_completed as as_made

            for made in as_made(client.map(_one_thread, [work] * len(tasks), tasks, pure=False)):
                made.result()
                yield


@contextmanager
def _client(workers: Workers) -> Iterator[Any]:
    """A client of the cluster, which is left as it was found. Raises ValueError where it cannot be had."""
    try:
        from dask.distributed import Client
    except ImportError as error:
        raise ValueError("dask is not installed. pip install 'pdsynth[scale]', or leave the cluster out.") from error
    if workers.dask is not None:
        try:
            client = Client(workers.dask, timeout=SECONDS)
        except (OSError, ValueError) as error:
            raise ValueError(
                f"no dask scheduler answers at {workers.dask}. Start one, or check the address."
            ) from error
        with client:
            yield client
        return
    from dask_jobqueue import SLURMCluster

    with SLURMCluster(cores=1, processes=1, memory=SLURM_MEMORY, walltime=f"{SLURM_HOURS}:00:00") as cluster:
        cluster.scale(jobs=workers.jobs)
        with Client(cluster) as client:
            yield client


def _one_thread(work: Callable[[Task], Any], task: Task) -> None:
    with threadpool_limits(1):
        work(task)


def _start_worker() -> None:
    """A worker ends when its parent does, even if that was killed."""
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
