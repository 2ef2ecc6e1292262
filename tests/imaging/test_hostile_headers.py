"""Damaged and hostile files: each is refused by name, and costs little memory."""

import errno
import gzip
import struct
import tracemalloc
import zlib

import nibabel as nib
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from pdsynth.cohorts import scans
from pdsynth.cohorts.scans import best_run, single_scan
from pdsynth.imaging import stream
from pdsynth.imaging.nifti import MOST_EXTENSION, read_header, read_volume
from pdsynth.imaging.plausible import extent_mm
from pdsynth.imaging.segments import segment_means
from pdsynth.imaging.stream import BLOCK, PADDING
from pdsynth.resources import stops_run
from pdsynth.types import InputError, Modality

MB = 1 << 20
AFFINE = np.diag([8.0, 8.0, 8.0, 1.0])
BOLD = (8, 8, 8, 3)  # 64 mm high


def first_volume(path):
    return segment_means(path, [np.array([0])])


READERS = [read_header, read_volume, first_volume]
VOXEL_READERS = [read_volume, first_volume]


def image_bytes(shape=(8, 8, 8), affine=AFFINE, dtype=np.int16, kind=nib.Nifti1Image):
    return kind(np.arange(np.prod(shape)).reshape(shape).astype(dtype), affine).to_bytes()


def with_field(raw, name, value, kind=nib.Nifti1Header):
    """The same image with another value in its header, which nibabel would not write."""
    header = np.frombuffer(raw[: kind.sizeof_hdr], kind.template_dtype).copy()
    header[name] = value
    return header.tobytes() + raw[kind.sizeof_hdr :]


