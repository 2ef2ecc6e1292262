"""One way to write a folder, for every verb: complete beside its place, exchanged in one step, replaced by its list.

Work on OUT happens in the workspace `OUT.partial`: a mark that says that pdsynth made it, a lock, and the folder in the
making, under its name. When it is complete, it gets an inventory of its files, is synced to the disk and exchanged with
OUT; the old folder is removed last, by its own inventory and nothing besides. What is not in an inventory is never
removed: a folder that holds such a file, or one of ours that was edited, is refused, and the file is named.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import platform
import secrets
import shutil
import socket
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pdsynth import manifest
from pdsynth.files import PARTIAL, read_json, sha256, sync, write_json
from pdsynth.types import InputError

IGNORED = (".DS_Store", "Thumbs.db", ".nfs*")  # a desktop's or a file system's: kept where they are
MARK, LOCK, RUN = "pdsynth-workspace.json", "pdsynth.lock", "pdsynth-run.json"
PARTIAL_FOLDER = ".partial"  # ends the name of a workspace
LINKED = 16 << 20  # bytes; larger files are linked into a new folder, as nothing writes them in place
AT_FDCWD, RENAME_EXCHANGE = -100, 2
LONGEST = 240  # bytes of a name, so that the workspace's can be longer
STOPPED = "holds what a run that was stopped has made"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Work:
    """A folder in the making: write into `folder`, which is empty, or holds what there was before."""

    folder: Path
    goes_on: bool  # from a run that was stopped


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
    refuse_occupied(out, overwrite or update, inputs)
    out = place(out)
    with _workspace(out) as space:
        _settle(space, out)
        there = refuse_foreign(out)
        new = _new(space)
        begun = bool(manifest.read(new))  # else it was killed before anything was made
        goes_on = begun and resume is not None and not overwrite
        if goes_on and not go_on:
            raise InputError(space, STOPPED, f"{resume}, or begin anew with --overwrite")
        if begun:
            log.warning("%s %s; %s.", space, STOPPED, "this run goes on with it" if goes_on else "it is removed")
        if new.exists() and not goes_on:
            shutil.rmtree(new)  # it has lain in a workspace of ours, and never was anybody's folder
        if again is not None and (goes_on or (there and update and not overwrite)):
            again(manifest.read(new if goes_on else out))
        if not new.exists():
            new.mkdir()
            if update and not overwrite:
                _take_over(out, new, there)
        try:
            yield Work(new, goes_on)
        except BaseException as error:
            if resume is None or not new.exists() or not any(new.iterdir()):
                shutil.rmtree(new, ignore_errors=True)
                kept = f"{out} is as it was before."
            else:
                kept = f"What is made is kept in {space}; to go on, {resume}."
            if resume is not None or not isinstance(error, ValueError):  # bad input says itself what to do
                error.add_note(kept)
            raise
        seal(new)
        _exchange(space, out)
        _settle(space, out)


def refuse_occupied(out: Path, replace: bool, inputs: Sequence[Path] = ()) -> None:
    """Raise the InputError that `making` would raise, before hours of work, and change nothing."""
    there = place(out)
    for path in inputs:
        if path.resolve().is_relative_to(there):
            raise InputError(out, "holds what this run reads", "choose another folder to write")
    if not there.parent.exists():
        return
    if refuse_foreign(there) and not replace:
        raise InputError(out, "exists already", "choose another folder, or replace it with --overwrite")


@contextmanager
def adding(out: Path) -> Iterator[Path]:
    """A copy of the folder `out`, of which what the block adds or changes gets into `out` when it ends well.

    `out` keeps its place, so that a shell that stands in it stands there still. Raises InputError as `making` does, and
    where there is no such folder.
    """
    out = place(out, here=True)
    with _workspace(out) as space:
        _settle(space, out)
        there = refuse_foreign(out)
        if not there:
            raise InputError(out, "holds nothing of pdsynth's", "name a folder that pdsynth has written")
        new = _new(space)
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir()
        _take_over(out, new, there)
        try:
            yield new
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise
        seal(new)
        _mark(space, "adding")
        _settle(space, out)


def stopped(out: Path) -> bool:
    """Whether a run on `out` was stopped, or is on: whether it has a workspace with something in it."""
    out = place(out)
    space = out.with_name(f"{out.name}{PARTIAL_FOLDER}")
    return _new(space).exists() and read_json(space / MARK).get("made_by") == manifest.MADE_BY


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
    files = entries[manifest.FILES]
    folders = {parent.as_posix() for name in files for parent in Path(name).parents}
    for name, about in found.items():
        if stat.S_ISDIR(about.st_mode):
            if name not in folders:
                raise InputError(out / name, "is not pdsynth's", "move it out of the folder, or choose another one")
        elif name != manifest.NAME and name not in files:
            raise InputError(out / name, "is not pdsynth's", "move it out of the folder, or choose another one")
        elif not stat.S_ISREG(about.st_mode) or (name != manifest.NAME and sha256(out / name) != files[name]):
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
        if any(fnmatchcase(entry.name, pattern) for pattern in IGNORED):
            continue
        about = entry.stat(follow_symlinks=False)
        yield f"{below}{entry.name}", about
        if stat.S_ISDIR(about.st_mode):
            yield from _walk(Path(entry.path), f"{below}{entry.name}/")


def _take_over(out: Path, new: Path, there: dict[str, os.stat_result]) -> None:
    """Have the files of `out` in `new` too: small ones copied, as they may be written in place, large ones linked."""
    for name, about in there.items():
        target = new / name
        target.parent.mkdir(parents=True, exist_ok=True)
        linked = False
        if about.st_size > LINKED:
            with suppress(OSError):  # a file system without hard links
                os.link(out / name, target)
                linked = True
        if not linked:
            shutil.copy2(out / name, target)


@contextmanager
def _workspace(out: Path) -> Iterator[Path]:
    """The workspace of `out`, marked and locked; removed at the end where nothing is left in it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    space = out.with_name(f"{out.name}{PARTIAL_FOLDER}")
    with _locked(space, out):
        host, now = socket.gethostname(), datetime.now(UTC).isoformat(timespec="seconds")
        write_json(space / RUN, {"pid": os.getpid(), "host": host, "started": now})
        try:
            yield space
        finally:
            if not (_new(space)).exists() and not (_old(space)).exists():
                for path in space.glob(f"{PARTIAL}*"):  # of a run that was killed while it wrote the mark
                    path.unlink(missing_ok=True)
                for name in (RUN, MARK, LOCK):  # the lock last: with it gone, another run makes a workspace of its own
                    (space / name).unlink(missing_ok=True)
                with suppress(OSError):
                    space.rmdir()


