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
    """Size (bytes), times (ns), inode and SHA-256 of a file when it was read, by which a later change is noticed.

    mtime_ns: time of the last change of the content. ctime_ns: time of the last change of the content or the status;
    None if this was less than 2 s before the stamp was made, because a later change within the file system's time step
    would not show. A stamp that version 0.1.0 wrote has no ctime_ns and no inode.
    """

    size: int
    mtime_ns: int
    ctime_ns: int | None
    inode: int
    sha256: str


def stamp(path: Path, digest: str | None = None) -> Stamp | None:
    """Size, times, inode and SHA-256 of a file as it is now; None if it cannot be read.

    digest: the SHA-256 if the caller knows it; None means that the file is read to compute it.
    """
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
    """The stamp (size, times, inode, SHA-256) of a file as it is now, by reading the file only if necessary.

    before: an earlier stamp of this file; None means that there is none, and the file is read. If the size and all
    times and the inode equal those of `before`, the result is `before`, without reading; this needs a `before` with
    ctime_ns. If the size differs, the result is None, without reading. In all other cases the file is read. The result
    is None if it cannot be read. The file is unchanged if the result has the SHA-256 of `before` (see `unchanged`).
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
    """Whether a file is the same by two of its stamps: equal SHA-256, or both None because it could not be read.

    If one alone is None, the result is false.
    """
    return (before and before["sha256"]) == (now and now["sha256"])
