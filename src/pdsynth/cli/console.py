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
TEXT = 40  # characters of a column of sentences there
PATHS = ("file", "source", "folder")  # headings of columns of paths, which are never cut


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
    from pdsynth.cohorts.cohort import by_action

    refused, noted = by_action(rows, lambda row: row[2])
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


def given(*options: str) -> list[str]:
    """The words of these options in the command that runs, each with its value; empty if none was given.

    options: names such as "--layout", of options that have one value.
    """
    words = iter(WORDS)
    found: list[str] = []
    for word in words:
        if word in options:
            found += [word, next(words, "")]
        elif word.partition("=")[0] in options:
            found.append(word)
    return found


def print_json(content: object) -> None:
    """Print a value on stdout as JSON, for a program. A path becomes a text."""
    print(json.dumps(content, indent=2, default=str))


def search_before_sharing(folder: Path) -> None:
    """Print the command that searches a folder for paths and identifiers, as the next one to run."""
    what = "paths, names of this machine and user, e-mail addresses and DICOM identifiers"
    rest = "ids of participants, names of files, free text and images are not searched"
    done(f"Before you share the folder, search it for {what} ({rest})", "doctor", "--privacy", folder)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table on stdout. columns: its headings; rows: one text per column.

    A text that is too long goes on in the next line: on a terminal, or if the environment variable COLUMNS gives a
    width, at this width. Elsewhere, such as in a file, a sentence goes on after 40 characters, between two words; a
    path is never cut there.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    limited = console.is_terminal or "COLUMNS" in os.environ
    grid = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        sentences = not limited and column not in PATHS
        words = (word for row in rows for word in row[number].split())
        most = max(TEXT, *map(len, words)) if sentences else None
        grid.add_column(column, overflow="fold", max_width=most)  # a path is never cut
    for row in rows:
        grid.add_row(*map(Text, row))
    if not limited:
        console = Console(width=WIDEST)
    console.print(grid)