@contextmanager
def _locked(space: Path, out: Path) -> Iterator[None]:
    """Hold the lock of a workspace, which is made where it is not there. InputError where another run holds it."""
    for _ in range(100):
        lock = FileLock(space / LOCK)
        try:
            token = _mark_ours(space)
            lock.acquire(blocking=False)
        except FileNotFoundError:
            continue  # the run that held it has just ended, and removed its workspace
        except Timeout as error:
            run = read_json(space / RUN)
            who = f" (process {run['pid']} on {run['host']}, since {run['started']})" if run else ""
            raise InputError(out, f"is being written by another run{who}", "wait for it, or stop it") from error
        try:
            if str(read_json(space / MARK).get("token")) == token:  # else this is the lock of a workspace that is gone
                yield
                return
        finally:
            lock.release()
    raise InputError(out, "is being written by other runs", "wait for them, or stop them")


def _mark_ours(space: Path) -> str:
    """Make a workspace, or see that it is one; returns its token. InputError where a folder so named is not ours."""
    with suppress(FileExistsError):
        space.mkdir()
    if space.is_symlink() or not space.is_dir():
        raise InputError(space, "is in the way: it is no workspace of pdsynth", "rename it, or choose another folder")
    mark = read_json(space / MARK)
    if mark.get("made_by") == manifest.MADE_BY:
        return str(mark.get("token"))
    for path in space.iterdir():
        if path.name not in (LOCK, MARK) and not path.name.startswith(PARTIAL):
            raise InputError(
                space, f"is no workspace of pdsynth: it holds {path.name}", "rename it, or choose another folder"
            )
    return _mark(space, "making")


def _new(space: Path) -> Path:
    """The folder in the making, which has its name already."""
    return space / space.name.removesuffix(PARTIAL_FOLDER)


def _old(space: Path) -> Path:
    """The folder that was replaced, where the file system cannot exchange two."""
    return space / f"{_new(space).name}.old"


