"""Looks for what names a person, a machine or its folders in files that are to be shared."""

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
SNIFFED = 8192  # bytes in which a file that is no text holds a zero
MOST_EXTENSION = 1 << 20  # bytes of a NIfTI header's extensions that are looked at
MOST_METADATA = 100 << 20  # of a safetensors header, as the format allows
DICOM_EXTENSION = 2  # NIfTI code
# Accounts and hosts that name nobody.
GENERIC = {"root", "/root", "localhost", "user", "admin", "data", "test"}


class Kind(StrEnum):
    """What a finding is."""

    PATH = "absolute path"
    MACHINE = "name of this machine or user"
    EMAIL = "e-mail address"
    DICOM = "DICOM identifier"
    FORMULA = "spreadsheet formula"
    UNREADABLE = "cannot be read"


@dataclass(frozen=True)
class Finding:
    """A file below the folder that was searched, and a quote of what was found in it."""

    file: str
    kind: Kind
    what: str


Quoted = Iterator[tuple[Kind, str]]
Patterns = Mapping[Kind, re.Pattern[str]]

ROOTS = (
    "home|[Uu]sers|mnt|media|data|scratch|root|tmp|var|opt|srv|usr|etc|work|workspace|Volumes|private|projects?|storage"
    "|nfs|gpfs|lustre"
)
BEFORE = r"""(?:(?<=file://)|(?<![^\s"'`=(:,;>\[{|])(?<!bids::))"""  # no URL, MIME type, closing tag or BIDS URI
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
    """What names a person, this machine or its folders in the files of a folder, in the order of their names.

    It reads text of any kind, headers of NIfTI images and their extensions, metadata of safetensors, text in PNG
    images, and the names of files and folders. Links are not followed, but what they point to is looked at as text. A
    file that cannot be read is a finding. Raises InputError where there is no such folder.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "a.json").write_text('{"root": "/home/jdoe/study"}')
    >>> [(found.file, str(found.kind), found.what) for found in findings(folder)]
    [('a.json', 'absolute path', '/home/jdoe/study')]
    """
    folder = Path(folder)
    named = {Kind.MACHINE: _machine(), Kind.EMAIL: EMAILS}
    found: dict[Finding, None] = {}  # an ordered set: what a file repeats is said once
    for path in files(folder):
        name = path.relative_to(folder).as_posix()
        for kind, what in [*_quotes(name, named), *_read(path, named | {Kind.PATH: PATHS})]:
            found[Finding(name, kind, _short(what))] = None
    return list(found)


