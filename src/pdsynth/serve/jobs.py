"""The jobs of the page: one scan each, of which one at a time is synthesised, in a process of its own."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from pdsynth.serve import work
from pdsynth.types import InputError, Modality
from pdsynth.workers import one_process, terminate

KILLED = "was being processed when its process was killed, possibly for lack of memory"


class State(StrEnum):
    """The state of a job: its files are uploaded, it waits for its turn, runs, is done, has failed, or was removed."""

    NEW = "new"
    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    REMOVED = "removed"


@dataclass(eq=False)
class Job:
    """One scan with its files, in a folder of its own.

    files, size: number and bytes of the uploads. scan: name of the file to synthesise from, "" before it is chosen. to:
    the modality to synthesise. problem: why the job failed, as one line. start_time: time when the synthesis started,
    by a clock without a date. seconds: time that the synthesis took, 0 before its end.
    """

    number: int
    folder: Path
    state: State = State.NEW
    files: int = 0
    size: int = 0
    scan: str = ""
    to: Modality | None = None
    problem: str = ""
    start_time: float = 0.0
    seconds: float = 0.0

    @property
    def scans(self) -> Path:
        """The folder of the uploads."""
        return self.folder / work.SCANS

    @property
    def page(self) -> Path:
        """The page with the viewer, which exists if the job is done."""
        return self.folder / work.PAGE

    @property
    def archive(self) -> Path:
        """The zip file of the output, which exists if the job is done."""
        return next(self.folder.glob("*.zip"))

    @property
    def steps(self) -> list[str]:
        """The steps of the synthesis that have started, in words."""
        path = self.folder / work.STEPS_FILE
        return path.read_text("utf-8").splitlines() if path.exists() else []


class Queue:
    """The jobs of a server, in a folder, and the process that synthesises; see `running`."""

    def __init__(self, folder: Path, model: str, device: str) -> None:
        self.folder, self.model, self.device = folder, model, device
        self.jobs: dict[int, Job] = {}
        self._number = 0
        self._line: list[Job] = []  # that wait or run, in their order
        self._waiting: asyncio.Queue[Job] = asyncio.Queue()
        self._pool: ProcessPoolExecutor = one_process()

    @classmethod
    @contextmanager
    def running(cls, folder: Path, model: str, device: str) -> Iterator[Queue]:
        """A queue whose process has loaded the model, until the block ends. Raises the errors of `Model.load`.

        folder: where the files of the jobs are written. model: folder of the model. device: "auto", "cpu" or "cuda".
        """
        queue = cls(folder, model, device)
        try:
            queue._load().result()
            yield queue
        finally:
            terminate([queue._pool])
            queue._pool.shutdown()

    def add(self) -> Job:
        """A new job, for uploads."""
        self._number += 1
        # three folders above a scan may name a participant (`lone_participant`), and a fourth may describe a dataset
        job = Job(self._number, self.folder / "jobs" / str(self._number))
        job.scans.mkdir(parents=True)
        self.jobs[job.number] = job
        return job

    def start(self, job: Job, scan: str, to: Modality) -> None:
        """Let a job wait for its turn. scan: name of an uploaded file. to: the modality to synthesise."""
        job.scan, job.to, job.state = scan, to, State.WAITING
        self._line.append(job)
        self._waiting.put_nowait(job)

    def remove(self, job: Job) -> None:
        """Remove a job with all its files. If it runs, its process is ended, and a new one takes its place."""
        running = job.state is State.RUNNING
        job.state = State.REMOVED
        del self.jobs[job.number]
        if running:
            terminate([self._pool])  # `work` removes the files when the process has ended
        else:
            shutil.rmtree(job.folder, ignore_errors=True)  # a file may be on its way; the end removes it

    def ahead(self, job: Job) -> int:
        """Number of jobs that are synthesised before this one, which waits or runs."""
        return self._line.index(job)

    async def work(self) -> None:
        """Do the jobs one after the other, until the task is cancelled."""
        while True:
            job = await self._waiting.get()
            if job.state is not State.REMOVED:
                await self._do(job)
            self._line.remove(job)

    async def _do(self, job: Job) -> None:
        job.state, job.start_time = State.RUNNING, time.monotonic()
        try:
            job.problem = await asyncio.wrap_future(self._submitted(job))
        except BrokenProcessPool:
            job.problem = str(InputError(job.scan, KILLED, "free some memory, and drop the scan again"))
            self._renew()
        except Exception as error:  # a defect, which must not stop the queue
            job.problem = f"{job.scan}: {type(error).__name__}: {error}"
        job.seconds = time.monotonic() - job.start_time
        if job.state is State.REMOVED:
            shutil.rmtree(job.folder, ignore_errors=True)
        else:
            job.state = State.FAILED if job.problem else State.DONE

    def _submitted(self, job: Job) -> Future[str]:
        words: tuple[Any, ...] = (self.model, self.device, job.folder, job.scan, job.to)
        try:
            return self._pool.submit(work.synthesise, *words)
        except BrokenProcessPool:  # the process was killed since the last job
            self._renew()
            return self._pool.submit(work.synthesise, *words)

    def _renew(self) -> None:
        self._pool.shutdown()
        self._pool = one_process()
        self._load()

    def _load(self) -> Future[None]:
        return self._pool.submit(work.load, self.model, self.device)
