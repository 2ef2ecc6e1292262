"""Single files that are whole or absent: written beside their place, synced to the disk, then named."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pdsynth.types import InputError

if TYPE_CHECKING:
    import pandas as pd

SMALL = 1 << 20  # bytes; of larger files in a folder, only name and size enter its digest
PARTIAL = ".partial-"  # begins the name of a file that is being written
FORMULA = re.compile(r"^[\s']*[=+@-]|^[\t\r]")  # what a spreadsheet would run
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?|[-+]?(inf|nan)", re.IGNORECASE)


@contextmanager
def complete_or_absent(path: Path) -> Iterator[Path]:
    """A temporary path in the folder of `path`; it takes that name when the block ends well, and else vanishes.

    The bytes are on the disk before they have the name. The file has the mode that the umask gives.
    """
    temporary = path.with_name(f"{PARTIAL}{secrets.token_hex(4)}-{path.name[-200:]}")
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
    except OSError as error:
        if error.filename in (None, str(temporary)):  # None in numpy's short write, say, which has no number either
            number = error.errno or errno.ENOSPC
            raise OSError(number, os.strerror(number), str(path)) from error
        raise
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Have the disk hold what was written to a file, or which names a folder holds."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    """Write a file so that a reader sees the old one or the whole new one."""
    with complete_or_absent(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write a text so that a reader sees the old file or the whole new one."""
    write_bytes(path, text.encode())


def write_json(path: Path, content: Any) -> None:
    """Write JSON so that a reader sees the old file or the whole new one."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def write_table(path: Path, table: pd.DataFrame, **how: Any) -> None:
    """Write a table as tab-separated text in which no cell is a formula; `how` goes to pandas."""
    texts = {name: table[name].map(defused) for name in table.columns if table[name].dtype.kind not in "iufb"}
    write_text(path, table.assign(**texts).to_csv(sep="\t", index=False, **how))


def defused(cell: Any) -> Any:
    """A cell that a spreadsheet shows as text: what it would run as a formula begins with an apostrophe.

    >>> defused('=HYPERLINK("http://a")'), defused("-1.5"), defused("adni")
    ('\\'=HYPERLINK("http://a")', '-1.5', 'adni')
    """
    if isinstance(cell, str) and FORMULA.match(cell) and not cell.startswith("'") and not NUMBER.fullmatch(cell):
        return f"'{cell}"
    return cell


def read_json(path: Path) -> dict[str, Any]:
    """What a JSON file holds; empty where it cannot be read or holds no object."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes, or of a folder; InputError where there is neither.

    A folder's digest covers the names and sizes of all its files and the bytes of those up to 1 MiB (tables, sidecars,
    gradient tables), so that a cohort of many gigabytes is known from another in a moment.
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


def linked(path: Path, link: Path) -> None:
    """Have the file at `path` at `link` too, as a hard link where the file system has them, else as a copy."""
    try:
        os.link(path, link)
    except OSError:  # a file system without hard links
        shutil.copy2(path, link)
