"""Progress of long work on stderr, with the time left: a bar on a terminal, a plain line now and then in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from threading import Event, Thread
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

WRITING = "writing the folder"  # the work after the last item, tables and pages included
FIRST, EVERY = 5.0, 30.0  # seconds from the start to the first line in a log, and between two lines
_BARS: list[Progress] = []  # the one on the screen, to which work inside other work adds its own bar


class Update(Protocol):
    """The function that `progress` yields."""

    def __call__(self, completed: float, total: float | None, note: str = "") -> None:
        """Show that a part of the work is done.

        completed, total: numbers of items; for a total of 1, `completed` is the fraction that is done. None: the number
        is not known, and the time since the start is shown. After the last item, the time since then is shown, with
        the work that is left. note: text after the time, such as the value of a loss.
        """


@contextmanager
def progress(description: str, last: str = "finishing") -> Iterator[Update]:
    """Show the progress of the work in the block on stderr, with the time left; yields an `Update` function.

    On a terminal, it is a bar, which appears at the first call of this function and is removed at the end. Elsewhere,
    such as in a log file, it is a plain line after 5 s and then every 30 s, without the time left if an item takes
    longer than all that are left were expected to take. description: text before the bar. last: the work of the block
    after the last item.
    """
    console, words = Console(stderr=True), (description, last)
    display: AbstractContextManager[Update] = _bar(console, *words) if console.is_terminal else _lines(*words)
    with display as update:
        yield update


@contextmanager
def working(description: str) -> Iterator[None]:
    """Show that the work in the block goes on, and since when, if the amount of work is not known."""
    with progress(description) as update:
        update(0, None)
        yield


@contextmanager
def _bar(console: Console, description: str, last: str) -> Iterator[Update]:
    outer = _BARS[-1] if _BARS else None
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[state]}"), _Time())
    bars = outer or Progress(*columns, TextColumn("{task.fields[note]}"), console=console, transient=True)
    task = bars.add_task(description, total=None, visible=False, state="", note="", last=last)

    def update(completed: float, total: float | None, note: str = "") -> None:
        bars.start()
        bars.update(task, completed=completed, total=total, visible=True, state=_state(completed, total), note=note)

    if outer is None:
        _BARS.append(bars)
    try:
        yield update
    finally:
        bars.remove_task(task)
        if outer is None:
            _BARS.remove(bars)
            if bars.live.is_started:  # a bar that has not started would print an empty line
                bars.stop()


class _Time(ProgressColumn):
    """The time left, or the time since the start if the amount of work is not known, or that since the last item."""

    def render(self, task: Task) -> Text:
        elapsed = task.elapsed or 0.0
        if task.finished_time is not None:
            return Text(_finishing(task.fields["last"], elapsed - task.finished_time))
        return Text(_time(elapsed, None if task.total is None else task.time_remaining))


@contextmanager
def _lines(description: str, last: str) -> Iterator[Update]:
    start, ended = time.monotonic(), Event()
    first: tuple[float, float] | None = None  # when work was first reported as done, and how much was: resumed work
    finished: float | None = None  # when the last item was done
    state, end, remark = "", None, ""  # end: when all items are expected to be done

    def update(completed: float, total: float | None, note: str = "") -> None:
        nonlocal first, finished, state, end, remark
        now, state, remark = time.monotonic(), _state(completed, total), note
        first = first or (now, completed)
        finished = now if total is not None and completed >= total else None
        done = completed - first[1]
        end = None if total is None or done <= 0 else now + (now - first[0]) / done * (total - completed)

    def tell() -> None:
        pause = FIRST
        while not ended.wait(pause):
            now, ending = time.monotonic(), finished
            left = None if end is None or end <= now else end - now
            since = _time(now - start, left) if ending is None else _finishing(last, now - ending)
            words = filter(None, [state, since, remark])
            print(f"{description}: {', '.join(words)}", file=sys.stderr, flush=True)
            pause = EVERY

    teller = Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield update
    finally:
        ended.set()
        teller.join()


def _state(completed: float, total: float | None) -> str:
    """The part of the work that is done, as text.

    >>> _state(3, 20), _state(0.25, 1), _state(0, None)
    ('3 of 20', '25 %', '')
    """
    if total is None:
        return ""
    return f"{100 * completed:.0f} %" if total == 1 else f"{completed:g} of {total:g}"


def _time(elapsed: float, left: float | None) -> str:
    """The time left as text, or the time since the start if it is not known; both in seconds.

    >>> _time(10, 200), _time(5, None)
    ('about 3.3 min left', '5 s so far')
    """
    return f"{_duration(elapsed)} so far" if left is None else f"about {_duration(left)} left"


def _finishing(last: str, elapsed: float) -> str:
    """The work after the last item, and the time since then, in seconds, as text.

    >>> _finishing("writing the folder", 65)
    'writing the folder, 65 s so far'
    """
    return f"{last}, {_time(elapsed, None)}"


def _duration(seconds: float) -> str:
    """A time in words, in one unit; below 10 minutes, a time of half a minute later reads differently.

    >>> _duration(40), _duration(130), _duration(3000), _duration(5 * 3600)
    ('40 s', '2.2 min', '50 min', '5.0 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 600:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
