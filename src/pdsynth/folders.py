"""One way to write a folder, for every verb: complete beside its place, exchanged in one step, replaced by its list.

Work on OUT happens in the workspace `OUT.partial`: a mark that says that pdsynth made it, a lock, and the folder in the
making, under its name. When it is complete, it gets an inventory of its files, is synced to the disk and exchanged with
OUT; the old folder is removed last, by its own inventory and nothing besides. What is not in an inventory is never
removed: a folder that holds such a file, or one of ours that was edited, is refused, and the file is named.
"""

from __future__ import annotations

import logging
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pdsynth import manifest
from pdsynth.files import PARTIAL, linked, read_json, sha256, sync, write_json
from pdsynth.types import InputError
from pdsynth.workspace import (
    MARK,
    being_added,
    discard,
    exchange,
    ignored,
    mark,
    new_of,
    settle,
    space_of,
    workspace,
)

LINKED = 16 << 20  # bytes; larger files are linked into a new folder, as nothing writes them in place
LONGEST = 240  # bytes of a name, so that the workspace's can be longer
EXISTS, REPLACE = "exists already", "choose another folder, or replace it with --overwrite"
STOPPED = "holds what a run that was stopped has made"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Work:
    """A folder in the making: write into `folder`, which is empty, or holds what there was before."""

    folder: Path


@contextmanager
def making(
    out: Path,
    *,
    overwrite: bool = False,
    update: bool = False,
    resume: str | None = None,
    go_on: bool = True,
    again: Callable[[dict[str, Any]], None] | None = None,
    inputs: Sequence[Path] = (),
) -> Iterator[Work]:
    """The folder that becomes `out` when the block ends well, with an inventory in its manifest.

    overwrite: a folder of ours may be replaced. update: work begins from the files of `out`, where there is one, and
    what differs is exchanged. resume: what to do to go on, in words, where a stopped run can: then what it made is
    kept, and the next run begins from it, if it is to go_on; without, it is removed. again(manifest) raises
    where what is to be updated or gone on with was made in another way. inputs: what the run reads, which must not lie
    in `out`.

    Raises InputError, before anything is changed, where `out` holds what pdsynth did not write or what was edited
    since, where it is of an older version without an inventory, where it is ours and neither overwrite nor update is
    given, and where another run is at it.
    """
    out = _apart(out, inputs)
    with workspace(out) as space:
        settle(space, out)
        there = refuse_foreign(
            out
        )  # as it is now: before the lock, or what a killed run had to end, it may have differed
        if there and not (overwrite or update):
            raise InputError(out, EXISTS, REPLACE)
        new = new_of(space)
        begun = bool(manifest.read(new))  # else it was killed before anything was made
        goes_on = begun and resume is not None and not overwrite
        if goes_on and not go_on:
            raise InputError(space, STOPPED, f"{resume}, or begin anew with --overwrite")
        if begun:
            log.warning("%s %s; %s.", space, STOPPED, "this run goes on with it" if goes_on else "it is removed")
        if new.exists() and not goes_on:
            discard(new)  # it has lain in a workspace of ours, and never was anybody's folder
        if again is not None and (goes_on or (there and update and not overwrite)):
            again(manifest.read(new if goes_on else out))
        if not new.exists():
            new.mkdir()
            if update and not overwrite:
                _take_over(out, new, there)
        try:
            yield Work(new)
        except BaseException as error:
            if resume is None or not new.exists() or not any(new.iterdir()):
                discard(new)
                kept = f"{out} is as it was before."
            else:
                how = f"{resume}, without --overwrite" if overwrite else resume
                kept = f"What is made is kept in {space}; to go on, {how}."
            if resume is not None or not isinstance(error, ValueError):  # bad input says itself what to do
                error.add_note(kept)
            raise
        seal(new)
        exchange(space, out)
        settle(space, out)


def refuse_occupied(out: Path, replace: bool, inputs: Sequence[Path] = ()) -> None:
    """Raise the InputError that `making` would raise, before hours of work, and change nothing."""
    there = _apart(out, inputs)
    if not there.parent.exists() or being_added(there):  # which the run will bring to its end first
        return
    if refuse_foreign(there) and not replace:
        raise InputError(out, EXISTS, REPLACE)


def _apart(out: Path, inputs: Sequence[Path]) -> Path:
    """The place of a folder; InputError where it holds what the run reads."""
    there = place(out)
    if any(path.resolve().is_relative_to(there) for path in inputs):
        raise InputError(out, "holds what this run reads", "choose another folder to write")
    return there


@contextmanager
def adding(out: Path) -> Iterator[Path]:
    """A copy of the folder `out`, of which what the block adds or changes gets into `out` when it ends well.

    `out` keeps its place, so that a shell that stands in it stands there still. Raises InputError as `making` does, and
    where there is no such folder.
    """
    out = place(out, here=True)
    with workspace(out) as space:
        settle(space, out)
        there = refuse_foreign(out)
        if not there:
            raise InputError(out, "holds nothing of pdsynth's", "name a folder that pdsynth has written")
        new = new_of(space)
        discard(new)
        new.mkdir()
        _take_over(out, new, there)
        try:
            yield new
        except BaseException:
            discard(new)
            raise
        seal(new)
        mark(space, "adding")
        settle(space, out)


