"""The tasks of a command in jobs of the cluster manager Slurm, submitted by the library submitit.

Jobs and this process exchange files in a folder that all machines see. No port is opened.
"""

from __future__ import annotations

import logging
import os
import secrets
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stderr
from functools import partial
from io import StringIO
from pathlib import Path
from shutil import which
from typing import Any, TypeVar

from pdsynth.clusters.settings import Cluster, Patience, refuse_lost
from pdsynth.resources import seconds
from pdsynth.types import InputError

Task = TypeVar("Task")
Result = TypeVar("Result")
Ended = list[tuple[Any, BaseException | None]]  # result and error of each task of a job
SLURM = "Slurm"
COMMANDS = ("sbatch", "srun", "squeue", "scancel")
RETRIES = 2  # further jobs for the tasks of a lost job
PARTS = 4  # jobs for each one that may run at a time, so that a slow one does not delay the end
MOST_JOBS = 1000  # in one submission; by default, Slurm permits 1001
ANSWER = 30.0  # seconds that squeue may take
LOST_AFTER = 30.0  # seconds that the result of an ended job may take to appear on a network disk
ACTIVE = {"RUNNING", "COMPLETING", "CONFIGURING", "STAGE_OUT"}
SHOWN = 300  # characters of a log in a message
log = logging.getLogger(__name__)


def refuse_absent() -> None:
    """Raise InputError if this machine has no Slurm, and ValueError if submitit is not installed."""
    try:
        import submitit  # noqa: F401
    except ImportError as error:
        raise ValueError(
            "submitit is not installed. Use pip install 'pdsynth[scale]', or leave out --slurm."
        ) from error
    if missing := [command for command in COMMANDS if which(command) is None]:
        problem = f"is not on this machine: there is no {', '.join(missing)} on the PATH"
        raise InputError(SLURM, problem, "start pdsynth on a login node, or leave out --slurm")


