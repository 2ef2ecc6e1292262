"""Searches files that are to be shared for names of persons, of the machine and of its folders."""

from __future__ import annotations

import csv
import getpass
import html
import json
import os
import re
import socket
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import nibabel as nib
from nibabel.openers import ImageOpener

from pdsynth.types import InputError

QUOTE = 80  # letters
SNIFFED = 8192  # bytes at the start of a file; a zero among them means that the file is not text
MOST_EXTENSION = 1 << 20  # bytes of NIfTI header extensions that are searched
MOST_METADATA = 100 << 20  # bytes of a safetensors header that the format allows
DICOM_EXTENSION = 2  # NIfTI code
# Accounts and hosts that identify nobody.
GENERIC = {"root", "/root", "localhost", "user", "admin", "data", "test"}


class Kind(StrEnum):
    """Kind of an identifier or path that the search found in a file, or of a file that it could not read.

    The kinds are absolute path, name of this machine or user, e-mail address, DICOM identifier, spreadsheet formula (a
    cell that a spreadsheet would evaluate), and, for a file, cannot be read.
    """

    PATH = "absolute path"
    MACHINE = "name of this machine or user"
    EMAIL = "e-mail address"
    DICOM = "DICOM identifier"
    FORMULA = "spreadsheet formula"
    UNREADABLE = "cannot be read"


@dataclass(frozen=True)
class Finding:
    """One identifier or path that the search found in a file, or a file that it could not read.

    file: path relative to the searched folder. text: the quoted passage (at most 80 characters), or, for the kind
    UNREADABLE, the reason.
    """

    file: str
    kind: Kind
    text: str


Quoted = Iterator[tuple[Kind, str]]
Patterns = Mapping[Kind, re.Pattern[str]]

ROOTS = (
    "home|[Uu]sers|mnt|media|data|scratch|root|tmp|var|opt|srv|usr|etc|work|workspace|Volumes|private|projects?|storage"
    "|nfs|gpfs|lustre"
)
BEFORE = r"""(?:(?<=file://)|(?<![^\s"'`=(:,;>\[{|])(?<!bids::))"""  # excludes URL, MIME type, closing tag, BIDS URI
POSIX = rf"/(?:(?:{ROOTS})(?![\w.-])|(?=[\w.~-]*[^\W\d_])[\w.~+-]+/[\w.~+-])[^\s\"'`<>(),;|\]}}]*"
WINDOWS = r"(?<!\w)[A-Za-z]:\\{1,2}[\w.$][^\s\"'<>|]*|(?<!\w)[A-Z]:/\w[^\s\"'<>|]*"
UNC = r"(?<![\\\w])\\{2,4}[A-Za-z0-9][\w.-]+\\{1,2}[\w$.-][^\s\"'<>|]*"
PATHS = re.compile(f"{BEFORE}{POSIX}|{WINDOWS}|{UNC}")
EMAILS = re.compile(r"(?<![\w.%+-])[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}")
PERSON = re.compile(r"\b[^\W\d_]{2,}\^[^\W\d_]{2,}[\w^]*")  # DOE^JOHN, as DICOM writes names
IDENTIFIERS = (
    "PatientName|PatientID|PatientBirthDate|PatientBirthTime|PatientBirthName|PatientMotherBirthName|PatientAddress"
    "|PatientTelephoneNumbers|PatientComments|AdditionalPatientHistory|OtherPatientIDs|OtherPatientNames"
    "|IssuerOfPatientID|InstitutionName|InstitutionAddress|InstitutionalDepartmentName|ReferringPhysicianName"
    "|PerformingPhysicianName|RequestingPhysician|PhysiciansOfRecord|NameOfPhysiciansReadingStudy|OperatorsName"
    "|AccessionNumber|StationName|DeviceSerialNumber|StudyID|StudyInstanceUID|SeriesInstanceUID|SOPInstanceUID"
    "|FrameOfReferenceUID|StudyDate|SeriesDate|AcquisitionDate|AcquisitionDateTime|ContentDate"
)
VALUE = r"""(?:\s*(?:[\[{]\s*)*(?:"\w+"\s*:\s*)*["']([^"'\n]*)|[ \t]*([^\s"'\[{,][^\n,}]*))"""  # or in a list or object
DICOM = re.compile(rf"""\b({IDENTIFIERS})["']?[ \t]*[:=]{VALUE}""")
EMPTY = {"", "null", "none", "n/a", "~"}
DATA_URI = re.compile(r"data:[\w.+/-]*;base64,[A-Za-z0-9+/=]*")
UNREADABLE = (OSError, EOFError, ValueError, OverflowError, RecursionError, csv.Error, zlib.error, struct.error)
NUMBERS = re.compile(r"[-+\d.,eE%\[\]()/:; ]*|[-+](?:inf|nan)")


