"""What a person sees: the error line, progress, tables, and what to run next."""

from __future__ import annotations

import logging
import shlex
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


def hush_libraries() -> None:
    """Keep other libraries' advice and warnings from a person who can do nothing about them."""
    warnings.simplefilter("ignore")
    logging.disable(logging.INFO)


def error_line(message: str, kind: str = "Error") -> None:
    """One red line on stderr; kind is its first word."""
    from rich.console import Console

    one_line = " ".join(message.split())
    Console(stderr=True).print(f"{kind}: {one_line}", style="red", markup=False, highlight=False, soft_wrap=True)


def done(what: str, *following: str | Path) -> None:
    """Say what was written and, where words follow, the command to run next."""
    from rich.console import Console

    console = Console()
    console.print(what, markup=False, highlight=False, soft_wrap=True)
    if following:
        command = shlex.join(["pdsynth", *map(str, following)])
        console.print(f"Next: {command}", style="green", markup=False, highlight=False, soft_wrap=True)


@contextmanager
def progress(description: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr with the time left; yields the function that is told (done, total), which shows it first."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=Console(stderr=True))
    task = bar.add_task(description, total=None)

    def told(completed: int, total: int) -> None:
        bar.start()
        bar.update(task, completed=completed, total=total)

    try:
        yield told
    finally:
        if bar.live.is_started:  # else it would print an empty line before an error
            bar.stop()


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table on stdout."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = Table(*columns, title=title, title_justify="left")
    for row in rows:
        shown.add_row(*map(Text, row))
    Console().print(shown)
