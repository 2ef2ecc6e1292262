"""A dask scheduler and its workers as processes of their own, which a test can kill."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

PATIENCE = 120  # seconds, on a busy machine


class Dask:
    """A scheduler, at `address`. Its workers see the modules of the tests. options: of scheduler and workers."""

    def __init__(self, folder: Path, options: Sequence[str] = (), environment: dict[str, str] | None = None) -> None:
        self.folder, self.options = folder, list(options)
        paths = [str(Path(__file__).parents[1] / "src"), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
        self.environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **(environment or {})}
        self.processes: list[subprocess.Popen[bytes]] = []
        self.file = folder / "scheduler.json"
        self.scheduler = self._start("dask_scheduler", "--port", "0", "--scheduler-file", str(self.file), "--no-show")
        end = time.monotonic() + PATIENCE
        while not self.file.exists():
            assert self.scheduler.poll() is None and time.monotonic() < end, (folder / "log").read_text()
            time.sleep(0.05)
        time.sleep(0.1)  # the file is written in one piece, shortly after it appears
        self.address = json.loads(self.file.read_text())["address"]

    def worker(self) -> subprocess.Popen[bytes]:
        """Start a worker without a nanny, so that nobody starts it again."""
        words = ["--nthreads", "1", "--no-nanny", "--no-dashboard", "--local-directory", str(self.folder)]
        return self._start("dask_worker", self.address, *words)

    def _start(self, program: str, *words: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", f"distributed.cli.{program}", *words, "--host", "127.0.0.1", *self.options]
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, env=self.environment)
        self.processes.append(process)
        return process

    def stop(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


@contextmanager
def dask(folder: Path, options: Sequence[str] = (), environment: dict[str, str] | None = None) -> Iterator[Dask]:
    """A scheduler without workers, until the end of the block."""
    folder.mkdir(exist_ok=True)
    started = Dask(folder, options, environment)
    try:
        yield started
    finally:
        started.stop()
