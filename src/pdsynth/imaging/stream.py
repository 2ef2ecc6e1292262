"""The bytes of a .nii or .nii.gz, inflated no further than asked, so that no file costs more than it can justify."""

from __future__ import annotations

import os
import zlib
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from pdsynth.types import InputError

COMPRESSED_BLOCK = 1 << 18  # bytes
BLOCK = 1 << 20  # bytes held at a time
PADDING = 1 << 16  # bytes that may follow the voxels: some writers fill their last block
DEFLATE_RATIO = 1032  # deflate stores at best 258 bytes in 2 bits, so a gzip file expands by no more
USUAL_RATIO = 100  # scans are packed 2 to 20 times, masked ones more
COPY_AGAIN = "copy or download the file again"
EXCESS = "holds more data than its header describes", "convert it again from DICOM, or " + COPY_AGAIN


def is_gzip(path: Path) -> bool:
    """Whether the name says gzip."""
    return path.name.endswith(".gz")


def inflate(path: Path, block: int = BLOCK) -> Iterator[bytes]:
    """The bytes of a gzip file in pieces of at most `block`; InputError where it is cut short or damaged.

    Concatenated members are read through, and each one's checksum is verified by zlib.
    """
    with open(path, "rb") as file:
        stream, pending, finished = zlib.decompressobj(wbits=31), b"", True
        try:
            while True:
                if not pending:
                    pending = file.read(min(block, COMPRESSED_BLOCK))
                    if not pending:
                        break
                if stream.eof:
                    pending = pending.lstrip(b"\0")  # members may be followed by zero padding
                    if not pending:
                        continue
                    stream = zlib.decompressobj(wbits=31)
                piece = stream.decompress(pending, block)
                pending = stream.unused_data if stream.eof else stream.unconsumed_tail
                finished = stream.eof
                if piece:
                    yield piece
        except zlib.error as error:
            raise InputError(path, f"is damaged gzip data ({error})", COPY_AGAIN) from error
        if not finished:
            raise InputError(path, "is truncated: its gzip data end too early", COPY_AGAIN)


def pieces(path: Path, block: int) -> Iterator[bytes]:
    """The bytes of a .nii or .nii.gz, inflated, in pieces of at most `block`."""
    if is_gzip(path):
        yield from inflate(path, block)
        return
    with open(path, "rb") as file:
        while piece := file.read(block):
            yield piece


def first_bytes(path: Path, count: int) -> bytes:
    """The first `count` bytes, inflated, or as many as there are; no more is inflated."""
    held = bytearray()
    for piece in pieces(path, count):
        held += piece
        if len(held) >= count:
            break
    return bytes(held[:count])


def content(path: Path, promised: int, block: int = BLOCK) -> Iterator[bytes]:
    """All bytes in pieces; InputError where there are fewer than promised, or as soon as there are too many."""
    held = 0
    for piece in pieces(path, block):
        held += len(piece)
        if held > promised + PADDING:
            raise InputError(path, *EXCESS)
        yield piece
    if held < promised:
        raise InputError(path, f"is truncated: {held} bytes of {promised}", COPY_AGAIN)


def check_size(path: Path, promised: int) -> None:
    """InputError where the file can't hold what its header promises, or holds more than PADDING bytes beyond it."""
    size = path.stat().st_size
    if size * (DEFLATE_RATIO if is_gzip(path) else 1) < promised:
        raise InputError(path, f"is truncated: its {size} bytes cannot hold {promised}", COPY_AGAIN)
    if not is_gzip(path):
        if size > promised + PADDING:
            raise InputError(path, *EXCESS)
        return
    with open(path, "rb") as file:
        file.seek(-4, os.SEEK_END)
        ending = int.from_bytes(file.read(4), "little")
    # Modulo 2^32 and of the last member only, so a disagreement is settled by inflating the file. One that is forged to
    # agree is believed where it is likely, as this is called often; `content` finds it out.
    likely = promised / USUAL_RATIO <= size <= 1.01 * promised + PADDING  # what can't be packed grows a little
    if not likely or (ending - promised) % 2**32 > PADDING:
        deque(content(path, promised), maxlen=0)
