"""Reads and writes NIfTI: a volume always has its affine, and a synthesised image is always marked as synthetic."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError
from pydantic import BaseModel, Field

from pdsynth.discovery import Pictured
from pdsynth.files import atomic_path, write_text
from pdsynth.imaging.geometry import geometry, repetition_time, scaling
from pdsynth.imaging.stream import BLOCK, COPY_AGAIN, check_size, content, first_bytes
from pdsynth.types import Direction, InputError, Modality

SUFFIXES = (".nii", ".nii.gz")
MOST_EXTENSION = 1 << 20  # bytes between the header and the voxels; a protocol or a history needs some kB
COMMENT = 6  # NIfTI-1 header extension code for text
NOTES = "SourceNotes"  # entry of the sidecar, if the source scan was doubtful
ROUND_TRIP = "RoundTripPSNR"  # entry of the sidecar: PSNR in dB of the source that is synthesised back
NAMES = {Modality.FMRI: "fMRI", Modality.DMRI: "dMRI"}


@dataclass(frozen=True, eq=False)
class Volume(Pictured):
    """A 3D image: data (X, Y, Z) float32, and affine (4, 4) float64 from voxel index to world mm (RAS).

    Raises ValueError if data does not have 3 axes.
    """

    data: np.ndarray
    affine: np.ndarray

    def __post_init__(self) -> None:
        if self.data.ndim != 3:
            raise ValueError(f"a volume has 3 axes, not {self.data.ndim}; take the mean over the fourth first.")
        object.__setattr__(self, "data", np.asarray(self.data, np.float32))
        object.__setattr__(self, "affine", np.asarray(self.affine, np.float64))

    @property
    def spacing_mm(self) -> np.ndarray:
        """Voxel edges, (3,) mm."""
        return np.sqrt(np.square(self.affine[:3, :3]).sum(0))


@dataclass(frozen=True, eq=False)
class ScanHeader:
    """Header of a scan, read without its voxels.

    shape has 3 or 4 axes. affine is (4, 4), from voxel index to world mm. zooms are the voxel edges in mm by pixdim
    (see `Geometry`); of a 4D scan, a fourth one is the repetition time in seconds, 0 if it is unknown. dtype is that of
    the stored values. offset is the position of the first voxel in the inflated bytes. A voxel's value is slope *
    (stored value) + inter. synthetic is true if the header or the sidecar marks the image as synthesised; one of the
    two marks is enough. notes name the doubtful entries of the header and how they were read; time_note does so for the
    repetition time.
    """

    shape: tuple[int, ...]
    affine: np.ndarray
    zooms: tuple[float, ...]
    dtype: np.dtype
    offset: int
    slope: float
    inter: float
    synthetic: bool
    notes: tuple[str, ...] = ()
    time_note: str = ""

    @property
    def n_volumes(self) -> int:
        return self.shape[3] if len(self.shape) == 4 else 1

    @property
    def end(self) -> int:
        """Number of inflated bytes from the beginning of the file to the end of the last voxel."""
        return self.offset + math.prod(self.shape) * self.dtype.itemsize


def stored_voxels(path: Path, header: ScanHeader, block: int = BLOCK) -> Iterator[bytes]:
    """Yield the bytes of all voxels in file order (x fastest), in pieces of at most `block` bytes, and no other bytes.

    The bytes are as stored: not scaled. The file is read to its end, so that the gzip checksum is verified. Raises
    InputError if the file is damaged, has fewer bytes than its header describes, or more than 65,536 bytes beyond them.
    """
    position = 0
    with _read_errors_as_input_errors(path):
        for piece in content(path, header.end, block):
            voxels = piece[max(0, header.offset - position) : max(0, header.end - position)]
            position += len(piece)
            if voxels:
                yield voxels


def read_header(path: str | Path) -> ScanHeader:
    """Read the header of a 3D or 4D .nii or .nii.gz file, and check the file's size, without reading its voxels.

    Raises InputError if the file is missing, is not a NIfTI image of real numbers, has another number of axes or an
    orientation or voxel size that is not known, or if it has fewer bytes than its header describes or more than 65,536
    bytes beyond them. The voxels of a gzip file are inflated only if its recorded size is doubtful.
    """
    path = Path(path)
    with _read_errors_as_input_errors(path):
        header, offset, extensions, offset_note = _nifti_header(path)
        shape, dtype = tuple(int(n) for n in header.get_data_shape()), header.get_data_dtype()
        if len(shape) not in (3, 4) or min(shape) < 1:
            raise InputError(
                path, f"has shape {shape}", "give a 3D or 4D image; if the last axis counts volumes, make it the fourth"
            )
        if dtype.kind not in "iuf":
            raise InputError(path, f"holds {dtype} values, not real numbers", "convert it to a numeric NIfTI")
        place = geometry(path, header, shape)
        seconds, time_note = repetition_time(header)
        slope, inter, scale_note = scaling(header)
        zooms = place.zooms + ((seconds,) if len(shape) == 4 else ())
        scan = ScanHeader(
            shape=shape,
            affine=place.affine,
            zooms=zooms,
            dtype=dtype,
            offset=offset,
            slope=slope,
            inter=inter,
            synthetic=_marked(header, extensions) or _sidecar_says_so(sidecar_path(path)),
            notes=tuple(filter(None, [*place.notes, offset_note, scale_note])),
            time_note=time_note,
        )
        check_size(path, scan.end)
    return scan


def read_volume(path: str | Path) -> Volume:
    """Read a 3D image, or a 4D image with a single volume; the header's scale factors are applied.

    Raises InputError if the file is missing, damaged or not a NIfTI image of real numbers, if its orientation or voxel
    size is not known, for more than one volume, and for voxels that are not finite in float32.
    """
    path = Path(path)
    header = read_header(path)
    if header.n_volumes != 1:
        raise InputError(path, f"has {header.n_volumes} volumes, but one is needed", "give a 3D mean")
    voxels = bytearray()  # grows with the content of the file, not with the shape that its header claims
    for piece in stored_voxels(path, header):  # unlike nibabel's reader, it verifies the checksum
        voxels += piece
    stored = np.frombuffer(voxels, header.dtype).reshape(header.shape[:3], order="F")
    with np.errstate(over="ignore"):  # values beyond the range of float32 become infinite
        data = (stored * header.slope + header.inter).astype(np.float32)
    bad = data.size - int(np.isfinite(data).sum())
    if bad:
        raise InputError(path, f"has {bad} non-finite voxels", "replace them, or leave the scan out")
    return Volume(data, header.affine)


@dataclass(frozen=True)
class SyntheticMark:
    """Provenance of a synthesised image: direction, source files, hash of the model, seed and version of pdsynth.

    sources holds the names of the source files, and source_sha256 their digests. model_sha256 is the digest of the
    model's file of weights. seed is that of the random samples, None if the values depend on no random numbers. options
    holds all other settings that determine the bytes, by their names in the sidecar. statistic holds entries of the
    sidecar that describe the values, by default {"Statistic": "best estimate"}. All fields are written into the
    sidecar.
    """

    direction: Direction
    sources: list[str]
    model_sha256: str
    seed: int | None
    version: str
    statistic: Mapping[str, Any] = field(default_factory=lambda: {"Statistic": "best estimate"})
    source_sha256: Sequence[str] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def descrip(self) -> str:
        """The description in the NIfTI header, at most 79 bytes.

        An example is "SYNTHETIC pdsynth v1.0 fMRI->dMRI NOT ACQUIRED". A long version is cut; the end is always kept.
        """
        source, target = NAMES[self.direction.source], NAMES[self.direction.target]
        ending = f" {source}->{target} NOT ACQUIRED"
        return f"SYNTHETIC pdsynth v{self.version}"[: 79 - len(ending)] + ending

    def sidecar(self) -> dict[str, Any]:
        """The content of the sidecar: all fields of this record, that the image is synthetic, and its intended use."""
        return {
            "Synthetic": True,
            "Description": self.descrip,
            "SourceModality": NAMES[self.direction.source],
            "TargetModality": NAMES[self.direction.target],
            "Sources": list(self.sources),
            "SourceSHA256": list(self.source_sha256),
            "ModelSHA256": self.model_sha256,
            "Seed": self.seed,
            "PdsynthVersion": self.version,
            "IntendedUse": "research only",
            **self.options,
            **self.statistic,
        }


class Sidecar(BaseModel):
    """The entries of the sidecar of a synthesised image that are read back."""

    sources: list[str] = Field(default=[], alias="Sources")
    notes: list[str] = Field(default=[], alias="SourceNotes")  # NOTES


def write_synthetic(volume: Volume, path: str | Path, mark: SyntheticMark) -> Path:
    """Write a synthesised volume, marked as synthetic in its header and JSON sidecar; returns the path of the sidecar.

    No other function writes a synthesised image. The sidecar is written first, so that no image exists without it.
    Both files get their names when they are complete, and replace files of these names. The folder is made if it does
    not exist. Raises ValueError for a name that ends in neither .nii nor .nii.gz.
    """
    path = Path(path)
    if not path.name.endswith(SUFFIXES):
        raise ValueError(f"{path.name} must end in .nii or .nii.gz.")
    text = json.dumps(mark.sidecar(), indent=2)
    image = nib.Nifti1Image(volume.data, volume.affine)
    image.header.set_xyzt_units("mm", "sec")
    image.header["descrip"] = mark.descrip.encode()
    image.header["intent_name"] = b"SYNTHETIC"
    image.header.extensions.append(nib.nifti1.Nifti1Extension(COMMENT, text.encode()))
    sidecar = sidecar_path(path)
    sidecar.parent.mkdir(parents=True, exist_ok=True)
    write_text(sidecar, text + "\n")
    with atomic_path(path) as temporary:
        nib.save(image, temporary)
    return sidecar


def sidecar_path(path: Path) -> Path:
    """Path of the JSON sidecar of an image: .json in place of .nii or .nii.gz.

    >>> sidecar_path(Path("sub-1_bold.nii.gz")).name
    'sub-1_bold.json'
    """
    return path.with_name(path.name.removesuffix(".gz").removesuffix(".nii") + ".json")


@contextmanager
def _read_errors_as_input_errors(path: Path) -> Iterator[None]:
    """Convert errors of nibabel and of the system on a bad file into an InputError with the file's name."""
    try:
        yield
    except InputError:
        raise
    except OSError as error:
        raise InputError(
            path, f"cannot be read ({error.strerror or error})", "check its disk and permissions"
        ) from error
    except (ImageFileError, HeaderDataError, WrapStructError, ArithmeticError, LookupError, ValueError) as error:
        raise InputError(path, f"is not a readable NIfTI image ({error})".replace("\n", " "), COPY_AGAIN) from error


