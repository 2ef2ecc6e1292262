"""NIfTI in and out: the affine travels with the data, and a synthesised image is always marked as one."""

from __future__ import annotations

import json
import os
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.openers import ImageOpener
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from pdsynth.types import Direction, InputError, Modality

SUFFIXES = (".nii", ".nii.gz")
COMPRESSED_BLOCK = 1 << 18  # bytes
COMMENT = 6  # NIfTI-1 header extension code for text
NAMES = {Modality.FMRI: "fMRI", Modality.DMRI: "dMRI"}
COPY_AGAIN = "copy or download the file again"


@dataclass(frozen=True, eq=False)
class Volume:
    """A 3D image in the world: data (X, Y, Z) float32 and affine (4, 4) float64, voxel index -> mm (RAS)."""

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
    """What a header says of a scan, read without its voxels.

    shape has 3 or 4 axes; zooms are mm, then seconds where there is a fourth. suspicious_zooms is true where the voxel
    size reads 1, 1, 1 mm on an image too small to hold a head at that size: a converter lost the true one. synthetic is
    true where the header or the sidecar says that the image was synthesised; one mark is enough.
    """

    shape: tuple[int, ...]
    affine: np.ndarray
    zooms: tuple[float, ...]
    suspicious_zooms: bool
    dtype: np.dtype
    offset: int
    slope: float
    inter: float
    synthetic: bool

    @property
    def n_volumes(self) -> int:
        return self.shape[3] if len(self.shape) == 4 else 1


def is_gzip(path: Path) -> bool:
    """Whether the name says gzip."""
    return path.name.endswith(".gz")


def inflate(path: Path, block: int = 1 << 20) -> Iterator[bytes]:
    """The bytes of a gzip file in pieces of at most `block`; InputError where it is cut short or damaged.

    Concatenated members are read through, and each one's checksum is verified by zlib.
    """
    with open(path, "rb") as file:
        stream, pending, finished = zlib.decompressobj(wbits=31), b"", True
        try:
            while True:
                if not pending:
                    pending = file.read(COMPRESSED_BLOCK)
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


def read_header(path: str | Path) -> ScanHeader:
    """Header of a 3D or 4D .nii or .nii.gz.

    Raises InputError where the file is missing, is no NIfTI image of real numbers, has another number of axes, a
    singular affine, or holds fewer bytes than its header promises. A gzip file is inflated only if its last four bytes,
    the size, disagree with the header.
    """
    path = Path(path)
    header = _nifti_header(path)
    shape, dtype = tuple(int(n) for n in header.get_data_shape()), header.get_data_dtype()
    if len(shape) not in (3, 4) or 0 in shape:
        raise InputError(path, f"has shape {shape}", "give a 3D or 4D image")
    if dtype.kind not in "iuf":
        raise InputError(path, f"holds {dtype} values, not real numbers", "convert it to a numeric NIfTI")
    affine = np.asarray(header.get_best_affine(), np.float64)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-6:
        raise InputError(path, "has a singular affine", "repair its sform or qform")
    offset = int(header.get_data_offset())
    _check_size(path, offset + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize)
    zooms = tuple(float(z) for z in header.get_zooms())
    slope, inter = header.get_slope_inter()
    return ScanHeader(
        shape=shape,
        affine=affine,
        zooms=zooms,
        suspicious_zooms=max(abs(z - 1) for z in zooms[:3]) < 1e-3 and min(shape[:2]) < 110,
        dtype=dtype,
        offset=offset,
        slope=1.0 if slope is None else float(slope),
        inter=0.0 if inter is None else float(inter),
        synthetic=_marked(header) or _sidecar_says_so(sidecar_path(path)),
    )


def read_volume(path: str | Path) -> Volume:
    """A 3D image, or a 4D one of a single volume, its intensities scaled as the header says.

    Raises InputError as `read_header` does, and for more volumes than one or non-finite voxels.
    """
    path = Path(path)
    header = read_header(path)
    if header.n_volumes != 1:
        raise InputError(path, f"has {header.n_volumes} volumes where one is wanted", "give a 3D mean")
    content = b"".join(inflate(path)) if is_gzip(path) else path.read_bytes()  # unlike nibabel, inflate checks the CRC
    stored = np.frombuffer(content, header.dtype, int(np.prod(header.shape)), header.offset)
    data = stored.reshape(header.shape[:3], order="F") * header.slope + header.inter
    bad = data.size - int(np.isfinite(data).sum())
    if bad:
        raise InputError(path, f"has {bad} non-finite voxels", "replace them, or leave the scan out")
    return Volume(data, header.affine)


def write_volume(volume: Volume, path: str | Path, descrip: str = "") -> None:
    """Write float32 NIfTI-1 (.nii or .nii.gz); appears under its name only when complete. For real data and maps."""
    _write(volume, Path(path), lambda header: header.__setitem__("descrip", descrip.encode()[:79]))


