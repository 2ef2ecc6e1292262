"""Reads the bytes of a .nii or .nii.gz file in pieces, so that a damaged or hostile file costs little memory."""

from __future__ import annotations

import os
import zlib
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from pdsynth.types import InputError

COMPRESSED_BLOCK = 1 << 18  # bytes
BLOCK = 1 << 20  # bytes in memory at a time
PADDING = 1 << 16  # bytes that may follow the voxels: some writers fill their last block
DEFLATE_RATIO = 1032  # deflate stores at best 258 bytes in 2 bits, so that a gzip file expands by no more
PLAUSIBLE_RATIO = 100  # scans are compressed 2 to 20 times, masked scans more
GZIP_MAGIC = b"\x1f\x8b"  # the first bytes of a gzip file
COPY_AGAIN = "copy or download the file again"
EXCESS = "contains more data than its header describes", "convert it again from DICOM, or " + COPY_AGAIN


def is_gzip(path: Path) -> bool:
    """Whether the file name ends in .gz, in lower case; the content is not read."""
    return path.name.endswith(".gz")


def inflate(path: Path, block: int = BLOCK) -> Iterator[bytes]:
    """Yield the inflated bytes of a gzip file in pieces of at most `block` bytes.

    All concatenated members are read, and zlib verifies the checksum of each. An empty file yields nothing. Raises
    InputError if the file is truncated, damaged or not gzip data.
    """
    with open(path, "rb") as file:
        start = file.read(len(GZIP_MAGIC))
        if start and start != GZIP_MAGIC[: len(start)]:
            raise InputError(
                path,
                "is not gzip data, although its name ends in .gz",
                f"{COPY_AGAIN}; rename it to .nii if it is an uncompressed image",
            )
        file.seek(0)
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
    """Yield the bytes of a .nii or .nii.gz file, inflated, in pieces of at most `block` bytes.

    Raises InputError if the gzip data are truncated or damaged, or if the file's name ends in .gz and it is not gzip
    data or the other way round.
    """
    if is_gzip(path):
        yield from inflate(path, block)
        return
    with open(path, "rb") as file:
        if file.read(len(GZIP_MAGIC)) == GZIP_MAGIC:
            raise InputError(path, "is gzip data, although its name does not end in .gz", "rename it to .nii.gz")
        file.seek(0)
        while piece := file.read(block):
            yield piece


def first_bytes(path: Path, count: int) -> bytes:
    """The first `count` bytes of a .nii or .nii.gz file, inflated; all bytes if the file is shorter.

    The rest of the file is not inflated. Raises InputError if this part is damaged gzip data, or the name's ending .gz
    does not fit the content.
    """
    data = bytearray()
    for piece in pieces(path, count):
        data += piece
        if len(data) >= count:
            break
    return bytes(data[:count])


def content(path: Path, expected: int, block: int = BLOCK) -> Iterator[bytes]:
    """Yield all bytes of a .nii or .nii.gz file, inflated, in pieces of at most `block` bytes, and check their number.

    expected: the number of bytes that the header describes. Bytes beyond them are yielded, too. Raises InputError at
    the end if there are fewer, and as soon as there are more than 65,536 bytes beyond them.
    """
    count = 0
    for piece in pieces(path, block):
        count += len(piece)
        if count > expected + PADDING:
            raise InputError(path, *EXCESS)
        yield piece
    if count < expected:
        raise InputError(path, f"is truncated: {count} bytes of {expected}", COPY_AGAIN)


def check_size(path: Path, expected: int) -> None:
    """Raise InputError if a file has fewer inflated bytes than `expected`, or more than 65,536 bytes beyond them.

    expected: the number of bytes that the header describes. A gzip file is inflated only if the size that it records at
    its end does not fit, or its compression ratio is implausible; else the recorded size is believed.
    """
    size = path.stat().st_size
    if size * (DEFLATE_RATIO if is_gzip(path) else 1) < expected:
        raise InputError(path, f"is truncated: its {size} bytes cannot hold {expected}", COPY_AGAIN)
    if not is_gzip(path):
        if size > expected + PADDING:
            raise InputError(path, *EXCESS)
        return
    with open(path, "rb") as file:
        file.seek(-4, os.SEEK_END)
        recorded = int.from_bytes(file.read(4), "little")
    # The recorded size is that of the last member, modulo 2^32. If it differs from `expected`, the file is inflated to
    # decide. A forged size that agrees passes if the ratio is plausible, because this function is called often;
    # `content` detects it later.
    plausible = expected / PLAUSIBLE_RATIO <= size <= 1.01 * expected + PADDING  # incompressible data grow a little
    if not plausible or (recorded - expected) % 2**32 > PADDING:
        deque(content(path, expected), maxlen=0)