def gzip_bytes(start, zeros_mb=0, size=None):
    """Gzip data of `start` and many MB of zeros, made fast; `size` forges the last four bytes. The CRC is wrong."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    data = deflate.compress(start) + deflate.flush(zlib.Z_FULL_FLUSH)
    zeros = deflate.compress(bytes(MB)) + deflate.flush(zlib.Z_FULL_FLUSH)
    size = len(start) + zeros_mb * MB if size is None else size
    ending = struct.pack("<II", 0, size % 2**32)
    return b"\x1f\x8b\x08" + bytes(7) + data + zeros_mb * zeros + deflate.flush() + ending


@pytest.fixture
def inflated(monkeypatch):
    """Collects the size of each piece that a reader inflates."""
    sizes, inflate = [], stream.inflate

    def counted(path, *arguments):
        for piece in inflate(path, *arguments):
            sizes.append(len(piece))
            yield piece

    monkeypatch.setattr(stream, "inflate", counted)
    return sizes


def peak_memory(read, path, words):
    """The most memory in bytes that a reader takes until it refuses a file."""
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=words) as caught:
            read(path)
        assert caught.value.path == path
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def sheared(x=0.0, y=0.0):
    affine = AFFINE.copy()
    affine[0, 1], affine[1, 2] = x, y
    return affine


UNUSABLE = {
    "sheared": sheared(1e17),
    "sheared_within_float32": sheared(1e4),
    "nearly_parallel": np.array([[3.0, 0, 0, 0], [0, 3, 3, 0], [0, 0, 1e-3, 0], [0, 0, 0, 1]]),
    "zero_axis": np.diag([3.0, 3, 0, 1]),
    "not_a_number": np.diag([3.0, np.nan, 3, 1]),
}


@pytest.mark.parametrize("affine", UNUSABLE.values(), ids=UNUSABLE)
def test_singular_and_sheared_affines_are_refused(tmp_path, affine):
    raw = image_bytes()
    for row, name in zip(affine, ("srow_x", "srow_y", "srow_z"), strict=False):
        raw = with_field(raw, name, row)
    path = tmp_path / "a.nii"
    path.write_bytes(raw)
    with pytest.raises(InputError, match=r"a\.nii: has a singular affine\. Remedy: repair its sform or qform"):
        read_header(path)


@pytest.mark.parametrize("edge", [1e-9, 1e17])
def test_voxels_of_implausible_size_are_refused(tmp_path, edge):
    """Resampling would pad an image to whole blocks of so many voxels."""
    path = tmp_path / "a.nii"
    path.write_bytes(image_bytes(affine=np.diag([edge, 3e3 if edge < 1 else 8, 8, 1])))
    with pytest.raises(InputError, match=r"has voxels of .* mm\. Remedy"):
        read_header(path)


def test_oblique_and_slightly_sheared_affines_are_read(tmp_path):
    turned, tilted = np.eye(4), AFFINE.copy()
    turned[:3, :3] = Rotation.from_euler("xyz", [45, 30, 60], degrees=True).as_matrix() * [0.5, 0.5, 12.0]
    tilted[1, 2] = 8 * np.tan(np.radians(30))  # the gantry of a CT scanner
    for affine in (turned, tilted, sheared(8.0, 8.0), AFFINE[[1, 2, 0, 3]]):
        path = tmp_path / "a.nii"
        path.write_bytes(image_bytes(affine=affine))
        np.testing.assert_allclose(read_header(path).affine, affine, rtol=1e-5, atol=1e-6)
        edges = np.linalg.norm(affine[:3, :3], axis=0)
        np.testing.assert_allclose(sorted(extent_mm(read_header(path))), sorted(8 * edges), rtol=1e-5)


def test_every_flipped_bit_of_a_header_is_read_or_refused_by_name(tmp_path):
    raw, path, outcomes = image_bytes(BOLD), tmp_path / "a_bold.nii", {"read": 0, "refused": 0}
    for bit in range(8 * nib.Nifti1Header.sizeof_hdr):
        damaged = bytearray(raw)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            assert np.isfinite(extent_mm(read_header(path))).all()
            assert np.isfinite(first_volume(path)).all()
            outcomes["read"] += 1
        except InputError as error:
            assert error.path == path
            outcomes["refused"] += 1
    assert outcomes["refused"] > 100
    assert outcomes["read"] > 1000  # most bits are of texts and of fields that nobody reads


def bold(path, affine=AFFINE):
    path.write_bytes(gzip.compress(image_bytes(BOLD, affine)))
    return path


def test_a_scan_with_a_sheared_affine_does_not_end_its_cohort(tmp_path):
    bad = bold(tmp_path / "sub-1_run-1_bold.nii.gz", sheared(1e17))
    good = bold(tmp_path / "sub-1_run-2_bold.nii.gz")
    rejected = []
    assert best_run([bad, good], Modality.FMRI, rejected).path == good
    assert [(r.path, r.reason) for r in rejected] == [(bad, "has a singular affine")]
    with pytest.raises(InputError, match=r"run-1_bold\.nii\.gz: has a singular affine"):
        single_scan(bad)


def errors():
    unread = InputError("table.tsv", "cannot be read", "check it")
    unread.__cause__ = PermissionError(errno.EACCES, "Permission denied")
    yield IndexError("index -9223372036854775808 is out of bounds"), "cannot be read (IndexError: index -9"
    yield RecursionError("too deep"), "cannot be read (RecursionError: too deep)"
    yield PermissionError(errno.EACCES, "Permission denied"), "cannot be read (Permission denied)"
    yield unread, "cannot be read"


@pytest.mark.parametrize(("error", "reason"), errors(), ids=lambda e: type(e).__name__)
def test_any_error_of_a_scan_becomes_its_rejection(tmp_path, monkeypatch, error, reason):
    bad, good = bold(tmp_path / "sub-1_run-1_bold.nii.gz"), bold(tmp_path / "sub-1_run-2_bold.nii.gz")
    fails_on(bad, error, monkeypatch)
    rejected = []
    assert best_run([bad, good], Modality.FMRI, rejected).path == good
    (only,) = rejected
    assert only.path == (error.path if isinstance(error, InputError) else bad)
    assert only.reason.startswith(reason)
    assert only.remedy


def fails_on(bad, error, monkeypatch):
    read = scans.read_header

    def failing(path):
        if path == bad:
            raise error
        return read(path)

    monkeypatch.setattr(scans, "read_header", failing)


class OutOfMemoryError(RuntimeError):
    """An error with the name of torch's."""


def caused_by(cause):
    error = InputError("a.nii", "cannot be read", "check its disk")
    error.__cause__ = cause
    return error


FATAL = ["ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EIO", "ESTALE", "ENOTCONN", "ETIMEDOUT", "ENOMEM", "EMFILE", "ENFILE"]
STOPPING = [MemoryError(), OutOfMemoryError(), *(OSError(getattr(errno, name), name) for name in FATAL)]


@pytest.mark.parametrize("error", [*STOPPING, *map(caused_by, STOPPING)], ids=repr)
def test_an_error_that_concerns_every_scan_ends_the_cohort(tmp_path, monkeypatch, error):
    path = bold(tmp_path / "sub-1_bold.nii.gz")
    fails_on(path, error, monkeypatch)
    rejected = []
    with pytest.raises(type(error)):
        best_run([path], Modality.FMRI, rejected)
    assert rejected == []
    assert stops_run(error)


def test_an_error_that_concerns_one_file_does_not_stop_a_run():
    alone = [PermissionError(errno.EACCES, "no"), FileNotFoundError(errno.ENOENT, "no"), ValueError(), OSError("?")]
    assert not any(map(stops_run, [*alone, *map(caused_by, alone), InputError("a", "b", "c")]))
    circle = ValueError()
    circle.__cause__ = circle
    assert not stops_run(circle)


