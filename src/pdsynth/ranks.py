"""Processes of this machine that train together: their start, the mean of their gradients, and their common end.

Each process is a rank, with a number from 0, as in torch.distributed.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from multiprocessing import get_all_start_methods, get_context, resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path
from threading import Event
from time import monotonic
from typing import Any

import torch
from pytorch_lightning.plugins.environments import LightningEnvironment
from pytorch_lightning.strategies import DDPStrategy
from threadpoolctl import threadpool_limits
from torch import distributed

from pdsynth.types import InputError
from pdsynth.workers import load_ahead, start_worker

GRACE = 2.0  # seconds in which the death of a process may follow an error that it causes in another one
PATIENCE = 600.0  # seconds that a process waits for one that does not answer
REMEDY = "give the same command with --resume"


class Rank(LightningEnvironment):
    """One of several processes on this machine that train together, for Lightning.

    rank: number of the process, from 0. port: number of the network port by which the processes communicate.
    """

    def __init__(self, rank: int, port: int) -> None:
        super().__init__()
        self.rank, self._main_port = rank, port

    @property
    def creates_processes_externally(self) -> bool:
        return True  # otherwise Lightning would start the command line again for each process

    def local_rank(self) -> int:
        return self.rank


class Together(DDPStrategy):
    """Lightning's DDP without torch's wrapper of the model: the training step itself calls `average_gradients`.

    torch's wrapper averages during the backward pass. It sends all buffers, such as fitted regressions, at every step,
    searches each step of a GAN for parameters without gradient, and groups parameters differently in a resumed run,
    whose sums over three processes or more may then be rounded differently.
    """

    def __init__(self) -> None:
        super().__init__(timeout=timedelta(seconds=PATIENCE))

    def configure_ddp(self) -> None:
        """Leave the model as it is."""


def average_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Replace the gradient of each parameter by its mean over all ranks; without other ranks, do nothing.

    Every rank must have gradients of the same parameters.
    """
    if not distributed.is_initialized():
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    distributed.all_reduce(flat)
    flat /= distributed.get_world_size()
    for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


def run_together(work: Callable[[int], None], ranks: int, run: Path) -> None:
    """Call work(rank) in one new process per rank, of one thread each, and return when all are finished.

    work is pickled. If a process raises an error or dies, the others are ended within 5 seconds. The error is raised
    here; a death becomes InputError, which names `run`, the folder of the training. If a process stops without dying,
    the others wait for it for 10 minutes, and then end in the same way.
    """
    load_ahead("pdsynth.training")
    context: Any = get_context("forkserver" if "forkserver" in get_all_start_methods() else "spawn")
    pipes = [context.Pipe(duplex=False) for _ in range(ranks)]
    tasks = [(work, rank, mouth) for rank, (_, mouth) in enumerate(pipes)]
    processes = [context.Process(target=_rank, args=task, daemon=True) for task in tasks]
    try:
        with _interrupts_blocked():
            for process, (_, mouth) in zip(processes, pipes, strict=True):
                process.start()
                mouth.close()  # the process alone holds it, and its end closes the pipe
        _await([ear for ear, _ in pipes], run)
    finally:
        for process in processes:
            if process.pid is not None:
                process.terminate()
                process.join(GRACE)
                process.kill()
                process.join()


def _await(ears: list[Connection], run: Path) -> None:
    """Wait until every process has reported its success. Raises the error of the first that fails, or InputError."""
    waiting = dict(enumerate(ears))
    first: BaseException | None = None
    until: float | None = None
    while waiting:
        ready = wait(waiting.values(), None if until is None else max(0.0, until - monotonic()))
        if not ready:
            break
        for rank in [rank for rank, ear in waiting.items() if ear in ready]:
            try:
                error: BaseException | None = waiting.pop(rank).recv()
            except EOFError:  # the cause of the errors of the others, who lost their connection to it
                lost = f"lost process {rank + 1} of {len(ears)}"
                raise InputError(run, f"{lost}, which was killed, possibly for lack of memory", REMEDY) from None
            if error is not None and first is None:
                first, until = error, monotonic() + GRACE
    if first is None:
        return
    if _is_silence(first):
        raise InputError(run, f"has a process that did not answer for {PATIENCE:g} seconds", REMEDY) from first
    raise first


def _is_silence(error: BaseException) -> bool:
    """Whether an error of torch.distributed says that another process did not answer in time."""
    return isinstance(error, RuntimeError) and "timed out" in str(error).lower()


def _rank(work: Callable[[int], None], rank: int, mouth: Connection) -> None:
    """The main function of a process: do its part of the work, report the error, or None, and wait to be ended.

    If it ended itself, another process could still be waiting for its answer.
    """
    start_worker()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            work(rank)
        report: BaseException | None = None
    except Exception as error:
        report = error
    try:
        mouth.send(report)
    except Exception:  # an error that cannot be pickled
        mouth.send(RuntimeError(f"{type(report).__name__}: {report}"))
    Event().wait()


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Block Ctrl-C in processes that the block starts, until they ignore it: their parent ends them in order."""
    resource_tracker.ensure_running()  # otherwise the first start unblocks it
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
