"""Settings of a cluster, from pdsynth.yaml or the command line, and the limited wait for an idle cluster."""

from __future__ import annotations

import logging
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict

from pdsynth.resources import seconds
from pdsynth.schemas import SETTINGS, check, read_yaml
from pdsynth.types import InputError

REMEDY = "correct it as in the docs (Use a cluster)"
CLUSTER = "cluster"  # entry of pdsynth.yaml
SETUP = "setup"
LONGEST_PAUSE = 10.0  # seconds between two looks at a cluster
FIRST_PAUSE = 0.1
REMOVALS = 50  # attempts to remove a folder of jobs, in 5 s
log = logging.getLogger(__name__)


def _matching(pattern: str, example: str) -> Callable[[str], str]:
    def validated(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(f"write it such as {example}")
        return text

    return validated


def _time(text: str) -> str:
    seconds(text)
    return text


def _line(text: str) -> str:
    if not text.strip() or "\n" in text:
        raise ValueError("write one shell command per line")
    return text


Name = Annotated[str, AfterValidator(_matching(r"[\w.,+:@/-]+", "long"))]
Memory = Annotated[str, AfterValidator(_matching(r"[1-9]\d*[MGT]B", "8GB"))]
Time = Annotated[str, AfterValidator(_time)]
Line = Annotated[str, AfterValidator(_line)]


class Cluster(BaseModel):
    """The settings of a cluster's jobs. They are the entry `cluster` of pdsynth.yaml, or values of --cluster.

    partition, account: of the jobs of Slurm; None for the user's default. memory, time: limits of each job, such as
    8GB and 12h. setup: shell commands that each job runs first, such as "module load python". wait: longest time, such
    as 90s or 12h, in which no job or worker runs, before the command ends with an error. folder: a folder that all
    machines see, for the files of the jobs; None for ~/.cache/pdsynth. dask uses wait and folder only.

    >>> Cluster(wait="90s").patience
    90.0
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    partition: Name | None = None
    account: Name | None = None
    memory: Memory = "8GB"
    time: Time = "12h"
    setup: list[Line] = []
    wait: Time = "1m"
    folder: str | None = None

    @property
    def patience(self) -> float:
        """The longest wait, in seconds."""
        return seconds(self.wait)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """Yield a new folder that all machines see and only this user can read; it is removed at the end."""
        parent = Path(self.folder).expanduser() if self.folder else Path.home() / ".cache" / "pdsynth"
        parent = parent.absolute()
        parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="jobs-", dir=parent))
        try:
            yield folder
        finally:
            for _ in range(REMOVALS):  # a job that was cancelled just now may still write into it
                shutil.rmtree(folder, ignore_errors=True)
                if not folder.exists():
                    break
                time.sleep(0.1)


def cluster_settings(given: Sequence[str] = (), inputs: Sequence[Path] = ()) -> Cluster:
    """The settings of the file pdsynth.yaml in the working directory, changed by texts such as "partition=long".

    given: texts NAME=VALUE; of setup, which may be repeated, each adds a command. inputs: the datasets and folders that
    the command reads. Raises InputError for settings that do not fit, and for a file in one of the inputs, because its
    author, who may be somebody else, could run any command by `setup`. Raises ValueError for a text without "=".

    >>> cluster_settings(["memory=16GB"]).memory
    '16GB'
    """
    changed: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"--cluster {text} has no value. Write NAME=VALUE, such as partition=long.")
        changed[name] = [*changed.get(name, []), value] if name == SETUP else value
    check(changed, Cluster, Path("--cluster"), REMEDY)
    return Cluster(**(_of_file(Path(SETTINGS), inputs) | changed))


def _of_file(path: Path, inputs: Sequence[Path]) -> dict[str, Any]:
    content = read_yaml(path, REMEDY) if path.exists() else None
    if not isinstance(content, dict) or CLUSTER not in content:
        return {}
    here = path.absolute().parent.resolve()
    for given in inputs:
        if here.is_relative_to(given.resolve()):
            problem = f"has settings of a cluster and is in the input {given}, whose author could run commands by them"
            raise InputError(path, problem, f"start pdsynth in another folder, with this entry in its {SETTINGS}")
    check(content, dict[str, Any], path, REMEDY)
    check({CLUSTER: content[CLUSTER]}, _File, path, REMEDY)
    return dict(content[CLUSTER])


class _File(BaseModel):
    cluster: Cluster


@dataclass
class Patience:
    """A wait for a cluster, whose reason is said on stderr, and which ends with InputError after its longest time.

    cluster: name of the cluster for messages, such as "Slurm". settings: with the longest wait.
    """

    cluster: str
    settings: Cluster
    last: float = field(default_factory=time.monotonic)  # time at which the cluster last worked
    reported: str = ""
    pause: float = FIRST_PAUSE

    def works(self) -> None:
        """Note that the cluster works: a task has ended, or a job or worker runs."""
        self.last, self.reported = time.monotonic(), ""

    def idles(self, reason: str) -> None:
        """Note that the cluster does not work, and why. Raises InputError if this has lasted too long."""
        if reason != self.reported:
            log.warning("Waiting for %s, at most %s (--cluster wait=): %s.", self.cluster, self.settings.wait, reason)
            self.reported = reason
        if time.monotonic() - self.last > self.settings.patience:
            problem = f"did nothing for {self.settings.wait}: {reason}"
            remedy = "look why, or wait longer, such as with --cluster wait=12h"
            raise InputError(self.cluster, problem, remedy)

    def next_pause(self, ended: bool) -> float:
        """Seconds until the next look at the cluster: short after a task has ended, then longer and longer.

        >>> Patience("Slurm", Cluster()).next_pause(ended=True)
        0.1
        """
        self.pause = FIRST_PAUSE if ended else min(1.5 * self.pause, self.longest_pause)
        return self.pause

    @property
    def longest_pause(self) -> float:
        """The longest time between two looks at the cluster, in seconds."""
        return min(LONGEST_PAUSE, self.settings.patience / 5)


class LostTaskError(InputError):
    """The jobs or workers of a task were lost again and again; all other tasks have ended."""


def refuse_lost(names: Sequence[str | Path], where: str) -> None:
    """Raise LostTaskError for tasks whose jobs or workers were lost again and again; nothing if there are none.

    names: of the tasks. where: the cluster, and the end of its jobs, in words.
    """
    if names:
        others = "" if len(names) == 1 else f" (so were {len(names) - 1} others, such as {names[1]})"
        problem = f"was being processed when {where}, possibly for lack of memory or time{others}"
        remedy = "check the setup of the jobs, give them more --cluster memory= or time=, or leave this scan out"
        raise LostTaskError(names[0], problem, remedy)
