"""Volumes of a prepared folder: one memory-mapped file (shard) per session, so that a session can be replaced alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from threading import Lock

import numpy as np

from pdsynth.files import atomic_path, sha256
from pdsynth.resources import stops_run
from pdsynth.types import InputError

FOLDER = "sessions"
MAPPED = 128  # files that are open at the same time; the limit of a process may be as low as 256
AGAIN = "run `pdsynth prepare` again"


def write_shard(path: Path, rows: Sequence[dict[str, np.ndarray]]) -> int:
    """Write the file (shard) of a session's volumes, and return its size in bytes.

    rows: one dict per row, first the whole scan and then each segment, with volumes (X, Y, Z) by name, such as "fmri"
    or "fmri_brain". All rows have the same names, shapes and types. The file gets its name only when it is complete.
    """
    shard = np.zeros(len(rows), [(name, array.dtype, array.shape) for name, array in rows[0].items()])
    for k, row in enumerate(rows):
        for name, array in row.items():
            shard[name][k] = array
    with atomic_path(path) as temporary:
        np.save(temporary, shard)
    return path.stat().st_size


class Shards:
    """Reads volumes of a prepared folder, of which each session has one file (shard), from the disk on demand.

    root: the prepared folder. shape: voxels along each axis of its grid. digests: SHA-256 of files, by their path in
    the folder; a file with a digest is checked at its first use. mapped: number of files that stay open; the pages that
    were read of them count as memory of the process.
    """

    def __init__(
        self,
        root: Path,
        shape: tuple[int, int, int],
        digests: Mapping[str, str] | None = None,
        mapped: int = MAPPED,
    ) -> None:
        self.root, self.shape, self.digests = root, tuple(shape), dict(digests or {})
        self._open = lru_cache(maxsize=mapped)(self._mapped)
        self._lock = Lock()  # no thread reads a file whose digest another one is checking

    def read(self, shard: str, row: int, name: str) -> np.ndarray:
        """One volume, (X, Y, Z), in the data type of the file; zeros if the session has no volume of this name.

        shard: name of the file. row: 0 for the whole scan, k for segment k - 1. name: "fmri", "dmri", "fmri_brain",
        "dmri_brain", or, in a simulated cohort, "oracle_fmri" and "oracle_dmri" (expected scans). Raises InputError if
        the file is missing, damaged, or has another grid, or if its digest is known and it was changed after
        preparation.
        """
        with self._lock:
            rows = self._open(shard)
        if name not in (rows.dtype.names or ()):
            return np.zeros(self.shape, bool if name.endswith("_brain") else np.float16)
        if not 0 <= row < len(rows):
            problem = f"holds {len(rows)} rows, but pairs.tsv names row {row}"
            raise InputError(self.root / FOLDER / shard, problem, AGAIN)
        return rows[row][name]

    def _mapped(self, shard: str) -> np.ndarray:
        path = self.root / FOLDER / shard
        try:
            digest = self.digests.pop(
                f"{FOLDER}/{shard}", None
            )  # checked once, although a file may be mapped several times
            if digest is not None and sha256(path) != digest:
                raise InputError(path, "was changed after the folder was prepared", AGAIN)
            rows = np.load(path, mmap_mode="r")
            if not isinstance(rows, np.ndarray):
                raise ValueError("it is not an array")
        except InputError:
            raise
        except Exception as error:  # numpy evaluates the header, and a damaged one raises many types of errors
            if stops_run(error):
                raise
            raise InputError(path, f"is missing or damaged ({' '.join(str(error).split())})", AGAIN) from error
        if rows.ndim != 1:
            raise InputError(path, f"holds {rows.shape} volumes, not one row per scan", AGAIN)
        shapes = {field[0].shape for field in (rows.dtype.fields or {}).values()}
        if shapes != {self.shape}:
            raise InputError(path, f"holds volumes of {shapes or rows.shape}, not of {self.shape}", AGAIN)
        return rows


def check_sizes(root: Path, sizes: dict[str, int]) -> None:
    """Raise InputError if a file of volumes is missing from a prepared folder, or has another size.

    root: the prepared folder, which has these files in the folder sessions. sizes: bytes of each file, by file name.
    """
    present = {path.name: path.stat().st_size for path in (root / FOLDER).glob("*.npy")}
    for name, size in sizes.items():
        if present.get(name) != size:
            problem = (
                "is missing" if name not in present else f"is cut short or damaged: {present[name]} bytes of {size}"
            )
            raise InputError(root / FOLDER / name, problem, AGAIN)
