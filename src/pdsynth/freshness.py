"""Whether a file has changed since it was read, without reading it again where the file system can show that.

A stamp holds the digest of a file with its size, its inode and its times of modification and of status change (ctime).
Programs such as `mv`, `cp -p`, `rsync -t` and `touch` set the modification time. No program can set the ctime, and a
file that replaces another has another inode. If all of them are equal, the content is equal; otherwise the digest
decides.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TypedDict

from pdsynth.files import sha256

# A file system may store times in steps of up to 2 s. A file that changed so recently could change again within a step.
TIME_STEP_NS = 2_000_000_000


class Stamp(TypedDict):
    """The state of a file when it was read, as stored in records. Version 0.1.0 stored no ctime_ns and no inode.

    ctime_ns is None if the file had changed shortly before the stamp was made; then the digest is compared.
    """

    size: int
    mtime_ns: int
    ctime_ns: int | None
    inode: int
    sha256: str


def stamp(path: Path, digest: str | None = None) -> Stamp | None:
    """The present stamp of a file; None if it cannot be read. The digest is computed, unless the caller gives it."""
    try:
        now, about = time.time_ns(), path.stat()  # before the digest: a change during the reading changes the times
        return {
            "size": about.st_size,
            "mtime_ns": about.st_mtime_ns,
            "ctime_ns": about.st_ctime_ns if about.st_ctime_ns < now - TIME_STEP_NS else None,
            "inode": about.st_ino,
            "sha256": sha256(path) if digest is None else digest,
        }
    except (OSError, ValueError):
        return None


def renewed(path: Path, before: Stamp | None) -> Stamp | None:
    """The present stamp of a file. The file is read only if its times or inode differ from those of an earlier stamp.

    The result is None, without reading, if the size differs, and if the file cannot be read. The file is unchanged if
    the result has the digest of `before`: see `unchanged`. Without an earlier stamp the file is read.
    """
    try:
        about = path.stat()
    except OSError:
        return None
    if before is None:
        return stamp(path)
    if about.st_size != before["size"]:
        return None
    times = about.st_mtime_ns, about.st_ctime_ns, about.st_ino
    return before if times == (before["mtime_ns"], before.get("ctime_ns"), before.get("inode")) else stamp(path)


def unchanged(before: Stamp | None, now: Stamp | None) -> bool:
    """Whether two stamps of a file have the same digest, or both are None, because it could not be read both times."""
    return (before and before["sha256"]) == (now and now["sha256"])
