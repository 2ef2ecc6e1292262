"""manifest.json, the record of an output folder: command, version, inputs, times, and the digests of all files.

No entry contains a path of the machine: an input has its file name and its digest only.
"""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version as library_version
from pathlib import Path
from typing import Any

import pdsynth
from pdsynth import formats
from pdsynth.files import read_json, sha256, write_json

NAME = "manifest.json"
MADE_BY = "pdsynth"
FILES = "files"  # the inventory: relative path -> digest of every file
LIBRARIES = ("numpy", "scipy", "nibabel", "torch")  # whose versions are recorded
SEAL = "seal"  # digest of all other entries of the manifest


def begin(command: str, *, inputs: Sequence[Path] = (), seed: int | None = None, **parameters: Any) -> dict[str, Any]:
    """The content of manifest.json at the start of a command; `finished` and `seconds` are None until its end.

    inputs: files and folders that the command reads, recorded by name and by the digest of `files.sha256`; a number is
    added to a name that occurs again. seed: of the command; None if it has none. parameters: further settings, recorded
    by value; a parameter that is a path is recorded by its last name only. Raises InputError if an input does not
    exist.
    """
    return {
        "made_by": MADE_BY,
        "format": formats.FOLDER.number,
        "version": pdsynth.__version__,
        "command": command,
        "parameters": {k: v.name if isinstance(v, Path) else v for k, v in parameters.items()},
        "seed": seed,
        "inputs": _digests(inputs),
        "python": platform.python_version(),
        "libraries": {name: library_version(name) for name in LIBRARIES},
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "finished": None,
        "seconds": None,
    }


def _digests(inputs: Sequence[Path]) -> dict[str, str]:
    """Name -> digest of each input; a repeated name gets a number."""
    digests: dict[str, str] = {}
    for path in inputs:
        name, number = path.resolve().name, 2
        while name in digests:
            name, number = f"{path.resolve().name} ({number})", number + 1
        digests[name] = sha256(path)
    return digests


def finish(folder: Path, entries: dict[str, Any]) -> None:
    """Write `folder`/manifest.json at the end of a command, with the end time and the duration in whole seconds.

    entries: the content from `begin`, which may have further keys; the dict itself gets the end time and the duration
    too. Keys of the present manifest.json that `entries` lacks are kept.
    """
    entries |= _finished(entries)
    write_json(folder / NAME, read(folder) | entries)


def _finished(entries: dict[str, Any]) -> dict[str, Any]:
    now = datetime.now(UTC)
    duration = (now - datetime.fromisoformat(entries["started"])).total_seconds()
    return entries | {"finished": now.isoformat(timespec="seconds"), "seconds": round(duration)}


@contextmanager
def recorded(
    folder: Path, command: str, *, inputs: Sequence[Path] = (), seed: int | None = None, **parameters: Any
) -> Iterator[dict[str, Any]]:
    """Write folder/manifest.json at the start of the block, and complete it at the end.

    Yields the content of the manifest as a dict, to which the block may add keys. The arguments are those of `begin`.
    The folder is created if it does not exist; an earlier manifest.json in it is replaced. After an error, the file
    stays as it was at the start, with `finished` null, and the folder is removed if it contains nothing but the
    manifest.
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
def addition(folder: Path, command: str, *, seed: int | None = None, **parameters: Any) -> Iterator[None]:
    """Record in a folder's manifest.json that a further command added files, if the block ends without an error.

    The record of the command (name, version, seed, parameters, times) is appended to the list `added` of the manifest.
    """
    entries = begin(command, seed=seed, **parameters)
    yield
    before = read(folder)
    write_json(folder / NAME, before | {"added": [*before.get("added", []), _finished(entries)]})


def read(folder: Path) -> dict[str, Any]:
    """The content of a folder's manifest.json; {} if it is missing or cannot be read.

    Raises InputError if a later pdsynth wrote it, in a format that this version cannot read, or if an entry does not
    fit, so that it was edited.
    """
    entries = read_json(folder / NAME)
    if made_by_pdsynth(entries):
        formats.FOLDER.check(entries.get("format", 1), folder / NAME, entries.get("version"))
        from pdsynth.schemas import Manifest, check  # late: pydantic takes a tenth of a second

        check(entries, Manifest, folder / NAME, "restore it, or run the command that wrote the folder again")
    return entries


def made_by_pdsynth(entries: dict[str, Any]) -> bool:
    """Whether pdsynth wrote a manifest.json with the content `entries`.

    The manifest of version 0.1.0 has no key `made_by` and is recognised by its other keys.
    """
    older = {"version", "command", "parameters", "seed", "inputs", "python", "started"} <= entries.keys()
    return entries.get("made_by") == MADE_BY or (older and "made_by" not in entries)


def seal_of(entries: dict[str, Any]) -> str:
    """SHA-256 of the content of a manifest.json, without its key `seal`. It reveals an edited manifest."""
    content = json.dumps({k: v for k, v in entries.items() if k != SEAL}, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()
