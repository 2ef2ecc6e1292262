"""Terminal output: error lines, progress bars, tables, and the next command to run."""

from __future__ import annotations

import logging
import shlex
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

LISTED = 30  # files that are printed


def hush_libraries() -> None:
    """Hide Python's warnings and all log messages up to the level INFO, which the user cannot act on.

    Of the library nibabel, only messages of the level CRITICAL remain.
    """
    warnings.simplefilter("ignore")
    logging.disable(logging.INFO)
    logging.getLogger("nibabel").setLevel(logging.CRITICAL)  # its messages on a header do not name the file


def error_line(message: str, kind: str = "Error") -> None:
    """Print a message as one red line on stderr, "kind: message"; line breaks in the message become spaces.

    kind: the first word, such as "Error" or "Warning".
    """
    from rich.console import Console

    one_line = " ".join(message.split())
    Console(stderr=True).print(f"{kind}: {one_line}", style="red", markup=False, highlight=False, soft_wrap=True)


def doubtful(scans: Sequence[Sequence[str]], ending: str = "") -> None:
    """Print a table of scans that are used although they are doubtful; nothing if there is none.

    scans: path and reason of each; at most 30 are printed. ending: text at the end of the title.
    """
    if scans:
        more = "" if len(scans) <= LISTED else f" (the first {LISTED} of {len(scans)})"
        table(f"Doubtful scans, which are used{more}{ending}", ("file", "why"), scans[:LISTED])


def done(message: str, *following: str | Path) -> None:
    """Print a message about finished work on stdout, and below it the command that the user may run next.

    following: the words of that command after `pdsynth`; if there is none, no command is printed.
    """
    from rich.console import Console

    console = Console()
    console.print(message, markup=False, highlight=False, soft_wrap=True)
    if following:
        command = shlex.join(["pdsynth", *map(str, following)])
        console.print(f"Next: {command}", style="green", markup=False, highlight=False, soft_wrap=True)


def search_before_sharing(folder: Path) -> None:
    """Print the command that searches a folder of results for identifiers, as the next one to run."""
    done("Before you share the folder, search it for identifiers", "doctor", "--privacy", folder)


@contextmanager
def progress(description: str) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar on stderr with the remaining time, until the block ends.

    Yields a function update(completed, total), which moves the bar. The bar appears at the first call of this function.
    description: text before the bar.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=Console(stderr=True))
    task = bar.add_task(description, total=None)

    def update(completed: int, total: int) -> None:
        bar.start()
        bar.update(task, completed=completed, total=total)

    try:
        yield update
    finally:
        if bar.live.is_started:  # a bar that has not started would print an empty line
            bar.stop()


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table on stdout. columns: its headings; rows: one text per column."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, title=title, title_justify="left")
    for row in rows:
        table.add_row(*map(Text, row))
    Console().print(table)
