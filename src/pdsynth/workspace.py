"""The workspace of an output folder: staging folder, mark and lock, and the exchange with the folder that is replaced.

The workspace of the folder OUT is `OUT.partial`. The new content is written into the staging folder `OUT.partial/OUT`.
The mark records the operation in progress, so that the next run can complete an operation that a kill interrupted.
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

IGNORED = (".DS_Store", "Thumbs.db", ".nfs*")  # files of a desktop or a file system, which are not touched
MARK, LOCK, RUN = "pdsynth-workspace.json", "pdsynth.lock", "pdsynth-run.json"
PARTIAL_FOLDER = ".partial"  # suffix of the name of a workspace
AT_FDCWD, RENAME_EXCHANGE = -100, 2


class BusyError(InputError):
    """Another run is writing the output folder."""


def ignored(name: str) -> bool:
    """Whether a file with this name belongs to a desktop or a file system and is never touched.

    These are .DS_Store, Thumbs.db, and names that start with .nfs.
    """
    return any(fnmatchcase(name, pattern) for pattern in IGNORED)


def workspace_path(out: Path) -> Path:
    """Path `OUT.partial` of the folder in which the output folder `out` is prepared (workspace); it need not exist."""
    return out.with_name(f"{out.name}{PARTIAL_FOLDER}")


@contextmanager
def workspace(out: Path) -> Iterator[Path]:
    """Create and lock the folder in which `out` is prepared (its workspace `OUT.partial`); yields its path.

    At the end it is removed, unless it contains unfinished work or a folder that was replaced. Raises BusyError if
    another run holds the lock. Raises InputError if a file has this name, or if a folder with this name is neither
    empty nor a workspace of pdsynth.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    space = workspace_path(out)
    with _locked(space, out):
        host, now = socket.gethostname(), datetime.now(UTC).isoformat(timespec="seconds")
        write_json(space / RUN, {"pid": os.getpid(), "host": host, "started": now})
        try:
            yield space
        finally:
            if not staging_folder(space).exists() and not replaced_folder(space).exists():
                for path in space.glob(f"{PARTIAL}*"):  # left by a run that was killed while it wrote the mark
                    path.unlink(missing_ok=True)
                for name in (RUN, MARK, LOCK):  # the lock last: without it, another run may create a new workspace
                    (space / name).unlink(missing_ok=True)
                with suppress(OSError):
                    space.rmdir()


@contextmanager
def _locked(space: Path, out: Path) -> Iterator[None]:
    """Hold the lock of a workspace, which is created if needed. Raises BusyError if another run holds the lock."""
    for _ in range(100):
        lock = FileLock(space / LOCK)
        try:
            token = _claim(space)
            lock.acquire(blocking=False)
        except FileNotFoundError:
            continue  # the run with the lock has just ended and has removed its workspace
        except Timeout as error:
            run = read_json(space / RUN)
            process = f" (process {run['pid']} on {run['host']}, since {run['started']})" if run else ""
            raise BusyError(out, f"is being written by another run{process}", "wait for it, or stop it") from error
        try:
            if str(read_json(space / MARK).get("token")) == token:  # else the lock is that of a removed workspace
                yield
                return
        finally:
            lock.release()
    raise BusyError(out, "is being written by other runs", "wait for them, or stop them")


def _claim(space: Path) -> str:
    """Create a workspace, or check that an existing folder is one or is empty; returns its token (see `mark`).

    Raises InputError if a file or folder with this name is not a workspace of pdsynth.
    """
    with suppress(FileExistsError):
        space.mkdir()
    if space.is_symlink() or not space.is_dir():
        raise InputError(space, "exists and is not a workspace of pdsynth", "rename it, or choose another folder")
    content = read_json(space / MARK)
    if content.get("made_by") == manifest.MADE_BY:
        return str(content.get("token"))
    for path in space.iterdir():
        if path.name not in (LOCK, MARK) and not path.name.startswith(PARTIAL):
            problem = f"is not a workspace of pdsynth: it contains {path.name}"
            raise InputError(space, problem, "rename it, or choose another folder")
    return mark(space, "making")


def staging_folder(space: Path) -> Path:
    """Path of the folder inside a workspace into which the new output is written.

    space: path of the workspace, `OUT.partial`. The folder already has the name of the output: the result is
    `OUT.partial/OUT`.
    """
    return space / space.name.removesuffix(PARTIAL_FOLDER)


def replaced_folder(space: Path) -> Path:
    """Path inside a workspace of the old output folder while it is replaced: `OUT.partial/OUT.old`.

    It is used on file systems that cannot exchange two names in one step. space: path of the workspace.
    """
    return space / f"{staging_folder(space).name}.old"


def mark(space: Path, state: str) -> str:
    """Write the operation in progress into a workspace, so that the next run can complete it; returns the token.

    space: path of the workspace, `OUT.partial`. state: "making" (of new content), "exchanging" (of the new output
    folder with the old one) or "adding" (of files to the output folder). For the last two, the SHA-256 of the manifests
    of both folders is recorded. The token is a random text that identifies the workspace; it stays the same until the
    workspace is removed.
    """
    token = str(read_json(space / MARK).get("token", secrets.token_hex(8)))
    about = "A workspace of pdsynth. The next run of the same command resumes its work, or removes it."
    content: dict[str, str | int | None] = {"made_by": manifest.MADE_BY, "about": about, "token": token, "state": state}
    if state != "making":  # identifies the staging folder and the output folder to a later run
        new = staging_folder(space)
        content |= {"new": _manifest_digest(new), "out": _manifest_digest(space.with_name(new.name))}
        content |= {"inode": new.stat().st_ino}  # two runs within one second may write equal manifests
    write_json(space / MARK, content)
    return token


