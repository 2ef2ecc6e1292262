"""Atomic writes of single files: a file is written under a temporary name, synced to the disk, then renamed."""

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

SMALL = 1 << 20  # bytes; a larger file contributes only its name and size to the digest of a folder
PARTIAL = ".partial-"  # prefix of the name of a file that is being written
FORMULA = re.compile(r"^[\s']*[=+@-]|^[\t\r]")  # cells that a spreadsheet would evaluate
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?|[-+]?(inf|nan)", re.IGNORECASE)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`; it is renamed to `path` if the block ends without an error.

    The block writes the file at the temporary path. After an error this file is removed, and `path` keeps its old
    content. The bytes are synced to the disk before the rename. The file mode follows the umask. An OSError names
    `path` and not the temporary path, also if the block has written no file.
    """
    temporary = path.with_name(f"{PARTIAL}{secrets.token_hex(4)}-{path.name[-200:]}")
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
    except OSError as error:
        if error.filename in (None, str(temporary)):  # a short write of numpy has neither name nor number
            number = error.errno or errno.ENOSPC
            raise OSError(number, os.strerror(number), str(path)) from error
        raise
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Write the content of a file, or the list of names of a folder, from the system's cache to the disk (fsync)."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    """Write a file. A reader sees the old content or the complete new content."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8. A reader sees the old content or the complete new content.

    Bytes of a file name that are not UTF-8 are written as escapes, such as \\udce9.
    """
    write_bytes(path, text.encode(errors="backslashreplace"))


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file, indented by two spaces. A reader sees the old content or the complete new content.

    content: a value that Python's json module can write. Raises TypeError for another one.
    """
    write_text(path, json.dumps(content, indent=2) + "\n")


def write_table(path: Path, table: pd.DataFrame, **options: Any) -> None:
    """Write a table, without its index, as tab-separated text, completely or not at all.

    options: those of pandas' to_csv, except sep and index. An apostrophe is put in front of a text in a cell that a
    spreadsheet would evaluate as a formula (see `without_formula`). Names of columns are written as they are.
    """
    texts = {name: table[name].map(without_formula) for name in table.columns if table[name].dtype.kind not in "iufb"}
    write_text(path, table.assign(**texts).to_csv(sep="\t", index=False, **options))


def without_formula(cell: Any) -> Any:
    """The cell of a table, with an apostrophe in front if a spreadsheet would evaluate it as a formula.

    Such a cell is a text whose first character, after white space, is =, +, - or @, or that starts with a tab or a
    carriage return. Numbers, also as text, and texts that already start with an apostrophe are unchanged.

    >>> without_formula('=HYPERLINK("http://a")'), without_formula("-1.5"), without_formula("adni")
    ('\\'=HYPERLINK("http://a")', '-1.5', 'adni')
    """
    if isinstance(cell, str) and FORMULA.match(cell) and not cell.startswith("'") and not NUMBER.fullmatch(cell):
        return f"'{cell}"
    return cell


def read_json(path: Path) -> dict[str, Any]:
    """The dict in a JSON file; {} if the file cannot be read, is not valid JSON, or does not contain an object."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 digest that identifies the content of a file or of a folder.

    The digest of a file covers all its bytes. The digest of a folder covers the relative paths and sizes of all files
    in it and below, and the bytes of files up to 1 MiB (tables, sidecars, gradient tables), so that a cohort of many
    gigabytes is identified in a moment. A larger file that changes without a change of its size is not noticed. A file
    in the folder that may not be read contributes only its path and size; a subfolder that may not be listed is left
    out. Raises InputError if the path is neither a file nor a folder, and PermissionError for a single file that may
    not be read.
    """
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    if not path.is_dir():
        raise InputError(path, "does not exist", "check the path")
    digest = hashlib.sha256()
    for file_path in sorted(p for p in path.rglob("*") if os.path.isfile(p)):
        size = file_path.stat().st_size
        digest.update(os.fsencode(f"{file_path.relative_to(path).as_posix()}\0{size}\0"))
        if size <= SMALL:
            with suppress(PermissionError):
                digest.update(file_path.read_bytes())
    return digest.hexdigest()


def link_or_copy(path: Path, link: Path) -> None:
    """Put the file `path` at `link` too: as a hard link, or as a copy on a file system without hard links.

    No file may exist at `link`; a copy would overwrite it.
    """
    try:
        os.link(path, link)
    except OSError:  # a file system without hard links
        shutil.copy2(path, link)
