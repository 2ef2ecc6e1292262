"""Where the tasks of a run are done: in this process, in others of this machine, or on a cluster."""

from __future__ import annotations

import os
import secrets
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import forkserver, get_all_start_methods, get_context, parent_process
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

from threadpoolctl import threadpool_limits

from pdsynth.types import InputError

Task = TypeVar("Task")
Result = TypeVar("Result")
Name = Callable[[Task], str | Path]
Start = Callable[[], object]
Ended = SimpleQueue[tuple[Task, Future[Result]]]
SECONDS = 20  # to wait for a scheduler
SLURM_MEMORY, SLURM_HOURS = "4GB", 12


_STARTED: set[str] = set()  # runs whose start this process has done
_LOADING: list[str] = []  # modules that the processes have when they begin


def load_ahead(module: str) -> None:
    """Begin to load a module for the processes to come, in one of its own, while this one does something else.

    Every worker is then a copy of that process, which has begun nothing but imports. Where the system has no such
    servers, the workers load it themselves.
    """
    if "forkserver" in get_all_start_methods() and not _LOADING:
        _LOADING.append(module)
        forkserver.set_forkserver_preload([*_LOADING])
        forkserver.ensure_running()


@dataclass(frozen=True)
class Workers:
    """jobs processes of one thread each: here; or, of a dask cluster, those of a scheduler that runs (its address), or
    as many Slurm jobs as `jobs` says. Raises ValueError for both.

    >>> sorted(Workers().run(abs, [-2, 1]))
    [(-2, 2), (1, 1)]
    """

    jobs: int = 1
    dask: str | None = None
    slurm: bool = False

    def __post_init__(self) -> None:
        if self.jobs < 1:
            raise ValueError(f"jobs={self.jobs} must be 1 or more.")
        if self.dask and self.slurm:
            raise ValueError("--dask and --slurm are two clusters. Choose one.")

    def run(
        self,
        work: Callable[[Task], Result],
        tasks: Sequence[Task],
        *,
        name: Name[Task] | None = None,
        start: Start | None = None,
    ) -> Iterator[tuple[Task, Result]]:
        """Do the work on every task; yields each task and its result as it is finished, in no order.

        start is called in every process before its first task, to load what all tasks share. work, start and the tasks
        go to other processes by pickle. What a task raises is raised at once; the others are then stopped.

        A process that is killed is not replaced: the others go on with what is left. Then InputError is raised for the
        task that it had, called as `name` says: else by the task's `name`, or the task itself where it is a path.

        >>> list(Workers().run(len, ["abc"]))
        [('abc', 3)]
        """
        if not tasks:
            return
        if self.dask or self.slurm:
            yield from self._on_cluster(_packed(work, start), tasks)
        elif self.jobs == 1:
            if start is not None:
                with _one_thread():
                    start()
            for task in tasks:
                yield task, _do("", None, work, task)
        else:
            count = min(self.jobs, len(tasks))
            yield from _in_processes(count, _packed(work, start), tasks, name or _called)

    def _on_cluster(self, do: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[tuple[Task, Result]]:
        with _client(self) as client:
            from dask.distributed import as_completed as as_made

            made = dict(zip(client.map(do, tasks, pure=False), tasks, strict=True))
            for future in as_made(list(made)):
                yield made[future], future.result()


@contextmanager
def _client(workers: Workers) -> Iterator[Any]:
    """A client of the cluster, which is left as it was found. Raises ValueError where it cannot be had."""
    try:
        from dask.distributed import Client

        if workers.slurm:
            from dask_jobqueue import SLURMCluster
    except ImportError as error:
        missing = "dask-jobqueue" if error.name == "dask_jobqueue" else "dask"
        raise ValueError(
            f"{missing} is not installed. pip install 'pdsynth[scale]', or leave the cluster out."
        ) from error
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
    with SLURMCluster(cores=1, processes=1, memory=SLURM_MEMORY, walltime=f"{SLURM_HOURS}:00:00") as cluster:
        cluster.scale(jobs=workers.jobs)
        with Client(cluster) as client:
            yield client


def _in_processes(
    count: int, do: Callable[[Task], Result], tasks: Sequence[Task], name: Name[Task]
) -> Iterator[tuple[Task, Result]]:
    """Each process has a pool of its own, fed by a thread: so it is known which task a process had when it died."""
    waiting, gate, left = deque(tasks), threading.Lock(), len(tasks)
    ended: Ended[Task, Result] = SimpleQueue()
    context = get_context("forkserver" if _LOADING else "spawn")
    pools = [ProcessPoolExecutor(1, context, initializer=start_worker) for _ in range(count)]
    feeders = [threading.Thread(target=_feed, args=(pool, do, waiting, gate, ended), daemon=True) for pool in pools]
    lost: list[Task] = []
    _begin_tracker()
    try:
        for feeder in feeders:
            feeder.start()
        while left and len(lost) < count:
            task, future = ended.get()
            left -= 1
            if _was_killed(future.exception()):
                lost.append(task)
            else:
                yield task, future.result()
    except BaseException:  # of a task, or an interruption: what is at hand may take minutes, and nobody waits for it
        with gate:  # from here on no process is started
            waiting.clear()
        terminate(pools)
        raise
    finally:
        for pool in pools:
            pool.shutdown()
        for feeder in feeders:
            if feeder.is_alive():
                feeder.join()
    if lost:
        _raise_lost(lost, name)


def _feed(
    pool: ProcessPoolExecutor,
    do: Callable[[Task], Result],
    waiting: deque[Task],
    gate: threading.Lock,
    ended: Ended[Task, Result],
) -> None:
    """Give the process of a pool one task after another, until it dies or none waits."""
    _hold_interrupts()
    killed = False
    while not killed:
        with gate:
            if not waiting:
                return
            task = waiting.popleft()
            future = _submitted(pool, do, task)
        killed = isinstance(future.exception(), BrokenProcessPool)
        ended.put((task, future))


def _submitted(pool: ProcessPoolExecutor, do: Callable[[Task], Result], task: Task) -> Future[Result]:
    try:
        return pool.submit(do, task)
    except BrokenProcessPool as error:  # the process died between two tasks
        future: Future[Result] = Future()
        future.set_exception(error)
        return future


def _was_killed(error: BaseException | None) -> bool:
    """Whether a process died. A pool breaks too on a result that cannot be unpickled, and then shows where."""
    return isinstance(error, BrokenProcessPool) and "Traceback" not in str(error.__cause__)


def _raise_lost(lost: Sequence[Task], name: Name[Task]) -> None:
    others = "" if len(lost) == 1 else f" (so were {', '.join(str(name(task)) for task in lost[1:])})"
    raise InputError(
        name(lost[0]),
        f"was being read when its process was killed, as a machine does that runs out of memory{others}",
        "use fewer --jobs, or leave this scan out",
    )


def _called(task: Any) -> str | Path:
    """The name of a task that has one; a path is its own.

    >>> _called("sub-01.nii.gz")
    'sub-01.nii.gz'
    """
    return task if isinstance(task, Path) else str(getattr(task, "name", task))


def terminate(pools: Sequence[ProcessPoolExecutor]) -> None:
    """End the processes of the pools now; there is no public way to it before Python 3.14."""
    for pool in pools:
        for process in list(pool._processes.values()):
            process.terminate()


def _packed(work: Callable[[Task], Result], start: Start | None) -> Callable[[Task], Result]:
    return partial(_do, secrets.token_hex(8), start, work)


def _do(run: str, start: Start | None, work: Callable[[Task], Result], task: Task) -> Result:
    with _one_thread():
        if start is not None and run not in _STARTED:  # once per process and run
            start()
            _STARTED.add(run)
    with _one_thread():  # anew, as what was started may have loaded libraries with threads
        return work(task)


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread for the libraries that are loaded, so that results do not depend on how many processes there are."""
    torch = sys.modules.get("torch")  # to import it would take seconds that most tasks need not
    before = torch.get_num_threads() if torch is not None else 1
    with threadpool_limits(1):
        if before != 1 and torch is not None:
            torch.set_num_threads(1)
        try:
            yield
        finally:
            if before != 1 and torch is not None:
                torch.set_num_threads(before)


def _begin_tracker() -> None:
    """Python starts its tracker of shared resources with the first process, and would let interrupts through then."""
    if hasattr(signal, "pthread_sigmask"):
        from multiprocessing.resource_tracker import ensure_running

        ensure_running()


def _hold_interrupts() -> None:
    """Ctrl-C goes to all processes. One that is at its start would print a traceback, if its thread let it through."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


def start_worker() -> None:
    """A worker leaves Ctrl-C to its parent, which stops it, and ends when the parent does, even if that was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # for what the worker may start itself
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