def on_slurm(
    do: Callable[[Task], Result],
    tasks: Sequence[Task],
    name: Callable[[Task], str | Path],
    jobs: int,
    settings: Cluster,
    *,
    threads: int = 1,
    gpus: int = 0,
) -> Iterator[tuple[Task, Result]]:
    """Apply `do` to every task in jobs of Slurm, of which at most `jobs` run at a time; yields tasks with results.

    Each job has `threads` cores and `gpus` GPUs, and does several tasks. A job that ends without a result (it was
    killed, or its time or memory was exceeded) is lost. Its tasks are submitted again, up to twice, each as a job of
    its own if they are at most 1000. An error of a task is raised at once. After an error, the jobs are cancelled.

    Raises InputError if Slurm is absent, refuses the jobs, or runs none within settings.wait, and LostTaskError, after
    all other tasks, if the jobs of a task were lost three times.
    """
    refuse_absent()
    left, most = list(tasks), min(PARTS * jobs, MOST_JOBS)
    with settings.scratch() as folder:
        queue = _Queue(folder, settings, jobs, threads, gpus)
        try:
            for _ in range(RETRIES + 1):
                size = -(-len(left) // most)
                parts = [left[i : i + size] for i in range(0, len(left), size)] if left else []
                left, most = [], MOST_JOBS
                for part, ended in queue.run(do, parts):
                    if ended is None:
                        left += part
                        continue
                    for task, (result, error) in zip(part, ended, strict=True):
                        if error is not None:
                            raise error
                        yield task, result
                if left:
                    log.warning("The jobs of %d tasks were lost%s.", len(left), queue.why)
        finally:
            queue.cancel()
        where = f"its job of Slurm ended without a result, {RETRIES + 1} times{queue.why}"
        refuse_lost([name(task) for task in left], where)


class _Queue:
    """Our jobs in the queue of Slurm, which have a name of their own. why: the end of the log of a lost job."""

    def __init__(self, folder: Path, settings: Cluster, jobs: int, threads: int, gpus: int) -> None:
        import submitit

        self.folder, self.settings, self.why = folder, settings, ""
        self.name = f"pdsynth-{secrets.token_hex(4)}"
        self.executor = submitit.SlurmExecutor(folder)
        self.executor.update_parameters(
            job_name=self.name,
            partition=settings.partition,
            account=settings.account,
            time=max(1, round(seconds(settings.time) / 60)),
            cpus_per_task=threads,
            gpus_per_node=gpus or None,
            array_parallelism=jobs,
            setup=settings.setup,
            wckey=None,
            additional_parameters={"mem": settings.memory},
        )

    def run(
        self, do: Callable[[Task], Result], parts: Sequence[list[Task]]
    ) -> Iterator[tuple[list[Task], Ended | None]]:
        """Submit one job per list of tasks; yields each list with the ends of its tasks, or with None if it is lost."""
        if not parts:
            return
        left = dict(zip(self._submitted(do, parts), parts, strict=True))
        patience, unseen = Patience(SLURM, self.settings), dict[Any, float]()
        while left:
            before = len(left)
            states, reason = self._states()
            present = set(os.listdir(self.folder))  # once for all, which also renews the list on a network disk
            for job in list(left):
                if job.paths.result_pickle.name in present:
                    yield left.pop(job), self._ended(job)
                elif states is None or job.job_id in states:
                    unseen.pop(job, None)
                elif time.monotonic() - unseen.setdefault(job, time.monotonic()) > self._lost_after:
                    self.why = self._log(job)
                    yield left.pop(job), None
            if len(left) < before or ACTIVE & set((states or {}).values()):
                patience.works()
            elif not unseen:
                patience.idles(reason)
            time.sleep(patience.next_pause(len(left) < before))

    @property
    def _lost_after(self) -> float:
        return min(LOST_AFTER, self.settings.patience)

    def _submitted(self, do: Callable[[Task], Result], parts: Sequence[list[Task]]) -> list[Any]:
        """Submit the jobs. Raises InputError with sbatch's message if it refuses them."""
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        try:
            with redirect_stderr(StringIO()):  # submitit prints the message that the error has too
                return list(self.executor.map_array(partial(do_all, do), parts))
        except (FailedJobError, FailedSubmissionError) as error:
            problem = f"refused the jobs ({_short(str(error)) or 'without a message'})"
            remedy = "correct --cluster partition=, account=, memory= or time=; `sinfo` lists the partitions"
            raise InputError(SLURM, problem, remedy) from error

    def _states(self) -> tuple[dict[str, str] | None, str]:
        """The state of our jobs by their ids, with the reason of a wait in words; None if squeue does not answer."""
        command = ["squeue", "--array", "--noheader", f"--name={self.name}", "--format=%i|%T|%r"]
        try:
            answer = subprocess.run(command, capture_output=True, text=True, timeout=ANSWER, check=True)
        except (OSError, subprocess.SubprocessError) as error:
            detail = _short(str(getattr(error, "stderr", "") or error))
            return None, f"squeue does not answer ({detail})"
        rows = [line.strip().split("|") for line in answer.stdout.splitlines() if line.count("|") == 2]
        counts = Counter(f"{state.lower()} ({reason})" for _, state, reason in rows)
        described = ", ".join(f"{number} {state}" for state, number in sorted(counts.items()))
        return {job: state for job, state, _ in rows}, f"its jobs are {described or 'not in the queue'}"

    def _ended(self, job: Any) -> Ended | None:
        """The ends of the tasks of a job with a result; None if its result says that submitit could not do it."""
        from submitit.core.utils import UncompletedJobError

        try:
            return job.result()
        except UncompletedJobError as error:  # such as a result that cannot be pickled
            trace = str(error).partition("You can check full logs")[0].rstrip("-\n")
            self.why = f" ({_short(trace)})"
            return None

    def _log(self, job: Any) -> str:
        path = job.paths.stderr
        lines = path.read_text(errors="replace").splitlines() if path.exists() else []
        last = _short(" ".join(line for line in lines if not line.startswith("submitit INFO")))
        return f" ({last})" if last else ""

    def cancel(self) -> None:
        """Cancel all our jobs that have not ended."""
        subprocess.run(["scancel", f"--name={self.name}"], capture_output=True, check=False)


def do_all(do: Callable[[Task], Result], tasks: Sequence[Task]) -> Ended:
    """Apply `do` to the tasks, in a job, until one fails; returns the result or the error of each."""
    for number in (signal.SIGUSR2, signal.SIGTERM):  # submitit would raise an error inside a task, or ignore the signal
        signal.signal(number, signal.SIG_DFL)
    ended: Ended = []
    for task in tasks:
        try:
            ended.append((do(task), None))
        except Exception as error:
            return [*ended, (None, error)] + [(None, error)] * (len(tasks) - len(ended) - 1)
    return ended


def _short(text: str) -> str:
    """The end of a log in one line."""
    return " ".join(text.split())[-SHOWN:]