def stopped(out: Path) -> bool:
    """Whether a run on `out` was stopped, or is on: whether it has a workspace with something in it."""
    space = space_of(place(out))
    return new_of(space).exists() and read_json(space / MARK).get("made_by") == manifest.MADE_BY


def place(out: Path, here: bool = False) -> Path:
    """Where a folder is to be: links resolved. InputError for the folder of the caller (unless here), or a disk."""
    try:
        resolved = out.resolve()
        occupied = resolved.exists() and not resolved.is_dir()
        mounted = os.path.ismount(resolved)
        standing = resolved == Path.cwd()
    except (OSError, RuntimeError) as error:  # a name too long, or a circle of links
        raise InputError(out, f"can be no folder ({getattr(error, 'strerror', error)})", "choose another") from error
    if len(os.fsencode(resolved.name)) > LONGEST:
        raise InputError(out, "has too long a name", f"choose one of at most {LONGEST} bytes")
    if occupied:
        raise InputError(out, "is a file", "choose another name for the folder")
    if mounted:
        raise InputError(out, "is the top folder of a disk", "name a new folder in it")
    if standing and not here:
        raise InputError(out, "is the folder in which you are", "name a new folder in it")
    return resolved


def refuse_foreign(out: Path) -> dict[str, os.stat_result]:
    """The files of a folder as its inventory lists them, by path; none where `out` is absent or empty.

    Raises InputError, naming the file, where one is not of pdsynth or was edited, and for a folder that has no
    inventory.
    """
    found = dict(_walk(out)) if out.exists() else {}
    if not found:
        return {}
    entries = manifest.read(out)
    if not manifest.made_by_pdsynth(entries):
        raise InputError(out, "exists and was not written by pdsynth", "choose another folder")
    if not isinstance(entries.get(manifest.FILES), dict):
        version = entries.get("version", "?")
        problem = f"was written by pdsynth {version}, which kept no list of its files: it is read, but never replaced"
        raise InputError(out, problem, "choose another folder, or remove this one yourself")
    if entries.get(manifest.SEAL) != manifest.seal_of(entries):
        raise InputError(out / manifest.NAME, "was edited", "restore it, or choose another folder")
    if not os.access(out, os.W_OK | os.X_OK):
        raise InputError(out, "cannot be written", "ask for permission, or choose another folder")
    files = entries[manifest.FILES]
    folders = {parent.as_posix() for name in files for parent in Path(name).parents}
    for name, about in found.items():
        if stat.S_ISDIR(about.st_mode):
            ours = name in folders or _holds_ignored_alone(out / name)
        else:
            ours = name == manifest.NAME or name in files
        if not ours:
            raise InputError(out / name, "is not pdsynth's", "move it out of the folder, or choose another one")
        if stat.S_ISDIR(about.st_mode):
            continue
        if not stat.S_ISREG(about.st_mode) or (name != manifest.NAME and sha256(out / name) != files[name]):
            raise InputError(out / name, "was edited since pdsynth wrote it", "move it away, or choose another folder")
    return {name: about for name, about in found.items() if stat.S_ISREG(about.st_mode)}


def seal(folder: Path) -> None:
    """Give a folder that is complete the inventory of its files, and have the disk hold all of it."""
    for path in sorted(folder.rglob("*"), reverse=True):  # folders after what they hold
        if path.is_dir() and not path.is_symlink():
            with suppress(OSError):
                path.rmdir()  # an empty one would not be in the inventory
        elif path.name.startswith(PARTIAL):
            path.unlink()  # of a run that was killed
    found = dict(_walk(folder))
    files = [name for name, about in found.items() if stat.S_ISREG(about.st_mode) and name != manifest.NAME]
    for name in files:
        sync(folder / name)
    entries = {k: v for k, v in manifest.read(folder).items() if k not in (manifest.FILES, manifest.SEAL)}
    entries |= {"made_by": manifest.MADE_BY, manifest.FILES: {name: sha256(folder / name) for name in sorted(files)}}
    write_json(folder / manifest.NAME, entries | {manifest.SEAL: manifest.seal_of(entries)})
    for name, about in found.items():
        if stat.S_ISDIR(about.st_mode):
            sync(folder / name)
    sync(folder)


def _walk(folder: Path, below: str = "") -> Iterator[tuple[str, os.stat_result]]:
    """Everything in a folder by its path there, links not followed; what a desktop leaves everywhere is passed over."""
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if ignored(entry.name):
            continue
        about = entry.stat(follow_symlinks=False)
        yield f"{below}{entry.name}", about
        if stat.S_ISDIR(about.st_mode):
            yield from _walk(Path(entry.path), f"{below}{entry.name}/")


def _holds_ignored_alone(folder: Path) -> bool:
    """Whether a folder is there for what a desktop left in it, and nothing else."""
    folders_only = all(stat.S_ISDIR(about.st_mode) for _, about in _walk(folder))
    return folders_only and any(path.is_file() for path in folder.rglob("*"))


def _take_over(out: Path, new: Path, there: dict[str, os.stat_result]) -> None:
    """Have the files of `out` in `new` too: small ones copied, as they may be written in place, large ones linked."""
    manifest_last = sorted(there, key=lambda name: name == manifest.NAME)  # with it, the copy counts as whole
    for name in manifest_last:
        about, target = there[name], new / name
        target.parent.mkdir(parents=True, exist_ok=True)
        (linked if about.st_size > LINKED else shutil.copy2)(out / name, target)