def _manifest_digest(folder: Path) -> str | None:
    path = folder / manifest.NAME
    return sha256(path) if path.exists() else None


def discard(new: Path) -> None:
    """Remove a folder with unfinished output, if it exists.

    Its manifest.json is removed first, so that no run resumes from the rest. Files that cannot be removed stay.
    """
    (new / manifest.NAME).unlink(missing_ok=True)
    shutil.rmtree(new, ignore_errors=True)


def exchange(space: Path, out: Path) -> None:
    """Give the complete new folder in a workspace the name `out`, and move an old folder `out` into the workspace.

    space: path of the workspace, `OUT.partial`. The new folder gets the permissions of the old one, which stays in the
    workspace until `complete_pending` removes it. The operation is recorded first, so that the next run can complete it
    after a kill. Raises InputError if the old folder has to be moved to `OUT.partial/OUT.old` (see `replaced_folder`)
    and an earlier one is still there.
    """
    if out.exists():
        shutil.copymode(out, staging_folder(space))  # keeps the permissions of a group
    mark(space, "exchanging")
    sync(space)
    _swap(space, out)


def _swap(space: Path, out: Path) -> None:
    new, old = staging_folder(space), replaced_folder(space)
    if not out.exists():
        os.rename(new, out)
    elif not exchange_names(new, out):
        if old.exists():
            raise InputError(old, "exists, so that nothing can be moved there", "check its content, and remove it")
        os.rename(out, old)
        os.rename(new, out)
    sync(out.parent)


def exchange_names(one: Path, other: Path) -> bool:
    """Exchange the names of two folders in one atomic step.

    Returns whether this was done; false if the system or the file system does not support it. Raises OSError for any
    other failure.
    """
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


def complete_pending(space: Path, out: Path) -> None:
    """Complete the exchange or the addition of files that a workspace records as in progress, if there is one.

    space: path of the workspace, `OUT.partial`; out: the output folder. A killed run may have begun the operation, or
    this run. After an exchange, the files of the replaced folder are removed. An addition whose new folder is not
    complete is discarded. Afterwards the state of the workspace is "making". Raises InputError if another folder has
    taken the name of `out` since then, or if a file that pdsynth did not write would be lost.
    """
    pending = read_json(space / MARK)
    new, old = staging_folder(space), replaced_folder(space)
    complete = _manifest_digest(new) == pending.get("new") is not None and new.stat().st_ino == pending.get("inode")
    if complete and out.exists() and _manifest_digest(out) != pending.get("out"):
        problem = f"was written to replace a folder other than the present {out.name}"
        raise InputError(new, problem, f"move it elsewhere, or give the earlier folder the name {out.name} again")
    if pending.get("state") == "exchanging":
        if complete:
            _swap(space, out)
        for folder in (new, old):
            _remove_old(folder, out)
    elif pending.get("state") == "adding" and complete:
        _move_added(new, out)
        discard(new)
    elif pending.get("state") == "adding":
        discard(new)
    if pending.get("state") != "making":
        mark(space, "making")


def _move_added(new: Path, out: Path) -> None:
    """Move new and changed files into `out`, remove files that the new folder lacks, and replace the manifest last.

    Raises InputError for a file in `out` that neither the old nor the new inventory describes.
    """
    files = manifest.read(new)[manifest.FILES]
    before = manifest.read(out).get(manifest.FILES, {})
    obsolete = before.keys() - files.keys()
    changed = [n for n, digest in files.items() if digest != before.get(n) or not (out / n).exists()]
    for name in (*changed, *obsolete):
        digests = {before.get(name), files.get(name)}
        if (out / name).is_symlink() or ((out / name).exists() and sha256(out / name) not in digests):
            problem = "was created or edited while pdsynth added to the folder"
            raise InputError(out / name, problem, "move it elsewhere")
    for name in changed:
        if (new / name).exists():
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(new / name, out / name)
    for name in obsolete:
        (out / name).unlink(missing_ok=True)
        with suppress(OSError):
            (out / name).parent.rmdir()
    os.replace(new / manifest.NAME, out / manifest.NAME)
    sync(out)


def _remove_old(old: Path, out: Path) -> None:
    """Remove the files of a replaced folder that its inventory lists unchanged, and the folder if it is then empty.

    Ignored files move to `out`. Raises InputError, with the file's name, if another file is left.
    """
    if not old.exists():
        return
    entries = manifest.read(old)
    files = dict(entries.get(manifest.FILES, {}))
    if entries.get(manifest.SEAL) == manifest.seal_of(entries):
        files[manifest.NAME] = sha256(old / manifest.NAME)
    deepest_first = sorted(old.rglob("*"), key=lambda path: len(path.parts), reverse=True)
    for path in sorted(deepest_first, key=lambda path: path == old / manifest.NAME):  # the inventory last
        name = path.relative_to(old).as_posix()
        if ignored(path.name):
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, out / name)
        elif path.is_dir() and not path.is_symlink():
            with suppress(OSError):
                path.rmdir()
        elif name in files and not path.is_symlink() and sha256(path) == files[name]:
            path.unlink()
    remainder = sorted(old.rglob("*"), key=lambda path: path.is_dir())
    if remainder:
        problem = f"was put into {out} while pdsynth replaced it, and is not removed"
        raise InputError(remainder[0], problem, f"move it elsewhere; the new {out.name} is complete")
    old.rmdir()