def test_the_system_error_of_a_file_is_kept_as_the_cause(tmp_path, monkeypatch):
    path = bold(tmp_path / "a_bold.nii.gz")

    def broken(*arguments):
        raise OSError(errno.EIO, "Input/output error")
        yield

    monkeypatch.setattr(stream, "inflate", broken)
    with pytest.raises(InputError, match=r"cannot be read \(Input/output error\)") as caught:
        read_header(path)
    assert stops_run(caught.value)


@pytest.mark.parametrize(("kind", "header"), [(nib.Nifti1Image, nib.Nifti1Header), (nib.Nifti2Image, nib.Nifti2Header)])
def test_an_extension_of_hundreds_of_megabytes_is_refused_unread(tmp_path, inflated, kind, header):
    raw, size = image_bytes(kind=kind), header.sizeof_hdr
    raw = with_field(raw, "vox_offset", size + 4 + 256 * MB, header)[:size]
    path = tmp_path / "a.nii.gz"
    path.write_bytes(gzip_bytes(raw + b"\1\0\0\0" + struct.pack("<ii", 256 * MB, 6), 256))
    assert peak_memory(read_header, path, r"bytes of header extensions, more than 1048576") < MB
    assert sum(inflated) <= 4096
    path = tmp_path / "a.nii"
    path.write_bytes(raw + b"\1\0\0\0" + struct.pack("<ii", 256 * MB, 6))
    assert peak_memory(read_header, path, "bytes of header extensions") < MB


@pytest.mark.parametrize("claimed", [256 * MB, 0, -16, 2**31 - 1])
def test_an_extension_that_claims_more_than_precedes_the_voxels_is_refused_unread(tmp_path, inflated, claimed):
    raw = with_field(image_bytes(), "vox_offset", 352 + 32)[:348]
    path = tmp_path / "a.nii.gz"
    path.write_bytes(gzip_bytes(raw + b"\1\0\0\0" + struct.pack("<ii", claimed, 6), 256))
    assert peak_memory(read_header, path, f"extension claims {claimed} bytes, but 32 precede the voxels") < MB
    assert 0 < sum(inflated) <= 4096


@pytest.mark.parametrize("endianness", ["<", ">"])
def test_an_ordinary_extension_is_read_for_its_mark(tmp_path, endianness):
    image = nib.Nifti1Image(np.zeros((8, 8, 8), np.int16), AFFINE, nib.Nifti1Header(endianness=endianness))
    for text in ("a" * (MOST_EXTENSION - 200), '{"Synthetic": true}'):
        image.header.extensions.append(nib.nifti1.Nifti1Extension(6, text.encode()))
    nib.save(image, tmp_path / "a.nii.gz")
    header = read_header(tmp_path / "a.nii.gz")
    assert header.synthetic
    assert MOST_EXTENSION - 200 < header.offset <= MOST_EXTENSION + 348
    assert read_volume(tmp_path / "a.nii.gz").data.shape == (8, 8, 8)


def test_voxels_that_begin_inside_the_header_are_refused(tmp_path):
    path = tmp_path / "a.nii"
    path.write_bytes(with_field(image_bytes(), "vox_offset", 16))
    with pytest.raises(InputError, match=r"a\.nii: is not a readable NIfTI image \(vox offset 16 too low"):
        read_header(path)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_padding_is_read_and_more_data_refused(tmp_path, name):
    path, raw = tmp_path / name, image_bytes()
    pack = gzip.compress if name.endswith(".gz") else bytes
    path.write_bytes(pack(raw + b"\7" * PADDING))
    expected = np.arange(512).reshape(8, 8, 8)
    np.testing.assert_array_equal(read_volume(path).data, expected)
    np.testing.assert_array_equal(first_volume(path)[0], expected)
    path.write_bytes(pack(raw + b"\7" * (PADDING + 1)))
    for read in READERS:
        with pytest.raises(InputError, match=rf"{name}: contains more data than its header describes\. Remedy"):
            read(path)


@pytest.mark.parametrize("read", READERS)
def test_a_gzip_bomb_behind_the_voxels_costs_no_more_memory_than_the_header_describes(tmp_path, inflated, read):
    raw, path = image_bytes(), tmp_path / "a.nii.gz"
    path.write_bytes(gzip_bytes(raw, 10_000))  # 10 GB
    assert path.stat().st_size < 11 * MB
    assert peak_memory(read, path, "contains more data than its header describes") < 4 * MB
    assert sum(inflated) <= len(raw) + PADDING + 2 * BLOCK


