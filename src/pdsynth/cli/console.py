"""Terminal output: error lines, tables, and the next command to run."""

from __future__ import annotations

import json
import logging
import os
import shlex
import warnings
from collections.abc import Sequence
from pathlib import Path

LISTED = 30  # files that are printed
DRY_RUN = "--dry-run"
WORDS: list[str] = []  # of the command that runs, after `pdsynth`
WIDEST = 10_000  # characters of a line that no terminal limits


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


def refusals(rows: Sequence[tuple[str, ...]], ending: str) -> int:
    """Print a table of refused files, and a table of notes that may need no action; returns the number of the files.

    rows: path, reason and remedy of each refused file or note; at most 30 files are printed. ending: where all are.
    """
    from pdsynth.cohorts.cohort import asks_for_action

    refused = [row for row in rows if asks_for_action(row[2])]
    noted = [row for row in rows if not asks_for_action(row[2])]
    if refused:
        more = "" if len(refused) <= LISTED else f" (the first {LISTED} of {len(refused)}; {ending})"
        table(f"Refused files{more}", ("file", "reason", "remedy"), refused[:LISTED])
    if noted:
        table("Not refused: notes that may need nothing", ("file", "note", "remedy"), noted)
    return len(refused)


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


def without(option: str) -> list[str]:
    """The words of the command that runs, after `pdsynth`, without an option that has no value."""
    return [word for word in WORDS if word != option]


def print_json(content: object) -> None:
    """Print a value on stdout as JSON, for a program. A path becomes a text."""
    print(json.dumps(content, indent=2, default=str))


def search_before_sharing(folder: Path) -> None:
    """Print the command that searches a folder of results for identifiers, as the next one to run."""
    done("Before you share the folder, search it for identifiers", "doctor", "--privacy", folder)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table on stdout. columns: its headings; rows: one text per column.

    On a terminal, a text that is too long goes on in the next line. Elsewhere, such as in a file, each row is one line,
    unless the environment variable COLUMNS gives a width.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table(title=title, title_justify="left")
    for column in columns:
        grid.add_column(column, overflow="fold")  # a path is never cut
    for row in rows:
        grid.add_row(*map(Text, row))
    console = Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console = Console(width=WIDEST)
    console.print(grid)