def findings(folder: str | Path) -> list[Finding]:
    """Search the files of a folder for identifiers of persons and of machines; returns the findings, sorted by path.

    It finds absolute paths of any machine, the names of this machine, its user and the user's home (of 4 letters or
    more, and not general ones such as root or user), e-mail addresses, DICOM identifiers (such as PatientName) with a
    value, and cells of tables (.tsv, .csv) that a spreadsheet would evaluate as a formula. A passage that occurs
    several times in a file is one finding.

    The search covers all text files, headers and extensions of NIfTI images, metadata of safetensors, texts in PNG
    images, and the names of files and of the folders that hold them. The content of other binary files is not searched.
    Links are not followed; their target path is searched as text. A file that cannot be read is a finding. Raises
    InputError if the folder does not exist.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "a.json").write_text('{"root": "/home/jdoe/study"}')
    >>> [(found.file, str(found.kind), found.text) for found in findings(folder)]
    [('a.json', 'absolute path', '/home/jdoe/study')]
    """
    folder = Path(folder)
    named = {Kind.MACHINE: _machine(), Kind.EMAIL: EMAILS}
    found: dict[Finding, None] = {}  # an ordered set, so that repetitions within a file count once
    for path in files(folder):
        name = path.relative_to(folder).as_posix()
        for kind, text in [*_quotes(name, named), *_read(path, named | {Kind.PATH: PATHS})]:
            found[Finding(name, kind, _short(text))] = None
    return list(found)


def files(folder: str | Path) -> list[Path]:
    """All files and links in a folder and below, sorted by path; folders that cannot be listed are in the list too.

    Links to folders are not followed. Raises InputError if the folder does not exist.

    >>> files(Path("no such folder"))
    Traceback (most recent call last):
    pdsynth.types.InputError: no such folder: is not a folder. Remedy: name an existing folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(folder, "is not a folder", "name an existing folder")
    errors: list[OSError] = []
    paths: list[Path] = []
    for parent, folders, names in os.walk(folder, onerror=errors.append):
        paths += [Path(parent) / name for name in names]
        paths += [Path(parent) / name for name in folders if (Path(parent) / name).is_symlink()]
    return sorted(paths + [Path(error.filename) for error in errors])


def _machine() -> re.Pattern[str]:
    """Pattern of this machine's name, its user's name and home, as whole words of at least 4 letters.

    Shorter names would match almost everywhere.
    """
    host = socket.gethostname()
    names = {host, host.partition(".")[0], str(Path.home())}
    with suppress(KeyError, OSError):  # the user has no name, for example in a container
        names.add(getpass.getuser())
    known = sorted((name for name in names if len(name) > 3 and name.lower() not in GENERIC), key=len, reverse=True)
    words = "|".join(map(re.escape, known)) or "(?!)"  # "(?!)" matches nothing
    return re.compile(rf"(?<![^\W_])(?:{words})(?![^\W_])", re.IGNORECASE)


def _read(path: Path, patterns: Patterns) -> Quoted:
    """Search one file, by the reader of its type. A file that cannot be read is a finding."""
    try:
        if path.is_symlink():
            yield from _quotes(os.readlink(path), patterns)
        elif not path.is_file():  # opening a pipe would block for ever
            yield Kind.UNREADABLE, "is not a file, or is a folder that cannot be listed"
        elif path.name.lower().endswith((".nii", ".nii.gz")):
            yield from _nifti(path, patterns)
        elif path.suffix.lower() == ".safetensors":
            yield from _text(_metadata(path), patterns)
        elif path.suffix.lower() == ".png":
            yield from _text("\n".join(_png_texts(path.read_bytes())), patterns)
        elif _is_text(path):
            yield from _document(path, patterns)
    except UNREADABLE as error:
        yield Kind.UNREADABLE, str(error) or type(error).__name__


def _is_text(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(SNIFFED)
    return b"\0" not in start or start.startswith((b"\xff\xfe", b"\xfe\xff"))


def _document(path: Path, patterns: Patterns) -> Quoted:
    """Search a text file after decoding: HTML entities and JSON escapes are replaced by their letters."""
    raw = path.read_bytes()
    encoding = "utf-16" if raw.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    text = DATA_URI.sub(" ", raw.decode(encoding, errors="replace"))
    suffix = path.suffix.lower()
    if suffix in (".html", ".htm", ".svg", ".xml"):
        text = html.unescape(text)
    elif suffix == ".json":
        text = _unescaped(text)
    yield from _text(text, patterns)
    if suffix in (".tsv", ".csv"):
        yield from _table(list(csv.reader(text.splitlines(), delimiter="\t" if suffix == ".tsv" else ",")))


def _unescaped(text: str) -> str:
    r"""The text of a JSON file without escapes, which could hide a path; a quote within a string stays escaped.

    >>> print(_unescaped(r'"C:\\study\n\/home"'))
    "C:\study /home"
    """
    known = {"\\\\": "\\", "\\/": "/", '\\"': '\\"'}
    return re.sub(r"\\.", lambda match: known.get(match[0], " "), text)


def _text(text: str, patterns: Patterns) -> Quoted:
    yield from _quotes(text, patterns)
    for match in DICOM.finditer(text):
        value = (match[2] or match[3] or "").strip()
        if value.lower() not in EMPTY:
            yield Kind.DICOM, f"{match[1]}: {value}"


def _quotes(text: str, patterns: Patterns) -> Quoted:
    for kind, pattern in patterns.items():
        for match in pattern.finditer(text):
            yield kind, match[0]


def _table(rows: list[list[str]]) -> Quoted:
    """Search a table for cells that a spreadsheet would evaluate, and for columns of identifiers."""
    for row in rows:
        for cell in row:
            if cell[:1] in ("=", "+", "-", "@") and re.search(r"\w", cell) and not NUMBERS.fullmatch(cell):
                yield Kind.FORMULA, cell
    for column, name in enumerate(rows[0] if rows else []):
        cells = (row[column].strip() for row in rows[1:] if column < len(row))
        value = next((cell for cell in cells if cell.lower() not in EMPTY), None)
        if value is not None and re.fullmatch(IDENTIFIERS, name.strip()):
            yield Kind.DICOM, f"{name.strip()}: {value}"


def _nifti(path: Path, patterns: Patterns) -> Quoted:
    """Search the texts of a NIfTI header and its extensions; the voxels are not read."""
    with ImageOpener(str(path)) as file:
        start = file.read(4)
        kind = {348: nib.Nifti1Header, 540: nib.Nifti2Header}.get(_size(start))
        if kind is None:
            raise ValueError("is not a NIfTI image")
        header = kind(start + file.read(kind.template_dtype.itemsize - 4), check=False)
        more = file.read(4)
        room = min(max(header.get_data_offset() - header.sizeof_hdr - 4, 0), MOST_EXTENSION)
        extensions = list(_extensions(file.read(room), header.endianness)) if more[:1] not in (b"", b"\0") else []
    names = [name for name in ("descrip", "aux_file", "db_name", "intent_name") if name in header.structarr.dtype.names]
    texts = [bytes(header[name]).decode("latin-1").strip("\0 ") for name in names]
    texts += [_printable(content) for _, content in extensions]
    if any(code == DICOM_EXTENSION for code, _ in extensions):
        yield Kind.DICOM, "a DICOM header as an extension of the NIfTI header"
    for text in texts:
        yield from _text(text, {**patterns, Kind.DICOM: PERSON})


def _size(start: bytes) -> int:
    """The header size in the first field of a NIfTI header, in either byte order; 0 if it is not 348 or 540."""
    sizes = {int.from_bytes(start, order) for order in ("little", "big")}
    return next(iter(sizes & {348, 540}), 0)


def _extensions(content: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """Yield code and content of each extension of a NIfTI header; one with an invalid size takes all the rest."""
    while len(content) >= 8:
        size, code = struct.unpack(f"{order}ii", content[:8])
        size = size if 8 < size <= len(content) else len(content)
        yield code, content[8:size]
        content = content[size:]


def _printable(content: bytes) -> str:
    """The printable characters of arbitrary bytes, one line per run of them.

    >>> _printable(b"DOE^JOHN\\x00\\x01/home")
    'DOE^JOHN\\n/home'
    """
    return re.sub(r"[^\x20-\x7e\xa0-\xff]+", "\n", content.decode("latin-1"))


def _metadata(path: Path) -> str:
    """The metadata in the header of a safetensors file. Raises ValueError if the header is invalid."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if size > min(MOST_METADATA, path.stat().st_size):
            raise ValueError("its header is longer than the file or the format allows")
        header = json.loads(file.read(size))
    metadata = header.get("__metadata__", {}) if isinstance(header, dict) else None
    if not isinstance(metadata, dict):
        raise ValueError("its header is not a safetensors header")
    return "\n".join(f'"{key}": "{value}"' for key, value in metadata.items())


