"""Runs the tasks of a command in this process, in several processes, or on a cluster."""

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
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import forkserver, get_all_start_methods, get_context, parent_process
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from threadpoolctl import threadpool_limits

from pdsynth.clusters import slurm, workers_of_dask
from pdsynth.clusters.settings import Cluster
from pdsynth.types import InputError

Task = TypeVar("Task")
Result = TypeVar("Result")
Name = Callable[[Task], str | Path]
Start = Callable[[], object]
Finished = SimpleQueue[tuple[Task, Future[Result]]]

_STARTED: set[str] = set()  # runs whose start function this process has called
_PRELOADED: list[str] = []  # modules that worker processes have when they begin


def load_ahead(module: str) -> None:
    """Start to import a module for later worker processes, in a separate process, while this process continues.

    Every worker is then a copy of that process, so that it need not import the module itself. On systems without
    Python's fork server, and for a second module, nothing is done; the workers then import the module themselves.
    """
    if "forkserver" in get_all_start_methods() and not _PRELOADED:
        _PRELOADED.append(module)
        forkserver.set_forkserver_preload([*_PRELOADED])
        forkserver.ensure_running()


@dataclass(frozen=True)
class Workers:
    """The processes among which a command divides its tasks.

    They are `jobs` processes of this machine (1: this process itself). If dask is given, it is the address of a running
    dask scheduler, whose processes are used instead, and jobs is not used. If slurm is true, they are jobs of the
    cluster manager Slurm, of which at most `jobs` run at a time. cluster: the settings of these jobs. threads: number
    of threads of each process. gpus: number of GPUs of each job of Slurm. Raises ValueError for jobs below 1, and if
    both dask and slurm are given.

    >>> sorted(Workers().run(abs, [-2, 1]))
    [(-2, 2), (1, 1)]
    """

    jobs: int = 1
    dask: str | None = None
    slurm: bool = False
    cluster: Cluster = field(default_factory=Cluster)
    threads: int = 1
    gpus: int = 0

    def __post_init__(self) -> None:
        if self.jobs < 1:
            raise ValueError(f"jobs={self.jobs} must be 1 or more.")
        if self.dask and self.slurm:
            raise ValueError("--dask and --slurm are two clusters. Choose one.")

    @classmethod
    def of(cls, jobs: int | Workers) -> Workers:
        """These workers themselves, or those of a number of processes of this machine.

        >>> Workers.of(3).jobs, Workers.of(Workers(2)).jobs
        (3, 2)
        """
        return jobs if isinstance(jobs, Workers) else cls(jobs)

    @property
    def remote(self) -> bool:
        """Whether the tasks may be done on other machines, which then need absolute paths."""
        return self.slurm or self.dask is not None

    @property
    def several(self) -> bool:
        """Whether the tasks are done in other processes than this one."""
        return self.jobs > 1 or self.remote

    def refuse_absent(self) -> None:
        """Raise InputError if there is no Slurm or no dask scheduler, and ValueError if a package is not installed."""
        if self.slurm:
            slurm.refuse_absent()
        elif self.dask is not None:
            with workers_of_dask.client_of(self.dask, self.cluster):
                pass

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """Yield a new folder that all processes see; it is removed at the end."""
        with self.cluster.scratch() if self.remote else TemporaryDirectory() as folder:
            yield Path(folder)

    def run(
        self,
        work: Callable[[Task], Result],
        tasks: Sequence[Task],
        *,
        name: Name[Task] | None = None,
        start: Start | None = None,
    ) -> Iterator[tuple[Task, Result]]:
        """Apply `work` to every task; yields each task with its result as soon as it is finished, in any order.

        start is called without arguments in every process before its first task, to load data that all tasks share.
        work, start and the tasks are pickled for other processes. An error of a task is raised at once, and the other
        tasks are stopped.

        If the system kills a process of this machine, it is not replaced; the others, if any are left, do the remaining
        tasks, and InputError is then raised for the task of the killed process. The message names the task by
        name(task). Without `name`, it is the task itself if it is a path, else its attribute `name`, or its text. On a
        cluster, the tasks of a lost job or worker are first done again, see `on_slurm` and `on_dask` for how often and
        for all errors of a cluster. Raises ValueError if a package for the cluster is not installed.

        >>> list(Workers().run(len, ["abc"]))
        [('abc', 3)]
        """
        if not tasks:
            return
        named, do = name or _task_name, partial(_do, secrets.token_hex(8), self.threads, start, work)
        if self.dask is not None:
            yield from workers_of_dask.on_dask(do, tasks, named, self.dask, self.cluster)
        elif self.slurm:
            resources = {"threads": self.threads, "gpus": self.gpus}
            yield from slurm.on_slurm(do, tasks, named, self.jobs, self.cluster, **resources)
        elif self.jobs == 1:
            for task in tasks:
                yield task, do(task)
        else:
            yield from _in_processes(min(self.jobs, len(tasks)), do, tasks, named)

    def in_order(
        self,
        work: Callable[[Task], Result],
        tasks: Sequence[Task],
        *,
        name: Name[Task] | None = None,
        start: Start | None = None,
    ) -> Iterator[Result]:
        """The results of `run` in the order of the tasks, which must be hashable and differ.

        A result that is finished early is held until the earlier ones are. The arguments and errors are those of `run`.

        >>> list(Workers().in_order(abs, [-2, 1]))
        [2, 1]
        """
        early: dict[Task, Result] = {}
        waiting = deque(tasks)
        for task, result in self.run(work, tasks, name=name, start=start):
            early[task] = result
            while waiting and waiting[0] in early:
                yield early.pop(waiting.popleft())


