"""The checkpoint of a training stage: its atomic write, a record of its digest, and its checked read."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, Field
from pytorch_lightning.plugins.io import TorchCheckpointIO

from pdsynth import files
from pdsynth.schemas import Count, validate
from pdsynth.types import InputError

SUFFIX = ".ckpt"
DIGESTS = "sha256"  # entry of a record
NEEDED = {"epoch", "global_step", "pytorch-lightning_version", "state_dict", "loops", "optimizer_states", "pdsynth"}
REMEDY = "restore it from a backup, or remove it to train this stage anew"


class _Average(BaseModel):
    updates: Count


class _Own(BaseModel):
    step: Count
    flops: Annotated[float, Field(ge=0)] = 0
    elapsed: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    ema: _Average


def record_of(checkpoint: Path) -> Path:
    """Path of the JSON file beside a checkpoint that has the SHA-256 of its present and of its previous content."""
    return checkpoint.with_name(f"{checkpoint.name}.json")


class CompleteCheckpoints(TorchCheckpointIO):
    """Plugin of Lightning that writes a training checkpoint completely or not at all.

    It replaces Lightning's own plugin, which writes first to the system's temporary folder, and reports no error if it
    may not write. If several devices train together, Lightning calls it on the first one only.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write the state of a training to the file `path`, completely or not at all.

        A JSON file beside it with the SHA-256 of the content is written first. This file also has the SHA-256 of the
        previous content, so that it is correct even if the process is killed between the two writes. storage_options is
        not used. Raises OSError with the file's name if it cannot be written.
        """
        path, buffer = Path(path), io.BytesIO()
        torch.save(checkpoint, buffer)
        content = buffer.getbuffer()
        before = [files.sha256(path)] if path.exists() else []
        digests = {DIGESTS: [*before, hashlib.sha256(content).hexdigest()]}
        files.write_json(record_of(path), digests)
        files.write_bytes(path, content)


def read(checkpoint: Path) -> dict[str, Any]:
    """Load the state of a training stage from its checkpoint file, to the CPU. No code in the file is executed.

    Raises InputError if the SHA-256 of the file is not in the JSON file beside it, or if the content is not a
    checkpoint of pdsynth. A checkpoint of an older version has no such JSON file; only its content is checked. Raises
    OSError if the file is missing.
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
    """Run the block that restores the state of a checkpoint; its errors become InputError with the name of the file.

    These are RuntimeError, LookupError, ValueError, TypeError and AttributeError, which the state of a damaged file, or
    of another method, raises. Other errors stay as they are.
    """
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
    validate(entries["pdsynth"], _Own)
