"""The tasks of a command on the workers of a dask scheduler that the user has started."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from pdsynth.clusters.settings import Cluster, Patience, refuse_lost
from pdsynth.types import InputError

Task = TypeVar("Task")
Result = TypeVar("Result")


@contextmanager
def client_of(address: str, settings: Cluster) -> Iterator[Any]:
    """A client of the scheduler at an address such as "tcp://host:8786".

    For "tls://host:8786", certificates are those of dask's own settings. The scheduler is not stopped. Raises
    ValueError if dask is not installed, and InputError if no scheduler answers within settings.wait.
    """
    try:
        from dask.distributed import Client
    except ImportError as error:
        raise ValueError("dask is not installed. Use pip install 'pdsynth[scale]', or leave out --dask.") from error
    for name in ("distributed", "distributed.client", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # its tracebacks say less than our own errors
    try:
        client = Client(address, timeout=settings.patience)
    except (OSError, ValueError, TypeError) as error:
        problem = f"is not the address of a dask scheduler that answers within {settings.wait}"
        remedy = "start one, check the address, and for tls:// the certificates in dask's settings"
        raise InputError(address, problem, remedy) from error
    with client:
        yield client


def on_dask(
    do: Callable[[Task], Result],
    tasks: Sequence[Task],
    name: Callable[[Task], str | Path],
    address: str,
    settings: Cluster,
) -> Iterator[tuple[Task, Result]]:
    """Apply `do` to every task on the workers of a scheduler; yields each task with its result, in any order.

    If a worker is lost, dask gives its task to another, until as many workers were lost by one task as the setting
    `distributed.scheduler.allowed-failures` of the scheduler permits (dask's default: 3). The other tasks are then
    finished, and InputError is raised for this one. An error of a task is raised at once. Raises InputError also if no
    scheduler answers, if it is lost, and if it has no worker for settings.wait.
    """
    with client_of(address, settings) as client:
        from dask.distributed import KilledWorker
        from distributed.comm import CommClosedError

        finished: SimpleQueue[Any] = SimpleQueue()
        shared = client.submit(_itself, do, pure=False)  # sent once, and made again if its worker is lost
        left = dict(zip(client.map(_apply, tasks, do=shared, pure=False), tasks, strict=True))
        for future in left:
            future.add_done_callback(finished.put)
        lost: list[Task] = []
        patience = Patience(f"the dask scheduler at {address}", settings)
        while left:
            try:
                future = finished.get(timeout=patience.next_pause(ended=False))
            except Empty:
                _check_workers(client, address, patience)
                continue
            patience.works()
            patience.next_pause(ended=True)
            task = left.pop(future)
            try:
                result = _result(client, future, address, patience)
            except KilledWorker:
                lost.append(task)
                continue
            except (CancelledError, CommClosedError) as error:
                raise _lost_scheduler(address) from error
            yield task, result
    refuse_lost([name(task) for task in lost], f"the workers of the dask scheduler at {address} were lost")


def _result(client: Any, future: Any, address: str, patience: Patience) -> Any:
    """The result of a task that has ended. If its worker was lost with the result, dask does the task again."""
    while True:
        try:
            return future.result(timeout=patience.longest_pause)
        except TimeoutError:
            if future.status == "error":
                raise  # of the task itself
            _check_workers(client, address, patience)


def _check_workers(client: Any, address: str, patience: Patience) -> None:
    try:
        works = bool(client.nthreads())
    except (OSError, RuntimeError, CancelledError) as error:
        raise _lost_scheduler(address) from error
    if works:
        patience.works()
    else:
        patience.idles("it has no worker")


def _lost_scheduler(address: str) -> InputError:
    problem = "was a dask scheduler, and the connection to it was lost"
    return InputError(address, problem, "start it and its workers, and give the same command again")


def _itself(do: Callable[[Task], Result]) -> Callable[[Task], Result]:
    return do


def _apply(task: Task, do: Callable[[Task], Result]) -> Result:
    return do(task)
