"""The choice of one scan among several of a session: one rule per modality, as data, and the option --select.

The criteria of a modality are compared in order; the first in which two scans differ decides.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from pdsynth.cohorts.cohort import Scan
from pdsynth.cohorts.names import entities
from pdsynth.imaging.segments import nearest_shell, read_gradients
from pdsynth.types import Modality

BVALUE = 1000.0  # s/mm^2, of the shell that is preferred
SHELL_STEP = 100.0  # s/mm^2; shells whose distances from it differ by less are equally near
ECHO_MS = 30.0  # near T2* of grey matter at 3 T, where BOLD contrast is largest; single-echo protocols use it
ECHO_NUMBER = 2  # of the echoes of unknown time; the second of three is nearest to ECHO_MS
RESTING = re.compile(r"rest|rs", re.IGNORECASE)  # the beginning of the task entity of a resting-state scan
ENDED_ECHO = re.compile(r"_e(\d+)$")  # as dcm2niix ends a name
SELECTABLE = ("task", "acq", "ce", "rec", "dir", "run", "echo", "space", "res", "desc")


@dataclass(frozen=True)
class Candidate:
    """A usable scan, with the facts by which it is compared with the other scans of its session and modality.

    volumes: number of its 3D volumes. echo_ms: its echo time in ms; None if the time is unknown, or if the file name
    has no echo number. preference: number of keys that the user gave by the option --select (such as run in run=1) and
    that the file name lacks.
    """

    scan: Scan
    volumes: int
    echo_ms: float | None = None
    preference: int = 0  # number of entities of --select that its name lacks

    @property
    def entities(self) -> dict[str, str]:
        return entities(self.scan.path.name)

    @property
    def echo(self) -> int | None:
        """Number of the echo by the file name (echo-2, or _e2 at its end); None if the name has no such number."""
        ended = ENDED_ECHO.search(self.scan.path.name.split(".")[0])
        text = self.entities.get("echo") or (ended[1] if ended else "")
        return int(text) if text.isdecimal() else None

    @cached_property
    def shell(self) -> tuple[int, int]:
        """Sort key of a dMRI scan, (distance, -volumes), of its shell nearest to 1000 s/mm^2; the lowest is preferred.

        distance: between the shell's median b-value and 1000 s/mm^2, in steps of 100 s/mm^2, rounded down. volumes:
        number of volumes in the shell. Raises InputError if the gradient tables cannot be read, and ValueError if no
        volume is diffusion-weighted.
        """
        scan = self.scan
        gradients = read_gradients(scan.bval, scan.bvec, self.volumes, scan.path)
        members, bvalue = nearest_shell(gradients.bvals, BVALUE)
        return int(abs(bvalue - BVALUE) / SHELL_STEP), -len(members)


@dataclass(frozen=True)
class Criterion:
    """A criterion by which one of several scans of a session is chosen; the criteria of a modality apply in order.

    name: its name, for messages. prefers: the preferred scan in words, for messages. key: function of a `Candidate`, a
    usable scan with its facts; the scan for which it returns the lowest value is preferred.
    """

    name: str
    prefers: str
    key: Callable[[Candidate], Any]


def _task(candidate: Candidate) -> int:
    task = candidate.entities.get("task")
    return 1 if task is None else 0 if RESTING.match(task) else 2


def _description(candidate: Candidate) -> int:
    return {"preproc": 0, None: 1}.get(candidate.entities.get("desc"), 2)


def _echo(candidate: Candidate) -> float:
    if candidate.echo is None:
        return -1.0
    if candidate.echo_ms is None:
        return float(abs(candidate.echo - ECHO_NUMBER))
    return abs(candidate.echo_ms - ECHO_MS)


def _run(candidate: Candidate) -> int:
    run = candidate.entities.get("run", "0")
    return int(run) if run.isdecimal() else 0


SELECTED = Criterion("selection", "a scan whose name has the entities of `--select`", lambda c: c.preference)
SPACE = Criterion("space", "MNI152 space", lambda c: not c.scan.in_mni)
DESCRIPTION = Criterion("description", "`desc-preproc`, then no `desc`", _description)
RUN = Criterion("run", "the first run", _run)
NAME = Criterion("name", "the first in alphabetical order, if all else is equal", lambda c: str(c.scan.path))
CRITERIA: dict[Modality, tuple[Criterion, ...]] = {
    Modality.FMRI: (
        SELECTED,
        Criterion("task", "a task that begins with rest or rs, then no task", _task),
        SPACE,
        DESCRIPTION,
        Criterion("echo", "echoes that are combined, then the echo nearest 30 ms, of unknown times the second", _echo),
        Criterion("length", "the most volumes", lambda c: -c.volumes),
        RUN,
        NAME,
    ),
    Modality.DMRI: (
        SELECTED,
        SPACE,
        DESCRIPTION,
        Criterion("shell", "the shell nearest 1000 s/mm^2, in steps of 100", lambda c: c.shell[0]),
        Criterion("directions", "the most volumes in this shell", lambda c: c.shell[1]),
        Criterion("length", "the most volumes", lambda c: -c.volumes),
        RUN,
        NAME,
    ),
}


def best(candidates: Sequence[Candidate], modality: Modality) -> tuple[Candidate, dict[str, str]]:
    """Choose one of several scans of a session and modality by the criteria of this modality, CRITERIA[modality].

    They are compared in order, such as the task, the space and the number of volumes. The first criterion in which two
    scans differ decides between them. candidates: one scan or more. Returns the chosen candidate, and a dict with one
    item per other scan: its path, as a text, and the reason in words why it is not needed. Echo times are compared only
    if they are known for all scans with an echo number; otherwise the echo numbers are compared, and echo_ms of the
    returned candidate is None. Raises as `Candidate.shell` for several dMRI scans.
    """
    if len(candidates) == 1:
        return candidates[0], {}
    criteria = CRITERIA[modality]
    if any(c.echo is not None and c.echo_ms is None for c in candidates):
        candidates = [replace(candidate, echo_ms=None) for candidate in candidates]
    keys = {str(c.scan.path): tuple(criterion.key(c) for criterion in criteria) for c in candidates}
    chosen = min(candidates, key=lambda c: keys[str(c.scan.path)])
    winner = keys.pop(str(chosen.scan.path))
    rules = {}
    for path, key in keys.items():
        decides = next(c for c, own, its in zip(criteria, key, winner, strict=True) if own != its)
        rules[path] = f"another scan is preferred by its {decides.name}: {decides.prefers}"
    return chosen, rules


@dataclass(frozen=True)
class Select:
    """A selection of scans by the key-value pairs (entities) of their file names: the option --select.

    values: the selected value of each key, such as {"task": "rest", "run": "1"}; empty to leave out no scan. A scan
    whose name has another value of one of these keys is left out. Of the other scans, those whose names lack the fewest
    of these keys are preferred. Numbers are equal with and without leading zeros.

    >>> Select.parse("task=rest,run=1").left_out("sub-1_task-rest_run-02_bold.nii.gz")
    'run=1'
    """

    values: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str | None) -> Select:
        """The selection that a text such as task=rest,run=1 describes. None and an empty text leave out no scan.

        Of a repeated key, the last value counts. Raises ValueError if the text is not such a list, or if a key is not
        in `SELECTABLE` (task, acq, ce, rec, dir, run, echo, space, res, desc).
        """
        if not text:
            return cls()
        pairs = [part.strip().partition("=") for part in text.split(",")]
        for name, _, value in pairs:
            if name not in SELECTABLE or not value:
                known = ", ".join(SELECTABLE)
                raise ValueError(f"--select {text!r} is not a list such as task=rest,run=1. The entities are {known}.")
        return cls({name: value for name, _, value in pairs})

    def left_out(self, name: str) -> str | None:
        """The first part of the selection, as "run=1", that a file name contradicts; None if it contradicts no part.

        A name without a key does not contradict it.
        """
        found = entities(name)
        return next((f"{k}={v}" for k, v in self.values.items() if k in found and not _equal(found[k], v)), None)

    def lacks(self, name: str) -> int:
        """Number of the selected keys, such as task or run, that do not occur in a file name."""
        return len(self.values.keys() - entities(name).keys())


def _equal(one: str, other: str) -> bool:
    """Whether two values of an entity are equal; numbers may have leading zeros."""
    return int(one) == int(other) if one.isdecimal() and other.isdecimal() else one == other


ANY = Select()
