"""The workspace of a folder in the making: its mark and lock, and the exchange with the folder that is replaced.

`OUT.partial` holds the folder in the making under its name. The mark says what is being done, so that the next run can
bring to its end what a killed one has begun.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import secrets
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path

from filelock import FileLock, Timeout

from pdsynth import manifest
from pdsynth.files import PARTIAL, read_json, sha256, sync, write_json
from pdsynth.types import InputError

IGNORED = (".DS_Store", "Thumbs.db", ".nfs*")  # a desktop's or a file system's: kept where they are
MARK, LOCK, RUN = "pdsynth-workspace.json", "pdsynth.lock", "pdsynth-run.json"
PARTIAL_FOLDER = ".partial"  # ends the name of a workspace
AT_FDCWD, RENAME_EXCHANGE = -100, 2


def ignored(name: str) -> bool:
    """Whether a file of this name is a desktop's or a file system's, and nobody's concern."""
    return any(fnmatchcase(name, pattern) for pattern in IGNORED)


def space_of(out: Path) -> Path:
    """Where the workspace of a folder is, or would be."""
    return out.with_name(f"{out.name}{PARTIAL_FOLDER}")


@contextmanager
def workspace(out: Path) -> Iterator[Path]:
    """The workspace of `out`, marked and locked; removed at the end where nothing is left in it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    space = space_of(out)
    with _locked(space, out):
        host, now = socket.gethostname(), datetime.now(UTC).isoformat(timespec="seconds")
        write_json(space / RUN, {"pid": os.getpid(), "host": host, "started": now})
        try:
            yield space
        finally:
            if not new_of(space).exists() and not old_of(space).exists():
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
    marked = read_json(space / MARK)
    if marked.get("made_by") == manifest.MADE_BY:
        return str(marked.get("token"))
    for path in space.iterdir():
        if path.name not in (LOCK, MARK) and not path.name.startswith(PARTIAL):
            raise InputError(
                space, f"is no workspace of pdsynth: it holds {path.name}", "rename it, or choose another folder"
            )
    return mark(space, "making")


def new_of(space: Path) -> Path:
    """The folder in the making, which has its name already."""
    return space / space.name.removesuffix(PARTIAL_FOLDER)


def old_of(space: Path) -> Path:
    """The folder that was replaced, where the file system cannot exchange two."""
    return space / f"{new_of(space).name}.old"


def mark(space: Path, state: str) -> str:
    """Say that a workspace is ours, and what is being done: making, exchanging or adding; returns its token."""
    token = str(read_json(space / MARK).get("token", secrets.token_hex(8)))
    about = "A workspace of pdsynth. The next run of the same command goes on with it, or removes it."
    content: dict[str, str | int | None] = {"made_by": manifest.MADE_BY, "about": about, "token": token, "state": state}
    if state != "making":  # so that it is known again what is new, and for which folder it was meant
        out = space.with_name(new_of(space).name)
        content |= {"new": _manifest_digest(new_of(space)), "out": _manifest_digest(out)}
        content |= {"inode": new_of(space).stat().st_ino}  # two runs of one second may write equal manifests
    write_json(space / MARK, content)
    return token


def _manifest_digest(folder: Path) -> str | None:
    path = folder / manifest.NAME
    return sha256(path) if path.exists() else None


def discard(new: Path) -> None:
    """Remove a folder in the making; its manifest first, so that a half-removed one is nothing to go on with."""
    (new / manifest.NAME).unlink(missing_ok=True)
    shutil.rmtree(new, ignore_errors=True)


def exchange(space: Path, out: Path) -> None:
    """Give the new folder the name of the old one, which is then in the workspace."""
    if out.exists():
        shutil.copymode(out, new_of(space))  # a group's folder stays one
    mark(space, "exchanging")
    sync(space)
    _swap(space, out)


def _swap(space: Path, out: Path) -> None:
    new, old = new_of(space), old_of(space)
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


def settle(space: Path, out: Path) -> None:
    """Bring to its end what a workspace says is being done, by this run or by one that was killed."""
    marked = read_json(space / MARK)
    new, old = new_of(space), old_of(space)
    complete = _manifest_digest(new) == marked.get("new") is not None and new.stat().st_ino == marked.get("inode")
    if complete and out.exists() and _manifest_digest(out) != marked.get("out"):
        problem = f"was made for another folder than that which is called {out.name} now"
        raise InputError(new, problem, "move it elsewhere, or give that folder its name again")
    if marked.get("state") == "exchanging":
        if complete:
            _swap(space, out)
        for folder in (new, old):
            _remove_old(folder, out)
    elif marked.get("state") == "adding" and complete:
        _move_added(new, out)
        discard(new)
    elif marked.get("state") == "adding":
        discard(new)
    if marked.get("state") != "making":
        mark(space, "making")


def _move_added(new: Path, out: Path) -> None:
    """Move what differs from `out` into it, remove what is no longer there, and name it all in the manifest last."""
    files = manifest.read(new)[manifest.FILES]
    before = manifest.read(out).get(manifest.FILES, {})
    gone = before.keys() - files.keys()
    moved = [n for n, digest in files.items() if digest != before.get(n) or not (out / n).exists()]
    for name in (*moved, *gone):
        ours = {before.get(name), files.get(name)}
        if (out / name).is_symlink() or ((out / name).exists() and sha256(out / name) not in ours):
            raise InputError(out / name, "came or was edited while pdsynth added to the folder", "move it elsewhere")
    for name in moved:
        if (new / name).exists():
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(new / name, out / name)
    for name in gone:
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
        if ignored(path.name):
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