@pytest.mark.parametrize("read", READERS)
def test_a_gzip_bomb_with_a_forged_size_is_refused(tmp_path, inflated, read):
    raw, path = image_bytes(), tmp_path / "a.nii.gz"
    path.write_bytes(gzip_bytes(raw, 10_000, size=len(raw)))
    assert peak_memory(read, path, "contains more data than its header describes") < 4 * MB
    assert sum(inflated) <= len(raw) + PADDING + 2 * BLOCK


@pytest.mark.parametrize("read", VOXEL_READERS)
@pytest.mark.parametrize(("zeros_mb", "promised_mb"), [(5, 1), (1, 5)])
def test_a_plausible_forged_size_is_detected_when_the_voxels_are_read(tmp_path, read, zeros_mb, promised_mb):
    path, raw = tmp_path / "a.nii.gz", large((promised_mb * MB, 1, 1))[:544]
    noise = np.random.default_rng(0).bytes(MB // 4)
    path.write_bytes(gzip_bytes(raw + noise, zeros_mb, size=len(raw) + promised_mb * MB))
    assert read_header(path).shape == (promised_mb * MB, 1, 1)
    with pytest.raises(InputError, match="contains more data" if zeros_mb > promised_mb else "is damaged|is truncated"):
        read(path)


@pytest.mark.parametrize("read", VOXEL_READERS)
@pytest.mark.parametrize("behind", [0, PADDING])
def test_the_checksum_behind_the_padding_is_verified(tmp_path, read, behind):
    path = tmp_path / "a.nii.gz"
    whole = bytearray(gzip.compress(image_bytes() + bytes(behind)))
    path.write_bytes(whole[:-2])  # all voxels are there
    with pytest.raises(InputError, match="truncated"):
        read(path)
    whole[-8] ^= 1
    path.write_bytes(whole)
    with pytest.raises(InputError, match="damaged"):
        read(path)


def large(shape):
    """Header of a NIfTI-2 image of one byte per voxel."""
    raw = image_bytes((8, 8, 8), dtype=np.uint8, kind=nib.Nifti2Image)
    return with_field(raw, "dim", [len(shape), *shape, *[1] * (7 - len(shape))], nib.Nifti2Header)


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("shape", [(2**20, 2**20, 2**7), (2**31, 2**31, 2**31), (2**16, 2**16, 2**16, 2**16)])
def test_more_voxels_than_the_file_can_hold_are_refused_unallocated(tmp_path, read, shape):
    raw, promised = large(shape), 544 + int(np.prod(shape, dtype=object))
    (tmp_path / "a.nii.gz").write_bytes(gzip_bytes(raw, 1, size=promised))
    (tmp_path / "a.nii").write_bytes(raw)
    for name in ("a.nii.gz", "a.nii"):
        assert peak_memory(read, tmp_path / name, f"{name}: is truncated: .* cannot hold {promised}") < MB


@pytest.mark.parametrize(("read", "ratio"), [(read_volume, 50), *((read, 900) for read in READERS)])
def test_memory_follows_the_content_of_a_file_and_not_its_header(tmp_path, read, ratio):
    path, promised = tmp_path / "a.nii.gz", ratio * MB  # possible, but forged
    raw = large((promised, 1, 1))[:544]
    path.write_bytes(gzip_bytes(raw + np.random.default_rng(0).bytes(MB), 1, size=len(raw) + promised))
    assert peak_memory(read, path, "is damaged|is truncated") < 8 * MB


def test_a_scan_with_an_unusual_compression_ratio_is_read(tmp_path):
    path = tmp_path / "a.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros((128, 128, 64), np.float32), AFFINE), path)
    assert path.stat().st_size * stream.PLAUSIBLE_RATIO < 4 * MB
    np.testing.assert_array_equal(read_volume(path).data, 0)


@pytest.mark.parametrize("dims", [[3, -8, 8, -8], [4, 8, 8, 8, 0], [4, -8, 8, 8, -3]])
def test_negative_and_empty_axes_are_refused(tmp_path, dims):
    path = tmp_path / "a.nii"
    path.write_bytes(with_field(image_bytes(), "dim", [*dims, *[1] * (8 - len(dims))]))
    for read in READERS:
        with pytest.raises(InputError, match="has shape"):
            read(path)


@pytest.mark.parametrize("read", VOXEL_READERS)
def test_scale_factors_beyond_float32_are_refused(tmp_path, read):
    path = tmp_path / "a.nii"
    path.write_bytes(with_field(image_bytes(), "scl_slope", 3e38))
    with pytest.raises(InputError, match=r"non-finite|beyond the range of float32"):
        read(path)


def test_an_honest_header_costs_some_hundred_bytes(tmp_path, inflated):
    path = bold(tmp_path / "a_bold.nii.gz")
    assert read_header(path).shape == BOLD
    assert sum(inflated) == nib.Nifti2Header.sizeof_hdr
