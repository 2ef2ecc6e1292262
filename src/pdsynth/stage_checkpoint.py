"""A training stage on disk: its checkpoint, whole or absent, and beside it the digest of what was written."""

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
DIGESTS = "sha256"  # of a record
NEEDED = {"epoch", "global_step", "pytorch-lightning_version", "state_dict", "loops", "optimizer_states", "pdsynth"}
REMEDY = "restore it from a backup, or remove it to train this stage anew"


def record_of(checkpoint: Path) -> Path:
    """The file that holds the digests of what a checkpoint is and was before."""
    return checkpoint.with_name(f"{checkpoint.name}.json")


class CompleteCheckpoints(TorchCheckpointIO):
    """How Lightning is to write a checkpoint: of devices that train together it asks the first one alone.

    Its own way writes beside the system's temporary files and says nothing where it may not write.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint that is whole or absent, its record first, so that a kill between the two leaves a pair.

        Raises OSError with the file's name where it can't be written.
        """
        path, buffer = Path(path), io.BytesIO()
        torch.save(checkpoint, buffer)
        content = buffer.getbuffer()
        before = [files.sha256(path)] if path.exists() else []
        digests = {DIGESTS: [*before, hashlib.sha256(content).hexdigest()]}
        files.write_json(record_of(path), digests)
        files.write_bytes(path, content)


def read(checkpoint: Path) -> dict[str, Any]:
    """What a checkpoint holds, on the CPU. No code in it is run.

    Raises InputError where its bytes are not those that were written, or no checkpoint of pdsynth. One without a record
    is of an older version, and is only looked through.
    """
    content = checkpoint.read_bytes()
    record = record_of(checkpoint)
    if record.exists() and hashlib.sha256(content).hexdigest() not in _digests(record):
        raise InputError(checkpoint, "is damaged", REMEDY)
    try:
        kept = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        _check(kept)
    except MemoryError:
        raise
    except Exception:  # the reader fails in many ways, and one advises to run the code in the file: none is shown
        raise InputError(checkpoint, "is damaged", REMEDY) from None
    return kept


@contextmanager
def fitting(checkpoint: Path) -> Iterator[None]:
    """InputError, with the checkpoint's name, where what it holds can't be taken over in the block."""
    try:
        yield
    except (RuntimeError, LookupError, ValueError, TypeError, AttributeError) as error:
        raise InputError(checkpoint, "is damaged, or of another method", REMEDY) from error


def _digests(record: Path) -> list[Any]:
    digests = files.read_json(record).get(DIGESTS)
    return digests if isinstance(digests, list) else []


def _check(kept: Any) -> None:
    """Raise ValueError or KeyError unless these are the entries of a checkpoint, and its clock can be."""
    if missing := NEEDED - set(kept):
        raise KeyError(min(missing))
    own = kept["pdsynth"]
    counts = own["step"], own.get("flops", 0), own["ema"]["updates"]
    if not all(type(n) is int and n >= 0 for n in counts):
        raise ValueError("its counts are no counts")
    if not (math.isfinite(own["elapsed"]) and own["elapsed"] >= 0):
        raise ValueError("its time is no time")