@dataclass(frozen=True)
class SyntheticMark:
    """Where a synthesised image comes from: direction, source files, hash of the model, seed, pdsynth's version.

    statistic is what the image shows, and what is known of it: entries of the sidecar.
    """

    direction: Direction
    sources: list[str]
    model_sha256: str
    seed: int | None
    version: str
    statistic: Mapping[str, Any] = field(default_factory=lambda: {"Statistic": "best estimate"})

    @property
    def descrip(self) -> str:
        """The header's 79-byte description."""
        source, target = NAMES[self.direction.source], NAMES[self.direction.target]
        ending = f" {source}->{target} NOT ACQUIRED"
        return f"SYNTHETIC pdsynth v{self.version}"[: 79 - len(ending)] + ending

    def sidecar(self) -> dict[str, Any]:
        """The BIDS sidecar's entries."""
        return {
            "Synthetic": True,
            "Description": self.descrip,
            "SourceModality": NAMES[self.direction.source],
            "TargetModality": NAMES[self.direction.target],
            "Sources": list(self.sources),
            "ModelSHA256": self.model_sha256,
            "Seed": self.seed,
            "PdsynthVersion": self.version,
            "IntendedUse": "research only",
            **self.statistic,
        }


def write_synthetic(volume: Volume, path: str | Path, mark: SyntheticMark) -> Path:
    """Write a synthesised volume with all its marks and the JSON sidecar beside it; returns the sidecar's path.

    The only function that writes a synthesised image. The sidecar is written first, so that no image stands without it.
    """
    path = Path(path)
    text = json.dumps(mark.sidecar(), indent=2)

    def stamp(header: Any) -> None:
        header["descrip"] = mark.descrip.encode()
        header["intent_name"] = b"SYNTHETIC"
        header.extensions.append(nib.nifti1.Nifti1Extension(COMMENT, text.encode()))

    sidecar = sidecar_path(path)
    sidecar.parent.mkdir(parents=True, exist_ok=True)
    with complete_or_absent(sidecar) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    _write(volume, path, stamp)
    return sidecar


def sidecar_path(path: Path) -> Path:
    """The JSON beside an image.

    >>> sidecar_path(Path("sub-1_bold.nii.gz")).name
    'sub-1_bold.json'
    """
    return path.with_name(path.name.removesuffix(".gz").removesuffix(".nii") + ".json")


@contextmanager
def complete_or_absent(path: Path) -> Iterator[Path]:
    """A temporary path in the same folder that takes the final name on success and vanishes on failure."""
    handle, name = tempfile.mkstemp(prefix=".partial-", suffix="-" + path.name, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _write(volume: Volume, path: Path, stamp: Callable[[Any], None]) -> None:
    if not path.name.endswith(SUFFIXES):
        raise ValueError(f"{path.name} must end in .nii or .nii.gz.")
    image = nib.Nifti1Image(volume.data, volume.affine)
    image.header.set_xyzt_units("mm", "sec")
    stamp(image.header)
    path.parent.mkdir(parents=True, exist_ok=True)
    with complete_or_absent(path) as temporary:
        nib.save(image, temporary)


def _nifti_header(path: Path) -> Any:
    """The header alone: `nibabel.load` makes an image and checks the header three times, at four times the cost."""
    if not path.is_file():
        problem = "is a folder, not a file" if path.is_dir() else "does not exist"
        raise InputError(path, problem, "check the path")
    if not path.name.endswith(SUFFIXES):
        raise InputError(path, "is neither .nii nor .nii.gz", "convert it, for instance with dcm2niix")
    try:
        with ImageOpener(str(path)) as file:
            start = file.read(nib.Nifti2Header.sizeof_hdr)
            kind = next((k for k in (nib.Nifti1Header, nib.Nifti2Header) if k.may_contain_header(start)), None)
            if kind is None:
                raise ImageFileError("its first bytes are no NIfTI header")
            file.seek(0)
            return kind.from_fileobj(file)
    except (ImageFileError, HeaderDataError, WrapStructError, OSError, EOFError, zlib.error, ValueError) as error:
        raise InputError(path, f"is no readable NIfTI image ({error})".replace("\n", " "), COPY_AGAIN) from error


def _check_size(path: Path, expected: int) -> None:
    """InputError where the file holds fewer bytes than its header promises."""
    if not is_gzip(path):
        held = path.stat().st_size
    else:
        with open(path, "rb") as file:
            file.seek(-4, os.SEEK_END)
            size = int.from_bytes(file.read(4), "little")
        # Modulo 2^32 and of the last member only, so a disagreement is settled by inflating the file.
        held = expected if size == expected % 2**32 else sum(len(piece) for piece in inflate(path))
    if held < expected:
        raise InputError(path, f"is truncated: {held} bytes of {expected}", COPY_AGAIN)


def _marked(header: Any) -> bool:
    named = bytes(header["intent_name"].item()).startswith(b"SYNTHETIC")
    described = bytes(header["descrip"].item()).startswith(b"SYNTHETIC")
    return named or described or any(b'"Synthetic": true' in _content(e) for e in header.extensions)


def _content(extension: Any) -> bytes:
    content = extension.get_content()
    return content if isinstance(content, bytes) else str(content).encode()


def _sidecar_says_so(sidecar: Path) -> bool:
    try:
        return bool(json.loads(sidecar.read_text(encoding="utf-8")).get("Synthetic", False))
    except (OSError, ValueError, AttributeError):
        return False
