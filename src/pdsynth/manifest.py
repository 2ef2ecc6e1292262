"""manifest.json: who made a folder, from what, when, and, once it is complete, which files with which digests.

No entry holds a path of the machine: an input is named by its own name and its digest.
"""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pdsynth
from pdsynth.files import read_json, sha256, write_json

NAME = "manifest.json"
MADE_BY = "pdsynth"
FILES = "files"  # the inventory: digests of all files, by their path in the folder
SEAL = "seal"  # digest of the manifest itself, but for this entry


def begin(command: str, *, inputs: Sequence[Path] = (), seed: int | None = None, **parameters: Any) -> dict[str, Any]:
    """The entries of a manifest at the start of some work; `finished` is null until it ends."""
    return {
        "made_by": MADE_BY,
        "version": pdsynth.__version__,
        "command": command,
        "parameters": {k: v.name if isinstance(v, Path) else v for k, v in parameters.items()},
        "seed": seed,
        "inputs": _digests(inputs),
        "python": platform.python_version(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "finished": None,
        "seconds": None,
    }


def _digests(inputs: Sequence[Path]) -> dict[str, str]:
    """By the name of each input; a name that comes again has a number."""
    found: dict[str, str] = {}
    for path in inputs:
        name, number = path.resolve().name, 2
        while name in found:
            name, number = f"{path.resolve().name} ({number})", number + 1
        found[name] = sha256(path)
    return found


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


def made_by_pdsynth(entries: dict[str, Any]) -> bool:
    """Whether a manifest is pdsynth's; version 0.1.0 wrote no mark, but always the same entries."""
    older = {"version", "command", "parameters", "seed", "inputs", "python", "started"} <= entries.keys()
    return entries.get("made_by") == MADE_BY or (older and "made_by" not in entries)


def seal_of(entries: dict[str, Any]) -> str:
    """Digest of a manifest's entries, but for the seal itself: it tells an edited manifest from ours."""
    content = json.dumps({k: v for k, v in entries.items() if k != SEAL}, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()
