"""The checkpoint of a training stage: its atomic write, a record of its digest, and its checked read."""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from pdsynth import files
from pdsynth.types import InputError

SUFFIX = ".ckpt"
DIGESTS = "sha256"  # entry of a record
NEEDED = {"epoch", "global_step", "pytorch-lightning_version", "state_dict", "loops", "optimizer_states", "pdsynth"}
REMEDY = "restore it from a backup, or remove it to train this stage anew"


def record_of(checkpoint: Path) -> Path:
    """Path of the record of a checkpoint: the digests of its present and its previous content."""
    return checkpoint.with_name(f"{checkpoint.name}.json")


class CompleteCheckpoints(TorchCheckpointIO):
    """Lightning's plugin for writing checkpoints. Lightning calls it on the first of several devices only.

    Lightning's default plugin writes first to the system's temporary folder, and reports no error if it may not write.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint atomically. Its record is written first and also lists the previous digest, so that a
        checkpoint matches its record after a kill between the two writes.

        Raises OSError with the file's name if it can't be written.
        """
        path, buffer = Path(path), io.BytesIO()
        torch.save(checkpoint, buffer)
        content = buffer.getbuffer()
        before = [files.sha256(path)] if path.exists() else []
        digests = {DIGESTS: [*before, hashlib.sha256(content).hexdigest()]}
        files.write_json(record_of(path), digests)
        files.write_bytes(path, content)


def read(checkpoint: Path) -> dict[str, Any]:
    """Load a checkpoint to the CPU. No code in the file is executed.

    Raises InputError if the bytes differ from the record, or if the content is not a checkpoint of pdsynth. A
    checkpoint of an older version has no record; only its content is checked.
    """
    content = checkpoint.read_bytes()
    record = record_of(checkpoint)
    if record.exists() and hashlib.sha256(content).hexdigest() not in _digests(record):
        raise InputError(checkpoint, "is damaged", REMEDY)
    try:
        entries = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        _check(entries)
    except MemoryError:
        raise
    except Exception:  # torch's errors are many, and one advises to execute the code in the file: they are hidden
        raise InputError(checkpoint, "is damaged", REMEDY) from None
    return entries


@contextmanager
def restoring(checkpoint: Path) -> Iterator[None]:
    """Convert errors of the block, which restores the state of a checkpoint, into InputError with its name."""
    try:
        yield
    except (RuntimeError, LookupError, ValueError, TypeError, AttributeError) as error:
        raise InputError(checkpoint, "is damaged, or of another method", REMEDY) from error


def _digests(record: Path) -> list[Any]:
    digests = files.read_json(record).get(DIGESTS)
    return digests if isinstance(digests, list) else []


def _check(entries: Any) -> None:
    """Raise KeyError if an entry of a checkpoint is missing, and ValueError if a count or the time is invalid."""
    if missing := NEEDED - set(entries):
        raise KeyError(min(missing))
    own = entries["pdsynth"]
    counts = own["step"], own.get("flops", 0), own["ema"]["updates"]
    if not all(type(n) is int and n >= 0 for n in counts):
        raise ValueError("a count is not a natural number")
    if not (math.isfinite(own["elapsed"]) and own["elapsed"] >= 0):
        raise ValueError("the elapsed time is negative or not finite")