def _nifti_header(path: Path) -> tuple[Any, int, bytes, str]:
    """The header, the offset of the voxels, the bytes between the two, and a note if the offset is doubtful, else "".

    nibabel's own reader takes four times as long and reads extensions of any size. It also reads the header as voxels
    if the offset is 0; the tools that are based on niftilib read the voxels from the end of the header, as here.
    """
    if not path.is_file():
        problem = "is a folder, not a file" if path.is_dir() else "does not exist"
        raise InputError(path, problem, "check the path")
    if not path.name.endswith(SUFFIXES):
        raise InputError(path, "is neither .nii nor .nii.gz", "convert it, for instance with dcm2niix")
    start = first_bytes(path, nib.Nifti2Header.sizeof_hdr)
    kind = next((k for k in (nib.Nifti1Header, nib.Nifti2Header) if k.may_contain_header(start)), None)
    if kind is None:
        raise ImageFileError("its first bytes are not a NIfTI header")
    header = kind(start[: kind.sizeof_hdr])
    if header["magic"].item() == kind.pair_magic:
        problem = "has the header of a pair of files, .hdr and .img, not of one file"
        raise InputError(path, problem, "convert the pair into one .nii.gz file")
    offset, note = int(header.get_data_offset()), ""
    if offset == 0:
        offset, note = kind.single_vox_offset, f"vox_offset is 0 in its header; {kind.single_vox_offset} is used"
        if first_bytes(path, offset)[kind.sizeof_hdr :].strip(b"\0"):  # nobody knows where its extensions end
            raise InputError(path, "has vox_offset 0 beside header extensions", "convert it again from DICOM")
    between = offset - kind.sizeof_hdr
    if between < 0:
        raise ImageFileError("its voxels begin inside its header")
    if between > MOST_EXTENSION:
        problem = f"has {between} bytes of header extensions, more than {MOST_EXTENSION}"
        raise InputError(path, problem, "remove them, or convert it again from DICOM")
    if offset > len(start):
        start = first_bytes(path, offset)
    extensions = start[kind.sizeof_hdr : offset]
    _check_extensions(extensions, "little" if header.endianness == "<" else "big")
    return header, offset, extensions, note


def _check_extensions(block: bytes, order: Literal["little", "big"]) -> None:
    """Raise ImageFileError if an extension has a size that reaches into the voxels."""
    position = 4  # the first of four bytes is a flag for extensions
    while block[:1] > b"\0" and len(block) - position >= 16:
        size = int.from_bytes(block[position : position + 4], order, signed=True)
        room = len(block) - position
        if not 8 <= size <= room:
            raise ImageFileError(f"a header extension claims {size} bytes, but {room} precede the voxels")
        position += size


def _marked(header: Any, extensions: bytes) -> bool:
    texts = [bytes(header[name].item()) for name in ("intent_name", "descrip")]
    return any(text.startswith(b"SYNTHETIC") for text in texts) or b'"Synthetic": true' in extensions


def _sidecar_says_so(sidecar: Path) -> bool:
    try:
        return bool(json.loads(sidecar.read_text(encoding="utf-8")).get("Synthetic", False))
    except (OSError, ValueError, AttributeError, RecursionError):
        return False
