"""manifest.json: what made a folder, from what, when. And folders that are complete or not there at all."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pdsynth
from pdsynth.types import InputError

NAME = "manifest.json"
SMALL = 1 << 20  # bytes; of larger files in a folder, only name and size enter its digest


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes, or of a folder; InputError where there is neither.

    A folder's digest covers the names and sizes of all its files and the bytes of those up to 1 MiB (tables, sidecars,
    gradient tables), so that a cohort of many gigabytes is told from another in a moment.
    """
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    if not path.is_dir():
        raise InputError(path, "does not exist", "check the path")
    digest = hashlib.sha256()
    for file_path in sorted(p for p in path.rglob("*") if p.is_file()):
        size = file_path.stat().st_size
        digest.update(f"{file_path.relative_to(path).as_posix()}\0{size}\0".encode())
        if size <= SMALL:
            digest.update(file_path.read_bytes())
    return digest.hexdigest()


def write_json(path: Path, content: Any) -> None:
    """Write JSON so that a reader sees the old file or the whole new one."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text so that a reader sees the old file or the whole new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def begin(command: str, *, inputs: Sequence[Path] = (), seed: int | None = None, **parameters: Any) -> dict[str, Any]:
    """The entries of a manifest at the start of some work; `finished` is null until it ends."""
    return {
        "version": pdsynth.__version__,
        "command": command,
        "parameters": {k: str(v) if isinstance(v, Path) else v for k, v in parameters.items()},
        "seed": seed,
        "inputs": {str(p): sha256(p) for p in inputs},
        "python": platform.python_version(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "finished": None,
        "seconds": None,
    }


def finish(folder: Path, entries: dict[str, Any]) -> None:
    """Write the manifest of work that is done; entries that the work itself wrote there are kept."""
    entries |= _finished(entries)
    write_json(folder / NAME, read(folder) | entries)


def _finished(entries: dict[str, Any]) -> dict[str, Any]:
    now = datetime.now(UTC)
    took = (now - datetime.fromisoformat(entries["started"])).total_seconds()
    return entries | {"finished": now.isoformat(timespec="seconds"), "seconds": round(took)}


@contextmanager
def recorded(
    folder: Path, command: str, *, inputs: Sequence[Path] = (), seed: int | None = None, **parameters: Any
) -> Iterator[dict[str, Any]]:
    """Keep folder/manifest.json about the work in the block, written at its start and completed at its end.

    Yields its entries, to which the block may add. Where the work breaks off, `finished` stays null, or, if nothing was
    made, the folder is removed.
    """
    entries = begin(command, inputs=inputs, seed=seed, **parameters)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / NAME, entries)
    try:
        yield entries
    except BaseException:
        if folder.exists() and [p.name for p in folder.iterdir()] == [NAME]:
            shutil.rmtree(folder)
        raise
    finish(folder, entries)


@contextmanager
def added(folder: Path, command: str, *, seed: int | None = None, **parameters: Any) -> Iterator[None]:
    """Note in the manifest of a folder, under `added`, work that has added to it, when the block ends well."""
    entries = begin(command, seed=seed, **parameters)
    yield
    before = read(folder)
    write_json(folder / NAME, before | {"added": [*before.get("added", []), _finished(entries)]})


def read(folder: Path) -> dict[str, Any]:
    """The manifest of a folder; empty where there is none that can be read."""
    return read_json(folder / NAME)


def read_json(path: Path) -> dict[str, Any]:
    """What a JSON file holds; empty where it can't be read or holds no object."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def refuse_occupied(folder: Path, overwrite: bool, inputs: Sequence[Path] = ()) -> None:
    """Raise InputError unless `folder` is absent, empty, or pdsynth's own and to be replaced.

    So --overwrite never removes what pdsynth did not write, nor the inputs of the very run.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if any(path.resolve().is_relative_to(folder.resolve()) for path in inputs):
        raise InputError(folder, "holds what this run reads", "choose another folder to write")
    if not folder.is_dir() or "version" not in read(folder):
        raise InputError(folder, "exists and was not written by pdsynth", "choose another folder")
    if not overwrite:
        raise InputError(folder, "exists already", "choose another folder, or replace it with --overwrite")


def clear(folder: Path, overwrite: bool, inputs: Sequence[Path] = ()) -> None:
    """Make `folder` absent, unless it must not be replaced (see `refuse_occupied`)."""
    refuse_occupied(folder, overwrite, inputs)
    if folder.exists():
        shutil.rmtree(folder)


@contextmanager
def complete_folder(folder: Path, overwrite: bool) -> Iterator[Path]:
    """A temporary folder beside `folder` that takes its name when the block ends well, and else is removed."""
    refuse_occupied(folder, overwrite)
    folder.parent.mkdir(parents=True, exist_ok=True)
    holder = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        temporary = holder / folder.name
        temporary.mkdir()
        yield temporary
        clear(folder, overwrite)
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(holder, ignore_errors=True)


def put_back(folder: Path) -> None:
    """Where a run was killed between removing the old `folder` and naming the new one, have the old one back."""
    old = folder.with_name(f"{folder.name}.old")
    if old.exists() and folder.exists():
        shutil.rmtree(old)
    elif old.exists():
        os.replace(old, folder)


@contextmanager
def resumed_folder(folder: Path, overwrite: bool) -> Iterator[Path]:
    """The folder `folder`.partial, which takes the name of `folder` when the block ends well.

    It holds what a run that was cut has left in it, or else the files of `folder`, linked and not copied; the block is
    to check either. With overwrite it begins empty. Whatever else ends the block leaves it for the next run. Raises
    InputError where either folder holds what pdsynth did not write.
    """
    refuse_occupied(folder, overwrite=True)
    partial = folder.with_name(f"{folder.name}.partial")
    refuse_occupied(partial, overwrite=True)
    if overwrite:
        clear(partial, overwrite)
    before = [] if overwrite or partial.exists() else sorted(folder.rglob("*"), key=lambda path: path.name != NAME)
    for path in before:  # first the manifest, which says what it is
        if path.is_file():
            link = partial / path.relative_to(folder)
            link.parent.mkdir(parents=True, exist_ok=True)
            linked(path, link)
    yield partial
    old = folder.with_name(f"{folder.name}.old")
    if folder.exists():
        os.replace(folder, old)
    os.replace(partial, folder)
    shutil.rmtree(old, ignore_errors=True)


def linked(path: Path, link: Path) -> None:
    """Have the file at `path` at `link` too, as a hard link where the file system has them, else as a copy."""
    try:
        os.link(path, link)
    except OSError:  # a file system without hard links
        shutil.copy2(path, link)
