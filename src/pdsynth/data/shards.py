"""Volumes of a prepared folder: one memory-mapped file a session, so that a session is made, kept or replaced alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from pdsynth.files import complete_or_absent, sha256
from pdsynth.resources import stops_run
from pdsynth.types import InputError

FOLDER = "sessions"
MAPPED = 128  # files held open at a time; a process may have as few as 256
AGAIN = "run `pdsynth prepare` again"


def write_shard(path: Path, rows: Sequence[dict[str, np.ndarray]]) -> int:
    """Write the volumes of a session's rows, each (X, Y, Z) by name, in the order of rows; returns the bytes written.

    Every row has the same names, shapes and types. The file appears under its name only when complete.
    """
    shard = np.zeros(len(rows), [(name, array.dtype, array.shape) for name, array in rows[0].items()])
    for k, row in enumerate(rows):
        for name, array in row.items():
            shard[name][k] = array
    with complete_or_absent(path) as temporary:
        np.save(temporary, shard)
    return path.stat().st_size


class Shards:
    """Reads volumes of a prepared folder from disk as they are asked for."""

    def __init__(
        self,
        root: Path,
        shape: tuple[int, int, int],
        digests: Mapping[str, str] | None = None,
        mapped: int = MAPPED,
    ) -> None:
        """digests: sha256 of the files, by their path in the folder; those that are known are checked at first use.

        mapped: files held open at a time. The pages that were read of them count as memory of the process.
        """
        self.root, self.shape, self.digests = root, tuple(shape), dict(digests or {})
        self._open = lru_cache(maxsize=mapped)(self._mapped)

    def read(self, shard: str, row: int, name: str) -> np.ndarray:
        """One volume, (X, Y, Z), as it lies on disk; zeros where the session has none of that name.

        Raises InputError where the file is missing, damaged, or of another grid.
        """
        rows = self._open(shard)
        if name not in (rows.dtype.names or ()):
            return np.zeros(self.shape, bool if name.endswith("_brain") else np.float16)
        return rows[row][name]

    def _mapped(self, shard: str) -> np.ndarray:
        path = self.root / FOLDER / shard
        try:
            digest = self.digests.pop(f"{FOLDER}/{shard}", None)  # once is enough, however often it is mapped
            if digest is not None and sha256(path) != digest:
                raise InputError(path, "was changed after the folder was prepared", AGAIN)
            rows = np.load(path, mmap_mode="r")
            if not isinstance(rows, np.ndarray):
                raise ValueError("it is no array")
        except InputError:
            raise
        except Exception as error:  # numpy evaluates the header: a damaged one fails in many ways
            if stops_run(error):
                raise
            raise InputError(path, f"is missing or damaged ({' '.join(str(error).split())})", AGAIN) from error
        shapes = {field[0].shape for field in (rows.dtype.fields or {}).values()}
        if shapes != {self.shape}:
            raise InputError(path, f"holds volumes of {shapes or rows.shape}, not of {self.shape}", AGAIN)
        return rows


def check_sizes(root: Path, sizes: dict[str, int]) -> None:
    """Raise InputError where a file of the folder is missing or has another size than was written."""
    there = {path.name: path.stat().st_size for path in (root / FOLDER).glob("*.npy")}
    for name, size in sizes.items():
        if there.get(name) != size:
            problem = "is missing" if name not in there else f"is cut short or damaged: {there[name]} bytes of {size}"
            raise InputError(root / FOLDER / name, problem, AGAIN)
