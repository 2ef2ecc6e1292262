"""The tasks of the process that synthesises for the page. This module imports no torch: only that process loads it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from pdsynth.cohorts.cohort import Scan
from pdsynth.resources import stops_run
from pdsynth.serve.uploads import problem_line
from pdsynth.types import InputError, Modality
from pdsynth.workers import Workers

SCANS, PAGE, STEPS_FILE = "scans", "page.html", "steps.txt"  # in the folder of a job
STEPS = 8  # of a synthesis; in the last one its files are written
AGAIN = "make room in memory or on the disk, and drop the scan again"


def load(model: str, device: str) -> None:
    """Load the model ahead of the first scan. Raises the errors of `Model.load`."""
    from pdsynth.serve.result import loaded

    loaded(model, device)


def synthesise(model: str, device: str, folder: Path, name: str, to: Modality) -> str:
    """Synthesise from one scan of a job's folder; returns "", or why the scan cannot be used, as one line.

    name: file name of the scan in `folder`/scans. to: the modality to synthesise. Writes into `folder` volume and SD
    with their sidecars, the zip file of them, the page with the viewer and, line by line, the steps.
    """
    from pdsynth.serve.result import loaded, make

    path = folder / SCANS / name
    with _steps(folder / STEPS_FILE):
        try:
            work = partial(make, model, device, folder / PAGE, to)
            list(Workers().run(work, [path], start=partial(loaded, model, device)))  # with one thread, as the verb does
        except Exception as error:
            return problem_line(_refusal(path, to, error))
    return ""


def _refusal(path: Path, to: Modality, error: Exception) -> InputError:
    """The error as that of the scan, also if the machine lacks memory or room on the disk."""
    if stops_run(error):
        detail = " ".join(str(getattr(error, "strerror", None) or error or type(error).__name__).split()[:30])
        return InputError(path, f"was stopped by this machine ({detail})", AGAIN)
    from pdsynth.data.standardise import refused

    return refused(Scan(to.other, path), error)


@contextmanager
def _steps(path: Path) -> Iterator[None]:
    """Write the message of every step into a file as it begins, one per line."""
    handler, log = logging.FileHandler(path, encoding="utf-8"), logging.getLogger("pdsynth")
    before = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.setLevel(before)
        log.removeHandler(handler)
        handler.close()
