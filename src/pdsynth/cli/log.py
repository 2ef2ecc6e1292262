"""The log of a command: all that it prints, with its start, its end and the traceback of an error, in a text file."""

from __future__ import annotations

import re
import shlex
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from datetime import datetime
from pathlib import Path
from typing import TextIO, cast

import pdsynth

OPTION, VARIABLE = "--log", "PDSYNTH_LOG"
Trace = Callable[[BaseException], None]
STYLE = re.compile(r"\x1b\[[0-9;]*m")


class _Copied:
    """A stream that is written to the screen and, without colours, to the log. It is not a terminal, so no bars."""

    def __init__(self, screen: TextIO, log: TextIO) -> None:
        self.screen, self.log, self.encoding = screen, log, screen.encoding

    def write(self, text: str) -> int:
        self.log.write(STYLE.sub("", text))
        return self.screen.write(text)

    def flush(self) -> None:
        self.log.flush()
        self.screen.flush()

    def isatty(self) -> bool:
        return False


def log_file(words: Sequence[str], environment: str | None) -> tuple[list[str], Path | None]:
    """Take the option --log from the words of a command; returns the other words, and the file, or None for no log.

    environment: the value of PDSYNTH_LOG, which counts without the option. Raises ValueError for --log without a file.

    >>> log_file(["prepare", "--log", "a.log", "study"], None)
    (['prepare', 'study'], PosixPath('a.log'))
    >>> log_file(["prepare", "study"], None)
    (['prepare', 'study'], None)
    """
    others, found, given = [], environment, iter(words)
    for word in given:
        if word == OPTION or word.startswith(f"{OPTION}="):
            found = word.partition("=")[2] or next(given, None)
            if not found:
                raise ValueError("--log has no file. Write it as --log FILE.")
        else:
            others.append(word)
    return others, Path(found) if found else None


@contextmanager
def logged(path: Path | None, words: Sequence[str]) -> Iterator[Trace]:
    """Append all that the block prints to a file, with its start, its end and its exit status.

    Yields a function that writes the traceback of an error into the log alone. path: of the file; None for no log.
    words: of the command, after `pdsynth`. Raises OSError, before the block begins, if the file cannot be written.
    """
    if path is None:
        yield lambda error: None
        return
    with path.open("a", encoding="utf-8", buffering=1) as log:
        start, status = time.monotonic(), "of an error"
        log.write(f"{_now()} pdsynth {pdsynth.__version__}: {shlex.join(['pdsynth', *words])}\n")
        screen = cast(TextIO, _Copied(sys.stdout, log)), cast(TextIO, _Copied(sys.stderr, log))
        try:
            with redirect_stdout(screen[0]), redirect_stderr(screen[1]):
                yield lambda error: traceback.print_exception(error, file=log)
        except SystemExit as end:
            status = f"{end.code or 0}"
            raise
        finally:
            log.write(f"{_now()} ended with status {status} after {time.monotonic() - start:.0f} s\n")


def _now() -> str:
    return datetime.now().isoformat(" ", "seconds")