def _mark(space: Path, state: str) -> str:
    """Say that a workspace is ours, and what is being done: making, exchanging or adding; returns its token."""
    token = str(read_json(space / MARK).get("token", secrets.token_hex(8)))
    digest = sha256(_new(space) / manifest.NAME) if state != "making" else None
    about = "A workspace of pdsynth. The next run of the same command goes on with it, or removes it."
    mark = {"made_by": manifest.MADE_BY, "about": about, "token": token, "state": state, "new": digest}
    write_json(space / MARK, mark)
    return token


def _exchange(space: Path, out: Path) -> None:
    """Give the new folder the name of the old one, which is then in the workspace."""
    if out.exists():
        shutil.copymode(out, _new(space))  # a group's folder stays one
    _mark(space, "exchanging")
    sync(space)
    _swap(space, out)


def _swap(space: Path, out: Path) -> None:
    new, old = _new(space), _old(space)
    if not out.exists():
        os.rename(new, out)
    elif not exchanged(new, out):
        if old.exists():
            raise InputError(old, "is in the way", "look what it holds, and remove it")
        os.rename(out, old)
        os.rename(new, out)
    sync(out.parent)


def exchanged(one: Path, other: Path) -> bool:
    """Exchange the names of two folders in one step; False where the system or the file system cannot."""
    if platform.system() == "Windows":
        return False
    library = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(one), os.fsencode(other)
    if platform.system() == "Darwin":
        failed = library.renamex_np(*names, RENAME_EXCHANGE)
    elif hasattr(library, "renameat2"):
        failed = library.renameat2(AT_FDCWD, names[0], AT_FDCWD, names[1], RENAME_EXCHANGE)
    else:
        return False
    if not failed:
        return True
    number = ctypes.get_errno()
    if number in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
        return False
    raise OSError(number, os.strerror(number), str(other))


def _settle(space: Path, out: Path) -> None:
    """Bring to its end what a workspace says is being done, by this run or by one that was killed."""
    mark = read_json(space / MARK)
    new, old = _new(space), _old(space)
    complete = (new / manifest.NAME).exists() and sha256(new / manifest.NAME) == mark.get("new")
    if mark.get("state") == "exchanging":
        if complete:
            _swap(space, out)
        for folder in (new, old):
            _remove_old(folder, out)
    elif mark.get("state") == "adding" and complete:
        _move_added(new, out)
        shutil.rmtree(new)
    elif mark.get("state") == "adding":
        shutil.rmtree(new, ignore_errors=True)
    if mark.get("state") != "making":
        _mark(space, "making")


def _move_added(new: Path, out: Path) -> None:
    """Move what differs from `out` into it, remove what is no longer there, and name it all in the manifest last."""
    files = manifest.read(new)[manifest.FILES]
    before = manifest.read(out).get(manifest.FILES, {})
    for name, digest in files.items():
        if digest != before.get(name) and (new / name).exists():
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(new / name, out / name)
    for name in before.keys() - files.keys():
        (out / name).unlink(missing_ok=True)
        with suppress(OSError):
            (out / name).parent.rmdir()
    os.replace(new / manifest.NAME, out / manifest.NAME)
    sync(out)


def _remove_old(old: Path, out: Path) -> None:
    """Remove a folder that was replaced, by its inventory; what came into it meanwhile stays, and is named."""
    if not old.exists():
        return
    entries = manifest.read(old)
    files = dict(entries.get(manifest.FILES, {}))
    if entries.get(manifest.SEAL) == manifest.seal_of(entries):
        files[manifest.NAME] = sha256(old / manifest.NAME)
    deepest_first = sorted(old.rglob("*"), key=lambda path: len(path.parts), reverse=True)
    for path in sorted(deepest_first, key=lambda path: path == old / manifest.NAME):  # it says what may be removed
        name = path.relative_to(old).as_posix()
        if any(fnmatchcase(path.name, pattern) for pattern in IGNORED):
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, out / name)
        elif path.is_dir() and not path.is_symlink():
            with suppress(OSError):
                path.rmdir()
        elif name in files and not path.is_symlink() and sha256(path) == files[name]:
            path.unlink()
    left = sorted(old.rglob("*"), key=lambda path: path.is_dir())
    if left:
        problem = f"came into {out} while it was replaced, and is kept"
        raise InputError(left[0], problem, f"move it elsewhere; the new {out.name} is complete")
    old.rmdir()