def _png_texts(content: bytes) -> Iterable[str]:
    """The texts of a PNG image, in chunks of the types tEXt, zTXt and iTXt."""
    if not content.startswith(b"\x89PNG\r\n\x1a\n"):
        raise ValueError("is not a PNG image")
    offset = 8
    while offset + 8 <= len(content):
        size, kind = struct.unpack(">I4s", content[offset : offset + 8])
        chunk = content[offset + 8 : offset + 8 + size]
        if kind == b"tEXt":
            yield _printable(chunk)
        elif kind in (b"zTXt", b"iTXt"):
            keyword, _, rest = chunk.partition(b"\0")
            yield _printable(keyword + b"\n" + _inflated(rest, kind))
        offset += size + 12


def _inflated(rest: bytes, kind: bytes) -> bytes:
    """The text after the keyword of a zTXt or iTXt chunk, inflated if it is compressed, without language fields."""
    if kind == b"iTXt":
        compressed, rest = rest[:1] == b"\1", rest[2:].split(b"\0", 2)[-1]
        if not compressed:
            return rest
    else:
        rest = rest[1:]
    return zlib.decompressobj().decompress(rest, MOST_EXTENSION)


def _short(text: str) -> str:
    """A text on one line, cut to at most QUOTE characters.

    >>> len(_short("a" * 100)), _short("two\\n lines")
    (80, 'two lines')
    """
    line = " ".join(text.split())
    return line if len(line) <= QUOTE else line[: QUOTE - 1] + "…"