def _in_processes(
    count: int, do: Callable[[Task], Result], tasks: Sequence[Task], name: Name[Task]
) -> Iterator[tuple[Task, Result]]:
    """Do the tasks in `count` processes. Each has a pool and a feeding thread of its own, which identifies the task of
    a process that dies.
    """
    waiting, gate, pending = deque(tasks), threading.Lock(), len(tasks)
    finished: Finished[Task, Result] = SimpleQueue()
    context = get_context("forkserver" if _PRELOADED else "spawn")
    pools = [ProcessPoolExecutor(1, context, initializer=start_worker) for _ in range(count)]
    feeders = [threading.Thread(target=_feed, args=(pool, do, waiting, gate, finished), daemon=True) for pool in pools]
    lost: list[Task] = []
    _start_resource_tracker()
    try:
        for feeder in feeders:
            feeder.start()
        while pending and len(lost) < count:
            task, future = finished.get()
            pending -= 1
            if _was_killed(future.exception()):
                lost.append(task)
            else:
                yield task, future.result()
    except BaseException:  # an error of a task, or an interruption: running tasks may take minutes and are of no use
        with gate:  # after this no process is started
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
    finished: Finished[Task, Result],
) -> None:
    """Give the process of a pool one task after another, until the process dies or no task is left."""
    _block_interrupts()
    killed = False
    while not killed:
        with gate:
            if not waiting:
                return
            task = waiting.popleft()
            future = _submitted(pool, do, task)
        killed = isinstance(future.exception(), BrokenProcessPool)
        finished.put((task, future))


def _submitted(pool: ProcessPoolExecutor, do: Callable[[Task], Result], task: Task) -> Future[Result]:
    try:
        return pool.submit(do, task)
    except BrokenProcessPool as error:  # the process died between two tasks
        future: Future[Result] = Future()
        future.set_exception(error)
        return future


def _was_killed(error: BaseException | None) -> bool:
    """Whether a process died. A result that cannot be unpickled breaks a pool too, but with a traceback as cause."""
    return isinstance(error, BrokenProcessPool) and "Traceback" not in str(error.__cause__)


def _raise_lost(lost: Sequence[Task], name: Name[Task]) -> None:
    others = "" if len(lost) == 1 else f" (so were {', '.join(str(name(task)) for task in lost[1:])})"
    raise InputError(
        name(lost[0]),
        f"was being processed when its process was killed, possibly for lack of memory{others}",
        "use fewer --jobs, or leave this scan out",
    )


def _task_name(task: Any) -> str | Path:
    """The task itself if it is a path, else its attribute `name`, else its text.

    >>> _task_name("sub-01.nii.gz")
    'sub-01.nii.gz'
    """
    return task if isinstance(task, Path) else str(getattr(task, "name", task))


def terminate(pools: Sequence[ProcessPoolExecutor]) -> None:
    """End the running processes of some process pools by the signal SIGTERM.

    Before Python 3.14 there is no public function for it.
    """
    for pool in pools:
        for process in list((pool._processes or {}).values()):  # a pool that was shut down has None
            process.terminate()


def _do(run: str, threads: int, start: Start | None, work: Callable[[Task], Result], task: Task) -> Result:
    with limited_threads(threads):
        if start is not None and run not in _STARTED:  # once per process and run
            start()
            _STARTED.add(run)
    with limited_threads(threads):  # again, because start may have loaded libraries that use threads
        return work(task)


@contextmanager
def limited_threads(threads: int) -> Iterator[None]:
    """Limit the number of threads of the loaded libraries, so that results do not depend on the number of processes."""
    torch = sys.modules.get("torch")  # not imported here, because that takes seconds and most tasks need no torch
    before = torch.get_num_threads() if torch is not None else threads
    with threadpool_limits(threads):
        if before != threads and torch is not None:
            torch.set_num_threads(threads)
        try:
            yield
        finally:
            if before != threads and torch is not None:
                torch.set_num_threads(before)


def _start_resource_tracker() -> None:
    """Start Python's resource tracker now. Otherwise Python starts it with a process, and then unblocks interrupts."""
    if hasattr(signal, "pthread_sigmask"):
        from multiprocessing.resource_tracker import ensure_running

        ensure_running()


def _block_interrupts() -> None:
    """Block Ctrl-C in this thread and in the processes that it starts.

    Ctrl-C goes to all processes, and a process that is still starting would print a traceback.
    """
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


def one_process() -> ProcessPoolExecutor:
    """A pool of one process, which is started now, ignores Ctrl-C, and ends when this process ends.

    `terminate` ends a task that is running.
    """
    pool = ProcessPoolExecutor(1, get_context("spawn"), initializer=start_worker)
    _start_resource_tracker()
    masked = hasattr(signal, "pthread_sigmask")
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}) if masked else set()
    try:
        pool.submit(int)  # starts the process, which begins with Ctrl-C blocked
    finally:
        if masked:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return pool


def start_worker() -> None:
    """Set up this process as a worker: it ignores Ctrl-C, which its parent handles, and ends when its parent ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # for processes that the worker starts itself
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