def files(folder: str | Path) -> list[Path]:
    """Every file and link below a folder by name, and the folders that cannot be listed.

    Raises InputError where there is no such folder.

    >>> files(Path("no such folder"))
    Traceback (most recent call last):
    pdsynth.types.InputError: no such folder: is no folder. Remedy: name a folder that is there.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(folder, "is no folder", "name a folder that is there")
    closed: list[OSError] = []
    found: list[Path] = []
    for parent, folders, names in os.walk(folder, onerror=closed.append):
        found += [Path(parent) / name for name in names]
        found += [Path(parent) / name for name in folders if (Path(parent) / name).is_symlink()]
    return sorted(found + [Path(error.filename) for error in closed])


def _machine() -> re.Pattern[str]:
    """This machine's name, and its user's name and home, as whole words; a short word would be found everywhere."""
    host = socket.gethostname()
    names = {host, host.partition(".")[0], str(Path.home())}
    with suppress(KeyError, OSError):  # a user without a name, as in a container
        names.add(getpass.getuser())
    known = sorted((name for name in names if len(name) > 3 and name.lower() not in GENERIC), key=len, reverse=True)
    words = "|".join(map(re.escape, known)) or "(?!)"  # which matches nothing
    return re.compile(rf"(?<![^\W_])(?:{words})(?![^\W_])", re.IGNORECASE)


def _read(path: Path, patterns: Patterns) -> Quoted:
    """What a file holds, by what it is; one that cannot be read is a finding."""
    try:
        if path.is_symlink():
            yield from _quotes(os.readlink(path), patterns)
        elif not path.is_file():  # to open a pipe would wait for ever
            yield Kind.UNREADABLE, "is no file, or a folder that cannot be listed"
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
    """A text, as those who open it see it: a page's entities and the escapes of JSON stand for their letters."""
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
    r"""The text of a JSON file without the escapes that hide a path; a quote within a text stays escaped.

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
    """Cells that a spreadsheet would run, and columns of identifiers."""
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
    """The texts of a NIfTI header and its extensions; the voxels are not read."""
    with ImageOpener(str(path)) as file:
        start = file.read(4)
        kind = {348: nib.Nifti1Header, 540: nib.Nifti2Header}.get(_size(start))
        if kind is None:
            raise ValueError("is no NIfTI image")
        header = kind(start + file.read(kind.template_dtype.itemsize - 4), check=False)
        more = file.read(4)
        room = min(max(header.get_data_offset() - header.sizeof_hdr - 4, 0), MOST_EXTENSION)
        extensions = list(_extensions(file.read(room), header.endianness)) if more[:1] not in (b"", b"\0") else []
    names = [name for name in ("descrip", "aux_file", "db_name", "intent_name") if name in header.structarr.dtype.names]
    texts = [bytes(header[name]).decode("latin-1").strip("\0 ") for name in names]
    texts += [_printable(content) for _, content in extensions]
    if any(code == DICOM_EXTENSION for code, _ in extensions):
        yield Kind.DICOM, "a DICOM header as extension of the NIfTI header"
    for text in texts:
        yield from _text(text, {**patterns, Kind.DICOM: PERSON})


def _size(start: bytes) -> int:
    """What the first field of a header says of its size, in either order of bytes; 0 for neither."""
    sizes = {int.from_bytes(start, order) for order in ("little", "big")}
    return next(iter(sizes & {348, 540}), 0)


def _extensions(content: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """Code and content of each extension of a NIfTI header; what does not add up comes as one."""
    while len(content) >= 8:
        size, code = struct.unpack(f"{order}ii", content[:8])
        size = size if 8 < size <= len(content) else len(content)
        yield code, content[8:size]
        content = content[size:]


def _printable(content: bytes) -> str:
    """The letters of a content that may hold anything, a line for each run.

    >>> _printable(b"DOE^JOHN\\x00\\x01/home")
    'DOE^JOHN\\n/home'
    """
    return re.sub(r"[^\x20-\x7e\xa0-\xff]+", "\n", content.decode("latin-1"))


def _metadata(path: Path) -> str:
    """The metadata in the header of a safetensors file. Raises ValueError where there is no such header."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if size > min(MOST_METADATA, path.stat().st_size):
            raise ValueError("its header is longer than the file or the format allows")
        header = json.loads(file.read(size))
    metadata = header.get("__metadata__", {}) if isinstance(header, dict) else None
    if not isinstance(metadata, dict):
        raise ValueError("its header is no safetensors header")
    return "\n".join(f'"{key}": "{value}"' for key, value in metadata.items())


def _png_texts(content: bytes) -> Iterable[str]:
    """The texts of a PNG image: plain, compressed and international ones."""
    if not content.startswith(b"\x89PNG\r\n\x1a\n"):
        raise ValueError("is no PNG image")
    place = 8
    while place + 8 <= len(content):
        size, kind = struct.unpack(">I4s", content[place : place + 8])
        chunk = content[place + 8 : place + 8 + size]
        if kind == b"tEXt":
            yield _printable(chunk)
        elif kind in (b"zTXt", b"iTXt"):
            keyword, _, rest = chunk.partition(b"\0")
            yield _printable(keyword + b"\n" + _inflated(rest, kind))
        place += size + 12


def _inflated(rest: bytes, kind: bytes) -> bytes:
    """What follows a keyword; of an international text the language and the translated keyword are passed over."""
    if kind == b"iTXt":
        compressed, rest = rest[:1] == b"\1", rest[2:].split(b"\0", 2)[-1]
        if not compressed:
            return rest
    else:
        rest = rest[1:]
    return zlib.decompressobj().decompress(rest, MOST_EXTENSION)


def _short(text: str) -> str:
    """At most QUOTE letters of a text on one line.

    >>> len(_short("a" * 100)), _short("two\\n lines")
    (80, 'two lines')
    """
    line = " ".join(text.split())
    return line if len(line) <= QUOTE else line[: QUOTE - 1] + "…"
