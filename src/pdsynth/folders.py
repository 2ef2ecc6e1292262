"""The one way in which every command writes an output folder: prepare it in a workspace, then exchange it.

A command works in the workspace `OUT.partial`, which has a mark, a lock and a staging folder. When the staging folder
is complete, it gets an inventory of its files, is synced to the disk and exchanged with OUT. The replaced folder is
removed last, and only the files in its inventory. A file that is in no inventory is never removed: a folder with such a
file, or with an edited file, is refused, and the error names the file.
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
from pdsynth.files import PARTIAL, link_or_copy, read_json, sha256, sync, write_json
from pdsynth.types import InputError
from pdsynth.workspace import (
    MARK,
    complete_pending,
    discard,
    exchange,
    ignored,
    mark,
    staging_folder,
    workspace,
    workspace_path,
)

LINKED = 16 << 20  # bytes; larger files are linked into a new folder, because no command edits them in place
LONGEST = 240  # bytes of a name, so that the name of the workspace can be longer
EXISTS, REPLACE = "exists already", "choose another folder, or replace it with --overwrite"
STOPPED = "contains the work of a stopped run"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Work:
    """The folder that a command writes into, beside the output folder that it becomes at the end (staging folder).

    folder: its path. At the start it is empty, or has the files of the output folder (if they are updated) or of a
    stopped run (if that run is resumed).
    """

    folder: Path


@contextmanager
def making(
    out: Path,
    *,
    overwrite: bool = False,
    update: bool = False,
    resume: str | None = None,
    may_resume: bool = True,
    check_manifest: Callable[[dict[str, Any]], None] | None = None,
    inputs: Sequence[Path] = (),
) -> Iterator[Work]:
    """Yield a staging folder to write into, which becomes `out` if the block ends without an error.

    The staging folder is in `OUT.partial`, beside `out`; the block gets it as a `Work`, whose `folder` is its path. At
    the end it gets an inventory (each file with its SHA-256) in its manifest.json, and is exchanged with `out`.

    - overwrite permits the replacement of a folder that pdsynth wrote, and starts from an empty folder. update starts
      from the files of `out`, unless overwrite is given too. In the staging folder, a file above 16 MiB is then a hard
      link: the block may replace it but must not edit it in place.
    - resume is the instruction, in words, by which a user resumes a stopped run. If it is given, the files of a run
      that fails are kept. The next run resumes from them if a manifest.json is among them and overwrite is not given;
      it raises InputError if may_resume is false. In all other cases, the files of a run that fails are removed.
    - check_manifest is called with the content of the earlier manifest.json before an update or a resumed run, and
      raises an error if the earlier settings differ. It is not called with overwrite.
    - inputs are the paths that the run reads; they must not be `out` or inside it.

    An operation that a killed run left incomplete in `out` is completed first. Raises InputError, before anything else
    is changed, if `out` cannot be an output folder (see `output_path`) or holds an input, if `out` contains a file that
    pdsynth did not write or that was edited, if an older version wrote it without an inventory, if it has files and
    neither overwrite nor update is given, and if another run is writing it.
    """
    out = _apart_from_inputs(out, inputs)
    with workspace(out) as space:
        complete_pending(space, out)
        existing = refuse_foreign(out)  # only now: another run may have changed the folder before the lock was ours
        if existing and not (overwrite or update):
            raise InputError(out, EXISTS, REPLACE)
        new = staging_folder(space)
        has_work = bool(manifest.read(new))  # false if the earlier run was killed before it wrote anything
        resumed = has_work and resume is not None and not overwrite
        if resumed and not may_resume:
            raise InputError(space, STOPPED, f"{resume}, or start again with --overwrite")
        if has_work:
            log.warning("%s %s; %s.", space, STOPPED, "this run resumes it" if resumed else "it is removed")
        if new.exists() and not resumed:
            discard(new)  # a staging folder of ours, so that no user's file is in it
        if check_manifest is not None and (resumed or (existing and update and not overwrite)):
            check_manifest(manifest.read(new if resumed else out))
        if not new.exists():
            new.mkdir()
            if update and not overwrite:
                _copy_files(out, new, existing)
        try:
            yield Work(new)
        except BaseException as error:
            if resume is None or not new.exists() or not any(new.iterdir()):
                discard(new)
                note = f"{out} is unchanged."
            else:
                instruction = f"{resume}, without --overwrite" if overwrite else resume
                note = f"The work of this run is kept in {space}; to resume it, {instruction}."
            if resume is not None or not isinstance(error, ValueError):  # errors about input state their own remedy
                error.add_note(note)
            raise
        seal(new)
        exchange(space, out)
        complete_pending(space, out)


def refuse_occupied(out: Path, replace: bool, inputs: Sequence[Path] = ()) -> None:
    """Raise InputError if a command could not write the folder `out`, so that the user knows before hours of work.

    replace: whether an existing folder of pdsynth may be replaced. inputs: paths that the command reads; they must not
    be `out` or inside it. The cases are those of `making`, such as a file that pdsynth did not write. Nothing is
    changed. If `OUT.partial` exists, a run has left its work there or is writing it now. Then only the paths are
    checked, because the command itself completes or removes that work first, or refuses to start.
    """
    resolved = _apart_from_inputs(out, inputs)
    if not resolved.parent.exists() or workspace_path(resolved).exists():  # the run settles an old workspace first
        return
    if refuse_foreign(resolved) and not replace:
        raise InputError(out, EXISTS, REPLACE)


def _apart_from_inputs(out: Path, inputs: Sequence[Path]) -> Path:
    """The resolved path of a folder. Raises InputError if an input is inside it."""
    resolved = output_path(out)
    if any(path.resolve().is_relative_to(resolved) for path in inputs):
        raise InputError(out, "contains an input of this run", "choose another output folder")
    return resolved


@contextmanager
def adding(out: Path) -> Iterator[Path]:
    """Yield the path of a copy of `out`; if the block ends without an error, its new and changed files move into `out`.

    Files that the block removes from the copy are removed from `out`. A file above 16 MiB is a hard link in the copy:
    the block may replace it but must not edit it in place. After an error, `out` is unchanged. The folder `out` itself
    is not replaced, so it may be the working directory of a shell. Raises InputError if `out` does not exist or is
    empty, if it contains a file that pdsynth did not write or that was edited, if it has no inventory of its files, and
    if another run is writing it; after the block, if a file that is to be replaced or removed was edited meanwhile. An
    InputError of the block about a file in the copy is raised about this file in `out`.
    """
    given, out = out, output_path(out, here=True)
    with workspace(out) as space:
        complete_pending(space, out)
        existing = refuse_foreign(out)
        if not existing:
            raise InputError(out, "contains nothing that pdsynth wrote", "name a folder that pdsynth has written")
        new = staging_folder(space)
        discard(new)
        new.mkdir()
        _copy_files(out, new, existing)
        try:
            yield new
        except InputError as error:
            discard(new)
            if not error.path.is_relative_to(new):
                raise
            raise InputError(given / error.path.relative_to(new), error.problem, error.remedy) from error
        except BaseException:
            discard(new)
            raise
        seal(new)
        before = sha256(out / manifest.NAME)
        mark(space, "adding")
        complete_pending(space, out)
        _renew_outer(out, before)


def _renew_outer(out: Path, before: str) -> None:
    """Renew the files of `out` in the inventories of the folders around it, such as that of a demo around its pairs.

    before: SHA-256 of the manifest of `out` as it was. An inventory that does not have it stays as it is, and so does a
    manifest that cannot be read, such as that of a later pdsynth in a folder further out.
    """
    changed = {out / name: sha256(out / name) for name, status in _walk(out) if stat.S_ISREG(status.st_mode)}
    for outer in out.parents:
        own = f"{out.relative_to(outer).as_posix()}/"
        try:
            entries = manifest.read(outer)
        except InputError:
            continue
        files = entries.get(manifest.FILES)
        sealed = manifest.made_by_pdsynth(entries) and entries.get(manifest.SEAL) == manifest.seal_of(entries)
        if sealed and isinstance(files, dict) and files.get(own + manifest.NAME) == before:
            others = {name: was for name, was in files.items() if not name.startswith(own)}
            entries[manifest.FILES] = others | {p.relative_to(outer).as_posix(): was for p, was in changed.items()}
            write_json(outer / manifest.NAME, entries | {manifest.SEAL: manifest.seal_of(entries)})
            changed[outer / manifest.NAME] = sha256(outer / manifest.NAME)


def stopped(out: Path) -> bool:
    """Whether unfinished work for the folder `out` exists in `OUT.partial`: a run was stopped, or is still running.

    Raises InputError if `out` cannot be an output folder (see `output_path`).
    """
    space = workspace_path(output_path(out))
    return staging_folder(space).exists() and read_json(space / MARK).get("made_by") == manifest.MADE_BY


def unfinished(out: Path) -> Path | None:
    """The folder with the work of a stopped run for `out`, or of one that runs now; None if there is none."""
    new = staging_folder(workspace_path(output_path(out)))
    return new if stopped(out) else None


def output_path(out: Path, here: bool = False) -> Path:
    """Check that `out` can be an output folder; returns its absolute path, with links resolved. It need not exist.

    here: whether the working directory is permitted. Raises InputError if `out` cannot be a folder, is a file or the
    top folder of a disk, has a name of more than 240 bytes, or is the working directory and `here` is false.
    """
    try:
        resolved = out.resolve()
        is_file = resolved.exists() and not resolved.is_dir()
        is_mount = os.path.ismount(resolved)
        is_working_directory = resolved == Path.cwd()
    except (OSError, RuntimeError) as error:  # a name that is too long, or a cycle of links
        raise InputError(out, f"cannot be a folder ({getattr(error, 'strerror', error)})", "choose another") from error
    if len(os.fsencode(resolved.name)) > LONGEST:
        raise InputError(out, "has a name that is too long", f"choose a name of at most {LONGEST} bytes")
    if is_file:
        raise InputError(out, "is a file", "choose another name for the folder")
    if is_mount:
        raise InputError(out, "is the top folder of a disk", "name a new folder in it")
    if is_working_directory and not here:
        raise InputError(out, "is the working directory", "name a new folder in it")
    return resolved


def refuse_foreign(out: Path) -> dict[str, os.stat_result]:
    """Check that a folder contains only files that pdsynth wrote and nobody edited; returns them.

    The result is the status of each file (as `os.stat` gives it), by its path relative to `out`; manifest.json is one
    of them. The result is empty if `out` does not exist or is empty. Files of the desktop, such as .DS_Store, are
    ignored, and a removed file is not noticed. Raises InputError with the name of a file or folder that pdsynth did not
    write or that was edited, and for a folder that has no inventory in its manifest.json or cannot be written.
    """
    present = dict(_walk(out)) if out.exists() else {}
    if not present:
        return {}
    entries = manifest.read(out)
    if not manifest.made_by_pdsynth(entries):
        raise InputError(out, "exists and was not written by pdsynth", "choose another folder")
    if not isinstance(entries.get(manifest.FILES), dict):
        version = entries.get("version", "?")
        problem = f"was written by pdsynth {version} without a list of its files; it can be read but not replaced"
        raise InputError(out, problem, "choose another folder, or remove this one yourself")
    if entries.get(manifest.SEAL) != manifest.seal_of(entries):
        raise InputError(out / manifest.NAME, "was edited", "restore it, or choose another folder")
    if not os.access(out, os.W_OK | os.X_OK):
        raise InputError(out, "cannot be written", "ask for permission, or choose another folder")
    files = entries[manifest.FILES]
    folders = {parent.as_posix() for name in files for parent in Path(name).parents}
    for name, status in present.items():
        if stat.S_ISDIR(status.st_mode):
            ours = name in folders or _has_ignored_files_only(out / name)
        else:
            ours = name == manifest.NAME or name in files
        if not ours:
            problem = "was not written by pdsynth"
            raise InputError(out / name, problem, "move it out of the folder, or choose another folder")
        if stat.S_ISDIR(status.st_mode):
            continue
        if not stat.S_ISREG(status.st_mode) or (name != manifest.NAME and sha256(out / name) != files[name]):
            raise InputError(out / name, "was edited since pdsynth wrote it", "move it away, or choose another folder")
    return {name: status for name, status in present.items() if stat.S_ISREG(status.st_mode)}


def seal(folder: Path) -> None:
    """Write the inventory (each file with its SHA-256) of a complete folder into its manifest.json.

    The inventory holds all files in the folder and below, except manifest.json itself, links, and files of the desktop
    such as .DS_Store. Other keys of manifest.json stay. All its files are synced to the disk. Empty folders inside it,
    and files that a killed run had begun to write, are removed first.
    """
    for path in sorted(folder.rglob("*"), reverse=True):  # a folder comes after its content
        if path.is_dir() and not path.is_symlink():
            with suppress(OSError):
                path.rmdir()  # an empty folder would not be in the inventory
        elif path.name.startswith(PARTIAL):
            path.unlink()  # left by a killed run
    present = dict(_walk(folder))
    files = [name for name, status in present.items() if stat.S_ISREG(status.st_mode) and name != manifest.NAME]
    for name in files:
        sync(folder / name)
    entries = {k: v for k, v in manifest.read(folder).items() if k not in (manifest.FILES, manifest.SEAL)}
    entries |= {"made_by": manifest.MADE_BY, manifest.FILES: {name: sha256(folder / name) for name in sorted(files)}}
    write_json(folder / manifest.NAME, entries | {manifest.SEAL: manifest.seal_of(entries)})
    for name, status in present.items():
        if stat.S_ISDIR(status.st_mode):
            sync(folder / name)
    sync(folder)


def _walk(folder: Path, below: str = "") -> Iterator[tuple[str, os.stat_result]]:
    """Yield relative path and status of everything in a folder except ignored files. Links are not followed."""
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if ignored(entry.name):
            continue
        status = entry.stat(follow_symlinks=False)
        yield f"{below}{entry.name}", status
        if stat.S_ISDIR(status.st_mode):
            yield from _walk(Path(entry.path), f"{below}{entry.name}/")


def _has_ignored_files_only(folder: Path) -> bool:
    """Whether a folder contains at least one ignored file, and no other files."""
    folders_only = all(stat.S_ISDIR(status.st_mode) for _, status in _walk(folder))
    return folders_only and any(path.is_file() for path in folder.rglob("*"))


def _copy_files(out: Path, new: Path, existing: dict[str, os.stat_result]) -> None:
    """Copy small files of `out` to `new`, because commands may edit them in place; large files become hard links.

    existing: relative path -> status of each file. Files above LINKED bytes are large.
    """
    manifest_last = sorted(existing, key=lambda name: name == manifest.NAME)  # it marks the copy as complete
    for name in manifest_last:
        status, target = existing[name], new / name
        target.parent.mkdir(parents=True, exist_ok=True)
        (link_or_copy if status.st_size > LINKED else shutil.copy2)(out / name, target)
