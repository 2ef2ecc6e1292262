"""The files below a folder, at every level. Links to folders are followed, and a cycle of links is left."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pdsynth.resources import stops_run

MOST_LINKS = 4  # links to folders inside one another
ANNEX = re.compile(r"[/\\]annex[/\\]objects[/\\]")  # in the target of a link that git-annex wrote
NOT_FETCHED = "is a link of git-annex whose content is not on this disk"
DANGLING = "is a link to a file that does not exist"
SPECIAL = "is neither a file nor a folder"
LOOP = "is a link to a folder that contains it"
NESTED = f"is the link to a folder below {MOST_LINKS} other links to folders"
SYSTEM_FOLDERS = {"__MACOSX", "@eaDir", "$RECYCLE.BIN", "lost+found"}  # and those whose names begin with a dot
UNLISTED = "is a folder that cannot be listed"


class Found(NamedTuple):
    """A file below a folder, or a folder that is not entered.

    path: its path. dirs: names of the folders from below the folder where `walk` began down to the file's own folder;
    empty if the file lies directly in it. name: its own name. problem: why it cannot be read, in words; None if no
    problem is known. whole: true for a folder that is not entered, because it cannot be read, is a link that is not
    followed, or is one of the system or of git.
    """

    path: Path
    dirs: tuple[str, ...]
    name: str
    problem: str | None = None
    whole: bool = False


def walk(folder: Path) -> Iterator[Found]:
    """Yield each file below a folder at every level: those of a folder by name, then those of its subfolders.

    Links to folders are followed, but not to a folder that contains the link, nor below four other links. A folder that
    is not entered, and a link that leads nowhere, are yielded in place of files, with their problem, if any. This
    includes `folder` itself, if it does not exist. Raises OSError only if it would concern every folder, such as a lost
    disk.
    """
    stack: list[tuple[str, tuple[str, ...], tuple[str, ...]]] = [(str(folder), (), ())]
    while stack:
        place, dirs, links = stack.pop()
        try:
            with os.scandir(place) as entries:
                listed = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            if stops_run(error):
                raise
            reason = f"{UNLISTED} ({error.strerror})"
            yield Found(Path(place), dirs[:-1], dirs[-1] if dirs else folder.name, reason, whole=True)
            continue
        below: list[tuple[str, tuple[str, ...], tuple[str, ...]]] = []
        for entry in listed:
            linked = entry.is_symlink()
            if _is_folder(entry):
                problem = _link_problem(entry.path, place, links) if linked else None
                if problem is not None or is_system(entry.name):
                    yield Found(Path(entry.path), dirs, entry.name, problem, whole=True)
                else:
                    chain = (*links, os.path.realpath(entry.path)) if linked else links
                    below.append((entry.path, (*dirs, entry.name), chain))
            else:
                yield Found(Path(entry.path), dirs, entry.name, _file_problem(entry))
        stack.extend(reversed(below))


def is_system(name: str) -> bool:
    """Whether a folder, by its name, belongs to the system or to version control, such as .git or __MACOSX.

    So does each name that begins with a dot, and @eaDir, $RECYCLE.BIN and lost+found.
    """
    return name.startswith(".") or name in SYSTEM_FOLDERS


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or into a folder that may not be entered
        return False


def _link_problem(path: str, place: str, links: tuple[str, ...]) -> str | None:
    """The reason why a link to a folder, in the folder `place`, is not followed; None if it is followed."""
    target, here = os.path.realpath(path), os.path.realpath(place)
    if target in links or os.path.join(here, "").startswith(os.path.join(target, "")):
        return LOOP
    return NESTED if len(links) == MOST_LINKS else None


def _file_problem(entry: os.DirEntry[str]) -> str | None:
    try:
        if entry.is_file():
            return None
        if not entry.is_symlink():
            return SPECIAL
        return NOT_FETCHED if ANNEX.search(os.readlink(entry.path)) else DANGLING
    except OSError as error:
        if stops_run(error):
            raise
        return f"cannot be read ({error.strerror})"
